//! The order in which everything is handed to rustic: directories above, what was held, what lies there.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use ignore::{DirEntry, Walk, WalkBuilder};
use pi_agent_engine::{Entry, Open};
use rustic_core::repofile::Node;
use rustic_core::{LocalSourceSaveOptions, RusticResult};

use super::open::Opener;
use super::tally::Shared;
use crate::repository::hold::Held;
use crate::storage::shaper::Reading;

/// Directories above the configured paths with their own owners and modes, then each path and what lies in it.
pub(super) struct Entries {
    pub walks: VecDeque<(PathBuf, Walk)>,
    pub current: Option<Walk>,
    pub held: Option<Arc<Held>>,
    /// Which of the held paths it is in, and where.
    pub inserting: Option<(PathBuf, usize)>,
    /// Held paths it did not come by.
    pub missed: BTreeSet<PathBuf>,
    pub ancestors: VecDeque<PathBuf>,
    pub opened: HashSet<PathBuf>,
    pub deadline: Option<Instant>,
    pub reading: Reading,
    pub shared: Arc<Shared>,
}

impl Iterator for Entries {
    type Item = RusticResult<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let found = self.step()?;
            if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                self.shared.lock().stopped = true;
                return None;
            }
            if let Some(entry) = found {
                return Some(Ok(entry));
            }
        }
    }
}

impl Entries {
    /// The next entry; `Some(None)` when something was left out; `None` at the end.
    fn step(&mut self) -> Option<Option<Entry>> {
        loop {
            if let Some(ancestor) = self.ancestors.pop_front() {
                return Some(self.ancestor(&ancestor));
            }
            if let Some(entry) = self.next_held() {
                return Some(Some(entry));
            }
            if let Some(found) = self.current.as_mut().and_then(Iterator::next) {
                return Some(match found {
                    Ok(entry) if self.missed.remove(entry.path()) => {
                        self.inserting = Some((entry.into_path(), 0));
                        continue;
                    }
                    // As in restic's snapshots: the root has no name, and so no entry of its own.
                    Ok(entry) if entry.path().parent().is_none() => None,
                    Ok(entry) => self.entry(entry),
                    Err(error) => {
                        self.shared.unlisted(&error);
                        None
                    }
                });
            }
            let Some((path, walk)) = self.walks.pop_front() else {
                // What was held has no place to be shown at.
                for path in std::mem::take(&mut self.missed) {
                    self.shared.left_out(&path, &io::ErrorKind::NotFound.into(), true);
                }
                return None;
            };
            self.current = Some(walk);
            let above: Vec<_> = path.ancestors().skip(1).filter(|above| above.parent().is_some()).collect();
            for above in above.into_iter().rev() {
                if self.opened.insert(above.into()) {
                    self.ancestors.push_back(above.into());
                }
            }
        }
    }

    /// What was held, in place of what the walk would find there now.
    fn next_held(&mut self) -> Option<Entry> {
        let (path, next) = self.inserting.as_mut()?;
        let Some(kept) = self.held.as_ref().and_then(|held| held.get(path, *next)) else {
            self.inserting = None;
            return None;
        };
        *next += 1;
        let (node, content) = (kept.node.clone(), kept.content.clone());
        Some(self.hand_over(kept.path.clone(), node, content))
    }

    /// A directory above a configured path, through symbolic links: only its owner, mode and times are of use. Without
    /// it, rustic makes one up.
    fn ancestor(&self, path: &Path) -> Option<Entry> {
        let entry =
            WalkBuilder::new(path).standard_filters(false).follow_links(true).max_depth(Some(0)).build().next()?;
        let mapped = LocalSourceSaveOptions::default().map_entry(entry.ok()?).ok()?;
        mapped.node.is_dir().then_some(Entry { path: mapped.path, node: mapped.node, open: None })
    }

    fn entry(&self, entry: DirEntry) -> Option<Entry> {
        let (path, configured) = (entry.path().to_owned(), entry.depth() == 0);
        match LocalSourceSaveOptions::default().map_entry(entry) {
            Ok(mapped) => Some(self.hand_over(mapped.path, mapped.node, None)),
            Err(error) => {
                self.shared.unmapped(&path, &error, configured);
                None
            }
        }
    }

    /// `content`: read there instead.
    fn hand_over(&self, path: PathBuf, node: Node, content: Option<PathBuf>) -> Entry {
        if !node.is_dir() {
            self.shared.lock().handed_over += 1;
        }
        let open = Opener {
            content: content.unwrap_or_else(|| path.clone()),
            path: path.clone(),
            size: node.meta.size,
            deadline: self.deadline,
            reading: self.reading.clone(),
            shared: self.shared.clone(),
        };
        Entry { path, node, open: Some(Open::new(|| Ok(Box::new(open.open()?)))) }
    }
}
