//! What the repository has of a cluster's WAL, by its own listing. A mark `.done` is no proof: `archive_command` may have been `true`.

use std::collections::BTreeSet;

use super::pg_wal::Held;
use crate::error::Result;
use crate::pgbackrest::{Info, PgBackRest};

/// The WAL that is there, of the folders that the segments of a `pg_wal` belong into.
#[derive(Debug, Default)]
pub(super) struct Archive {
    names: BTreeSet<String>,
    /// Where the WAL of the oldest backup begins: nothing before it is of use. Names without the timeline.
    since: String,
}

impl Archive {
    /// `None`: there is no backup that more WAL could be of use to.
    ///
    /// # Errors
    /// The repository cannot be read.
    pub fn of(pgbackrest: &PgBackRest, info: &Info, held: &[Held]) -> Result<Option<Self>> {
        let Some(archive) = info.archive() else { return Ok(None) };
        let backups = info.backups.iter().filter(|backup| backup.archive == archive);
        let since = backups.filter_map(|backup| backup.wal_start.as_ref()?.get(8..)).min();
        let Some(since) = since.map(str::to_owned) else { return Ok(None) };
        let mut names = BTreeSet::new();
        // A segment's folder are the first 16 digits of its name.
        let folders: BTreeSet<_> = held.iter().filter_map(|held| held.name.get(..16)).collect();
        for folder in folders {
            names.extend(pgbackrest.archived_names(&archive, folder)?);
        }
        names.extend(info.newest_wal_of_cluster().map(str::to_owned));
        Ok(Some(Self { names, since }))
    }

    /// A segment is not there, and some backup's recovery would ask for it.
    pub fn lacks(&self, segment: &Held) -> bool {
        self.asks_for(segment) && !self.names.contains(&segment.name)
    }

    /// The beginning of a segment is not there.
    pub fn lacks_beginning_of(&self, segment: &Held) -> bool {
        !self.names.contains(&format!("{}.partial", segment.name))
    }

    /// Some backup's recovery would ask for that segment.
    pub fn asks_for(&self, segment: &Held) -> bool {
        segment.name[8..] >= *self.since
    }

    /// The newest whole segment of a timeline.
    pub fn newest_of(&self, timeline: &str) -> Option<&str> {
        let whole = self.names.iter().filter(|name| name.len() == 24 && name.starts_with(timeline));
        whole.map(String::as_str).next_back()
    }
}
