//! A program that is somebody else's, or works on what somebody else has written: that of a container's image, or a server on restored
//! data. It runs where it reaches nobody: it knows only the processes that it starts, which end with it, has no network, gains no
//! privileges, and the kernel refuses it whatever no server needs.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_no_new_privs;
use nix::unistd::getpid;

use super::system_calls::Filter;
use crate::error::{Error, Result};

/// What a process in a container sees, for a program of ours that is to see the same.
#[derive(Debug)]
pub struct Inside {
    processes: File,
    rest: [(CloneFlags, File); 4],
}

impl Inside {
    /// That of this process.
    ///
    /// # Errors
    /// It has ended, or we are not root.
    pub fn of(pid: u32) -> Result<Self> {
        let open = |name: &str| {
            let path = format!("/proc/{pid}/ns/{name}");
            File::open(&path)
                .map_err(|error| Error::new(format!("open {path}")).hint("run pi-agent as root").caused_by(error))
        };
        Ok(Self {
            processes: open("pid")?,
            // Its files come last: what they hold is no longer this machine's.
            rest: [
                (CloneFlags::CLONE_NEWNET, open("net")?),
                (CloneFlags::CLONE_NEWIPC, open("ipc")?),
                (CloneFlags::CLONE_NEWUTS, open("uts")?),
                (CloneFlags::CLONE_NEWNS, open("mnt")?),
            ],
        })
    }
}

/// Where a program runs.
#[derive(Clone, Debug, Default)]
pub enum Place {
    /// As we do.
    #[default]
    Here,
    /// With this machine's files and nothing else of it. To who is not root, or where the kernel refuses a part of that, what is left
    /// holds.
    Alone,
    /// In a container.
    Inside(Arc<Inside>),
}

impl Place {
    /// Starts a child in its namespace of processes: that is said by the thread that forks, before it forks, and taken back after.
    pub(super) fn bear(&self, start: impl FnOnce() -> io::Result<Child>) -> io::Result<Child> {
        let own = File::open("/proc/self/ns/pid");
        match self {
            Self::Here => return start(),
            Self::Inside(inside) => setns(&inside.processes, CloneFlags::CLONE_NEWPID)?,
            Self::Alone if own.is_err() || unshare(CloneFlags::CLONE_NEWPID).is_err() => return start(),
            Self::Alone => {}
        }
        let born = start();
        match own.and_then(|own| Ok(setns(own, CloneFlags::CLONE_NEWPID)?)) {
            Ok(()) => born,
            Err(error) => {
                if let Ok(mut child) = born {
                    let _ = child.kill();
                    let _ = child.wait();
                }
                Err(error)
            }
        }
    }

    /// What a child needs to go there; alone, it reaches so much.
    pub(super) fn way(&self, reach: &Reach) -> io::Result<Way> {
        let text = |path: &Path| Ok::<_, io::Error>(CString::new(path.as_os_str().as_bytes())?);
        let both = |(from, at): &(PathBuf, PathBuf)| Ok::<_, io::Error>((text(from)?, text(at)?));
        Ok(Way {
            place: self.clone(),
            writes: reach.writes.iter().map(|path| text(path)).collect::<io::Result<_>>()?,
            instead: reach.instead.iter().map(both).collect::<io::Result<_>>()?,
            filter: Filter::new(),
            parent: parent(),
        })
    }
}

/// What a program reaches that runs alone.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// All that it may write to, when there is any; else what its user may.
    pub writes: Vec<PathBuf>,
    /// Directories that it finds in the place of others, and may write to. Where that cannot be, it does not start.
    pub instead: Vec<(PathBuf, PathBuf)>,
}

/// Prepared before the fork: between fork and exec only system calls are made.
pub(super) struct Way {
    place: Place,
    writes: Vec<CString>,
    instead: Vec<(CString, CString)>,
    filter: Filter,
    parent: Option<OwnedFd>,
}

impl Way {
    /// As long as it is root, if it is.
    pub fn enter(&self) -> io::Result<()> {
        match &self.place {
            Place::Here => return Ok(()),
            Place::Alone => {
                let _ = unshare(CloneFlags::CLONE_NEWNET);
                let _ = unshare(CloneFlags::CLONE_NEWIPC);
                // The first of its namespace: `/proc` would show this machine's processes.
                if getpid().as_raw() == 1 && unshare(CloneFlags::CLONE_NEWNS).is_ok() {
                    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
                    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)?;
                    self.limit_files()?;
                    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
                    let _ = mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>);
                } else if !self.instead.is_empty() {
                    return Err(Errno::EPERM.into());
                }
            }
            Place::Inside(inside) => {
                for (kind, namespace) in &inside.rest {
                    setns(namespace, *kind)?;
                }
            }
        }
        keep_no_files();
        // What there is of programs that make root of their user does not do that for it.
        Ok(set_no_new_privs()?)
    }

    /// In a mount namespace of its own.
    fn limit_files(&self) -> io::Result<()> {
        let bind = |from: &CStr, at: &CStr| {
            mount(Some(from), at, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        };
        for (from, at) in &self.instead {
            match bind(from, at) {
                // What is not there cannot be reached.
                Err(Errno::ENOENT) => {}
                done => done?,
            }
        }
        if self.writes.is_empty() {
            return Ok(());
        }
        for path in &self.writes {
            bind(path, path)?;
        }
        // Kernels before 5.12 cannot.
        if set_read_only(c"/", true).is_ok() {
            for path in self.writes.iter().chain(self.instead.iter().map(|(_, at)| at)) {
                match set_read_only(path, false) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    done => done?,
                }
            }
            // Its memory that processes share.
            let _ = set_read_only(c"/dev/shm", false);
        }
        Ok(())
    }

    /// When it is nobody but its user any more.
    pub fn give_up_calls(&mut self) -> io::Result<()> {
        match self.place {
            Place::Here => Ok(()),
            _ => self.filter.apply(),
        }
    }

    /// Whoever started it lives. In its namespace it has no parent, and could not tell.
    pub fn has_parent(&self) -> bool {
        let Some(parent) = &self.parent else { return true };
        let mut ended = libc::pollfd { fd: parent.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        poll_now(&mut ended) == 0
    }
}

