//! A server in a container, as pgBackRest of this machine can reach it: its files at the paths it knows them by, in a
//! mount namespace of ours, and its socket. Nothing of pgBackRest's is in the image, and nothing is started in it.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::Pid;

use super::links::is_stage;
use crate::config::{Postgres, Settings, Step};
use crate::docker::{Container, Docker, State};
use crate::error::{Context, Error, Kind, Result};
use crate::mounts::{Bind, privately};
use crate::pgbackrest::{self, server_user};
use crate::process::{self, User};
use crate::wal;
use crate::{shown, theirs};

/// A cluster with its directories known: that of the configuration, or one that was found in its container.
#[derive(Clone, Debug)]
pub struct Seat {
    /// With directories that hold inside of [`at`].
    pub postgres: Postgres,
    /// Where its WAL goes.
    pub spool: Spool,
}

/// A spool, from both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spool {
    /// On this machine.
    pub here: PathBuf,
    /// As the server sees it; where it ought to, when it does not.
    pub there: PathBuf,
    /// What is to be done before the server sees it.
    pub missing: Option<String>,
}

/// Does the work where the cluster's directories are what they are to its server.
///
/// # Errors
/// The container, its server or the server's files cannot be found, or are not on this machine; what the work returns.
pub fn at<T: Send>(
    settings: &Settings,
    postgres: &Postgres,
    work: impl FnOnce(&Seat) -> Result<T> + Send,
) -> Result<T> {
    let here = wal::spool_directory(settings, postgres);
    let Some(name) = &postgres.container else {
        let spool = Spool { there: here.clone(), here, missing: None };
        return work(&Seat { postgres: postgres.clone(), spool });
    };
    let container = Docker::open()?.container(name)?;
    let server = Running::wait_for(&container, postgres.port)?;
    let binds = binds(&container, &server)?;
    let spool = spool(&container, here);
    let socket = server.open_socket(name)?;
    let postgres = Postgres {
        data_directory: server.data.clone(),
        socket_directory: format!("/proc/self/fd/{}", socket.as_raw_fd()).into(),
        user: Some(role_in(postgres, Some(&container))),
        ..postgres.clone()
    };
    let done = with(settings, &binds, || work(&Seat { postgres, spool }));
    drop(socket);
    done
}

/// Does the work where the WAL of a cluster lies in its data directory, whether or not its server runs: a container's `pg_wal` may be a
/// link to a path that only the container has.
///
/// # Errors
/// The link leads into no volume, or Docker does not answer; what the work returns.
pub fn with_its_wal<T: Send>(
    settings: &Settings,
    postgres: &Postgres,
    data: &Path,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    let link = fs::read_link(data.join("pg_wal")).ok().filter(|link| link.is_absolute() && !is_stage(link));
    let (Some(name), Some(at)) = (&postgres.container, link) else { return work() };
    let from = on_this_machine(&Docker::open()?.container(name)?, "WAL", &at)?;
    with(settings, &[Bind { from, at }], work)
}

fn with<T: Send>(settings: &Settings, binds: &[Bind], work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    fs::create_dir_all(&settings.local.runtime)
        .context(|| format!("make the directory {}", settings.local.runtime.display()))?;
    privately(&settings.local.runtime, binds, work)
}

/// The role that may do everything in the server, whether or not it runs; `None`: the one that is called as the server's user.
pub fn role(postgres: &Postgres) -> Option<String> {
    let Some(name) = &postgres.container else { return postgres.user.clone() };
    let container = || Docker::open().and_then(|docker| docker.container(name)).ok();
    Some(role_in(postgres, container().as_ref()))
}

fn role_in(postgres: &Postgres, container: Option<&Container>) -> String {
    let of_container = || container.and_then(|container| container.variable("POSTGRES_USER")).unwrap_or("postgres");
    postgres.user.clone().unwrap_or_else(|| of_container().to_owned())
}

/// The server's user, whether or not it runs. Other than [`server_user`] it asks Docker first.
///
/// # Errors
/// See [`server_user`].
pub fn user(settings: &Settings, step: &Step, postgres: &Postgres) -> Result<User> {
    let of_container = || User::in_container_owning(&data_on_this_machine(postgres)?).ok().filter(|user| user.uid != 0);
    match postgres.container.as_ref().and_then(|_| of_container()) {
        Some(user) => Ok(user),
        None => server_user(settings, step, postgres),
    }
}

