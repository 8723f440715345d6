//! The processes below one, or of a session, as `/proc` knows them: ended, held still, and what they read and wrote.

use std::ffi::CString;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::{Context, Error, Result};

/// What a program gets between SIGTERM and SIGKILL; the supervisor's own stop must fit into 10 s.
const GRACE: Duration = Duration::from_secs(4);

/// From now on orphans among our descendants become our children instead of init's, so that [`end_descendants`] finds them.
///
/// Where the kernel cannot do that, orphans are missed. Linux can since 3.4; only qemu's user-mode emulation cannot.
///
/// # Errors
/// The kernel refuses for another reason.
pub fn adopt_orphans() -> Result<()> {
    match nix::sys::prctl::set_child_subreaper(true) {
        Err(Errno::EINVAL) => Ok(()),
        set => set.context(|| "become the reaper of orphaned processes".into()),
    }
}

/// What a guard calls itself (see [`become_guard`]).
const GUARD: &str = "pi-agent-guard";

/// Makes this process one that [`end_descendants`] asks to end and waits for, but never kills, nor what it started: it
/// keeps something of the machine's still. It also gives up what it inherited, the run lock above all.
///
/// # Errors
/// The kernel refuses.
pub fn become_guard() -> Result<()> {
    let doing = || "become a guard".to_owned();
    let name = CString::new(GUARD).context(doing)?;
    nix::sys::prctl::set_name(&name).context(doing)?;
    let open = std::fs::read_dir("/proc/self/fd").context(doing)?;
    let open: Vec<i32> = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|descriptor| *descriptor > 2) {
        // The one that listed them is closed already.
        let _ = nix::unistd::close(descriptor);
    }
    Ok(())
}

