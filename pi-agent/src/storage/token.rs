//! The tokens by which this machine knows what it has written itself: random, on record in the state directory, the newest last. A clone of
//! its card knows those from before it was copied, and none since.
//!
//! Each run puts a new one into `host.json` (`STATE/place.json`). Whoever finds one there that is not his knows that somebody else has
//! written since: a clone of his card, or himself with a newer one. Each process that holds locks has one in them (`STATE/locks.json`).

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::{Location, StateDirectory};
use crate::error::{Context, Result};
use crate::secrets::{random, write_private};

/// The file with those of `host.json`.
pub const PLACE: &str = "place.json";
const LOCKS: &str = "locks.json";

/// A request that seemed to fail may have arrived, so the one before is as good; and a storage may be set back a little.
const KEPT: usize = 32;

#[derive(Serialize, Deserialize)]
struct Record {
    schema: u32,
    /// Only for this one they count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    place: Option<String>,
    tokens: Vec<String>,
}

/// Those of that place; none when nothing is known of it, as after the state directory was lost.
pub fn known(directory: &StateDirectory, location: &Location) -> Vec<String> {
    read(&directory.path().join(PLACE), Some(&location.to_string()))
}

/// A new one. It is on record here before it is in storage: whatever ends the run between the two, what is there is ours.
///
/// # Errors
/// The record cannot be written; the ones that are known are as good.
pub fn next(directory: &StateDirectory, location: &Location) -> Result<String> {
    add(&directory.path().join(PLACE), Some(location.to_string()))
}

/// Those of locks.
pub fn known_of_locks(directory: &StateDirectory) -> Vec<String> {
    read(&directory.path().join(LOCKS), None)
}

/// A new one for locks, on record before any of them is in storage. Of two processes that write the record in one moment, one may lose its
/// token: then only the age of its locks tells that nobody holds them.
///
/// # Errors
/// As of [`next`].
pub fn next_of_locks(directory: &StateDirectory) -> Result<String> {
    add(&directory.path().join(LOCKS), None)
}

fn read(file: &Path, place: Option<&str>) -> Vec<String> {
    // Of no record as of a damaged one nothing is known; it holds no secret, whatever its mode is.
    let text = fs::read_to_string(file).ok();
    let record = text.and_then(|text| serde_json::from_str::<Record>(&text).ok());
    record.filter(|record| record.place.as_deref() == place).map(|record| record.tokens).unwrap_or_default()
}

fn add(file: &Path, place: Option<String>) -> Result<String> {
    let mut tokens = read(file, place.as_deref());
    let token = format!("{:016x}", u64::from_le_bytes(random()?));
    tokens.push(token.clone());
    let tokens = tokens.split_off(tokens.len().saturating_sub(KEPT));
    let text =
        serde_json::to_vec(&Record { schema: 1, place, tokens }).context(|| format!("write {}", file.display()))?;
    write_private(file, &text)?;
    Ok(token)
}
