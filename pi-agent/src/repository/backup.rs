//! Making a snapshot.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustic_core::repofile::{IndexFile, SnapshotFile};
use rustic_core::{BackupOptions, IndexedIdsStatus, ParentOptions, Repository as Rustic, SnapshotOptions};

use super::source::{Source, Sources, Tally};
use super::{Repository, Snapshot, any_source};
use crate::monitor::{Monitor, Problem};
use crate::retention::is_of_the_future;
use crate::steps::Figures;
use crate::{Error, Result, shown};

/// The tag of a snapshot that lacks files because time ran out. It is never "the latest", but the next backup's parent.
pub const UNFINISHED: &str = "unfinished";

/// The tag of a snapshot that lacks files because they could not be read.
pub const LACKS_FILES: &str = "lacks-files";

/// What `program_version` begins with in snapshots of ours.
pub(super) const PROGRAM: &str = "pi-agent ";

/// A snapshot that was made.
#[derive(Clone, Debug)]
pub struct Backup {
    /// The snapshot; `unfinished` when time ran out.
    pub snapshot: Snapshot,
    /// What was left out.
    pub tally: Tally,
    /// Mounts that were left out as such.
    pub left_out: Vec<PathBuf>,
    /// Files that rustic left out without our source knowing why; 0 unless something is badly wrong.
    pub lost: u64,
    /// Sizes and counts.
    pub figures: Figures,
}

impl Repository {
    /// Reads `sources` into a new snapshot; `known` are the snapshots there are.
    ///
    /// # Errors
    /// Storage fails (no snapshot is then made), or a configured path cannot be looked at.
    pub fn backup(&self, sources: Sources, known: &[Snapshot], monitor: &Monitor) -> Result<Backup> {
        let source = Arc::new(Source::new(sources)?);
        self.backend.take_written();
        let made = self.watched(monitor, || self.back_up(&source, known));
        if made.is_err()
            && let Err(error) = self.remove_orphans()
        {
            log::warn!("what the backup had stored stays until a prune: {}", error.chain());
        }
        made
    }

    /// Removes the packs that a failed backup wrote to a disk and no index names: on a full disk each night would add some, and no
    /// night would come as far as a prune.
    fn remove_orphans(&self) -> Result<()> {
        let written = self.backend.take_written();
        if written.is_empty() {
            return Ok(());
        }
        self.backend.look_again();
        let files = self.cached("read the index of", |rustic| rustic.stream_files::<IndexFile>()?.collect())?;
        let files: Vec<(_, IndexFile)> = files;
        let packs = files.iter().flat_map(|(_, file)| file.packs.iter().chain(&file.packs_to_delete));
        let named: HashSet<String> = packs.map(|pack| pack.id.to_hex().as_str().to_owned()).collect();
        let is_named = |key: &str| key.rsplit('/').next().is_some_and(|name| named.contains(name));
        written.iter().filter(|key| !is_named(key)).try_for_each(|key| self.store().delete(key))
    }

    fn back_up(&self, source: &Arc<Source>, known: &[Snapshot]) -> Result<Backup> {
        let (rustic, archived) = self.archive(source.clone(), source.paths(), parents(known, &self.step), &[])?;
        let (rustic, archived) = match source.again(&self.gauge) {
            Some(again) => {
                drop(rustic);
                self.complete(archived, Arc::new(again), source.paths(), parents(known, &self.step))?
            }
            None => (rustic, archived),
        };
        let tally = source.shared().tally();
        let lacks_files = tally.unreadable_count > 0;
        let lacks = [(tally.stopped, UNFINISHED), (lacks_files, LACKS_FILES)];
        let tags: Vec<_> = lacks.into_iter().filter_map(|(lacks, tag)| lacks.then_some(tag)).collect();
        let id = self.release(&rustic, &archived, &tags)?;
        let figures = Figures {
            files_skipped: Some(tally.unreadable_count),
            files_vanished: Some(tally.vanished),
            ..figures(&archived)
        };
        let handed_on = tally.failed + figures.files.unwrap_or_default();
        Ok(Backup {
            snapshot: Snapshot { id, unfinished: tally.stopped, lacks_files, ..Snapshot::from(&archived) },
            lost: tally.handed_over.saturating_sub(handed_on),
            left_out: source.left_out().map(|inside| inside.at.clone()).collect(),
            tally,
            figures,
        })
    }

