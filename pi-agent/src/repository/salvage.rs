//! A restore from a damaged repository: all that is whole comes back as always. A file that lacks parts comes back as
//! `NAME.incomplete`, with holes where they were, and everything lost is named. What is not named is whole.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt, fchown};
use std::path::Path;

use rustic_core::repofile::{BlobType, Node, PackId};
use rustic_core::{BlobId, DataId, IndexedFullStatus, Repository as Rustic};

use super::restore::Selection;
use super::writing::Written;
use super::{Repository, cipher};
use crate::durable::make_durable;
use crate::error::{Context, Kind};
use crate::monitor::{Monitor, Problem, Unit};
use crate::restore::beside;
use crate::{Error, Result, shown};

/// The ending of a file that lacks parts.
const INCOMPLETE: &str = ".incomplete";

impl Repository {
    /// # Errors
    /// Storage cannot be reached, the target cannot be written, or nothing of what is wanted is left.
    pub(super) fn salvage(&self, selection: &Selection, monitor: &Monitor) -> Result<Written> {
        monitor.phase("looking for what is left");
        self.mend_index()?;
        let rustic = self.cached("read the index of", Rustic::to_indexed)?;
        let read = || Ok(rustic.get_snapshots(&[&selection.snapshot.id])?.remove(0));
        let snapshot = self.attempt("read a snapshot of", read).map_err(|failed| failed.error)?;
        let walked = self.walk(&rustic, snapshot.tree, &|path| selection.wants(path))?;
        if walked.nodes.is_empty() {
            return Err(Error::new(format!(
                "nothing can be restored of snapshot {}: what it says of its directories is lost or damaged",
                super::restore::short(&selection.snapshot.id)
            ))
            .hint("an older snapshot may be whole: see pi-agent points, and try --at ID"));
        }
        selection.check_paths(walked.nodes.iter().map(|(path, _)| path.as_path()), &walked.lost)?;

        // What is whole.
        self.gauge.phase("looking at the packs", Unit::Items);
        let mut parts = Parts { repository: self, rustic: &rustic, packs: HashMap::new(), bad: HashSet::new() };
        let (mut whole, mut damaged) = (Vec::new(), Vec::new());
        for (path, node) in walked.nodes {
            let missing = parts.missing(&node)?;
            if missing == 0 { whole.push((path, node)) } else { damaged.push((path, node, missing)) }
        }
        let again = Selection { fresh: false, ..selection.clone() };
        let mut written = self
            .attempt("restore what is left of", || self.write_nodes(&rustic, &again, whole.iter().cloned().map(Ok)))
            .map_err(|failed| failed.error)??;

        // The rest.
        let mut lost: Vec<String> = walked
            .lost
            .iter()
            .map(|path| format!("{}: what was in it is lost", shown(&selection.to.join(path))))
            .collect();
        // Another file of the snapshot may have that name.
        let all = || whole.iter().map(|(path, _)| path).chain(damaged.iter().map(|(path, ..)| path));
        let named: HashSet<_> =
            all().filter(|path| path.as_os_str().as_bytes().ends_with(INCOMPLETE.as_bytes())).collect();
        for (path, node, missing) in &damaged {
            let mut incomplete = beside(path, INCOMPLETE);
            while named.contains(&incomplete) {
                incomplete = beside(&incomplete, INCOMPLETE);
            }
            let [path, incomplete] = [path, &incomplete].map(|path| selection.to.join(path));
            let of = node.content.as_ref().map_or(0, Vec::len);
            let what = match parts.write_incomplete(&incomplete, node)? {
                Ok(true) => {
                    format!("{missing} of its {of} parts are lost, the others are in {}", shown(&incomplete))
                }
                Ok(false) => "is lost".to_owned(),
                Err(error) => format!("{missing} of its {of} parts are lost, and the others: {}", error.chain()),
            };
            lost.push(format!("{}: {what}", shown(&path)));
            if selection.fresh {
                // Begun before it was known, and looking whole.
                let _ = fs::remove_file(&path);
            }
        }
        // All of them: what is not named is whole.
        written.problems.extend(lost.into_iter().map(|message| Problem { message, hint: None }));
        make_durable(&selection.to)?;
        Ok(written)
    }
}

