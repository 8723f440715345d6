//! The postgres restore.
use super::{Point, Request, Restored, Window};
use crate::config::{Postgres, Settings, Step};
use crate::monitor::Monitor;
use crate::{Error, Result};

/// Not there yet.
///
/// # Errors
/// Always.
pub fn points(_: &Settings, _: &Step, _: &Postgres) -> Result<(Vec<Point>, Option<Window>)> {
    Err(Error::new("not there yet"))
}

/// Not there yet.
///
/// # Errors
/// Always.
pub fn restore(_: &Settings, _: &Step, _: &Postgres, _: &Request, _: &Monitor) -> Result<Restored> {
    Err(Error::new("not there yet"))
}
