//! The plan in words: what becomes of what is there, the room it needs, and how long it takes.

use std::time::Duration;

use jiff::Zoned;

use super::Order;
use crate::config::{Location, Settings, Source, StateDirectory, Step};
use crate::error::Result;
use crate::health::room;
use crate::report::words;
use crate::restore::directory;
use crate::restore::points::points;
use crate::restore_test::Tested;
use crate::shown;
use crate::state::State;

/// Bytes in a second, where nothing is known: 1.4 GB of database came back in 138 s from a bucket; a disk at hand is faster.
const FROM_AFAR: u64 = 10 << 20;
const FROM_A_DISK: u64 = 40 << 20;

/// One of these has seen something, or the last ones all failed early.
const TESTS: u32 = 12;

pub(super) fn lines(
    settings: &Settings,
    directory: &StateDirectory,
    step: &Step,
    order: &Order<'_>,
) -> Result<Vec<String>> {
    let request = &order.request;
    let mut lines = match &order.in_place {
        Some(in_place) => in_place.lines(),
        None => vec![format!("{} comes into {}", step.name, shown(&request.to))],
    };
    if !request.paths.is_empty() {
        lines.push(format!("only {}", super::listed(&request.paths)));
    }
    let found = points(settings, std::slice::from_ref(&step.name), None)?.points;
    let Some(mut bytes) = request.at.of(&found).and_then(|point| point.bytes) else { return Ok(lines) };
    let place = order.in_place.as_ref().and_then(|in_place| in_place.places().next()).unwrap_or(&request.to);
    let room = room(place)?;
    if room.free < bytes && matches!(step.source, Source::Directory(_)) {
        // Holes of sparse files take nothing; to know them takes longer.
        bytes = directory::takes(settings, step, &request.at).unwrap_or(bytes);
    }
    let most = if request.paths.is_empty() { "" } else { "at most " };
    lines.push(format!("{most}{} are needed, {}", words::size(bytes), room.in_words()));
    let (rate, source) = rate(settings, directory, step);
    let takes = Duration::from_secs((bytes / rate).max(1));
    lines.push(format!("it takes {most}about {} at {} a second, {source}", words::rough(takes), words::size(rate)));
    Ok(lines)
}

/// Bytes in a second, and how that is known.
fn rate(settings: &Settings, directory: &StateDirectory, step: &Step) -> (u64, &'static str) {
    let tests = State::open_read_only(&directory.database()).ok().flatten();
    let tests = tests.and_then(|state| state.restore_tests(&step.name, TESTS).ok()).unwrap_or_default();
    let measured = |tested: &Tested| tested.bytes.checked_mul(1000)?.checked_div(tested.took).filter(|rate| *rate > 0);
    let measured = tests.iter().find_map(|test| test.tested.as_ref().and_then(measured));
    let (guess, limit) = match settings.storage.location {
        Location::S3(_) => (FROM_AFAR, settings.storage.limits.at(Zoned::now().time()).download),
        Location::File(_) => (FROM_A_DISK, None),
    };
    let rate = measured.unwrap_or(guess);
    match limit {
        Some(limit) if limit < rate => (limit.max(1), "the limit for downloads"),
        _ if measured.is_some() => (rate, "as the last restore test measured"),
        _ => (rate, "a guess: no restore test has measured it yet"),
    }
}
