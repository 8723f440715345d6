//! The journal's `MESSAGE_ID`s of what people search for; `packaging/pi-agent.catalog` explains each (`journalctl -x`).

use crate::steps::Outcome;

/// A run begins.
pub const RUN_STARTED: &str = "b7d1a3f0c2e94d2c9f3c5f8a61e0d411";
/// A run ended, and every step succeeded.
pub const RUN_SUCCEEDED: &str = "5a0c9be1d5f7484d8a4be7f2c90b3d16";
/// A run ended, and a step did not succeed.
pub const RUN_NOT_GOOD: &str = "e20fd6a4b18c4f0f9c8842c1d7a5b39e";
/// A step begins.
pub const STEP_STARTED: &str = "0f6c2f4be3a14c5d86b7c1d2a9e85f70";
/// A step ended well.
pub const STEP_SUCCEEDED: &str = "93b8d45c7e0f4a6bb2d19c6e3f8a1725";
/// A step left a restore point, but not everything went well, or it goes on next night.
pub const STEP_DEGRADED: &str = "c41e7a98d2634b0e9d5fa07b6c3e81f4";
/// A step left no restore point.
pub const STEP_FAILED: &str = "7d92b0e6f1c84a3fa65b3e8d094c27da";
/// An earlier run was found cut off: a crash or a power cut.
pub const RUN_CUT_OFF: &str = "28e5c9d07b3f4f61a8d4b6f0e1957c3a";
/// The clock is not trusted, and so nothing is deleted.
pub const CLOCK_NOT_TRUSTED: &str = "d60a4c8f35e74b92b7e1f9c2083d5ae6";

/// The event that is a step's end.
pub fn step_ended(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded | Outcome::Skipped => STEP_SUCCEEDED,
        Outcome::Degraded | Outcome::Unfinished => STEP_DEGRADED,
        Outcome::Failed | Outcome::Interrupted => STEP_FAILED,
    }
}

/// The event that is a run's end.
pub fn run_ended(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded | Outcome::Skipped => RUN_SUCCEEDED,
        _ => RUN_NOT_GOOD,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalog_explains_every_event() {
        let catalog = include_str!("../../packaging/pi-agent.catalog");
        let ids = [
            RUN_STARTED,
            RUN_SUCCEEDED,
            RUN_NOT_GOOD,
            STEP_STARTED,
            STEP_SUCCEEDED,
            STEP_DEGRADED,
            STEP_FAILED,
            RUN_CUT_OFF,
            CLOCK_NOT_TRUSTED,
        ];
        let explained: Vec<_> = catalog.lines().filter_map(|line| line.strip_prefix("-- ")).collect();
        assert_eq!(explained, ids);
        assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())));
    }
}
