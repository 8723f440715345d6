//! The programs of a container's image, run by us: for a machine whose only PostgreSQL is in Docker.
//!
//! A container is made of the image in which nothing runs but `sleep`. What is started is a process of our own that sees that
//! container's files and its network, which is none: so it ends with us, counts as ours, and its output and its exit code
//! come to us as any other program's. Nothing of ours has to be in the image; any that has `sleep` will do.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use super::programs::major;
use crate::docker::Docker;
use crate::error::{Context, Error, Result};
use crate::process::{Inside, Place, Program, User};

/// What the container and the directory in which it is noted are called, before what makes the name its own.
const NAME: &str = "pi-agent-image-";
/// Who there is in the container. Locked as long as whoever made the container lives.
const USERS: &str = "passwd";
/// There once Docker has made the container.
const MADE: &str = "made";
/// Docker makes what it was asked for also for somebody who is killed meanwhile: so long may that take.
const LATE: Duration = Duration::from_secs(20);
/// A child that has not become its program yet holds the lock of its parent, who was killed: so long may that take.
const DYING: Duration = Duration::from_secs(1);
/// Seconds: a week, longer than any restore of a household.
const LONGEST: &str = "604800";

/// An image whose programs can be started. Its container goes with it; what is killed leaves one to [`remove_left`].
#[derive(Debug)]
pub struct Image {
    docker: Docker,
    name: String,
    path: String,
    inside: Arc<Inside>,
    _lock: File,
    note: TempDir,
}

impl Image {
    /// Makes a container of this image, in which that user sees these directories of this machine where they are.
    ///
    /// # Errors
    /// Docker has no such image, or it has no PostgreSQL of that version.
    pub fn start(image: &str, version: u32, runtime: &Path, user: &User, directories: &[&Path]) -> Result<Self> {
        let docker = Docker::open()?;

        // 1. The note comes first: a container of which there is none would stay.
        let doing = || format!("note a container of {image} in {}", runtime.display());
        fs::create_dir_all(runtime).context(doing)?;
        let mut note = tempfile::Builder::new().prefix(NAME).tempdir_in(runtime).context(doing)?;
        let name = note.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let users = note.path().join(USERS);
        // PostgreSQL works only for a user that has a name.
        fs::write(&users, format!("root:x:0:0::/:/bin/sh\ndatabase:x:{}:{}::/:/bin/sh\n", user.uid, user.gid))
            .context(doing)?;
        fs::set_permissions(&users, Permissions::from_mode(0o644)).context(doing)?;
        // The way to what was restored below it, which in most images is closed to others; a tmpfs of Docker's would be as closed.
        let root = note.path().join("root");
        fs::create_dir(&root).context(doing)?;
        fs::set_permissions(&root, Permissions::from_mode(0o755)).context(doing)?;
        let lock = File::open(&users).context(doing)?;
        lock.try_lock().context(doing)?;

        // 2. A container that does nothing.
        let mounts = [(users.as_path(), Path::new("/etc/passwd"), true), (root.as_path(), Path::new("/root"), false)];
        let mounts = mounts.into_iter().chain(directories.iter().map(|path| (*path, *path, false)));
        let mounts: Vec<_> = mounts
            .map(|(from, at, readonly)| json!({ "Type": "bind", "Source": from, "Target": at, "ReadOnly": readonly }))
            .collect();
        let description = json!({
            "Image": image,
            "Entrypoint": ["sleep"],
            "Cmd": [LONGEST],
            "User": "0:0",
            "NetworkDisabled": true,
            "HostConfig": {
                "NetworkMode": "none",
                "Mounts": mounts,
                "AutoRemove": true,
                "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges"],
                "LogConfig": { "Type": "none" },
            },
        });
        let noted = || fs::write(note.path().join(MADE), "").context(doing);
        let run = docker.run(&name, &description).and_then(|()| noted());
        let made = run.and_then(|()| docker.container(&name)).and_then(|container| {
            let ended = || Error::new(format!("the container of {image} has ended at once"));
            let inside = Arc::new(Inside::of(container.pid.ok_or_else(ended)?)?);
            let path =
                container.variable("PATH").unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
            Ok((format!("/usr/lib/postgresql/{version}/bin:{path}"), inside))
        });
        let (path, inside) = match made {
            Ok(made) => made,
            Err(error) => {
                // One that Docker did not answer for may still come: the next run looks for it.
                let gone = docker.remove(&name).is_ok_and(|there| there || !error.is_transient());
                note.disable_cleanup(!gone);
                return Err(error);
            }
        };
        let this = Self { docker, name, path, inside, _lock: lock, note };

