//! A view of the file system that nobody else has: what runs in it finds directories at other paths than they have.

use std::ffi::{CStr, CString};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, write};

use crate::error::{Context, Error, Result};
use crate::theirs;

/// A file or directory that is to be seen at another path, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Where it is.
    pub from: PathBuf,
    /// Where it is to be seen. A directory is made there when there is nothing, and removed afterwards.
    pub at: PathBuf,
}

/// Does the work in a thread with a mount namespace of its own, in which the binds hold: for it and what it starts, for
/// nobody else. However it ends, the kernel takes the mounts away. All who do this at the same time name the same
/// directory as `lock`.
///
/// # Errors
/// The namespace or a mount is refused; else what the work returns.
pub fn privately<T: Send>(lock: &Path, binds: &[Bind], work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            leave_the_others()?;
            let lock = File::open(lock).context(|| format!("open {}", lock.display()))?;
            lock.lock_shared().context(|| "wait for other mounts".into())?;
            let mut mounted = Mounted { lock, places: Vec::new(), made: Vec::new() };
            for bind in binds {
                mounted.add(bind)?;
            }
            work()
        });
        // A panic goes on as one.
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Takes mounts away from this thread and the threads that it starts, and from nobody else.
///
/// # Errors
/// The namespace is refused, or the kernel keeps one of them.
pub fn put_aside(places: &[PathBuf]) -> Result<()> {
    if places.is_empty() {
        return Ok(());
    }
    leave_the_others()?;
    places.iter().try_for_each(|place| {
        umount2(place, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
            .context(|| format!("look past what is mounted at {}", place.display()))
    })
}

/// Does the work where that user reaches those directories. One who may not pass through what is above them (`/root`,
/// `/var/lib/docker`) passes through empty directories in its place, which nobody else sees.
///
/// # Errors
/// The namespace or a mount is refused; else what the work returns.
pub fn within_reach<T: Send>(
    lock: &Path,
    directories: &[&Path],
    uid: u32,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    let closed = directories.iter().filter_map(|directory| closed_above(directory, uid));
    let Some(closed) = closed.min_by_key(|path| path.as_os_str().len()) else { return work() };
    privately(lock, &[], || {
        let doing = |directory: &Path| format!("let user {uid} reach {}", directory.display());
        let open = |directory: &&Path| theirs::open_path(directory).context(|| doing(directory));
        let opened = directories.iter().map(open).collect::<Result<Vec<_>>>()?;
        let empty = Some("tmpfs");
        mount(empty, &closed, empty, MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=755"))
            .context(|| doing(&closed))?;
        for (directory, opened) in directories.iter().zip(opened) {
            make(directory, &mut Vec::new())?;
            let from = format!("/proc/self/fd/{}", opened.as_raw_fd());
            mount(Some(&*from), *directory, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
                .context(|| doing(directory))?;
        }
        work()
    })
}

/// The outermost directory above that does not let everybody through. A group is not looked at: it costs a mount.
fn closed_above(directory: &Path, uid: u32) -> Option<PathBuf> {
    let closed = |path: &Path| path.metadata().is_ok_and(|found| found.mode() & 0o001 == 0 && found.uid() != uid);
    directory.ancestors().skip(1).filter(|path| closed(path)).last().map(Path::to_owned)
}

/// Makes a mount point, and tells what was made.
fn make(at: &Path, made: &mut Vec<PathBuf>) -> Result<()> {
    let missing: Vec<_> = at.ancestors().take_while(|path| !path.exists()).collect();
    for path in missing.into_iter().rev() {
        let doing = || format!("make the mount point {}", path.display());
        fs::create_dir(path).context(doing)?;
        made.push(path.to_owned());
        // Other users pass through it, whatever our umask (the unit's is 077).
        fs::set_permissions(path, Permissions::from_mode(0o755)).context(doing)?;
    }
    Ok(())
}

fn leave_the_others() -> Result<()> {
    let doing = || Error::new("make a private mount namespace").hint("run pi-agent as root");
    unshare(CloneFlags::CLONE_NEWNS).map_err(|error| doing().caused_by(error))?;
    // What is mounted on this machine later is seen; what is mounted here is not seen there.
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).map_err(|error| doing().caused_by(error))
}

/// Files that one program is to find at other paths: prepared here, done by the program's process before it becomes that
/// program. Also for who is not root, by way of a user namespace in which that process may mount; there it has no other
/// user than its own.
pub(crate) struct View {
    binds: Vec<(CString, CString)>,
    /// What goes into `uid_map` and `gid_map`; `None`: we are root.
    own: Option<[CString; 2]>,
}

impl View {
    /// Both ends of each bind must exist.
    ///
    /// # Errors
    /// A path holds a zero byte.
    pub(crate) fn of(binds: &[Bind]) -> Result<Self> {
        let text = |bytes: &[u8]| CString::new(bytes).context(|| "understand the paths of mounts".into());
        let one = |bind: &Bind| Ok((text(bind.from.as_os_str().as_bytes())?, text(bind.at.as_os_str().as_bytes())?));
        let itself = |id: u32| text(format!("{id} {id} 1").as_bytes());
        let (uid, gid) = (Uid::effective(), Gid::effective());
        let own = if uid.is_root() { None } else { Some([itself(uid.as_raw())?, itself(gid.as_raw())?]) };
        Ok(Self { binds: binds.iter().map(one).collect::<Result<_>>()?, own })
    }

    /// Between fork and exec: makes system calls and nothing else.
    pub(crate) fn enter(&self) -> io::Result<()> {
        match &self.own {
            None => unshare(CloneFlags::CLONE_NEWNS)?,
            Some([uid, gid]) => {
                unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUSER)?;
                // Else the kernel lets nobody without capabilities map its group.
                put(c"/proc/self/setgroups", c"deny")?;
                put(c"/proc/self/uid_map", uid)?;
                put(c"/proc/self/gid_map", gid)?;
            }
        }
        let private = MsFlags::MS_REC | MsFlags::MS_SLAVE;
        mount(None::<&CStr>, c"/", None::<&CStr>, private, None::<&CStr>)?;
        for (from, at) in &self.binds {
            mount(Some(from.as_c_str()), at.as_c_str(), None::<&CStr>, MsFlags::MS_BIND, None::<&CStr>)?;
        }
        Ok(())
    }
}

fn put(file: &CStr, text: &CStr) -> io::Result<()> {
    write(open(file, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?, text.to_bytes())?;
    Ok(())
}

/// What is to be undone, in the order it was done.
struct Mounted {
    /// Shared by all who use mount points: removing one takes away what others have mounted there.
    lock: File,
    places: Vec<PathBuf>,
    made: Vec<PathBuf>,
}

impl Mounted {
    fn add(&mut self, Bind { from, at }: &Bind) -> Result<()> {
        let doing = || format!("show {} at {}", from.display(), at.display());
        // Whoever may write on the way to it could lead us elsewhere by a link.
        let opened = theirs::open_path_of_any(from).context(doing)?;
        make(at, &mut self.made)?;
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        let from = format!("/proc/self/fd/{}", opened.as_raw_fd());
        mount(Some(&*from), at, None::<&str>, flags, None::<&str>).context(doing)?;
        self.places.push(at.clone());
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for place in self.places.iter().rev() {
            let _ = umount2(place, MntFlags::MNT_DETACH);
        }
        // Not while somebody else is at work: then empty directories stay behind, which hurt nobody.
        if !self.made.is_empty() && self.lock.unlock().is_ok() && self.lock.try_lock().is_ok() {
            for path in self.made.iter().rev() {
                let _ = fs::remove_dir(path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Program;

    #[test]
    fn only_the_work_sees_it() {
        if !Uid::effective().is_root() {
            assert!(privately(Path::new("/tmp"), &[], || Ok(())).is_err());
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let (from, at) = (folder.path().join("from"), folder.path().join("some/where/else"));
        fs::create_dir(&from).expect("made");
        fs::write(from.join("file"), "here").expect("written");
        let binds = [Bind { from, at: at.clone() }];
        let seen = privately(folder.path(), &binds, || {
            let output = Program::new("cat", [at.join("file")]).run(&mut |_, _| ())?;
            Ok((output.stdout, fs::read_to_string(at.join("file")).expect("the thread sees it")))
        });
        assert_eq!(seen.expect("root may"), ("here".into(), "here".into()));
        assert!(!folder.path().join("some").exists(), "the mount point is gone");
        let output = Program::new("cat", [at.join("file")]).run(&mut |_, _| ()).expect("started");
        assert!(!output.status.success(), "nobody else sees it");
        let refused = privately(folder.path(), &[Bind { from: folder.path().join("missing"), at }], || Ok(()));
        assert!(refused.expect_err("nothing to show").to_string().starts_with("show "));
        assert!(!folder.path().join("some").exists(), "the mount point is gone");
    }

    #[test]
    fn a_user_reaches_what_only_root_passes_by() {
        if !Uid::effective().is_root() {
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("ours");
        let (closed, deep) = (folder.path().join("root"), folder.path().join("root/a/b"));
        fs::create_dir_all(&deep).expect("made");
        fs::write(deep.join("file"), "reached").expect("written");
        fs::write(closed.join("secret"), "x").expect("written");
        fs::set_permissions(&closed, Permissions::from_mode(0o700)).expect("ours");
        assert_eq!(closed_above(&deep, 65534), Some(closed.clone()));
        assert_eq!((closed_above(&deep, 0), closed_above(&closed, 65534)), (None, None));
        let seen = within_reach(folder.path(), &[&deep], 65534, || {
            let as_nobody = ["--reuid=65534", "--clear-groups", "cat"].map(std::ffi::OsString::from);
            let output = Program::new("setpriv", as_nobody.into_iter().chain([deep.join("file").into()]));
            fs::write(deep.join("new"), "written").expect("root may");
            Ok((output.run(&mut |_, _| ())?.stdout, closed.join("secret").exists()))
        });
        assert_eq!(seen.expect("root may"), ("reached".into(), false));
        assert_eq!(fs::read_to_string(deep.join("new")).expect("it is the same directory"), "written");
        assert!(closed.join("secret").exists());
    }

    #[test]
    fn one_program_sees_it_whoever_we_are() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("from"), "ours").expect("written");
        fs::write(path("at"), "everybody's").expect("written");
        let binds = [Bind { from: path("from"), at: path("at") }];
        let seen = |program: Program| program.run(&mut |_, _| ()).map(|output| output.stdout);
        assert_eq!(seen(Program::new("cat", [path("at")]).seeing(&binds)).expect("it starts"), "ours");
        assert_eq!(seen(Program::new("cat", [path("at")])).expect("it starts"), "everybody's");
        let missing = [Bind { from: path("missing"), at: path("at") }];
        assert!(seen(Program::new("cat", [path("at")]).seeing(&missing)).is_err());
    }
}
