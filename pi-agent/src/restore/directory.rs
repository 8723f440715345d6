//! The directory restore.
use super::{Point, Request, Restored};
use crate::config::{Settings, Step};
use crate::monitor::Monitor;
use crate::{Error, Result};
use std::path::Path;

/// Not there yet.
///
/// # Errors
/// Always.
pub fn points(_: &Settings, _: &Step, _: Option<&Path>) -> Result<Vec<Point>> {
    Err(Error::new("not there yet"))
}

/// Not there yet.
///
/// # Errors
/// Always.
pub fn restore(_: &Settings, _: &Step, _: &Request, _: &Monitor) -> Result<Restored> {
    Err(Error::new("not there yet"))
}
