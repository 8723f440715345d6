//! What a process is between fork and exec: its session, user, priority, and what it sees. All that is `unsafe` is here.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::unistd::{Gid, Uid};

use super::User;
use super::confined::Way;
use crate::mounts::View;

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
pub(super) fn enter(command: &mut Command, view: View) {
    // SAFETY: between fork and exec only system calls are made, on memory prepared before the fork.
    unsafe {
        command.pre_exec(move || view.enter());
    }
}

/// Makes `command` lead a session of its own.
pub fn lead_session(command: &mut Command, orphaned: Orphaned) {
    lead(command, None, orphaned, None);
}

/// The same, as `user` when given, and that way to its place, which whoever starts it must know too.
#[allow(unsafe_code)]
pub(super) fn lead(command: &mut Command, user: Option<&User>, orphaned: Orphaned, mut way: Option<Way>) {
    let user = user.cloned();
    let parent = nix::unistd::getpid();
    // SAFETY: between fork and exec only async-signal-safe calls are made, on memory prepared before the fork.
    unsafe {
        command.pre_exec(move || {
            nix::unistd::setsid()?;
            group_by_niceness();
            way.as_ref().map_or(Ok(()), Way::enter)?;
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
            // The parent may have died before the line above took effect. In a namespace of its own a process has none, as it seems.
            let seen = nix::unistd::getppid();
            let orphan = match &way {
                Some(way) if seen.as_raw() == 0 => !way.has_parent(),
                _ => seen != parent,
            };
            if orphaned == Orphaned::Dies && orphan {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            way.as_mut().map_or(Ok(()), Way::give_up_calls)
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