        // 3. Has it what is wanted?
        let output = this.lead(Program::new("postgres", ["--version"])).as_user(user).run(&mut |_, _| ())?;
        match major(&output.stdout) {
            Some(found) if found == version => Ok(this),
            _ => Err(Error::new(format!("the image {image} has {}, not PostgreSQL {version}", output.stdout.trim()))),
        }
    }

    /// A program of this machine becomes one of the image.
    pub(super) fn lead(&self, program: Program) -> Program {
        Program { place: Place::Inside(Arc::clone(&self.inside)), ..program.env("PATH", &self.path) }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // What cannot be removed now is noted for the next run.
        self.note.disable_cleanup(self.docker.remove(&self.name).is_err());
    }
}

/// Removes the containers that were left by whoever was killed.
///
/// # Errors
/// Docker's.
pub fn remove_left(runtime: &Path) -> Result<()> {
    for note in runtime.read_dir().into_iter().flatten().flatten() {
        let name = note.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with(NAME)) else { continue };
        let note = note.path();
        let Ok(lock) = File::open(note.join(USERS)) else { continue };
        if is_left(&lock) {
            remove(&Docker::open()?, name, &note)?;
        }
    }
    Ok(())
}

fn remove(docker: &Docker, name: &str, note: &Path) -> Result<()> {
    while !docker.remove(name)? && may_come(note) {
        std::thread::sleep(Duration::from_millis(50));
    }
    fs::remove_dir_all(note).context(|| format!("remove {}", note.display()))
}

/// Nobody holds the lock, or not for long.
fn is_left(lock: &File) -> bool {
    let began = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => return true,
            Err(_) if began.elapsed() > DYING => return false,
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Docker may be making the container still.
fn may_come(note: &Path) -> bool {
    let age = note.metadata().and_then(|data| data.modified()).ok().and_then(|made| made.elapsed().ok());
    !note.join(MADE).exists() && age.is_some_and(|age| age < LATE)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;
    use std::thread::JoinHandle;

    use super::*;

    /// An engine that answers so, one after the other: no real one is slow on demand.
    fn engine(directory: &Path, answers: &[&'static str]) -> (Docker, JoinHandle<usize>) {
        let socket = directory.join("socket");
        let listener = UnixListener::bind(&socket).expect("a directory of the test's own");
        let answers = answers.to_vec();
        let served = std::thread::spawn(move || {
            for (answer, connection) in answers.iter().zip(listener.incoming()) {
                let mut connection = connection.expect("it is there");
                let heading = BufReader::new(&connection).lines().map_while(std::result::Result::ok);
                assert!(heading.take_while(|line| !line.is_empty()).any(|line| line.starts_with("DELETE ")));
                write!(connection, "HTTP/1.1 {answer}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                    .expect("it waits for that");
            }
            answers.len()
        });
        (Docker::at(socket).expect("it is there"), served)
    }

    /// Removes what a killed run has noted; whether the note is gone, and all that was to be asked was asked.
    fn removed(made: bool, answers: &[&'static str]) -> bool {
        let directory = tempfile::tempdir().expect("a directory");
        let note = directory.path().join("note");
        fs::create_dir(&note).expect("a directory of the test's own");
        if made {
            fs::write(note.join(MADE), "").expect("a directory of the test's own");
        }
        let (docker, served) = engine(directory.path(), answers);
        remove(&docker, "left", &note).expect("the engine removes it");
        served.join().expect("it was asked for that") == answers.len() && !note.exists()
    }

    const GONE: &str = "204 No Content";
    const NONE: &str = "404 Not Found";
    const AT_IT: &str = "409 Conflict";

    #[test]
    fn what_docker_was_asked_for_by_whoever_was_killed_is_removed_when_it_comes() {
        assert!(removed(false, &[NONE, NONE, GONE]));
        assert!(removed(true, &[NONE]), "nothing else will come");
        assert!(removed(true, &[GONE]));
    }

    #[test]
    fn what_is_being_removed_already_is_waited_for() {
        assert!(removed(true, &[AT_IT, AT_IT, NONE]));
    }
}
