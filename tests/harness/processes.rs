//! Which processes a program has started, and whether they are gone.

use std::collections::BTreeSet;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

/// A process, told from any later one with the same number by its start.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    pid: i32,
    start: u64,
    /// Name of its program (`comm`: at most 15 bytes).
    pub name: String,
}

/// What `/proc/PID/stat` says.
struct Stat {
    process: Process,
    parent: i32,
    state: String,
}

impl Process {
    /// Its number.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.pid)
    }

    /// Whether it is still there (a zombie is not).
    pub fn is_alive(&self) -> bool {
        Stat::read(self.pid).is_some_and(|stat| stat.alive() && stat.process.start == self.start)
    }

    /// Whether it was stopped and has not been told to go on.
    pub fn stands_still(&self) -> bool {
        Stat::read(self.pid).is_some_and(|stat| stat.state == "T" && stat.process.start == self.start)
    }

    /// Its arguments.
    pub fn arguments(&self) -> Vec<String> {
        let bytes = std::fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    }
}

/// What a process that keeps records may be doing when it is killed.
pub const CALLS: [&str; 7] = ["fsync", "rename", "linkat,renameat2", "unlink,unlinkat", "write", "sendto", "recvfrom"];

/// Runs a command that is killed as it makes one of these system calls for the `time`-th time. 0: it never came to that.
pub fn kill_at(command: &Command, calls: &str, time: u32) -> ExitStatus {
    Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}")])
        .args(["-e", &format!("inject={calls}:signal=KILL:when={time}"), "--"])
        .arg(command.get_program())
        .args(command.get_args())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("strace runs")
}

/// Every living process below `ancestor`, that one left out.
pub fn descendants(ancestor: Pid) -> Vec<Process> {
    let all: Vec<Stat> = std::fs::read_dir("/proc")
        .expect("there is /proc")
        .filter_map(|entry| Stat::read(entry.ok()?.file_name().to_str()?.parse().ok()?))
        .collect();
    let mut family = vec![ancestor.as_raw()];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        family.extend(all.iter().filter(|stat| stat.parent == parent).map(|stat| stat.process.pid));
        next += 1;
    }
    let below = |stat: &Stat| stat.alive() && family[1..].contains(&stat.process.pid);
    all.into_iter().filter(below).map(|stat| stat.process).collect()
}

/// The same for polling: it looks at the descendants only and not at all of `/proc`, a hundredth of the work. It may miss a process
/// whose sibling ends in the same moment.
pub fn descendants_polled(ancestor: Pid) -> Vec<Process> {
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![ancestor.as_raw()];
    while let Some(parent) = parents.pop() {
        for child in children(parent) {
            parents.push(child);
            found.extend(Stat::read(child).filter(Stat::alive).map(|stat| stat.process));
        }
    }
    found
}

/// The children of each thread of a process; none of one that has ended.
fn children(parent: i32) -> Vec<i32> {
    let threads = std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// Notes every process that ever appears below one, until it is asked.
#[derive(Debug)]
pub struct Census {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<BTreeSet<Process>>,
}

impl Census {
    /// Starts to look below `ancestor`, fifty times a second.
    pub fn of(ancestor: Pid) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !stopped.load(Ordering::Relaxed) {
                seen.extend(descendants_polled(ancestor));
                std::thread::sleep(Duration::from_millis(20));
            }
            seen.extend(descendants(ancestor));
            seen
        });
        Self { stop, thread }
    }

    /// Passes when everything that was ever seen is gone within `patience`; returns how many there were.
    #[track_caller]
    pub fn assert_all_gone(self, patience: Duration) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.thread.join().expect("looking does not fail");
        let started = Instant::now();
        loop {
            let left: Vec<_> = seen.iter().filter(|process| process.is_alive()).collect();
            if left.is_empty() {
                return seen.len();
            }
            assert!(started.elapsed() < patience, "still there after {patience:?}: {left:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // pid (name, which may hold anything) state ppid … with the start as field 22.
        let (before, rest) = text.rsplit_once(") ")?;
        let (_, name) = before.split_once('(')?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let process = Process { pid, start: fields.get(19)?.parse().ok()?, name: name.to_owned() };
        Some(Self { process, parent: fields.get(1)?.parse().ok()?, state: (*fields.first()?).to_owned() })
    }

    fn alive(&self) -> bool {
        !matches!(self.state.as_str(), "Z" | "X")
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn grandchildren_are_seen_and_missed_when_gone() {
        let mut child = Command::new("sh").args(["-c", "sleep 60 & wait"]).spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        let census = Census::of(pid);
        let sleeper = loop {
            if let Some(sleeper) = descendants_polled(pid).into_iter().find(|process| process.name == "sleep") {
                break sleeper;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        // Not before: `sh` is another name of the same process until it has become `sleep`.
        assert_eq!(descendants_polled(pid), descendants(pid));
        assert_eq!(sleeper.arguments()[..2], ["sleep", "60"]);
        std::thread::sleep(Duration::from_millis(100));
        assert!(!sleeper.stands_still());
        nix::sys::signal::kill(sleeper.pid(), nix::sys::signal::Signal::SIGSTOP).unwrap();
        while !sleeper.stands_still() {
            std::thread::sleep(Duration::from_millis(5));
        }
        nix::sys::signal::kill(sleeper.pid(), nix::sys::signal::Signal::SIGKILL).unwrap();
        child.wait().unwrap();
        assert!(!sleeper.is_alive());
        assert!(census.assert_all_gone(Duration::from_secs(5)) >= 1);
    }
}