/// Where the cluster lies, whether or not its server runs; `None` when Docker cannot tell.
pub fn data_on_this_machine(postgres: &Postgres) -> Option<PathBuf> {
    let Some(name) = &postgres.container else { return Some(postgres.data_directory.clone()) };
    let container = Docker::open().ok()?.container(name).ok()?;
    if let Ok(server) = Running::find(&container, postgres.port) {
        return container.on_this_machine(&server.real_data);
    }
    let stated = container.variable("PGDATA").and_then(|data| container.on_this_machine(Path::new(data)));
    // Stated, it may be gone for the moment: somebody restores it.
    stated.or_else(|| {
        container.mounts.into_iter().map(|mount| mount.source).find(|path| path.join("PG_VERSION").is_file())
    })
}

/// The port of the first server at work in a container, and where on this machine its data lies, when that is in a volume.
pub fn port_and_data(container: &Container) -> Option<(u16, Option<PathBuf>)> {
    let (pid, lock) = Lock::below(Pid::from_raw(container.pid?.cast_signed())).next()?;
    let data = fs::read_link(format!("/proc/{pid}/cwd")).ok();
    Some((lock.port, data.and_then(|data| container.on_this_machine(&data))))
}

/// A server at work in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Running {
    pid: Pid,
    /// Its `data_directory`, in its own words.
    data: PathBuf,
    /// The same without symbolic links, seen from inside, too.
    real_data: PathBuf,
    /// The directory of its socket, in its own words, too.
    socket: PathBuf,
}

/// How long a server that was started a moment ago is waited for.
const STARTING: Duration = Duration::from_secs(10);

impl Running {
    /// The one on that port, also when its container has just been started.
    fn wait_for(container: &Container, port: u16) -> Result<Self> {
        let begun = Instant::now();
        loop {
            match Self::find(container, port) {
                Err(error) if error.kind() == Kind::Transient && begun.elapsed() < STARTING => {
                    std::thread::sleep(Duration::from_millis(200));
                }
                found => return found,
            }
        }
    }

    /// The one on that port.
    fn find(container: &Container, port: u16) -> Result<Self> {
        let name = &container.name;
        let first = match (container.state, container.pid) {
            (State::Running, Some(pid)) => Pid::from_raw(pid.cast_signed()),
            (State::Paused, _) => {
                return Err(
                    Error::new(format!("the container {name} is paused")).hint(format!("docker unpause {name}"))
                );
            }
            _ => {
                return Err(Error::new(format!("the container {name} does not run"))
                    .hint(format!("docker start {name}; if it stops again: docker logs --tail 50 {name}")));
            }
        };
        let mut others = Vec::new();
        for (pid, lock) in Lock::below(first) {
            if lock.port != port {
                others.push(lock.port);
                continue;
            }
            if lock.starting {
                return Err(Error::transient(format!("the server in the container {name} is still starting"))
                    .hint(format!("docker logs --tail 50 {name}")));
            }
            if is_temporary(&arguments(pid), process::family(first).into_iter().map(arguments)) {
                return Err(Error::transient(format!("the first start of the container {name} has not ended yet"))
                    .hint(format!("docker logs --tail 50 {name}")));
            }
            let socket = lock.socket.ok_or_else(|| {
                Error::new(format!("the server in the container {name} has no socket"))
                    .hint("set unix_socket_directories = '/var/run/postgresql'")
            })?;
            let real_data = fs::read_link(format!("/proc/{pid}/cwd"))
                .context(|| format!("look at the server in the container {name}"))?;
            return Ok(Self { pid, data: lock.data, real_data, socket });
        }
        Err(match others.first() {
            None => Error::transient(format!("no PostgreSQL server runs in the container {name}"))
                .hint(format!("docker logs --tail 50 {name}")),
            Some(other) => {
                Error::usage(format!("the server in the container {name} is on port {other}, not on {port}"))
                    .hint("correct port of this step")
            }
        })
    }

    /// Its data directory, through its own eyes.
    fn eyes(&self) -> PathBuf {
        format!("/proc/{}/cwd", self.pid).into()
    }

