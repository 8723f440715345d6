//! A memory limit for processes: the kernel ends them as soon as they want more.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use nix::unistd::Pid;

use crate::{Agent, Scratch};

/// A control group. Removed when dropped; its processes are gone by then.
#[derive(Debug)]
pub struct MemoryLimit {
    group: PathBuf,
    counter: &'static str,
}

impl MemoryLimit {
    /// What a process has is left to it; more than this it does not get.
    const MORE: u64 = 256 << 10;

    /// Limits a process that runs already, from now on.
    pub fn on(process: Pid) -> Self {
        let this = Self::of(Self::MORE, &process.to_string());
        this.write("cgroup.procs", &process.to_string());
        this
    }

    /// So many bytes for all that is started in it together, what they read and write of files included.
    pub fn of(bytes: u64, name: &str) -> Self {
        // The kernel's first or second way to group processes, whichever has memory.
        let old = PathBuf::from("/sys/fs/cgroup/memory");
        let (parent, limit, counter) = if old.is_dir() {
            (old, "memory.limit_in_bytes", "memory.oom_control")
        } else {
            ("/sys/fs/cgroup".into(), "memory.max", "memory.events")
        };
        let this = Self { group: parent.join(format!("pi-agent-test-{name}")), counter };
        fs::create_dir(&this.group).unwrap_or_else(|error| panic!("make {}: {error}", this.group.display()));
        this.write(limit, &bytes.to_string());
        this
    }

    /// Runs a command of the agent in it to its good end: the memory of its largest process at its peak, in bytes.
    pub fn run<A: AsRef<OsStr>>(&self, agent: &Agent, arguments: impl IntoIterator<Item = A>) -> u64 {
        let scratch = Scratch::new();
        let (peak, command) = (scratch.join("peak"), agent.command(arguments));
        let mut inside = Command::new("sh");
        inside.args(["-c", "echo $$ >\"$1\" && shift && exec /usr/bin/time --format %M --output \"$@\"", "sh"]);
        inside.arg(self.group.join("cgroup.procs")).arg(&peak).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        let output = inside.process_group(0).output().expect("sh is everywhere");
        assert!(output.status.success(), "{command:?}: {} killed for want of memory; {output:?}", self.kills());
        let peak = fs::read_to_string(peak).expect("time has written it");
        peak.trim().parse::<u64>().expect("a number of KiB") << 10
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.group.join(name);
        fs::write(&path, text).unwrap_or_else(|error| panic!("write {text} to {}: {error}", path.display()));
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