/// Contents of files, and whether they can be read.
struct Parts<'a> {
    repository: &'a Repository,
    rustic: &'a Rustic<IndexedFullStatus>,
    /// Whether they are what their names say.
    packs: HashMap<PackId, bool>,
    bad: HashSet<DataId>,
}

impl Parts<'_> {
    /// How many parts of a file cannot be read.
    fn missing(&mut self, node: &Node) -> Result<usize> {
        let mut missing = 0;
        for id in node.content.iter().flatten() {
            missing += usize::from(!self.is_good(id)?);
        }
        Ok(missing)
    }

    fn is_good(&mut self, id: &DataId) -> Result<bool> {
        if self.bad.contains(id) {
            return Ok(false);
        }
        let Ok(entry) = self.rustic.get_index_entry(id) else {
            self.bad.insert(*id);
            return Ok(false);
        };
        let whole = match self.packs.get(&entry.pack) {
            Some(whole) => *whole,
            None => {
                let whole = self.is_whole(&entry.pack)?;
                self.packs.insert(entry.pack, whole);
                whole
            }
        };
        let good = whole || self.read(id)?.is_some();
        if !good {
            self.bad.insert(*id);
        }
        Ok(good)
    }

    fn is_whole(&self, pack: &PackId) -> Result<bool> {
        let name = pack.to_hex();
        let name = name.as_str();
        let store = self.repository.store();
        let key = format!("data/{}/{name}", &name[..2]);
        let state = match store.get(&key) {
            Ok(content) if cipher::name(&content) == name => return Ok(true),
            Ok(_) => "damaged",
            Err(error) if error.kind() == Kind::NotFound => "gone",
            Err(error) if error.is_unread() => return Err(error),
            Err(_) => "unreadable",
        };
        self.repository.damaged(format!("{key} in {store} is {state}"));
        Ok(false)
    }

    /// # Errors
    /// Storage cannot be reached.
    fn read(&self, id: &DataId) -> Result<Option<bytes::Bytes>> {
        let read = || self.rustic.get_blob_cached(&BlobId::from(*id), BlobType::Data);
        match self.repository.attempt("read from", read) {
            Ok(data) => Ok(Some(data)),
            Err(failed) if failed.error.is_unread() => Err(failed.error),
            Err(_) => Ok(None),
        }
    }

    /// False: there is nothing of it. The outer error is the storage's, the inner one the target's.
    fn write_incomplete(&self, path: &Path, node: &Node) -> Result<Result<bool>> {
        let content: Vec<_> = node.content.iter().flatten().collect();
        if content.iter().all(|id| self.bad.contains(id)) {
            return Ok(Ok(false));
        }
        let doing = || format!("write {}", shown(path));
        let length =
            |id: &DataId| self.rustic.get_index_entry(id).ok().map(|entry| u64::from(entry.location.data_length()));
        let known: u64 = content.iter().filter_map(|id| length(id)).sum();
        let unknown = content.iter().filter(|id| length(id).is_none()).count();
        // A link of that name leads nowhere.
        let created = File::options().write(true).create(true).truncate(true).custom_flags(libc::O_NOFOLLOW).open(path);
        let file = match created.context(doing) {
            Ok(file) => file,
            Err(error) => return Ok(Err(error)),
        };
        let mut at = 0;
        for id in content {
            if !self.bad.contains(id)
                && let Some(data) = self.read(id)?
                && let Err(error) = file.write_all_at(&data, at).context(doing)
            {
                return Ok(Err(error));
            }
            at += match length(id) {
                Some(length) => length,
                // What no index knows has the length that is left.
                None if unknown == 1 => node.meta.size.saturating_sub(known),
                None => break,
            };
        }
        // Who may not give files away keeps them.
        let _ = fchown(&file, node.meta.uid, node.meta.gid);
        Ok(file.set_len(node.meta.size).context(doing).map(|()| true))
    }
}