    /// The directory of its socket, which whatever is started from here has open as well. The path through `/proc/PID/root` is closed to
    /// a user who has another number in the container (`userns-remap`).
    fn open_socket(&self, container: &str) -> Result<OwnedFd> {
        let doing = || format!("look for the socket of the server in the container {container}");
        let way = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(&*format!("/proc/{}/root", self.pid), way, Mode::empty()).context(doing)?;
        open_within(&root, &self.socket).context(doing)
    }
}

/// Opens a directory by its path in a container, whose absolute links would lead to files of this machine. Not by `openat2`, which
/// older sandboxes do not know. The descriptor is handed on to whatever is started.
fn open_within(root: &OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
    const LINKS: usize = 40;
    let names = |path: &Path| path.iter().rev().map(OsStr::to_owned).collect::<Vec<_>>();
    let (mut left, mut opened, mut links) = (names(path), Vec::<OwnedFd>::new(), 0);
    while let Some(name) = left.pop() {
        match name.as_bytes() {
            b"/" => opened.clear(),
            b"." => {}
            b".." => drop(opened.pop()),
            _ => {
                let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let next = openat(opened.last().unwrap_or(root), &*name, flags, Mode::empty())?;
                if SFlag::from_bits_truncate(fstat(&next)?.st_mode) & SFlag::S_IFMT != SFlag::S_IFLNK {
                    opened.push(next);
                    continue;
                }
                links += 1;
                if links > LINKS {
                    return Err(Errno::ELOOP);
                }
                left.extend(names(Path::new(&readlinkat(&next, "")?)));
            }
        }
    }
    openat(opened.last().unwrap_or(root), ".", OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty())
}

/// The words that a process was started with.
fn arguments(pid: Pid) -> Vec<Vec<u8>> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.strip_suffix(b"\0").unwrap_or(&line).split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
}

/// The server with which the official images' first start makes databases and runs what it finds: it ends after that, and
/// another takes its place. `family`: what all processes of the container were started with.
fn is_temporary(server: &[Vec<u8>], family: impl IntoIterator<Item = Vec<Vec<u8>>>) -> bool {
    const ENTRY: &str = "docker-entrypoint.sh";
    let alone = |words: &[Vec<u8>]| words == [&b"-c"[..], b"listen_addresses=", b"-p"];
    let is_entry = |word: &Vec<u8>| Path::new(OsStr::from_bytes(word)).file_name() == Some(OsStr::new(ENTRY));
    server.len() > 4
        && alone(&server[server.len() - 4..server.len() - 1])
        && family.into_iter().any(|words| words.iter().take(2).any(is_entry))
}

/// What a server writes into its `postmaster.pid`.
#[derive(Debug, PartialEq, Eq)]
struct Lock {
    data: PathBuf,
    port: u16,
    socket: Option<PathBuf>,
    /// It does not listen yet.
    starting: bool,
}

impl Lock {
    /// Those of the servers below a container's first process. A server's children look like it, but come later and name
    /// it in the same file.
    fn below(first: Pid) -> impl Iterator<Item = (Pid, Self)> {
        process::family(first).into_iter().filter_map(|pid| Some((pid, Self::of(pid)?)))
    }

    fn of(pid: Pid) -> Option<Self> {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        if !matches!(name.trim_end(), "postgres" | "postmaster") {
            return None;
        }
        /// Bytes of eight lines, of which two are paths.
        const MOST: u64 = 16 << 10;
        let bytes = theirs::read_plain(Path::new(&format!("/proc/{pid}/cwd/postmaster.pid")), MOST).ok()?;
        Self::read(&String::from_utf8_lossy(&bytes))
    }

    /// Its pid, data directory, start, port, first socket directory, address, shared memory and state, a line each, written
    /// one after the other.
    fn read(text: &str) -> Option<Self> {
        let mut lines = text.lines().skip(1);
        let data = lines.next()?.into();
        let port = lines.nth(1)?.parse().ok()?;
        let socket = lines.next().filter(|line| !line.is_empty()).map(PathBuf::from);
        let starting = lines.nth(2).is_none_or(|state| state.trim() == "starting");
        Some(Self { data, port, socket, starting })
    }
}