/// Ends every process below this one but `spared`: SIGTERM, up to `grace`, SIGKILL, which guards are spared. Needs
/// [`adopt_orphans`] to be complete.
pub fn end_descendants(grace: Duration, spared: Option<Pid>) {
    let below = || descendants().into_iter().filter(|process| Some(process.pid()) != spared);
    let descendants = || -> Vec<Pid> { below().map(|process| process.pid()).collect() };
    let started = Instant::now();
    for process in descendants() {
        // Each of these may have ended meanwhile, or stand still.
        let _ = kill(process, Signal::SIGTERM);
        let _ = kill(process, Signal::SIGCONT);
    }
    while !descendants().is_empty() && started.elapsed() < grace {
        std::thread::sleep(Duration::from_millis(20));
    }
    for _ in 0..100 {
        let left: Vec<Pid> = below().filter(|process| !process.guard).map(|process| process.pid()).collect();
        if left.is_empty() {
            return;
        }
        for process in left {
            let _ = kill(process, Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Makes that process and everything below it stand still, until [`go_on`]; which those are. None, when there is a guard
/// among them: then something of the machine's stands still already.
pub fn stand_still(first: Pid) -> Vec<Pid> {
    let mut stopped = Vec::new();
    // Some may have been born meanwhile, and a guard has its name only after a moment.
    for _ in 0..2 {
        let below = below(first.as_raw());
        if below.iter().any(|process| process.guard) {
            go_on(&stopped);
            return Vec::new();
        }
        for process in std::iter::once(first).chain(below.iter().map(Stat::pid)) {
            if !stopped.contains(&process) {
                // It may have ended meanwhile.
                let _ = kill(process, Signal::SIGSTOP);
                stopped.push(process);
            }
        }
    }
    stopped
}

/// Lets them go on.
pub fn go_on(stopped: &[Pid]) {
    for process in stopped {
        // It may have been killed meanwhile.
        let _ = kill(*process, Signal::SIGCONT);
    }
}

/// Bytes read and written by everything below this process so far, as a sign of life; 0 when `/proc` cannot tell.
pub fn descendants_io() -> u64 {
    descendants().iter().map(|process| process.io("rchar: ") + process.io("wchar: ")).sum()
}

/// Bytes read so far by that process and everything below it; what has ended is counted by who waited for it.
pub fn read_by(first: Pid) -> u64 {
    below(first.as_raw()).iter().chain(Stat::read(first.as_raw()).iter()).map(|process| process.io("rchar: ")).sum()
}

/// Every living process below this one, but those below a guard.
fn descendants() -> Vec<Stat> {
    below(nix::unistd::getpid().as_raw())
}

/// Every living process below that one, but those below a guard.
fn below(first: i32) -> Vec<Stat> {
    let processes = Stat::all();
    let mut found = vec![first];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        if !processes.iter().any(|process| process.pid == parent && process.guard) {
            found.extend(processes.iter().filter(|process| process.parent == parent).map(|process| process.pid));
        }
        next += 1;
    }
    processes.into_iter().filter(|process| process.alive && found[1..].contains(&process.pid)).collect()
}

/// That process and every living one below it, parents before their children.
pub fn family(first: Pid) -> Vec<Pid> {
    let processes = Stat::all();
    let mut found = vec![first.as_raw()];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(processes.iter().filter(|one| one.alive && one.parent == parent).map(|one| one.pid));
        next += 1;
    }
    found.into_iter().map(Pid::from_raw).collect()
}

/// What `/proc/PID/stat` says of a process.
struct Stat {
    pid: i32,
    alive: bool,
    /// It has been killed, or is on its way out, and only wants a processor for that: seconds on a busy machine, being last.
    doomed: bool,
    parent: i32,
    session: i32,
    guard: bool,
}

impl Stat {
    fn all() -> Vec<Self> {
        let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
        entries.filter_map(|entry| Self::read(entry.ok()?.file_name().to_str()?.parse().ok()?)).collect()
    }

    fn read(pid: i32) -> Option<Self> {
        Self::parse(pid, &std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(pid: i32, stat: &str) -> Option<Self> {
        /// `PF_EXITING` among the flags.
        const EXITING: u64 = 4;
        /// SIGKILL among the pending signals.
        const KILLED: u64 = 1 << 8;
        // pid (name, which may hold anything) state ppid pgrp session tty tpgid flags … signal …
        let (before, rest) = stat.rsplit_once(") ")?;
        let guard = before.split_once('(').is_some_and(|(_, name)| name == GUARD);
        let fields: Vec<_> = rest.split(' ').collect();
        let bits = |field: usize| fields.get(field).and_then(|bits| bits.parse::<u64>().ok()).unwrap_or_default();
        Some(Self {
            pid,
            alive: !matches!(*fields.first()?, "Z" | "X"),
            doomed: bits(6) & EXITING != 0 || bits(28) & KILLED != 0,
            parent: fields.get(1)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            guard,
        })
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.pid)
    }

    /// Its arguments hold that text.
    fn says(&self, text: &str) -> bool {
        let line = std::fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text)
    }

    /// A number of `/proc/PID/io`; 0 when it is not told.
    fn io(&self, name: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/io", self.pid)).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).unwrap_or_default()
    }
}

/// Ends every process of a session but its leader if that is this process: SIGTERM, a moment, SIGKILL. Returns when all are gone or zombies.
pub(super) fn end_session(session: Pid) {
    signal_session(session, Signal::SIGTERM);
    let started = Instant::now();
    while !living(session).is_empty() && started.elapsed() < GRACE {
        std::thread::sleep(Duration::from_millis(20));
    }
    for _ in 0..50 {
        if living(session).is_empty() {
            return;
        }
        signal_session(session, Signal::SIGKILL);
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Kills whatever has that text in its arguments and has outlived the leader of its session; returns when all of it is gone.
///
/// # Errors
/// Something does not go.
pub fn end_outliving(text: &str) -> Result<()> {
    for _ in 0..250 {
        let processes = Stat::all();
        let leads = |one: &Stat, session| one.alive && !one.doomed && one.pid == session;
        let led = |session| processes.iter().any(|process| leads(process, session));
        // Of a session elsewhere, in a container, the number is 0.
        let left = processes.iter().filter(|one| one.alive && one.session > 0 && !led(one.session));
        let left: Vec<Pid> = left.filter(|one| one.says(text)).map(Stat::pid).collect();
        if left.is_empty() {
            return Ok(());
        }
        for process in left {
            // It may have ended meanwhile.
            let _ = kill(process, Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(Error::transient("what an earlier run started does not end").hint(format!("pgrep -af -- '{text}'")))
}

/// Sends a signal to every living process of a session, this one excepted.
fn signal_session(session: Pid, signal: Signal) {
    for process in living(session) {
        // It may have ended meanwhile.
        let _ = kill(process, signal);
    }
}

/// The processes of a session that are no zombies, this one excepted.
fn living(session: Pid) -> Vec<Pid> {
    let own = nix::unistd::getpid().as_raw();
    let ours = |process: &Stat| process.alive && process.session == session.as_raw() && process.pid != own;
    Stat::all().into_iter().filter(ours).map(|process| Pid::from_raw(process.pid)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_has_been_killed_leads_nobody() {
        let line = |state: &str, flags: u64, pending: u64| {
            let between = "0 ".repeat(21);
            let stat = format!("7 (a name) with) ) {state} 3 7 5 0 -1 {flags} {between}{pending} 0 0 0 17");
            let stat = Stat::parse(7, &stat).expect("whole");
            assert_eq!((stat.parent, stat.session), (3, 5));
            (stat.alive, stat.doomed)
        };
        assert_eq!(line("S", 0x0040_0100, 0), (true, false));
        assert_eq!(line("S", 0x0040_0100, 1 << 14), (true, false), "it may live with SIGTERM");
        assert_eq!(line("R", 0x0040_0100, 1 << 8), (true, true));
        assert_eq!(line("R", 0x0040_0104, 0), (true, true));
        assert_eq!(line("Z", 0x0040_0104, 0), (false, true));
        assert!(!Stat::read(std::process::id().cast_signed()).expect("this one").doomed);
    }

    #[test]
    fn no_process_panics() {
        let own = std::fs::read_to_string("/proc/self/stat").expect("our own");
        crate::fuzzed::fuzz_text(&[&own], |stat| {
            let _ = Stat::parse(1, stat);
        });
    }
}
