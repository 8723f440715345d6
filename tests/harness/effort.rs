//! How much the slow tests do: `make test` runs their short form, `make test-long` their full form, both from the same code.

/// The environment variable that `make test-long` sets to `full`.
pub const VARIABLE: &str = "PI_AGENT_TEST_EFFORT";

/// The first value in a short run (the default), the second in a full one.
pub fn by_effort<T>(short: T, full: T) -> T {
    match std::env::var(VARIABLE).as_deref() {
        Err(_) | Ok("" | "short") => short,
        Ok("full") => full,
        Ok(other) => panic!("{VARIABLE} is {other:?}; it may be short or full"),
    }
}