/// The data directory and whatever it links to, each at the path the server has it at.
fn binds(container: &Container, server: &Running) -> Result<Vec<Bind>> {
    let name = &container.name;
    let from = on_this_machine(container, "data directory", &server.real_data)?;
    let identity = |path: &Path| path.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()));
    if identity(&from).is_none() || identity(&from) != identity(&server.eyes()) {
        return Err(Error::new(format!(
            "the data of the container {name} is not in {}, where Docker says it is",
            from.display()
        ))
        .hint("is something else mounted there? the engine must be this machine's own"));
    }
    // The server's user may write anything into its lock file. At a path that somebody else chose, what lies there would be what
    // root finds for its own.
    if container.on_this_machine(&server.data).as_ref() != Some(&from) {
        return Err(Error::new(format!(
            "the server in the container {name} says that its data directory is {}, and works in {}",
            shown(&server.data),
            shown(&server.real_data)
        ))
        .hint("a link leads there: name the directory itself in PGDATA, or as the volume's path"));
    }
    let mut binds = vec![Bind { from: from.clone(), at: server.data.clone() }];
    let spaces = fs::read_dir(from.join("pg_tblspc")).context(|| format!("look for tablespaces of {name}"))?;
    let links = spaces.filter_map(|entry| Some(entry.ok()?.path())).chain([from.join("pg_wal")]);
    for link in links {
        let Ok(at) = fs::read_link(&link) else { continue };
        // Tablespaces inside of the data directory are bad manners, but come with it.
        if at.is_absolute() && !at.starts_with(&server.data) {
            binds.push(Bind { from: on_this_machine(container, "tablespace", &at)?, at });
        }
    }
    Ok(binds)
}

fn on_this_machine(container: &Container, what: &str, inside: &Path) -> Result<PathBuf> {
    container.on_this_machine(inside).ok_or_else(|| {
        let (name, inside) = (&container.name, inside.display());
        Error::new(format!("the {what} {inside} of the container {name} is in no volume")).kind_of(Kind::Usage).hint(
            format!(
                "it would be lost with the container. Copy it out, then in the compose file:\n\
                 services:\n  {name}:\n    volumes:\n      - {name}-data:{inside}\nvolumes:\n  {name}-data:"
            ),
        )
    })
}

/// Where the container sees the spool.
fn spool(container: &Container, here: PathBuf) -> Spool {
    let seen = container.sees(&here);
    let name = &container.name;
    let missing = seen.is_none().then(|| {
        format!(
            "in the compose file:\nservices:\n  {name}:\n    volumes:\n      - {0}:{0}\nthen: docker compose up -d {name}",
            here.display()
        )
    });
    Spool { there: seen.unwrap_or_else(|| here.clone()), here, missing }
}

