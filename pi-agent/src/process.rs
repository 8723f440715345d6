//! The only file that starts processes: arguments, environment, user, deadline, session, the tail of stderr.
//!
//! Everything started here leads a session of its own. Ending a program means ending every process of its session,
//! found in `/proc`: pgBackRest's workers change groups and outlive a signal to their parent.

use std::collections::VecDeque;
use std::ffi::{CString, OsString};
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid};

use crate::error::{Context, Error, Kind, Result};
use crate::mounts::{Bind, Inside, View};

/// A program to run to its end.
#[derive(Clone, Debug)]
pub struct Program {
    /// Name or path.
    pub program: PathBuf,
    /// Arguments; never a secret.
    pub arguments: Vec<OsString>,
    /// The whole environment besides PATH, LANG and TZ, which [`Program::run`] sets.
    pub environment: Vec<(OsString, OsString)>,
    /// Run as this user, with its groups, when we are root.
    pub user: Option<User>,
    /// Working directory. Default `/`.
    pub directory: PathBuf,
    /// Files that it and what it starts find at other paths than everybody else.
    pub binds: Vec<Bind>,
    /// The container whose files and network it has instead of this machine's.
    pub inside: Option<Arc<Inside>>,
    /// Ended with everything it started when this is over.
    pub deadline: Duration,
}

/// An operating-system user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Login name; of a container's user that has none here, its uid.
    pub name: String,
    /// uid.
    pub uid: u32,
    /// Primary gid.
    pub gid: u32,
    /// All groups.
    pub groups: Vec<u32>,
}

/// Which stream a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// How a program ended.
#[derive(Debug)]
pub struct Output {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// Standard output, lossy UTF-8, its first 64 MiB.
    pub stdout: String,
    /// The last 16 KiB of standard error.
    pub stderr: String,
}

/// Starts this program anew with settings that keep it small, unless it has been; returns only when that is not possible.
/// They are read once, at the start, and from the environment: `mallopt` would be `unsafe` here.
///
/// * One allocator arena: glibc otherwise keeps one for each thread. A first backup takes 60–70 MiB with one and 96 with many,
///   a restore 52 and 200.
/// * Two processors, the last ones: rustic starts as many threads as it may use processors, and each holds pieces of files in a
///   first backup, and some 11 MiB in a check that reads all data. The others are left to others.
///   Where choosing them is not allowed, rayon's variable still bounds a check and a restore.
pub fn with_little_memory() {
    const ARENAS: &str = "MALLOC_ARENA_MAX";
    if std::env::var_os(ARENAS).is_none()
        && let Ok(program) = std::env::current_exe()
    {
        // It works with more, too.
        let _ = keep_to_two_processors();
        let arguments = std::env::args_os().skip(1);
        let _ = Command::new(program).args(arguments).env(ARENAS, "1").env("RAYON_NUM_THREADS", "2").exec();
    }
}

/// For itself and all that it starts.
fn keep_to_two_processors() -> nix::Result<()> {
    let this = Pid::from_raw(0);
    let (all, mut two) = (sched_getaffinity(this)?, CpuSet::new());
    let allowed = (0..CpuSet::count()).filter(|number| all.is_set(*number) == Ok(true)).collect::<Vec<_>>();
    for number in allowed.into_iter().rev().take(2) {
        two.set(number)?;
    }
    sched_setaffinity(this, &two)
}

/// Where programs are looked for: what Debian's cron and systemd use, so that a hand-started run finds the same ones.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const STDOUT_LIMIT: usize = 64 << 20;
const STDERR_TAIL: usize = 16 << 10;
/// What a program gets between SIGTERM and SIGKILL; the supervisor's own stop must fit into 10 s.
const GRACE: Duration = Duration::from_secs(4);

