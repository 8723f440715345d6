//! The doctor.
use crate::config::{ConfigErrors, Settings, StateDirectory};

/// Not there yet.
pub struct Finding;

/// Not there yet.
pub fn examine(_: Result<Settings, ConfigErrors>, _: &StateDirectory) -> Vec<Finding> {
    vec![]
}

/// Not there yet.
pub fn json(_: &[Finding]) -> serde_json::Value {
    serde_json::Value::Null
}

/// Not there yet.
pub fn text(_: &[Finding]) -> String {
    String::new()
}

/// Not there yet.
pub fn exit_code(_: &[Finding]) -> u8 {
    0
}