/// Makes the spool, for the server's user.
///
/// # Errors
/// It cannot be made, or belongs to somebody else.
pub fn provide_spool(settings: &Settings, postgres: &Postgres, user: &User) -> Result<()> {
    let spool = wal::spool_directory(settings, postgres);
    if postgres.container.is_some() && spool.exists() {
        // Docker makes what a container is to see and what is not there, as root, or as whoever is root in the container. And another
        // image may have another user.
        theirs::give_if_empty(&spool, user)?;
    }
    theirs::make(&spool, user, 0o750)?;
    match &postgres.container {
        // Debian's folder lets only `postgres` through.
        Some(_) => pgbackrest::let_through(&settings.local.spool),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::Mount;

    fn container(mounts: &[(&Path, &str)]) -> Container {
        let mount = |(source, there): &(&Path, &str)| Mount {
            source: (*source).into(),
            destination: there.into(),
            writable: true,
        };
        Container {
            id: "9c28".into(),
            name: "db".into(),
            state: State::Stopped,
            pid: None,
            image: String::new(),
            mounts: mounts.iter().map(mount).collect(),
            environment: vec![],
            log_driver: "json-file".into(),
            log_options: vec![],
            log_path: None,
        }
    }

    #[test]
    fn a_link_leads_nowhere_out_of_the_container() {
        let folder = tempfile::tempdir().expect("a directory");
        let root = folder.path().join("root");
        for directory in ["run/postgresql", "var"] {
            fs::create_dir_all(root.join(directory)).expect("made");
        }
        for (name, target) in [("var/run", "/run"), ("up", "../../../run"), ("loop", "loop")] {
            std::os::unix::fs::symlink(target, root.join(name)).expect("made");
        }
        let opened = open(&root, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()).expect("there");
        let inode = |path: &str| open_within(&opened, Path::new(path)).map(|found| fstat(&found).expect("open").st_ino);
        let there = root.join("run/postgresql").metadata().expect("there").ino();
        for path in [
            "/run/postgresql",
            "/var/run/postgresql",
            "/up/postgresql",
            "/../run/./postgresql",
            "/var/../run/postgresql",
        ] {
            assert_eq!(inode(path), Ok(there), "{path}");
        }
        assert_eq!(inode("/loop/x"), Err(Errno::ELOOP));
        assert_eq!(inode("/gone"), Err(Errno::ENOENT));
    }

    #[test]
    fn a_server_tells_its_data_port_and_socket() {
        let lock = |text: &str| Lock::read(text).map(|lock| (lock.port, lock.socket, lock.starting));
        let text = "1\n/var/lib/postgresql/data\n1763712000\n5432\n/var/run/postgresql\n*\n  115    0\nready   \n";
        assert_eq!(lock(text), Some((5432, Some("/var/run/postgresql".into()), false)));
        assert_eq!(lock(&text.replace("ready   ", "starting")).map(|(_, _, starting)| starting), Some(true));
        assert_eq!(lock("1\n/d\n17\n5433\n\n*\n"), Some((5433, None, true)));
        assert_eq!(lock("1\n/d\n17\n"), None, "it is still being written");
    }

    #[test]
    fn the_server_of_a_first_start_is_told_from_the_one_that_stays() {
        let words = |line: &str| line.split(' ').map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>();
        let temporary =
            words("/usr/lib/postgresql/15/bin/postgres -D /d -c archive_mode=on -c listen_addresses= -p 5432");
        let entry = words("/bin/bash /usr/local/bin/docker-entrypoint.sh postgres -c archive_mode=on");
        let init = words("/sbin/docker-init -- docker-entrypoint.sh postgres");
        assert!(is_temporary(&temporary, [init.clone(), entry.clone(), temporary.clone()]));
        // A household's server may be as alone; the entry point has become it.
        assert!(!is_temporary(&temporary, [init, temporary.clone()]));
        assert!(!is_temporary(&words("postgres -c archive_mode=on"), [entry]));
        assert!(!is_temporary(&words("postgres"), []));
    }

    #[test]
    fn the_spool_is_what_a_mount_shows() {
        let root = tempfile::tempdir().expect("a folder");
        let here = root.path().join("main");
        fs::create_dir(&here).expect("made");
        let seen = |mounts: &[(&Path, &str)]| spool(&container(mounts), here.clone());
        assert_eq!(seen(&[(&here, "/wal")]).there, Path::new("/wal"));
        assert_eq!(seen(&[(root.path(), "/spool")]).there, Path::new("/spool/main"));
        let missing = seen(&[(Path::new("/elsewhere"), "/wal")]);
        assert_eq!(missing.there, here);
        assert!(missing.missing.is_some_and(|hint| hint.contains(&format!("      - {0}:{0}\n", here.display()))));
    }

    #[test]
    fn what_stops_a_backup_is_told_with_the_remedy() {
        let stopped = Running::find(&container(&[]), 5432).expect_err("it does not run");
        assert!(
            stopped.to_string().contains("db does not run")
                && stopped.advice().is_some_and(|a| a.contains("docker start db"))
        );
        let paused = Container { state: State::Paused, ..container(&[]) };
        assert!(Running::find(&paused, 5432).expect_err("it is frozen").to_string().contains("is paused"));
        let outside = on_this_machine(&container(&[]), "data directory", Path::new("/pgdata")).expect_err("no volume");
        assert!(outside.to_string().contains("/pgdata of the container db is in no volume"));
        assert!(outside.advice().is_some_and(|hint| hint.contains("      - db-data:/pgdata\n")));
    }

    #[test]
    fn no_file_of_a_servers_panics() {
        const FILE: &str =
            "1\n/var/lib/postgresql/data\n1700000000\n5432\n/run/postgresql\n*\n  5432001  1\nready   \n";
        crate::fuzzed::fuzz_text(&[FILE], |text| drop(Lock::read(text)));
    }
}