impl Program {
    /// A program with arguments; no environment, our own user, one minute.
    pub fn new<A: Into<OsString>>(program: impl Into<PathBuf>, arguments: impl IntoIterator<Item = A>) -> Self {
        Self {
            program: program.into(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
            user: None,
            directory: "/".into(),
            binds: Vec::new(),
            inside: None,
            deadline: Duration::from_secs(60),
        }
    }

    /// Sets the deadline.
    #[must_use]
    pub fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets the user.
    #[must_use]
    pub fn as_user(mut self, user: &User) -> Self {
        self.user = Some(user.clone());
        self
    }

    /// Shows it files at other paths than everybody else. Where the kernel refuses that, it does not start.
    #[must_use]
    pub fn seeing(mut self, binds: &[Bind]) -> Self {
        self.binds.extend_from_slice(binds);
        self
    }

    /// Adds an environment variable. The environment of a process is readable by its user: no secret of another's.
    #[must_use]
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((key.into(), value.into()));
        self
    }

    /// Runs it and waits; every line of both streams goes through `on_line` as it comes.
    /// At the deadline, and when this thread or process dies, everything it started ends.
    ///
    /// # Errors
    /// It could not be started (kind `NotFound` when there is no such program), or the deadline passed (`Transient`).
    /// A non-zero exit is not an error here.
    pub fn run(&self, on_line: &mut dyn FnMut(Stream, &str)) -> Result<Output> {
        let name = self.program.display();
        let mut child = self.spawn()?;
        let session = Pid::from_raw(child.id().cast_signed());
        let (sender, lines) = mpsc::channel();
        let out = child.stdout.take().map(|pipe| read_lines(pipe, Stream::Out, sender.clone()));
        let err = child.stderr.take().map(|pipe| read_lines(pipe, Stream::Err, sender));

        let started = Instant::now();
        let mut stdout = String::new();
        let mut tail = Tail::default();
        let mut take = |stream: Stream, line: String| {
            on_line(stream, line.trim_end_matches(['\n', '\r']));
            match stream {
                Stream::Out if stdout.len() + line.len() <= STDOUT_LIMIT => stdout.push_str(&line),
                Stream::Out => {}
                Stream::Err => tail.push(line),
            }
        };
        let status = loop {
            match lines.recv_timeout(Duration::from_millis(100)) {
                Ok((stream, line)) => take(stream, line),
                // Both pipes are closed; without this pause a program that closed them early would be polled hotly.
                Err(mpsc::RecvTimeoutError::Disconnected) => std::thread::sleep(Duration::from_millis(5)),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
            if let Some(status) = child.try_wait().context(|| format!("wait for {name}"))? {
                break Some(status);
            }
            if started.elapsed() >= self.deadline {
                break None;
            }
        };
        // A worker that outlived its parent would keep our pipes open for ever.
        end_session(session);
        let ended = match status {
            Some(status) => Ok(status),
            None => {
                child.wait().context(|| format!("wait for {name}"))?;
                Err(Error::transient(format!("{name} did not finish within {} s", self.deadline.as_secs())))
            }
        };
        for (stream, line) in lines {
            take(stream, line);
        }
        for reader in [out, err].into_iter().flatten() {
            // A reader cannot panic: it only forwards.
            let _ = reader.join();
        }
        Ok(Output { status: ended?, stdout, stderr: tail.text() })
    }

    /// Starts it for what it writes to standard output, which may be more than fits anywhere.
    /// Read it to its end on this thread: the program dies with the thread that started it.
    ///
    /// # Errors
    /// It could not be started (kind `NotFound` when there is no such program).
    pub fn pipe(&self, patience: Duration) -> Result<Piped> {
        let mut child = self.spawn()?;
        let stdout = child.stdout.take().expect("it was asked for");
        let stderr = child.stderr.take().map(|pipe| std::thread::spawn(move || Tail::of(pipe)));
        let name = self.program.display().to_string();
        let deadline = Instant::now().checked_add(self.deadline);
        Ok(Piped { name, child, stdout, stderr, deadline, patience, ended: false })
    }

    fn spawn(&self) -> Result<Child> {
        self.command()?.spawn().map_err(|error| {
            let kind = match error.kind() {
                io::ErrorKind::NotFound => Kind::NotFound,
                _ => Kind::Permanent,
            };
            Error::new(format!("start {}", self.program.display())).kind_of(kind).caused_by(error)
        })
    }

    fn command(&self) -> Result<Command> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .env("PATH", PATH)
            .env("LANG", "C.UTF-8")
            .envs(std::env::var_os("TZ").map(|zone| ("TZ", zone)))
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if !self.binds.is_empty() {
            // While it may: as root, if we are.
            enter(&mut command, View::of(&self.binds)?);
        }
        let user = self.user.as_ref().filter(|_| Uid::effective().is_root());
        lead(&mut command, user, Orphaned::Dies, self.inside.clone());
        Ok(command)
    }
}