/// What this program was itself started with, by a shell for example, is closed as its own files are.
#[allow(unsafe_code)]
fn keep_no_files() {
    // SAFETY: a system call on numbers. Nothing is closed before the program is another.
    unsafe {
        libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed());
    }
}

/// Of all that is mounted there and below.
#[allow(unsafe_code)]
fn set_read_only(path: &CStr, read_only: bool) -> io::Result<()> {
    /// `struct mount_attr` of Linux: what to set, what to clear.
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        users: u64,
    }
    const READ_ONLY: u64 = 1;
    let (set, clear) = if read_only { (READ_ONLY, 0) } else { (0, READ_ONLY) };
    let attributes = Attributes { set, clear, propagation: 0, users: 0 };
    // SAFETY: a path and a structure that live longer than the call, which is told how long it is.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[allow(unsafe_code)]
fn poll_now(file: &mut libc::pollfd) -> i32 {
    // SAFETY: one structure, which lives longer than the call.
    unsafe { libc::poll(file, 1, 0) }
}

/// This process, for who comes after it; nothing where the kernel has no such thing.
#[allow(unsafe_code)]
fn parent() -> Option<OwnedFd> {
    // SAFETY: a system call on numbers; what it opens is nobody else's.
    unsafe {
        let opened = libc::syscall(libc::SYS_pidfd_open, getpid().as_raw(), 0);
        RawFd::try_from(opened).ok().filter(|file| *file >= 0).map(|file| OwnedFd::from_raw_fd(file))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use nix::unistd::Uid;

    use super::Reach;
    use crate::process::Program;

    fn confined(script: &str) -> (Option<i32>, String) {
        let output = Program::new("sh", ["-c", script]).confined().run(&mut |_, _| ()).unwrap();
        (output.status.code(), output.stdout + &output.stderr)
    }

    #[test]
    fn it_reaches_nobody_and_gains_nothing() {
        let (_, status) = confined("cat /proc/self/status");
        assert!(status.contains("NoNewPrivs:\t1\n") && status.contains("Seccomp:\t2\n"), "{status}");
        for refused in ["unshare --user true", "unshare --mount true", "mount -t tmpfs tmpfs /mnt", "setarch -R true"] {
            let (code, said) = confined(refused);
            assert_ne!(code, Some(0), "{refused}");
            assert!(said.contains("not permitted") || said.contains("denied"), "{refused}: {said}");
        }
        if !Uid::effective().is_root() {
            return;
        }
        let own = std::process::id();
        assert_eq!(confined("echo $$; ls -d /proc/[1-9]*; tail -n +3 /proc/net/dev | grep -v lo:").1, "1\n/proc/1\n");
        assert_ne!(confined(&format!("kill -0 {own}")).0, Some(0));
    }

    #[test]
    fn it_writes_where_it_may_and_finds_one_directory_in_the_place_of_another() {
        if !Uid::effective().is_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        ["data", "live", "copy"].iter().for_each(|name| std::fs::create_dir(path(name)).unwrap());
        std::fs::write(path("live/file"), "live").unwrap();
        let script = "touch data/made; touch made; cat live/file; touch live/made; chmod 700 live";
        let program = Program { directory: root.path().into(), ..Program::new("sh", ["-c", script]) };
        let instead = vec![(path("copy"), path("live")), (path("copy"), path("not there"))];
        let reach = Reach { writes: vec![path("data")], instead };
        let output = program.confined().reaching(reach).run(&mut |_, _| ()).unwrap();
        let refused: Vec<_> = output.stderr.lines().map(|line| line.rsplit(": ").next().unwrap()).collect();
        assert_eq!(
            (refused, output.status.code()),
            (vec!["Read-only file system", "No such file or directory"], Some(0))
        );
        assert!(
            path("data/made").exists()
                && path("copy/made").exists()
                && !path("live/made").exists()
                && !path("made").exists()
        );
    }

    #[test]
    fn what_it_started_ends_with_it_and_we_go_on_as_before() {
        let marker = format!("{}", 300_000 + std::process::id());
        let (code, said) = confined(&format!("setsid sleep {marker} >/dev/null 2>&1 & sleep 0.2; exit 7"));
        assert_eq!((code, said.as_str()), (Some(7), ""));
        let found = Program::new("pgrep", ["-f", &format!("sleep {marker}")]).run(&mut |_, _| ()).unwrap();
        assert!(!Uid::effective().is_root() || !found.status.success(), "{}", found.stdout);
        let here = Program::new("sh", ["-c", "readlink /proc/self/ns/pid"]).run(&mut |_, _| ()).unwrap();
        let ours = std::fs::read_link("/proc/self/ns/pid").unwrap();
        assert_eq!(here.stdout.trim_end(), ours.to_str().unwrap());
    }
}
