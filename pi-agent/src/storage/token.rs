//! The tokens that this machine has put into `host.json`, the newest last: `STATE/place.json`. Each run puts a new one there. Whoever
//! finds one there that is not his knows that somebody else has written since: a clone of his card, or himself with a newer one.

use serde::{Deserialize, Serialize};

use crate::config::{Location, StateDirectory};
use crate::error::{Context, Result};
use crate::secrets::{random, read_private, write_private};

/// A request that seemed to fail may have arrived, so the one before is as good; and a storage may be set back a little.
const KEPT: usize = 32;

#[derive(Serialize, Deserialize)]
struct Record {
    schema: u32,
    place: String,
    tokens: Vec<String>,
}

/// Those of that place; none when nothing is known of it, as after the state directory was lost.
///
/// # Errors
/// The record cannot be read.
pub fn known(directory: &StateDirectory, location: &Location) -> Result<Vec<String>> {
    let text = read_private(&directory.path().join(FILE))?;
    let record = text.and_then(|text| serde_json::from_str::<Record>(text.reveal()).ok());
    Ok(record.filter(|record| record.place == location.to_string()).map(|record| record.tokens).unwrap_or_default())
}

/// A new one. It is on record here before it is in storage: whatever ends the run between the two, what is there is ours.
///
/// # Errors
/// The record cannot be written; the ones that are known are as good.
pub fn next(directory: &StateDirectory, location: &Location) -> Result<String> {
    let mut tokens = known(directory, location)?;
    let token = format!("{:016x}", u64::from_le_bytes(random()?));
    tokens.push(token.clone());
    let tokens = tokens.split_off(tokens.len().saturating_sub(KEPT));
    let record = Record { schema: 1, place: location.to_string(), tokens };
    let text = serde_json::to_vec(&record).context(|| "write down whose the storage is".into())?;
    write_private(&directory.path().join(FILE), &text)?;
    Ok(token)
}

const FILE: &str = "place.json";