    /// Reads files again that changed while they were read, and puts them into the snapshot of the others, which is kept back.
    fn complete(
        &self,
        mut archived: SnapshotFile,
        again: Arc<dyn any_source::Source>,
        paths: &[PathBuf],
        parents: Vec<String>,
    ) -> Result<(Rustic<IndexedIdsStatus>, SnapshotFile)> {
        let (rustic, more) = self.archive(again, paths, parents, &[])?;
        self.backend.drop_snapshot();
        archived.tree = self.graft(archived.tree, more.tree)?;
        if let (Some(sum), Some(more)) = (&mut archived.summary, more.summary) {
            sum.files_new += more.files_new;
            sum.files_changed += more.files_changed;
            sum.files_unmodified += more.files_unmodified;
            sum.total_files_processed += more.total_files_processed;
            sum.total_bytes_processed += more.total_bytes_processed;
            sum.data_blobs += more.data_blobs;
            sum.tree_blobs += more.tree_blobs;
            sum.data_added += more.data_added;
            sum.data_added_packed += more.data_added_packed;
            sum.data_added_files += more.data_added_files;
            sum.data_added_files_packed += more.data_added_files_packed;
            sum.data_added_trees += more.data_added_trees;
            sum.data_added_trees_packed += more.data_added_trees_packed;
        }
        Ok((rustic, archived))
    }

    /// Reads a source to its end. The snapshot is kept back, for [`Self::release`] or to be dropped: only the caller knows
    /// whether what was read is worth one.
    pub(super) fn archive(
        &self,
        source: Arc<dyn any_source::Source>,
        paths: &[PathBuf],
        parents: Vec<String>,
        tags: &[String],
    ) -> Result<(Rustic<IndexedIdsStatus>, SnapshotFile)> {
        let options =
            BackupOptions::default().parent_opts(ParentOptions::default().force(parents.is_empty()).parents(parents));
        let snapshot =
            SnapshotOptions::default().host(self.host.clone()).label(self.step.clone()).command("pi-agent".to_owned());
        // Only this much may be tried again: the source's counts belong to one reading.
        let rustic = self.readable_index()?;

        self.backend.hold_snapshots();
        let archived = self.attempt("back up to", || {
            let mut snapshot = snapshot.to_snapshot()?;
            snapshot.program_version = format!("{PROGRAM}{}", env!("CARGO_PKG_VERSION"));
            tags.iter().for_each(|tag| snapshot.tags.add(tag.clone()));
            any_source::archive(&rustic, &options, source, snapshot, paths)
        });
        // rustic may take a failed upload for an unreadable file: what storage said counts. (A failed read of the parent
        // only costs time.)
        match archived {
            Ok(archived) if !self.backend.write_failed() => Ok((rustic, archived)),
            Ok(_) => {
                self.backend.drop_snapshot();
                Err(self.failed_with("back up to", "a write failed").error)
            }
            Err(failed) => {
                self.backend.drop_snapshot();
                Err(failed.error)
            }
        }
    }

    /// Writes the snapshot kept back, or what became of it, with these tags besides; its id.
    pub(super) fn release(
        &self,
        rustic: &Rustic<IndexedIdsStatus>,
        archived: &SnapshotFile,
        tags: &[&str],
    ) -> Result<String> {
        let written = self.attempt("write the snapshot to", || {
            let mut archived = archived.clone();
            if tags.is_empty() && self.backend.holds_snapshot() {
                return self.backend.release_snapshot();
            }
            tags.iter().for_each(|tag| archived.tags.add((*tag).to_owned()));
            self.backend.drop_snapshot();
            rustic.save_snapshots(vec![archived])
        });
        written.map_err(|failed| failed.error)?;
        self.backend.last_snapshot().ok_or_else(|| Error::new("the snapshot was not written"))
    }
}

/// What rustic counted.
pub(super) fn figures(archived: &SnapshotFile) -> Figures {
    let summary = archived.summary.clone().unwrap_or_default();
    Figures {
        bytes_processed: Some(summary.total_bytes_processed),
        bytes_added: Some(summary.data_added),
        bytes_added_stored: Some(summary.data_added_packed),
        files: Some(summary.total_files_processed),
        files_changed: Some(summary.files_new + summary.files_changed),
        ..Figures::default()
    }
}