/// A running program and its standard output. Its end is an end only after exit code 0: anything else is an error (an
/// [`Error`] inside an [`io::Error`]), so that half of an output never passes for the whole.
pub struct Piped {
    name: String,
    child: Child,
    stdout: ChildStdout,
    stderr: Option<JoinHandle<Tail>>,
    deadline: Option<Instant>,
    patience: Duration,
    ended: bool,
}

impl Read for Piped {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        self.wait_for_output().map_err(io::Error::other)?;
        let length = self.stdout.read(buffer)?;
        if length == 0 {
            self.finish().map_err(io::Error::other)?;
        }
        Ok(length)
    }
}

impl Piped {
    fn wait_for_output(&self) -> Result<()> {
        let waiting = Instant::now();
        loop {
            let mut pipe = [PollFd::new(self.stdout.as_fd(), PollFlags::POLLIN)];
            match poll(&mut pipe, PollTimeout::from(1000_u16)) {
                Ok(0) | Err(Errno::EINTR) => self.check_time(waiting)?,
                Ok(_) => return Ok(()),
                Err(error) => return Err(Error::new(format!("wait for {}", self.name)).caused_by(error)),
            }
        }
    }

    fn check_time(&self, waiting: Instant) -> Result<()> {
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(Error::transient(format!("{} did not finish in time", self.name)).kind_of(Kind::OutOfTime));
        }
        if waiting.elapsed() >= self.patience {
            return Err(Error::transient(format!("{} was silent for {} s", self.name, self.patience.as_secs())));
        }
        Ok(())
    }

    /// Its output is over; was it good?
    fn finish(&mut self) -> Result<()> {
        let waiting = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().context(|| format!("wait for {}", self.name))? {
                break status;
            }
            self.check_time(waiting)?;
            std::thread::sleep(Duration::from_millis(5));
        };
        let said = self.end();
        if status.success() {
            return Ok(());
        }
        let said = said.trim();
        Err(Error::new(format!("{} ended with {status}{}{said}", self.name, if said.is_empty() { "" } else { ": " })))
    }

    /// Ends whatever is left of it; the tail of its standard error.
    fn end(&mut self) -> String {
        self.ended = true;
        end_session(Pid::from_raw(self.child.id().cast_signed()));
        // Dead by now; this only buries it.
        let _ = self.child.wait();
        self.stderr.take().and_then(|reader| reader.join().ok()).map(Tail::text).unwrap_or_default()
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        if !self.ended {
            self.end();
        }
    }
}

/// What becomes of a process whose parent dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orphaned {
    /// The kernel kills it.
    Dies,
    /// It finds out by itself and cleans up (a step's process, which must also end what it started). Should it stand still
    /// then, the kernel lets it go on.
    CleansUp,
}

/// Makes `command` see what `view` shows.
#[allow(unsafe_code)]
fn enter(command: &mut Command, view: View) {
    // SAFETY: between fork and exec only system calls are made, on memory prepared before the fork.
    unsafe {
        command.pre_exec(move || view.enter());
    }
}

/// Makes `command` lead a session of its own.
pub fn lead_session(command: &mut Command, orphaned: Orphaned) {
    lead(command, None, orphaned, None);
}

