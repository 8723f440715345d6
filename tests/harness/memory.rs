//! A memory limit for a process that already runs: the kernel ends it as soon as it wants more.

use std::fs;
use std::path::PathBuf;

use nix::unistd::Pid;

/// A control group of one process. Removed when dropped; the process is gone by then.
#[derive(Debug)]
pub struct MemoryLimit {
    group: PathBuf,
    counter: &'static str,
}

impl MemoryLimit {
    /// What the process has is left to it; more than this it does not get.
    const MORE: &str = "262144";

    /// Limits it from now on.
    pub fn on(process: Pid) -> Self {
        // The kernel's first or second way to group processes, whichever has memory.
        let old = PathBuf::from("/sys/fs/cgroup/memory");
        let (parent, limit, counter) = if old.is_dir() {
            (old, "memory.limit_in_bytes", "memory.oom_control")
        } else {
            ("/sys/fs/cgroup".into(), "memory.max", "memory.events")
        };
        let this = Self { group: parent.join(format!("pi-agent-test-{process}")), counter };
        fs::create_dir(&this.group).unwrap_or_else(|error| panic!("make {}: {error}", this.group.display()));
        let write = |name: &str, text: &str| {
            let path = this.group.join(name);
            fs::write(&path, text).unwrap_or_else(|error| panic!("write {text} to {}: {error}", path.display()));
        };
        write(limit, Self::MORE);
        write("cgroup.procs", &process.to_string());
        this
    }

    /// How many processes the kernel has ended for want of memory.
    pub fn kills(&self) -> u64 {
        let text = fs::read_to_string(self.group.join(self.counter)).expect("our own group");
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no count of kills: {text}"))
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.group);
    }
}
