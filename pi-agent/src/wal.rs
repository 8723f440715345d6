//! WAL.
use crate::config::{Postgres, Settings, Step};
use crate::{Error, Result};

/// What was pushed.
pub struct PushReport {
    /// Files.
    pub pushed: u64,
    /// What is wrong.
    pub problems: Vec<crate::monitor::Problem>,
}

/// Not there yet.
///
/// # Errors
/// Always.
pub fn push(_: &Settings, _: &Step, _: &Postgres) -> Result<PushReport> {
    Err(Error::new("not there yet"))
}
