//! Forgetting, pruning, checking, measuring.

use rustic_core::{CheckOptions, CheckResults, PruneOptions, PruneStats};

use super::damage::Damaged;
use super::index_parts::PIECES;
use super::{Repository, library};
use crate::monitor::{Monitor, Unit};
use crate::steps::Check;
use crate::{Error, Result};

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings {
    /// Damage: a restore point may not be restorable.
    pub errors: Vec<String>,
    /// Harmless leftovers, as of interrupted backups; the next prune removes them.
    pub leftovers: usize,
}

/// What a prune did, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pruned {
    /// Deleted for good now.
    pub freed: u64,
    /// No longer used; deleted by the first prune after 23 hours or more.
    pub marked: u64,
}

impl Repository {
    /// Deletes snapshots by id; their data stays until a prune.
    ///
    /// # Errors
    /// Storage fails; some may be deleted then.
    pub fn forget(&self, ids: &[String]) -> Result<()> {
        let ids = ids
            .iter()
            .map(|id| id.parse::<rustic_core::Id>().map(Into::into))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| Error::new("forget: an id is no snapshot's"))?;
        self.attempt("forget snapshots of", || self.rustic()?.delete_snapshots(&ids)).map_err(|failed| failed.error)
    }

    /// Removes what no snapshot uses, in two phases: unused packs are marked, and deleted by a prune at least 23 hours
    /// later. Deleting at once would destroy what a backup running beside it has just decided to use.
    ///
    /// # Errors
    /// Storage fails, or the repository is damaged; nothing that is used is removed then.
    pub fn prune(&self, monitor: &Monitor) -> Result<Pruned> {
        self.watched(monitor, || {
            self.store().remove_leftovers()?;
            self.backend.look_again();
            // The defaults are meant: keep_delete 23 h, instant_delete off, at most 10 % repacked.
            let options = PruneOptions::default();
            self.cached("prune", |rustic| {
                let plan = rustic.prune_plan(&options)?;
                let stats = &plan.stats;
                let sizes = stats.size_sum();
                let pruned = Pruned {
                    freed: stats.size_to_delete.remove + stats.size_unref,
                    marked: sizes.remove + sizes.repackrm,
                };
                // rustic would write the whole index anew, for its parts are small to it.
                if !nothing_to_do(stats) {
                    rustic.prune(&options, plan)?;
                }
                Ok(pruned)
            })
        })
    }

    /// Checks the repository against what lies in storage, never against the local cache.
    ///
    /// # Errors
    /// The check could not be done; damage is no error but a finding.
    pub fn check(&self, check: Check, monitor: &Monitor) -> Result<Findings> {
        // Emptied first, the cache is filled from storage by the check itself, each tree pack by one request.
        self.clear_cache();
        self.backend.look_again();
        let mut options = CheckOptions::default();
        options.trust_cache = true;
        self.gauge.phase("checking", Unit::Items);
        // It is open by a key that was kept; whoever has only the password needs these.
        let trouble = self.key_trouble()?.map(|trouble| trouble.chain());
        let lost = match self.watched(monitor, || self.unreadable_trees()) {
            Err(error) if error.is_unread() => return Err(error),
            Err(error) => match self.damaged_lists()? {
                named if named.is_empty() => vec![error.chain()],
                named => named,
            },
            Ok(lost) => lost,
        };
        if !lost.is_empty() {
            return Ok(Findings { errors: trouble.into_iter().chain(lost).collect(), leftovers: 0 });
        }
        let structure = || self.attempt("check", || self.rustic()?.check(options));
        // rustic gives its threads a tenth of a second to end, and panics when they had no processor for so long.
        let unlucky = |failed: &super::Failed| !failed.storage && failed.error.chain().contains("index still in use");
        let results = self.watched(monitor, || {
            (0..5).map(|_| structure()).find(|results| !results.as_ref().is_err_and(unlucky)).unwrap_or_else(structure)
        });
        let results = match results {
            Ok(results) => results,
            Err(failed) if failed.storage => return Err(failed.error),
            // What is there and cannot be read at all is damage, too.
            Err(failed) => return Ok(Findings { errors: vec![failed.error.chain()], leftovers: 0 }),
        };
        // rustic takes what it could not fetch for damage; that storage could not be reached, or refused it, is another thing.
        if let Some(cause) = self.backend.take_failure().filter(Error::is_unread) {
            return Err(Error::new(format!("check {}", self.store())).kind_of(cause.kind()).caused_by(cause));
        }
        let mut findings = Findings { errors: trouble.into_iter().collect(), leftovers: 0 };
        for (level, finding) in results.0 {
            let text = library::finding(&finding.to_string());
            match CheckResults(vec![(level, finding)]).is_ok() {
                Ok(()) => findings.leftovers += 1,
                Err(_) => findings.errors.push(text),
            }
        }
        if let Check::Data { part, of } = check {
            let found = self.watched(monitor, || self.read_packs(part, of))?;
            findings.errors.extend(found.damage);
            match found.stopped {
                Some(error) if findings.errors.is_empty() => return Err(error),
                // What was found is told whatever came then.
                Some(error) => findings.errors.push(format!("not all was read: {}", error.chain())),
                None => {}
            }
        }
        Ok(findings)
    }

    /// The snapshots and parts of the index that cannot be read, by name.
    fn damaged_lists(&self) -> Result<Vec<String>> {
        let mut named = Vec::new();
        for kind in ["snapshots", "index"] {
            let damaged = self.damaged_files(kind)?.into_iter();
            named.extend(damaged.map(|Damaged { name, why }| format!("{kind}/{name} is damaged{why}")));
        }
        Ok(named)
    }

    /// Bytes of all packs, by the index: cheaper than a listing of every object.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn stored_bytes(&self) -> Result<u64> {
        let infos = self.cached("read the index of", |rustic| rustic.infos_index())?;
        Ok(infos.blobs.iter().chain(&infos.blobs_delete).map(|blobs| blobs.size).sum())
    }
}

/// All packs stay as they are, and hardly more than a month of nights has added to the index.
fn nothing_to_do(stats: &PruneStats) -> bool {
    let parts = stats.blobs_sum().total() / PIECES as u64 + 32;
    stats.packs.unused + stats.packs.repack + stats.packs_unref == 0
        && stats.packs_to_delete.remove + stats.packs_to_delete.recover == 0
        && stats.index_files <= parts
}
