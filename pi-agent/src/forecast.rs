//! How long a step's upload will take at the limits of the line, before it begins. Pure but for [`first_upload`].

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Zoned};

use crate::config::{Limits, Location, Settings, Step};
use crate::report::words;
use crate::setup;

/// What a prune marks, a prune 23 hours later deletes. A backup that takes as long may have begun with an index from before
/// the mark; the rest of it is for what is not upload.
const PRUNE_SAFETY: Duration = Duration::from_hours(20);

/// What a step will upload, and what that means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// For the plan.
    pub words: String,
    /// Why the run is too long for pruning, if it is.
    pub prune_waits: Option<String>,
}

/// What is known before the first backup: the size of the source, which compression and deduplication only make smaller.
/// It looks for some seconds; `None`: the source is not on this machine's disks.
pub fn first_upload(step: &Step) -> Option<u64> {
    const PATIENCE: Duration = Duration::from_secs(10);
    setup::size_of_source(step, Instant::now() + PATIENCE).map(|size| size.bytes)
}

/// `None`: nothing limits the step's upload, or nobody knows how much it will be.
pub fn forecast(settings: &Settings, step: &Step, bytes: Option<u64>, start: &Zoned) -> Option<Forecast> {
    let Location::S3(_) = settings.storage.location else { return None };
    let bytes = bytes?;
    let takes = upload_takes(&settings.storage.limits, bytes, start)?;
    let mut words = format!("upload: about {}, {} at the limits", words::size(bytes), words::duration(takes));
    let too_long = match step.max_duration {
        Some(window) if takes > window => {
            let shown = words::duration(window);
            words.push_str(&format!("; max-duration is {shown}, so it will go on the next nights"));
            Some(format!("the upload takes longer than max-duration ({shown})"))
        }
        _ => (takes > PRUNE_SAFETY).then(|| format!("the upload takes longer than {}", words::duration(PRUNE_SAFETY))),
    };
    let prune_waits = too_long.map(|why| format!("prune waits for a shorter night: {why}"));
    Some(Forecast { words, prune_waits })
}

/// Why the machine has too little memory for a backup like the last ones, if it has.
pub fn does_not_fit(peak: Option<u64>, available: Option<u64>) -> Option<String> {
    let (peak, available) = (peak?, available?);
    (peak > available).then(|| {
        let (peak, available) = (words::size(peak), words::size(available));
        format!(
            "memory: the last backups needed {peak}, and {available} are left: the kernel may end this one, or something else; \
             stop what is not needed meanwhile"
        )
    })
}

/// How long so many bytes take from that time of day on; `None`: the line is not limited then.
fn upload_takes(limits: &Limits, bytes: u64, start: &Zoned) -> Option<Duration> {
    const STEP: Duration = Duration::from_mins(1);
    /// Beyond that nobody cares by how much.
    const LONGEST: Duration = Duration::from_hours(24 * 366);
    limits.at(start.time()).upload?;
    let (mut left, mut takes) = (bytes, Duration::ZERO);
    while takes < LONGEST {
        let now = start.checked_add(SignedDuration::try_from(takes).ok()?).ok()?;
        // From here on as fast as it may.
        let Some(rate) = limits.at(now.time()).upload else { break };
        let of_step = rate.saturating_mul(STEP.as_secs());
        if left <= of_step {
            return Some(takes + Duration::from_secs(left.div_ceil(rate.max(1))));
        }
        left -= of_step;
        takes += STEP;
    }
    Some(takes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::{PartOfDay, Rates};
    use jiff::civil::{date, time};
    use jiff::tz::TimeZone;

    fn at(hour: i8) -> Zoned {
        date(2026, 11, 21).at(hour, 0, 0, 0).to_zoned(TimeZone::UTC).unwrap()
    }

    #[test]
    fn a_backup_that_needs_more_than_there_is_does_not_fit() {
        assert_eq!(does_not_fit(Some(60 << 20), Some(61 << 20)), None);
        assert_eq!((does_not_fit(None, Some(1)), does_not_fit(Some(1), None)), (None, None));
        let told = does_not_fit(Some(60 << 20), Some(40 << 20)).unwrap();
        assert!(told.starts_with("memory: the last backups needed 60.0 MiB, and 40.0 MiB are left"), "{told}");
    }

    #[test]
    fn the_time_of_day_counts() {
        let upload = |rate| Rates { upload: rate, ..Rates::default() };
        let slow = Limits { all_day: upload(Some(1 << 20)), ..Limits::default() };
        let takes = |limits: &Limits, mib: u64, hour| upload_takes(limits, mib << 20, &at(hour)).map(|it| it.as_secs());
        assert_eq!(takes(&slow, 90, 3), Some(90));
        assert_eq!(takes(&slow, 7200, 3), Some(7200));
        assert_eq!(takes(&Limits::default(), 90, 3), None);
        // Slow by day: what is not done at seven takes ten times as long.
        let part = |rate| PartOfDay { from: time(7, 0, 0, 0), to: time(23, 0, 0, 0), rates: upload(rate) };
        let day = Limits { between: vec![part(Some((1 << 20) / 10))], ..slow.clone() };
        assert_eq!(takes(&day, 3600 * 4, 3), Some(3600 * 4));
        assert!((3600 * 14..3600 * 14 + 9).contains(&takes(&day, 3600 * 5, 3).unwrap()));
        let free = Limits { between: vec![part(None)], ..slow };
        assert_eq!(takes(&free, 3600 * 100, 3), Some(3600 * 4), "the rest goes at once");
    }
}
