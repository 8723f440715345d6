//! This process: kept small, measured, and told to end.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::task::Poll;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, UsageWho, getrusage, setrlimit};
use nix::unistd::{Pid, geteuid};
use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Context, Result};

/// Starts this program anew with settings that keep it small, unless it has been; returns only when that is not possible.
/// They are read once, at the start, and from the environment: `mallopt` would be `unsafe` here.
///
/// * One allocator arena: glibc otherwise keeps one for each thread. A first backup takes 60–70 MiB with one and 96 with many,
///   a restore 52 and 200.
/// * Two processors, the last ones: rustic starts as many threads as it may use processors, and each holds pieces of files in a
///   first backup. The others are left to others. Where choosing them is not allowed, rayon's variable still bounds a restore.
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

/// No image of the memory of this process, or of one that it starts, is ever written: keys are in there.
pub fn without_core_files() {
    // Nobody keeps a process from asking for less. A limit does not hold for a program that takes core files by a pipe, and who is not
    // root needs its own `/proc`.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    if geteuid().is_root() {
        let _ = set_dumpable(false);
    }
}

/// For a process that is started: it gives back at once what it frees, a buffer of a quarter of a MiB too. An unchanged night of 50,000 files takes
/// 15 MiB with it from a bucket, 16 with a MiB, and 17 without; what moves much data, as a first backup, is slower with it.
pub const GIVES_BACK: [(&str, &str); 2] = [("MALLOC_MMAP_THRESHOLD_", "262144"), ("MALLOC_TRIM_THRESHOLD_", "262144")];

/// For a process that makes a first backup into a bucket: what a piece of a file is compressed into has room for 2 MiB, and that much is given back at once, so
/// that it only takes what it needs; whatever is smaller is kept for what comes. It takes 4 MiB less so, for a fiftieth of the processor time.
pub const MOVES_MUCH: [(&str, &str); 2] =
    [("MALLOC_MMAP_THRESHOLD_", "2097152"), ("MALLOC_TRIM_THRESHOLD_", "67108864")];

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

/// Does `work` when SIGTERM comes, on a thread of its own, instead of ending.
///
/// # Errors
/// The handler or the thread cannot be set up.
pub fn on_sigterm(work: impl FnOnce() + Send + 'static) -> Result<()> {
    on_signals(&[SignalKind::terminate()], move |_| work())
}

/// Does `work`, with the signal's number, when this process is to end: by SIGTERM, SIGINT, or because its terminal is gone.
///
/// # Errors
/// The handler or the thread cannot be set up.
pub fn on_end(work: impl FnOnce(i32) + Send + 'static) -> Result<()> {
    let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
    // Started by nohup, it is to outlive its terminal.
    let kinds = if ignores_hangup() { &kinds[..2] } else { &kinds };
    on_signals(kinds, work)
}

fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 != 0)
}

/// SIGHUP no longer ends this process: restic sends it to whoever holds a lock, to see whether he lives.
///
/// # Errors
/// The handler cannot be set up.
pub fn survive_hangup() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().context(listening)?;
    let _inside = runtime.enter();
    // The handler outlives what it is asked for with.
    signal(SignalKind::hangup()).map(drop).context(listening)
}

fn listening() -> String {
    "listen for signals".to_owned()
}

fn on_signals(kinds: &[SignalKind], work: impl FnOnce(i32) + Send + 'static) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().context(listening)?;
    let mut signals = {
        let _inside = runtime.enter();
        let listen = |kind: &SignalKind| Ok((kind.as_raw_value(), signal(*kind)?));
        kinds.iter().map(listen).collect::<std::io::Result<Vec<_>>>().context(listening)?
    };
    let had_terminal = has_terminal();
    let wait = move || {
        loop {
            let next = std::future::poll_fn(|context| {
                let mut came = signals
                    .iter_mut()
                    .filter_map(|(number, signal)| signal.poll_recv(context).is_ready().then_some(*number));
                came.next().map_or(Poll::Pending, Poll::Ready)
            });
            let number = runtime.block_on(next);
            let terminal_is_gone = had_terminal && !has_terminal();
            // Else it is restic that asks.
            if number != libc::SIGHUP || terminal_is_gone {
                return work(number);
            }
        }
    };
    std::thread::Builder::new().name("signal-watch".into()).spawn(wait).map(drop).context(listening)
}

/// Whether this process has a terminal that can still be opened.
fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

/// Bytes of memory that the largest of this process and those it has waited for had at its peak.
pub fn peak_memory() -> u64 {
    let of = |who| getrusage(who).map_or(0, |usage| usage.max_rss().cast_unsigned() << 10);
    of(UsageWho::RUSAGE_SELF).max(of(UsageWho::RUSAGE_CHILDREN))
}