/// The same, as `user` and in a container when given.
#[allow(unsafe_code)]
fn lead(command: &mut Command, user: Option<&User>, orphaned: Orphaned, inside: Option<Arc<Inside>>) {
    let user = user.cloned();
    let parent = nix::unistd::getpid();
    // SAFETY: between fork and exec only async-signal-safe calls are made, on memory prepared before the fork.
    unsafe {
        command.pre_exec(move || {
            nix::unistd::setsid()?;
            group_by_niceness();
            if let Some(inside) = &inside {
                inside.enter()?;
                // What its image has of programs that make root of their user does not do that for it.
                nix::sys::prctl::set_no_new_privs()?;
            }
            if let Some(user) = &user {
                // Through libc: nix would need a slice of its own type, and so an allocation.
                if libc::setgroups(user.groups.len(), user.groups.as_ptr()) != 0 {
                    return Err(io::Error::last_os_error());
                }
                nix::unistd::setgid(Gid::from_raw(user.gid))?;
                nix::unistd::setuid(Uid::from_raw(user.uid))?;
            }
            // After setuid, which clears it.
            let signal = if orphaned == Orphaned::Dies { libc::SIGKILL } else { libc::SIGCONT };
            if libc::prctl(libc::PR_SET_PDEATHSIG, signal) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before the line above took effect.
            if orphaned == Orphaned::Dies && nix::unistd::getppid() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
}

/// How soon a program's turn comes where it competes with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Last for processors and disks; what it starts inherits that.
    Last,
    /// As anybody else, if we may say so.
    Ordinary,
}

/// Gives `command`, which leads a session already, that priority. Where the kernel refuses it works all the same.
#[allow(unsafe_code)]
pub fn prioritise(command: &mut Command, priority: Priority) {
    /// `IOPRIO_WHO_PROCESS`; the class of a priority is in its upper three bits: 2 best effort, 3 idle.
    const PROCESS: libc::c_int = 1;
    let (nice, policy, disk) = match priority {
        Priority::Last => (19, libc::SCHED_BATCH, 3 << 13),
        Priority::Ordinary => (0, libc::SCHED_OTHER, 2 << 13 | 4),
    };
    // SAFETY: between fork and exec only system calls are made, on memory prepared before the fork.
    unsafe {
        command.pre_exec(move || {
            libc::setpriority(libc::PRIO_PROCESS, 0, nice);
            libc::sched_setscheduler(0, policy, &libc::sched_param { sched_priority: 0 });
            libc::syscall(libc::SYS_ioprio_set, PROCESS, 0, disk);
            group_by_niceness();
            Ok(())
        });
    }
}

/// Where the kernel groups processes by session, their niceness counts only within it, and that of a new session is 0 whoever
/// leads it. 13 is five parts in a hundred of a processor that another session wants, too: what is last must end some day.
#[allow(unsafe_code)]
fn group_by_niceness() {
    // SAFETY: system calls on constants. What they refuse stays as it is.
    unsafe {
        let word = if libc::getpriority(libc::PRIO_PROCESS, 0) == 19 { c"13" } else { c"0" };
        let file = libc::open(c"/proc/self/autogroup".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if file >= 0 {
            libc::write(file, word.as_ptr().cast(), word.count_bytes());
            libc::close(file);
        }
    }
}

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

/// Does `work` when SIGTERM comes, on a thread of its own, instead of ending.
///
/// # Errors
/// The handler or the thread cannot be set up.
pub fn on_sigterm(work: impl FnOnce() + Send + 'static) -> Result<()> {
    let doing = || "listen for SIGTERM".to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().context(doing)?;
    let mut term = {
        let _inside = runtime.enter();
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).context(doing)?
    };
    let wait = move || {
        runtime.block_on(term.recv());
        work();
    };
    std::thread::Builder::new().name("sigterm-watch".into()).spawn(wait).map(drop).context(doing)
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

/// Bytes of memory that the largest of this process and those it has waited for had at its peak.
pub fn peak_memory() -> u64 {
    let of = |who| getrusage(who).map_or(0, |usage| usage.max_rss().cast_unsigned() << 10);
    of(UsageWho::RUSAGE_SELF).max(of(UsageWho::RUSAGE_CHILDREN))
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
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // pid (name, which may hold anything) state ppid pgrp session …
        let (before, rest) = stat.rsplit_once(") ")?;
        let guard = before.split_once('(').is_some_and(|(_, name)| name == GUARD);
        let mut fields = rest.split(' ');
        let alive = !matches!(fields.next()?, "Z" | "X");
        let parent = fields.next()?.parse().ok()?;
        let session = fields.nth(1)?.parse().ok()?;
        Some(Self { pid, alive, parent, session, guard })
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.pid)
    }

    /// A number of `/proc/PID/io`; 0 when it is not told.
    fn io(&self, name: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/io", self.pid)).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).unwrap_or_default()
    }
}

/// Ends every process of a session but its leader if that is this process: SIGTERM, a moment, SIGKILL. Returns when all are gone or zombies.
fn end_session(session: Pid) {
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

fn read_lines(
    pipe: impl Read + Send + 'static,
    stream: Stream,
    lines: mpsc::Sender<(Stream, String)>,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            if lines.send((stream, String::from_utf8_lossy(&line).into_owned())).is_err() {
                return;
            }
            line.clear();
        }
    })
}

