//! The machine's health.
use jiff::Timestamp;

/// Not there yet.
pub fn clock_problem(_: Option<Timestamp>) -> Option<String> {
    None
}
