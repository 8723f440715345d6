//! One path in many snapshots.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path};

use rustic_core::repofile::{Metadata, Node, NodeType};
use rustic_core::{IndexedIdsStatus, Repository as Rustic, RusticResult, TreeId};

/// Finds a path in trees; a directory that several snapshots share is read once.
pub(super) struct Lookup {
    names: Vec<OsString>,
    /// What has the next name in a directory, by how many names lead there.
    known: HashMap<(usize, TreeId), Option<Node>>,
}

impl Lookup {
    pub(super) fn new(path: &Path) -> Self {
        let name = |component| match component {
            Component::Normal(name) => Some(OsStr::to_owned(name)),
            _ => None,
        };
        Self { names: path.components().filter_map(name).collect(), known: HashMap::new() }
    }

    /// The path's node below `root`, if there is one; for `/` a directory without a name.
    pub(super) fn node(&mut self, rustic: &Rustic<IndexedIdsStatus>, root: TreeId) -> RusticResult<Option<Node>> {
        let mut node = Node::new_node(OsStr::new(""), NodeType::Dir, Metadata::default());
        node.subtree = Some(root);
        for (depth, name) in self.names.iter().enumerate() {
            // A file has nothing below it.
            let Some(tree) = node.subtree else { return Ok(None) };
            let next = match self.known.get(&(depth, tree)) {
                Some(known) => known.clone(),
                None => {
                    let nodes = rustic.get_tree(&tree)?.nodes;
                    let found = nodes.into_iter().find(|node| node.name() == name.as_os_str());
                    self.known.insert((depth, tree), found.clone());
                    found
                }
            };
            let Some(next) = next else { return Ok(None) };
            node = next;
        }
        Ok(Some(node))
    }
}
