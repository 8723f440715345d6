//! Going through a snapshot whose directories may be damaged: what cannot be read is named, and the rest is there.

use std::path::{Path, PathBuf};

use rustic_core::repofile::Node;
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
                Err(failed) if failed.error.is_transient() => return Err(failed.error),
                Err(_) => {
                    walked.lost.push(path);
                    continue;
                }
            };
            for node in tree.nodes {
                let path = path.join(node.name());
                if !wants(&path) {
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
}
