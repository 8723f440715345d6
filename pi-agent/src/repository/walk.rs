//! Going through a snapshot whose directories may be damaged: what cannot be read is named, and the rest is there.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use rustic_core::repofile::{Node, SnapshotFile};
use rustic_core::{IndexedFullStatus, Repository as Rustic, TreeId};

use super::Repository;
use crate::Result;

/// What a snapshot holds.
#[derive(Default)]
pub(super) struct Walked {
    /// Relative to the root, each directory before what is in it.
    pub nodes: Vec<(PathBuf, Node)>,
    /// Directories whose content cannot be read.
    pub lost: Vec<PathBuf>,
}

impl Repository {
    /// Everything that `wants` wants and that can be read.
    ///
    /// # Errors
    /// Storage cannot be reached.
    pub(super) fn walk(
        &self,
        rustic: &Rustic<IndexedFullStatus>,
        root: TreeId,
        wants: &dyn Fn(&Path) -> bool,
    ) -> Result<Walked> {
        let mut walked = Walked::default();
        let mut open = vec![(PathBuf::new(), root)];
        while let Some((path, tree)) = open.pop() {
            let read = self.attempt("read a directory of", || rustic.get_tree(&tree));
            let tree = match read {
                Ok(tree) => tree,
                Err(failed) if failed.error.is_unread() => return Err(failed.error),
                Err(_) => {
                    walked.lost.push(path);
                    continue;
                }
            };
            for node in tree.nodes {
                let name = node.name();
                let path = path.join(&name);
                if !self.can_be_called(&path, &name) || !wants(&path) {
                    continue;
                }
                open.extend(node.subtree.map(|tree| (path.clone(), tree)));
                walked.nodes.push((path, node));
            }
        }
        // As a walk through the target goes.
        walked.nodes.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(walked)
    }

    /// What is wrong with the directories of all snapshots. rustic's own check waits for ever behind the first that it cannot
    /// read.
    ///
    /// # Errors
    /// Storage cannot be reached, or there are snapshots or parts of the index that cannot be read.
    pub(super) fn unreadable_trees(&self) -> Result<Vec<String>> {
        let snapshots: Vec<SnapshotFile> = self.cached("list the snapshots of", |rustic| rustic.get_all_snapshots())?;
        let rustic = self.cached("read the index of", Rustic::to_indexed_ids)?;
        let mut open: Vec<TreeId> = snapshots.iter().map(|snapshot| snapshot.tree).collect();
        let (mut known, mut lost) = (HashSet::new(), Vec::new());
        while let Some(tree) = open.pop() {
            if !known.insert(tree) {
                continue;
            }
            match self.attempt("read a directory of", || rustic.get_tree(&tree)) {
                Ok(tree) => open.extend(tree.nodes.into_iter().filter_map(|node| node.subtree)),
                Err(failed) if failed.error.is_unread() => return Err(failed.error),
                Err(failed) => lost.push(failed.error.chain()),
            }
        }
        Ok(lost)
    }
}