impl Backup {
    /// The files that were left out and should not have been, one line each; the rest as a number.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<_> = self
            .tally
            .unreadable
            .iter()
            .map(|(path, error)| Problem { message: format!("cannot read {}: {error}", shown(path)), hint: None })
            .collect();
        let more = self.tally.unreadable_count - problems.len() as u64;
        if more > 0 {
            problems.push(Problem { message: format!("{more} more files cannot be read"), hint: None });
        }
        let Tally { without_attributes, without_attributes_count, .. } = &self.tally;
        problems.extend(without_attributes.iter().map(|(path, error)| Problem {
            message: format!("cannot read the attributes and ACLs of {}: {error}", shown(path)),
            hint: Some("its content is safe; a restore will give it back without them".into()),
        }));
        let more = without_attributes_count - without_attributes.len() as u64;
        if more > 0 {
            let message = format!("the attributes and ACLs of {more} more files cannot be read");
            problems.push(Problem { message, hint: None });
        }
        problems.extend(self.tally.mounted_meanwhile.iter().map(|path| mounted_meanwhile(path)));
        if self.lost > 0 {
            let message = format!("{} files were left out for an unknown reason", self.lost);
            problems.push(Problem { message, hint: Some("the journal may say why; run the step again".into()) });
        }
        problems
    }

    /// What is worth a line though nothing is missing but a time.
    pub fn remarks(&self) -> Vec<Problem> {
        let remark = |path: &PathBuf| Problem {
            message: format!(
                "the modification time of {} is stored nowhere: its year has not four digits",
                shown(path)
            ),
            hint: Some(format!("give it another one, if it matters: touch {}", shown(path))),
        };
        let ours = |path: &PathBuf| Problem {
            message: format!("{} is left out: it is pi-agent's own storage or cache, by another path", shown(path)),
            hint: Some(format!("keep storage outside of what is backed up, or exclude {}", shown(path))),
        };
        self.tally.without_time.iter().map(remark).chain(self.tally.ours.iter().map(ours)).collect()
    }
}

/// What is said of a directory that something was mounted on since the paths were looked at.
pub(crate) fn mounted_meanwhile(path: &Path) -> Problem {
    Problem {
        message: format!("{} is left out: something was mounted there while the backup was made", shown(path)),
        hint: Some("the next backup says what it is".into()),
    }
}

/// The newest complete snapshot, and an unfinished one made after it: together they cover most files. A repository that
/// another tool made serves with its newest.
fn parents(known: &[Snapshot], step: &str) -> Vec<String> {
    let ours: Vec<_> = known.iter().filter(|snapshot| snapshot.label == step).collect();
    let mut candidates = if ours.is_empty() { known.iter().collect() } else { ours };
    // One of the future is older than it says.
    let now = Timestamp::now();
    candidates.sort_by_key(|snapshot| !is_of_the_future(snapshot.time, now));
    let complete = candidates.iter().rposition(|snapshot| !snapshot.unfinished);
    let unfinished = candidates.iter().rposition(|snapshot| snapshot.unfinished).filter(|at| Some(*at) > complete);
    complete.into_iter().chain(unfinished).map(|at| candidates[at].id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(id: &str, label: &str, unfinished: bool) -> Snapshot {
        let time = Timestamp::UNIX_EPOCH;
        Snapshot {
            id: id.into(),
            time,
            label: label.into(),
            host: String::new(),
            unfinished,
            bytes: None,
            new_bytes: None,
            files: None,
            tags: Vec::new(),
            original: None,
            lost_its_label: false,
            lacks_files: false,
            paths: Vec::new(),
        }
    }

    #[test]
    fn the_parents_are_the_newest_complete_snapshot_and_what_was_begun_after_it() {
        let (a, b, c) = (snapshot("a", "s", false), snapshot("b", "s", true), snapshot("c", "s", true));
        assert_eq!(parents(&[a.clone(), b.clone(), c.clone()], "s"), ["a", "c"]);
        assert_eq!(parents(&[b.clone(), a.clone()], "s"), ["a"]);
        assert_eq!(parents(&[b, c], "s"), ["c"]);
        assert!(parents(&[], "s").is_empty());
        let future = Snapshot { time: Timestamp::MAX, ..snapshot("f", "s", false) };
        assert_eq!(parents(&[a, future.clone()], "s"), ["a"]);
        assert_eq!(parents(&[future], "s"), ["f"]);
    }

    #[test]
    fn another_tools_snapshot_is_a_parent_only_where_there_is_none_of_ours() {
        let (a, b) = (snapshot("a", "", false), snapshot("b", "s", false));
        assert_eq!(parents(std::slice::from_ref(&a), "s"), ["a"]);
        assert_eq!(parents(&[b, a], "s"), ["b"]);
    }
}
