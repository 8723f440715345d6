//! A throwaway PostgreSQL cluster: its own data directory and socket, nothing on the network, gone with the test.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::{Scratch, sh};

/// A cluster, of the newest installed version unless said otherwise, run by the system user `postgres`.
#[derive(Debug)]
pub struct Cluster {
    programs: PathBuf,
    data: PathBuf,
    socket: PathBuf,
    port: u16,
}

impl Cluster {
    /// The port names the socket only.
    pub const PORT: u16 = 54_321;

    /// Makes one in `scratch`/`name`, with `settings` added to its `postgresql.conf`. Not started.
    pub fn make(scratch: &Scratch, name: &str, settings: &str) -> Self {
        Self::make_of(programs(), scratch, name, settings)
    }

    /// One of that major version, which must be installed.
    pub fn make_version(version: u32, scratch: &Scratch, name: &str, settings: &str) -> Self {
        Self::make_of(programs_of(version), scratch, name, settings)
    }

    fn make_of(programs: PathBuf, scratch: &Scratch, name: &str, settings: &str) -> Self {
        let home = scratch.directory(name);
        let socket = scratch.directory(format!("{name}/socket"));
        give_to_postgres(&home);
        give_to_postgres(&socket);
        let cluster = Self { programs, data: home.join("data"), socket, port: Self::PORT };
        cluster.initialise(settings);
        cluster
    }

    /// The newest installed version: that of each cluster for which no other is asked.
    pub fn newest() -> u32 {
        let entries = fs::read_dir(VERSIONS).expect("PostgreSQL is installed by tests/setup.sh");
        let versions = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let newest = versions.filter(|version| folder(*version).join("initdb").exists()).max();
        newest.expect("PostgreSQL is installed by tests/setup.sh")
    }

    /// Makes the data directory anew: another cluster at the same place.
    pub fn initialise(&self, settings: &str) {
        if self.data.exists() {
            fs::remove_dir_all(&self.data).expect("a stopped cluster");
        }
        let data = self.data.display().to_string();
        sh(&mut self
            .as_postgres("initdb", ["-D", &data, "-A", "peer", "--no-locale", "-E", "UTF8", "--data-checksums"]));
        let text = format!(
            "listen_addresses = ''\nunix_socket_directories = '{}'\nport = {}\ntimezone = 'UTC'\nmax_connections = 30\n\
             shared_buffers = '16MB'\narchive_mode = on\n{settings}\n",
            self.socket.display(),
            self.port
        );
        let conf = self.data.join("postgresql.conf");
        let original = fs::read_to_string(&conf).expect("initdb made it");
        fs::write(&conf, original + &text).expect("root may write it");
    }

    /// A cluster that exists in `data` already (a restored one), reachable in its own socket directory.
    pub fn existing(scratch: &Scratch, data: &Path) -> Self {
        let name = data.file_name().expect("a directory has a name").to_string_lossy();
        let socket = scratch.directory(format!("{name}-socket"));
        give_to_postgres(&socket);
        let version = fs::read_to_string(data.join("PG_VERSION")).expect("a data directory");
        let programs = programs_of(version.trim().parse().expect("a version"));
        Self { programs, data: data.into(), socket, port: Self::PORT + 1 }
    }

    /// Makes `new` what this one is, by pg_upgrade; both are stopped before and after.
    pub fn upgrade_to(&self, new: &Self) {
        let [old_bin, new_bin, old_data, new_data] =
            [&self.programs, &new.programs, &self.data, &new.data].map(|path| path.display().to_string());
        let arguments = ["-b", &old_bin, "-B", &new_bin, "-d", &old_data, "-D", &new_data, "-U", "postgres"];
        // It leaves scripts and sockets where it is started.
        sh(new.as_postgres("pg_upgrade", arguments).current_dir(&new.socket));
    }

