//! `[limits]`: how fast bytes may be read, and go to and from storage, by the time of day.

use std::path::PathBuf;

use jiff::civil::Time;
use serde::{Deserialize, Serialize};

/// How fast bytes may be read from the sources, go to a server and come from it; what goes to a folder is not limited. The
/// default limits nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Where no part of the day says otherwise.
    pub all_day: Rates,
    /// Parts of the day with rates of their own; of those that overlap the first holds.
    pub between: Vec<PartOfDay>,
    /// The file through which all processes share one line.
    pub shared: PathBuf,
}

/// Bytes per second; `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// To storage.
    pub upload: Option<u64>,
    /// From storage.
    pub download: Option<u64>,
    /// From the sources.
    pub read: Option<u64>,
}

/// A part of the day, in the machine's time zone; it may go past midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartOfDay {
    /// Its first moment.
    pub from: Time,
    /// The first moment after it.
    pub to: Time,
    /// What holds in it.
    pub rates: Rates,
}

impl Limits {
    /// What holds at that time of day.
    pub fn at(&self, time: Time) -> Rates {
        self.between.iter().find(|part| part.holds(time)).map_or(self.all_day, |part| part.rates)
    }

    /// True when nothing that goes to a server or comes from it is limited at any time.
    pub fn is_none(&self) -> bool {
        self.lowest().is_none()
    }

    /// True when what is read is limited at some time.
    pub fn limit_reading(&self) -> bool {
        self.all_rates().any(|rates| rates.read.is_some())
    }

    /// Only what limits reading.
    #[must_use]
    pub fn of_reading(mut self) -> Self {
        for rates in std::iter::once(&mut self.all_day).chain(self.between.iter_mut().map(|part| &mut part.rates)) {
            *rates = Rates { read: rates.read, ..Rates::default() };
        }
        self
    }

    /// The lowest rate of the day, to a server or from it.
    pub fn lowest(&self) -> Option<u64> {
        self.all_rates().flat_map(|rates| [rates.upload, rates.download]).flatten().min()
    }

    fn all_rates(&self) -> impl Iterator<Item = Rates> {
        self.between.iter().map(|part| part.rates).chain([self.all_day])
    }
}

impl PartOfDay {
    fn holds(&self, time: Time) -> bool {
        if self.from < self.to { self.from <= time && time < self.to } else { self.from <= time || time < self.to }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::time;

    #[test]
    fn the_first_part_that_holds_decides_also_past_midnight() {
        let rates = |upload| Rates { upload: Some(upload), ..Rates::default() };
        let part =
            |from, to, upload| PartOfDay { from: time(from, 0, 0, 0), to: time(to, 0, 0, 0), rates: rates(upload) };
        let limits = Limits { all_day: rates(9), between: vec![part(22, 6, 1), part(5, 8, 2)], shared: PathBuf::new() };
        let at = |hour, minute| limits.at(time(hour, minute, 0, 0)).upload;
        for (hour, minute, upload) in [(22, 0, 1), (0, 0, 1), (5, 59, 1), (6, 0, 2), (7, 59, 2), (8, 0, 9), (21, 59, 9)]
        {
            assert_eq!(at(hour, minute), Some(upload), "{hour}:{minute}");
        }
        assert_eq!(limits.lowest(), Some(1));
        assert!(Limits::default().is_none() && !limits.is_none());
    }
}
