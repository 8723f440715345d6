//! What is lost or damaged in a repository though neither a restore nor a verify says so: files that are there twice, and WAL
//! that the backup at hand does not ask for.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::holes::Archive;
use crate::error::{Kind, Result};
use crate::monitor::Problem;
use crate::pgbackrest::{Backup, Info, PgBackRest};
use crate::storage::Store;
use crate::wal::Reached;

/// A stanza's files in the storage.
pub(crate) struct Losses<'a> {
    /// `URL/STEP`.
    pub store: &'a Store,
    pub stanza: &'a str,
    pub pgbackrest: &'a PgBackRest,
    pub info: &'a Info,
}

impl Losses<'_> {
    /// What moments since then are restored from: the last backup before it, and all that came later.
    pub fn backups(&self, since: Timestamp) -> &[Backup] {
        let all = &self.info.backups;
        &all[all.iter().rposition(|backup| backup.stopped <= since).unwrap_or(0)..]
    }

    /// The lists and the manifests of these backups are there twice each, and pgBackRest reads the other one without a word.
    ///
    /// # Errors
    /// The storage cannot be read.
    pub fn of_two(&self, backups: &[Backup]) -> Result<Option<Problem>> {
        let Self { store, stanza, .. } = self;
        let lists = [format!("archive/{stanza}/archive.info"), format!("backup/{stanza}/backup.info")];
        let manifests = backups.iter().map(|backup| format!("backup/{stanza}/{}/backup.manifest", backup.label));
        for name in lists.into_iter().chain(manifests) {
            let mut contents = Vec::new();
            for one in [name.clone(), format!("{name}.copy")] {
                match store.get(&one) {
                    Ok(content) => contents.push(content),
                    Err(error) if error.kind() == Kind::NotFound => {
                        return Ok(Some(stood_in_for(format!("{one} is gone from {store}"))));
                    }
                    Err(error) => return Err(error),
                }
            }
            if contents[0] != contents[1] {
                return Ok(Some(stood_in_for(format!("{name} in {store} is damaged: it is not what its copy is"))));
            }
        }
        Ok(None)
    }

    /// Holes in the WAL of these backups, which pgBackRest takes for two stretches of WAL; and whether the
    /// segment is gone that was pushed last, as this machine knew before the storage was looked at.
    ///
    /// # Errors
    /// The storage cannot be read.
    pub fn of_wal(&self, since: Timestamp, segment_size: u64, pushed: Option<&Reached>) -> Result<Option<Problem>> {
        let Some(newest) = self.info.newest(Timestamp::now()) else { return Ok(None) };
        let objects = self.store.list(&format!("archive/{}/", self.stanza))?;
        let place = (self.stanza, &*newest.archive);
        let archive = Archive::read(self.pgbackrest, place, &self.info.backups, &objects, segment_size)?;
        let tell = |message: String, hint: String| Ok(Some(Problem { message, hint: Some(hint) }));
        let until_the_next =
            || "no moment behind it can be restored until there is a new backup: pi-agent run".to_owned();
        if let Some((last, next)) = archive.hole_behind(newest) {
            return tell(hole(&last, &next), until_the_next());
        }
        // The first on each timeline comes to whatever a later one does.
        let mut timelines = BTreeSet::new();
        let is_first = |backup: &&Backup| backup.archive == newest.archive && timelines.insert(backup.timeline());
        if let Some((last, next)) =
            self.backups(since).iter().filter(is_first).find_map(|first| archive.hole_behind(first))
        {
            let hint = format!(
                "moments behind it cannot be restored from a backup before it, those since the backup {} can",
                newest.label
            );
            return tell(hole(&last, &next), hint);
        }
        if let Some((from, to)) = self.info.gaps(since).first() {
            let message =
                format!("no moment between {from} and {to} can be restored: WAL was missing or lacked changes there");
            return tell(message, "the backup that was made then restores what came later: pi-agent points".into());
        }
        let pushed = pushed.and_then(|pushed| pushed.newest_of(self.info.cluster()?));
        // The beginning of it (`.partial`), which another server may have handed over, does not stand in for it.
        let is_there = |segment: &str| {
            let named =
                |key: &String| key.rsplit('/').next().is_some_and(|name| name.split('-').next() == Some(segment));
            objects.iter().any(|(key, _)| named(key))
        };
        match pushed.filter(|pushed| !is_there(pushed)) {
            None => Ok(None),
            Some(pushed) => {
                tell(format!("the WAL segment {pushed} was pushed, and is gone from {}", self.store), until_the_next())
            }
        }
    }

    /// What was archived between the first of these backups and the newest one: names of objects.
    ///
    /// # Errors
    /// The storage cannot be read.
    pub fn older_wal(&self, since: Timestamp) -> Result<Vec<String>> {
        let Some(newest) = self.info.newest(Timestamp::now()) else { return Ok(Vec::new()) };
        let first = self.backups(since).iter().find(|backup| backup.archive == newest.archive);
        let (Some(from), Some(to)) = (first.and_then(|first| first.wal_start.as_ref()), &newest.wal_start) else {
            return Ok(Vec::new());
        };
        let objects = self.store.list(&format!("archive/{}/{}/", self.stanza, newest.archive))?;
        let names = objects.iter().filter_map(|(key, _)| key.rsplit('/').next());
        let older = names.filter(|name| *name >= from.as_str() && *name < to.as_str());
        Ok(older.map(str::to_owned).collect())
    }
}

pub(super) fn hole(last: &str, next: &str) -> String {
    format!("the archived WAL has a hole between {last} and {next}")
}

fn stood_in_for(message: String) -> Problem {
    let hint = "the other one stands in for it: make a backup now, and find out what happened";
    Problem { message, hint: Some(hint.into()) }
}