    /// The directory of its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A command of PostgreSQL's as its user.
    fn as_postgres<'a>(&self, program: &str, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        as_postgres(&self.programs, program, arguments)
    }

    /// Runs one of PostgreSQL's programs for whole data directories on this one, as its user.
    pub fn with_data(&self, program: &str, arguments: &[&str]) {
        let data = self.data.display().to_string();
        sh(self.as_postgres(program, ["-D", &data]).args(arguments));
    }

    /// `data_directory`.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Starts it and waits until it answers.
    pub fn start(&self) -> &Self {
        let log = self.socket.join("log");
        let options = format!("-p {} -k {} -c listen_addresses=", self.port, self.socket.display());
        let (data, log) = (self.data.display().to_string(), log.display().to_string());
        let mut command = self.as_postgres("pg_ctl", ["-D", &data, "-w", "-s", "-l", &log, "-o", &options, "start"]);
        let output = command.output().expect("pg_ctl can be started");
        assert!(output.status.success(), "{} does not start: {}", data, fs::read_to_string(log).unwrap_or_default());
        self
    }

    /// Stops it in an orderly way.
    pub fn stop(&self) -> &Self {
        sh(&mut self.as_postgres("pg_ctl", ["-D", &self.data.display().to_string(), "-w", "-s", "-m", "fast", "stop"]));
        self
    }

    /// Ends it as a power cut does: nothing more is written, nothing handed over.
    pub fn crash(&self) -> &Self {
        let data = self.data.display().to_string();
        sh(&mut self.as_postgres("pg_ctl", ["-D", &data, "-w", "-s", "-m", "immediate", "stop"]));
        self
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.data.join("postmaster.pid").exists()
    }

    /// Runs SQL and returns what it prints, unaligned.
    #[track_caller]
    pub fn sql(&self, sql: &str) -> String {
        let output = self.try_sql(sql);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{sql}: {said}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// The same in another database than `postgres`.
    #[track_caller]
    pub fn sql_in(&self, database: &str, sql: &str) -> String {
        let output = self.try_sql_in(database, sql);
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// From now on `clock_timestamp()` goes on from `time` (UTC). pgBackRest dates backups by it; transactions keep the real time.
    pub fn pretend(&self, time: &str) {
        self.script(&format!(
            "set allow_system_table_mods = on;\n\
             create or replace function pg_catalog.clock_timestamp() returns timestamptz language sql volatile as \
             $$ select statement_timestamp() + coalesce(current_setting('test.shift', true)::interval, '0') $$;\n\
             select format('alter role postgres set test.shift = %L', timestamptz '{time}+00' - now()) \\gexec\n"
        ));
    }

    /// Runs a script as one would paste it into psql.
    #[track_caller]
    pub fn script(&self, script: &str) {
        let folder = self.socket.join("script.sql");
        fs::write(&folder, script).expect("our own directory");
        let (socket, port) = (self.socket.display().to_string(), self.port.to_string());
        let file = folder.display().to_string();
        sh(&mut self.as_postgres(
            "psql",
            ["-Xq", "-v", "ON_ERROR_STOP=1", "-h", &socket, "-p", &port, "-d", "postgres", "-f", &file],
        ));
    }

    fn try_sql(&self, sql: &str) -> Output {
        self.try_sql_in("postgres", sql)
    }

    fn try_sql_in(&self, database: &str, sql: &str) -> Output {
        let (socket, port) = (self.socket.display().to_string(), self.port.to_string());
        self.as_postgres(
            "psql",
            ["-XAtq", "-v", "ON_ERROR_STOP=1", "-h", &socket, "-p", &port, "-d", database, "-c", sql],
        )
        .output()
        .expect("psql can be started")
    }

    /// PostgreSQL's own load, not yet started: `pgbench` with these arguments.
    pub fn pgbench<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let port = self.port.to_string();
        let socket = self.socket.display().to_string();
        let mut command = self.as_postgres("pgbench", ["-h", &socket, "-p", &port]);
        command.args(arguments).arg("postgres");
        command
    }

    /// Everything in it, as SQL text: two equal dumps are two equal databases.
    pub fn dump(&self) -> String {
        let (socket, port) = (self.socket.display().to_string(), self.port.to_string());
        // The newest, whatever the server: what another version says in other words is no difference.
        let text = sh(&mut as_postgres(&programs(), "pg_dumpall", ["-h", &socket, "-p", &port]));
        // Newer ones put a random token into each dump, and the version of the server.
        let told = |line: &&str| !line.contains("restrict ") && !line.starts_with("-- Dumped ");
        text.lines().filter(told).flat_map(|line| [line, "\n"]).collect()
    }

    /// Ends the current WAL segment and waits until archive_command has taken it; its name.
    pub fn finish_segment(&self) -> String {
        let segment = self.sql("select pg_walfile_name(pg_create_restore_point('test'))");
        self.sql("select pg_switch_wal()");
        let archived = format!("select coalesce(last_archived_wal >= '{segment}', false) from pg_stat_archiver");
        for _ in 0..300 {
            if self.sql(&archived) == "t" {
                return segment;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("{segment} is not archived: {}", self.sql("select row_to_json(a) from pg_stat_archiver a"));
    }

    /// The TOML lines of a step that backs it up.
    pub fn step(&self, name: &str, stanza: &str, more: &str) -> String {
        let keep = if more.contains("keep") { "" } else { "keep = { daily = 30, monthly = \"forever\" }\n" };
        format!(
            "name = \"{name}\"\nkind = \"postgres\"\nstanza = \"{stanza}\"\ndata-directory = \"{}\"\n\
             socket-directory = \"{}\"\nport = {}\n{keep}{more}\n",
            self.data.display(),
            self.socket.display(),
            self.port
        )
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.is_running() {
            let data = self.data.display().to_string();
            let _ = self.as_postgres("pg_ctl", ["-D", &data, "-w", "-s", "-m", "immediate", "stop"]).output();
        }
    }
}

/// The programs of the newest installed version.
fn programs() -> PathBuf {
    folder(Cluster::newest())
}

fn programs_of(version: u32) -> PathBuf {
    let folder = folder(version);
    assert!(
        folder.join("initdb").exists(),
        "PostgreSQL {version} is not installed: tests/elsewhere.sh trixie has two versions"
    );
    folder
}

const VERSIONS: &str = "/usr/lib/postgresql";

fn folder(version: u32) -> PathBuf {
    Path::new(VERSIONS).join(version.to_string()).join("bin")
}

fn as_postgres<'a>(programs: &Path, program: &str, arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(programs.join(program));
    command.args(arguments).current_dir("/").env("LC_ALL", "C.UTF-8");
    if nix::unistd::Uid::effective().is_root() {
        let user = postgres();
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command
}

/// Hands a path over to PostgreSQL's user.
pub fn give_to_postgres(path: &Path) {
    if nix::unistd::Uid::effective().is_root() {
        let user = postgres();
        chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("root may");
    }
}

fn postgres() -> nix::unistd::User {
    nix::unistd::User::from_name("postgres").expect("readable").expect("the postgresql package makes this user")
}
