//! How many nights the first upload takes, from a bounded walk of the sources.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::walk::{self, Size};
use crate::config::{Location, Settings, Source, Step};
use crate::health::answered;
use crate::report::words;
use crate::steps::postgres::container;

/// Assumed where no limit is given: an ordinary household's upstream (8 Mbit/s).
const ASSUMED_RATE: u64 = 1 << 20;
/// A person waits for the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A step's size, and how long it may work in a night.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Load {
    name: String,
    bytes: u64,
    window: Option<Duration>,
}

/// The estimate as lines; `rate` is the upload limit in bytes per second, if there is one.
pub fn text(settings: &Settings, rate: Option<u64>) -> String {
    let end = Instant::now() + PATIENCE;
    let mut whole = true;
    let mut loads = Vec::new();
    for step in &settings.steps {
        let Some(size) = size_of_source(step, end) else { continue };
        whole &= size.whole;
        loads.push(Load { name: step.name.clone(), bytes: size.bytes, window: step.max_duration });
    }
    let remote = matches!(settings.storage.location, Location::S3(_));
    told(&loads, whole, remote.then(|| rate.unwrap_or(ASSUMED_RATE)), rate.is_some())
}

/// The size of what a step backs up, counted until `end`; `None`: it is the agent's own, or nowhere on this machine's disks.
pub fn size_of_source(step: &Step, end: Instant) -> Option<Size> {
    let paths = match &step.source {
        Source::Postgres(postgres) => vec![container::data_on_this_machine(postgres)?],
        Source::Directory(directory) => directory.paths.clone(),
        Source::Agent(_) => return None,
    };
    // A server that is gone may be mounted below one.
    let size = |path: PathBuf| answered(move || walk::size(&path, end)).unwrap_or(Size { bytes: 0, whole: false });
    let sizes: Vec<_> = paths.into_iter().map(size).collect();
    Some(Size { bytes: sizes.iter().map(|size| size.bytes).sum(), whole: sizes.iter().all(|size| size.whole) })
}

/// Pure. Without a `rate` nothing is uploaded.
fn told(loads: &[Load], whole: bool, rate: Option<u64>, limited: bool) -> String {
    let mut text = String::new();
    let (mut nights, mut total) = (1, 0);
    for Load { name, bytes, window } in loads {
        total += bytes;
        let mut line = format!("  {name}: {}", words::size(*bytes));
        if let Some(rate) = rate {
            let takes = Duration::from_secs(bytes.div_ceil(rate.max(1)));
            if takes > Duration::ZERO {
                line.push_str(&format!(", {} of upload", words::duration(takes)));
            }
            if let Some(window) = window.filter(|window| takes > *window) {
                let of_step = takes.as_secs().div_ceil(window.as_secs().max(1));
                line.push_str(&format!(", {of_step} nights of {}", words::duration(window)));
                nights = nights.max(of_step);
            }
        }
        text.push_str(&line);
        text.push('\n');
    }
    let least = if whole { "" } else { " at least (it was not counted to the end)" };
    text.push_str(&format!("{}{least}: ", words::size(total)));
    match (rate, nights) {
        (None, _) => text.push_str("the first night copies all of it; later ones what changed.\n"),
        (Some(rate), _) => {
            let rate = format!("{}/s{}", words::size(rate), if limited { "" } else { " (assumed)" });
            let many = if nights == 1 { "one night".to_owned() } else { format!("{nights} nights") };
            text.push_str(&format!(
                "the first upload takes {many} at {rate}; less as far as it compresses.\n\
                 A step that runs out of time ends as unfinished, keeps what is uploaded, and goes on the next night.\n"
            ));
        }
    }
    text
}

/// Bytes per second of `[limits] upload` in the text of a good configuration.
pub fn upload_limit(file: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let table: toml::Table = text.parse().ok()?;
    match table.get("limits")?.get("upload")? {
        toml::Value::Integer(bytes) => u64::try_from(*bytes).ok(),
        toml::Value::String(text) => crate::config::size(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(name: &str, gib: u64, hours: Option<u64>) -> Load {
        Load { name: name.into(), bytes: gib << 30, window: hours.map(Duration::from_hours) }
    }

    #[test]
    fn nights_are_those_of_the_slowest_step() {
        let loads = [load("database", 2, None), load("foundry", 40, Some(6)), load("logs", 1, Some(6))];
        let text = told(&loads, true, Some(ASSUMED_RATE), false);
        assert!(text.contains("database: 2.0 GiB, 34 min 8 s of upload\n"), "{text}");
        assert!(text.contains("foundry: 40.0 GiB, 11 h 22 min of upload, 2 nights of 6 h\n"), "{text}");
        assert!(text.contains("43.0 GiB: the first upload takes 2 nights at 1.0 MiB/s (assumed)"), "{text}");
        let limited = told(&loads, false, Some(8 << 20), true);
        assert!(limited.contains("at least") && limited.contains("one night at 8.0 MiB/s;"), "{limited}");
    }

    #[test]
    fn a_disk_takes_one_night() {
        let text = told(&[load("foundry", 40, Some(6))], true, None, false);
        assert_eq!(text, "  foundry: 40.0 GiB\n40.0 GiB: the first night copies all of it; later ones what changed.\n");
    }
}