/// The last lines of a stream, up to [`STDERR_TAIL`] bytes.
#[derive(Default)]
struct Tail {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Tail {
    fn of(pipe: impl Read) -> Self {
        let mut tail = Self::default();
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            tail.push(String::from_utf8_lossy(&line).into_owned());
            line.clear();
        }
        tail
    }

    fn push(&mut self, line: String) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.bytes > STDERR_TAIL && self.lines.len() > 1 {
            self.bytes -= self.lines.pop_front().map_or(0, |line| line.len());
        }
    }

    fn text(self) -> String {
        self.lines.into_iter().collect()
    }
}

impl User {
    /// The owner of a path.
    ///
    /// # Errors
    /// The path cannot be looked at, or its owner has no name.
    pub fn owner_of(path: &Path) -> Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let uid = path.metadata().context(|| format!("look at {}", path.display()))?.uid();
        Self::look_up(nix::unistd::User::from_uid(Uid::from_raw(uid)), &format!("uid {uid}"))
    }

    /// The owner of a container's path: with the path's own group and no other, and perhaps without a name here.
    ///
    /// # Errors
    /// The path cannot be looked at.
    pub fn in_container_owning(path: &Path) -> Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let metadata = path.metadata().context(|| format!("look at {}", path.display()))?;
        let (uid, gid) = (metadata.uid(), metadata.gid());
        let known = nix::unistd::User::from_uid(Uid::from_raw(uid)).context(|| format!("look up user {uid}"))?;
        Ok(Self { name: known.map_or_else(|| uid.to_string(), |user| user.name), uid, gid, groups: vec![gid] })
    }

    /// It has no name on this machine.
    pub fn is_nameless(&self) -> bool {
        self.name == self.uid.to_string()
    }

    /// The user of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn named(name: &str) -> Result<Self> {
        Self::look_up(nix::unistd::User::from_name(name), name)
    }

    fn look_up(found: nix::Result<Option<nix::unistd::User>>, what: &str) -> Result<Self> {
        let user = found
            .context(|| format!("look up user {what}"))?
            .ok_or_else(|| Error::new(format!("there is no user for {what}")).hint("see getent passwd"))?;
        let name = CString::new(user.name.as_str()).context(|| format!("look up user {what}"))?;
        let groups =
            nix::unistd::getgrouplist(&name, user.gid).context(|| format!("look up the groups of {}", user.name))?;
        Ok(Self {
            name: user.name,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            groups: groups.into_iter().map(Gid::as_raw).collect(),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        Program::new("sh", ["-c", script])
    }

    #[test]
    fn output_of_both_streams_and_the_exit_code_come_back() {
        let mut seen = Vec::new();
        let output = shell("echo one; echo two >&2; exit 7")
            .run(&mut |stream, line| seen.push((stream, line.to_owned())))
            .unwrap();
        assert_eq!(output.status.code(), Some(7));
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("one\n", "two\n"));
        seen.sort_by_key(|(stream, _)| *stream == Stream::Err);
        assert_eq!(seen, [(Stream::Out, "one".into()), (Stream::Err, "two".into())]);
    }

    #[test]
    fn a_missing_program_is_not_found() {
        let error = Program::new("no-such-program", [""; 0]).run(&mut |_, _| ()).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
    }

    #[test]
    fn the_deadline_ends_everything_it_started() {
        let marker = format!("{}", 100_000 + std::process::id());
        let script = format!("sleep {marker} & trap '' TERM; sleep {marker}");
        let started = Instant::now();
        let error = shell(&script).within(Duration::from_millis(300)).run(&mut |_, _| ()).unwrap_err();
        assert_eq!(error.kind(), Kind::Transient);
        assert!(started.elapsed() < Duration::from_secs(30));
        assert!(
            !Program::new("pgrep", ["-f", &format!("sleep {marker}")]).run(&mut |_, _| ()).unwrap().status.success()
        );
    }

    fn piped(script: &str, deadline: Duration, patience: Duration) -> (String, Option<String>) {
        let mut pipe = shell(script).within(deadline).pipe(patience).unwrap();
        let mut text = String::new();
        let error = pipe.read_to_string(&mut text).err().map(|error| error.to_string());
        (text, error)
    }

    #[test]
    fn piped_output_ends_well_only_with_exit_code_0() {
        let long = Duration::from_secs(60);
        assert_eq!(piped("echo one; echo two", long, long), ("one\ntwo\n".into(), None));
        let (text, error) = piped("echo half; echo broken >&2; exit 1", long, long);
        assert_eq!((text.as_str(), error.as_deref()), ("half\n", Some("sh ended with exit status: 1: broken")));
        let (_, error) = piped("echo half; kill -9 $$", long, long);
        assert!(error.unwrap().contains("signal: 9"));
    }

    #[test]
    fn piped_output_that_stops_coming_is_an_error_and_the_program_ends() {
        let (long, short) = (Duration::from_secs(60), Duration::from_millis(300));
        let marker = format!("{}", 200_000 + std::process::id());
        let script = format!("echo half; sleep {marker}");
        assert_eq!(piped(&script, long, short).1.as_deref(), Some("sh was silent for 0 s"));
        assert_eq!(piped(&script, short, long).1.as_deref(), Some("sh did not finish in time"));
        assert_eq!(
            piped(&format!("exec >&-; sleep {marker}"), long, short).1.as_deref(),
            Some("sh was silent for 0 s")
        );
        assert!(
            !Program::new("pgrep", ["-f", &format!("sleep {marker}")]).run(&mut |_, _| ()).unwrap().status.success()
        );
    }

    #[test]
    fn a_child_that_keeps_the_pipe_does_not_keep_us() {
        let started = Instant::now();
        let output = shell("sleep 1000 & echo done").run(&mut |_, _| ()).unwrap();
        assert_eq!(output.stdout, "done\n");
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn secrets_of_our_environment_are_not_handed_on() {
        let output = shell("env").env("GIVEN", "yes").run(&mut |_, _| ()).unwrap();
        let mut names: Vec<&str> = output.stdout.lines().filter_map(|line| line.split('=').next()).collect();
        names.retain(|name| !matches!(*name, "PATH" | "LANG" | "TZ" | "PWD" | "SHLVL" | "_" | "OLDPWD"));
        assert_eq!(names, ["GIVEN"]);
    }
}
