//! What gives whoever can reach a restored file rights of others: set-id bits, capabilities, device files. What lies in storage may have
//! been put there by somebody else, and a directory to restore into may be open to everybody: so that comes back in its own place, or where
//! it is asked for.

use std::path::{Path, PathBuf};

use rustic_core::repofile::{Node, NodeType};

use crate::monitor::Problem;
use crate::shown;

/// Where Go has set-user-id and set-group-id in the modes that restic stores.
const SET_ID: u32 = 1 << 23 | 1 << 22;
const CAPABILITIES: &str = "security.capability";
/// So many are named; all are counted.
const NAMED: usize = 3;

/// Set-id bits or capabilities of a file. A directory's set-group-id bit gives nobody anything.
fn is_privileged_file(node: &Node) -> bool {
    let set_id = node.meta.mode.is_some_and(|mode| mode & SET_ID != 0);
    node.is_file() && (set_id || node.meta.extended_attributes.iter().any(|attribute| attribute.name == CAPABILITIES))
}

/// A device. Of a character device, number 0 is none: overlayfs marks with it what was removed.
fn is_device(node: &Node) -> bool {
    matches!(node.node_type, NodeType::Dev { .. })
        || matches!(node.node_type, NodeType::Chardev { device } if device != 0)
}

/// The entry as it comes back without privileges; `None`: it does not.
pub(super) fn without(mut node: Node) -> Option<Node> {
    if is_device(&node) {
        return None;
    }
    if is_privileged_file(&node) {
        node.meta.mode = node.meta.mode.map(|mode| mode & !SET_ID);
        node.meta.extended_attributes.retain(|attribute| attribute.name != CAPABILITIES);
    }
    Some(node)
}

/// What was kept back.
#[derive(Debug, Default)]
pub(super) struct KeptBack {
    files: usize,
    devices: usize,
    named: Vec<PathBuf>,
}

impl KeptBack {
    /// Counts an entry, as it was recorded.
    pub fn count(&mut self, path: &Path, node: &Node) {
        match (is_device(node), is_privileged_file(node)) {
            (true, _) => self.devices += 1,
            (_, true) => self.files += 1,
            _ => return,
        }
        if self.named.len() < NAMED {
            self.named.push(path.to_owned());
        }
    }

    /// What a person is told.
    pub fn problem(&self, to: &Path) -> Option<Problem> {
        let counted = [(self.files, "set-id bits or capabilities of files"), (self.devices, "device files")];
        let counted: Vec<_> =
            counted.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{what}: {count}")).collect();
        let more = (self.files + self.devices).checked_sub(self.named.len()).filter(|more| *more > 0);
        let names: Vec<_> = self.named.iter().map(|path| shown(&to.join(path)).to_string()).collect();
        let more = more.map(|more| format!(" and {more} more")).unwrap_or_default();
        (!counted.is_empty()).then(|| Problem {
            message: format!(
                "left out, because others may reach what is restored there: {} ({}{more}); with --privileges they come back too",
                counted.join(", "),
                names.join(", "),
            ),
            hint: None,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::ffi::OsStr;

    use rustic_core::repofile::Metadata;
    use serde_json::json;

    use super::*;

    fn node(kind: NodeType, mode: u32, attribute: Option<&str>) -> Node {
        let attributes: Vec<_> = attribute.iter().map(|name| json!({ "name": name, "value": "AA==" })).collect();
        let extended_attributes = serde_json::from_value(attributes.into()).unwrap();
        Node::new_node(
            OsStr::new("name"),
            kind,
            Metadata { mode: Some(mode), extended_attributes, ..Metadata::default() },
        )
    }

    #[test]
    fn what_gives_rights_of_others_is_kept_back_and_counted_and_nothing_else() {
        const MODE: u32 = 0o755;
        let mut kept = KeptBack::default();
        let mut back = |node: Node| {
            kept.count(Path::new("name"), &node);
            without(node).map(|node| (node.meta.mode.unwrap(), node.meta.extended_attributes.len()))
        };
        assert_eq!(back(node(NodeType::File, MODE | 1 << 23, Some("user.note"))), Some((MODE, 1)));
        assert_eq!(back(node(NodeType::File, MODE | 1 << 22, None)), Some((MODE, 0)));
        assert_eq!(back(node(NodeType::File, MODE, Some(CAPABILITIES))), Some((MODE, 0)));
        assert_eq!(back(node(NodeType::Dev { device: 0 }, MODE, None)), None);
        assert_eq!(back(node(NodeType::Chardev { device: 0x101 }, MODE, None)), None);
        // A shared directory, a sticky one, and what overlayfs leaves of a removed file.
        assert_eq!(back(node(NodeType::Dir, MODE | 1 << 22 | 1 << 20, None)), Some((MODE | 1 << 22 | 1 << 20, 0)));
        assert_eq!(back(node(NodeType::Chardev { device: 0 }, MODE, None)), Some((MODE, 0)));
        assert_eq!(back(node(NodeType::Fifo, MODE, None)), Some((MODE, 0)));
        let told = kept.problem(Path::new("/to")).unwrap().message;
        assert_eq!(
            told,
            "left out, because others may reach what is restored there: set-id bits or capabilities of files: 3, device files: 2 \
             (/to/name, /to/name, /to/name and 2 more); with --privileges they come back too"
        );
        assert!(KeptBack::default().problem(Path::new("/to")).is_none());
    }
}
