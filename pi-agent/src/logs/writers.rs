//! Which programs have a file open for writing, in containers too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::docker::Container;

/// Open files of every process, by device and inode: a path means something else in a container.
pub(super) struct Writers(BTreeMap<(u64, u64), BTreeSet<String>>);

impl Writers {
    /// Looks at every process now. Those we may not look at are left out.
    pub(super) fn now(containers: &[Container]) -> Self {
        let mut found = BTreeMap::<_, BTreeSet<String>>::new();
        for process in fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path()) {
            let Ok(name) = fs::read_to_string(process.join("comm")) else { continue };
            let groups = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
            let container = containers.iter().find(|container| groups.contains(&container.id));
            let name = match container {
                Some(container) => format!("{}/{}", container.name, name.trim()),
                None => name.trim().to_owned(),
            };
            for open in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
                let Ok(file) = fs::metadata(open.path()) else { continue };
                if file.is_file() && writes(&process, &open.file_name().to_string_lossy()) {
                    found.entry((file.dev(), file.ino())).or_default().insert(name.clone());
                }
            }
        }
        Self(found)
    }

    /// Those that have this file open.
    pub(super) fn of(&self, path: &Path) -> BTreeSet<String> {
        let file = fs::metadata(path).ok();
        file.and_then(|file| self.0.get(&(file.dev(), file.ino()))).cloned().unwrap_or_default()
    }
}

/// Whether a descriptor was opened for writing: the last octal digit of its flags is 1 or 2.
fn writes(process: &Path, descriptor: &str) -> bool {
    let info = fs::read_to_string(process.join("fdinfo").join(descriptor)).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.is_some_and(|flags| matches!(flags.trim_end().as_bytes().last(), Some(b'1' | b'2' | b'5' | b'6')))
}
