//! The order in which everything is handed to rustic: directories above, what was held, what lies there.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustic_core::RusticResult;
use rustic_core::repofile::Node;

use super::describe::describe;
use super::open::{Opener, Said, Terms};
use super::stamp::Stamp;
use super::ways::{Found, Walk};
use crate::repository::any_source::{Entry, Open};
use crate::repository::hold::Held;
use crate::repository::target::Item;

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
    pub terms: Terms,
}

impl Iterator for Entries {
    type Item = RusticResult<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let found = self.step()?;
            if self.terms.late() {
                self.terms.shared.lock().stopped = true;
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
                    Ok(found) if self.missed.remove(&found.path) => {
                        self.inserting = Some((found.path, 0));
                        continue;
                    }
                    // As in restic's snapshots: the root has no name, and so no entry of its own.
                    Ok(found) if found.path.parent().is_none() => None,
                    Ok(found) => self.entry(found),
                    Err(unseen) => {
                        self.terms.shared.unseen(&unseen);
                        None
                    }
                });
            }
            let Some((path, walk)) = self.walks.pop_front() else {
                // What was held has no place to be shown at.
                for path in std::mem::take(&mut self.missed) {
                    self.terms.shared.left_out(&path, &io::ErrorKind::NotFound.into(), true);
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
        let node = describe(&Item::behind(path).ok()?, path, &self.terms.shared).ok()?;
        node.is_dir().then_some(Entry { path: path.into(), node, open: None })
    }

    fn entry(&self, Found { path, first, item }: Found) -> Option<Entry> {
        match describe(&item, &path, &self.terms.shared) {
            Ok(node) => {
                if node.is_dir() {
                    self.terms.shared.lists(&path, &item.found);
                }
                Some(self.hand_over(path, node, None))
            }
            Err(error) => {
                self.terms.shared.left_out(&path, &error, first);
                None
            }
        }
    }

    /// `content`: read there instead.
    fn hand_over(&self, path: PathBuf, node: Node, content: Option<PathBuf>) -> Entry {
        if !node.is_dir() {
            self.terms.shared.lock().handed_over += 1;
        }
        let said = match content {
            Some(_) => Said::Copy(node.meta.size),
            None => Said::Stamp(Stamp::said_by(&node)),
        };
        let content = content.unwrap_or_else(|| path.clone());
        let open = Opener { content, path: path.clone(), said, terms: self.terms.clone() };
        Entry { path, node, open: Some(Open::new(|| Ok(Box::new(open.open()?)))) }
    }
}
