//! PostgreSQL in a container and pgBackRest on this machine, on a real engine: what comes back, and all that is wrong.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use harness::{Agent, Config, DockerEngine, Ran, Scratch, Tmpfs, privately, sh};

/// Nobody has that number on this machine.
pub(crate) const UID: u32 = 4999;

/// Moves a directory, to another disk if need be.
fn mv(from: &Path, to: &Path) {
    sh(Command::new("mv").args([from, to]));
}

/// WAL that is not in the repository yet.
fn waiting(home: &Household) -> Vec<String> {
    pi_agent::wal::waiting(&home.spool()).unwrap()
}

/// What the official image does, in short: the first start makes the cluster, every start runs the server as its user.
/// Its locale is one that this machine need not have.
const ENTRY: &str = r#"
set -e
getent passwd database >/dev/null || { groupadd -g 4998 database; useradd -u 4999 -g 4998 database; }
install -d -o database -g database -m 700 "$PGDATA" "$SPACE"
install -d -o database -g database /var/run/postgresql
as="setpriv --reuid=database --regid=database --clear-groups"
bin=/usr/lib/postgresql/15/bin
[ -e "$PGDATA/PG_VERSION" ] || $as $bin/initdb -D "$PGDATA" -U "$POSTGRES_USER" -A trust --locale=en_US.UTF-8 >/dev/null
exec $as $bin/postgres -D "$PGDATA" -c listen_addresses= -c shared_buffers=16MB -c unix_socket_directories=/var/run/postgresql "$@"
"#;

/// A household whose database is in the container `db`, and an agent for it and for a directory.
pub(crate) struct Household {
    pub(crate) engine: DockerEngine,
    pub(crate) scratch: Scratch,
    pub(crate) agent: Agent,
}

impl Household {
    pub(crate) fn new() -> Self {
        Self::of(DockerEngine::start())
    }

    pub(crate) fn of(engine: DockerEngine) -> Self {
        let scratch = Scratch::new();
        let files = scratch.directory("files");
        fs::write(files.join("one"), "1").unwrap();
        let agent = Config::local(scratch.path())
            .step("name = \"database\"\nkind = \"postgres\"\nstanza = \"main\"\ncontainer = \"db\"\n")
            .directory("files", &[&files], "")
            .write()
            .env("DOCKER_HOST", engine.host());
        Self { engine, scratch, agent }
    }

    pub(crate) fn spool(&self) -> PathBuf {
        self.scratch.join("spool/main")
    }

    /// Paths of the container alone, which no other test has on this machine.
    pub(crate) fn inside(&self, name: &str) -> String {
        self.scratch.join("only-inside").join(name).display().to_string()
    }

    /// Starts a container: its options, and the server's settings.
    pub(crate) fn start(&self, name: &str, options: &[&str], settings: &[&str]) {
        let environment = [
            format!("PGDATA={}", self.inside("data/pg")),
            format!("SPACE={}", self.inside("space/one")),
            "POSTGRES_USER=keeper".to_owned(),
        ];
        let mut arguments = vec!["run", "--detach", "--network=none", "--stop-signal=SIGINT", "--name", name];
        arguments.extend(environment.iter().flat_map(|pair| ["--env", pair.as_str()]));
        arguments.extend(options);
        arguments.extend([DockerEngine::IMAGE, "bash", "-c", ENTRY, "entry"]);
        arguments.extend(settings.iter().flat_map(|setting| ["-c", *setting]));
        self.engine.docker(arguments);
        self.wait(name);
    }

    /// Until the server answers.
    pub(crate) fn wait(&self, name: &str) {
        let ready = ["exec", name, "psql", "-U", "keeper", "-d", "postgres", "-c", "select 1"];
        for _ in 0..300 {
            if self.engine.command(ready).output().unwrap().status.success() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{name} does not start: {}", self.engine.docker(["logs", name]));
    }

    /// As a household has it: volumes for data and tablespace, and the spool, which this one sees elsewhere.
    pub(crate) fn start_db(&self, data: &str) {
        let volumes = [
            format!("{data}:{}", self.inside("data")),
            format!("space:{}", self.inside("space")),
            format!("{}:/wal", self.spool().display()),
        ];
        let options: Vec<_> = volumes.iter().flat_map(|volume| ["--volume", volume.as_str()]).collect();
        let command = format!("archive_command={}", pi_agent::wal::archive_command("/wal".as_ref()));
        self.start("db", &options, &["archive_mode=on", "archive_timeout=60", &command]);
    }

    pub(crate) fn sql(&self, sql: &str) -> String {
        self.engine.docker([
            "exec",
            "db",
            "psql",
            "-XAtq",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "keeper",
            "-d",
            "postgres",
            "-c",
            sql,
        ])
    }

    pub(crate) fn run(&self) -> Ran {
        self.agent.run(["run", "--json"])
    }

    /// Runs; the database fails with that message and hint, and the files are backed up all the same.
    #[track_caller]
    fn fails(&self, message: &str, hint: &str) {
        let ran = self.run().expect(3);
        let step = ran.step("database");
        assert_eq!(
            (step["outcome"].as_str(), ran.step("files")["outcome"].as_str()),
            (Some("failed"), Some("succeeded")),
            "{ran}"
        );
        let told = |key: &str| step["error"][key].as_str().unwrap_or_default().to_owned();
        assert!(told("message").contains(message), "no {message:?}: {ran}");
        assert!(told("hint").contains(hint), "no {hint:?}: {ran}");
    }

    /// Hands a finished segment over, and waits until it is in the spool.
    pub(crate) fn finish_segment(&self) -> String {
        let segment = self.sql("select pg_walfile_name(pg_create_restore_point('test'))");
        self.sql("select pg_switch_wal()");
        let started = Instant::now();
        while self.sql(&format!("select coalesce(last_archived_wal >= '{segment}', false) from pg_stat_archiver"))
            != "t"
        {
            assert!(
                started.elapsed() < Duration::from_secs(30),
                "{}",
                self.sql("select row_to_json(a) from pg_stat_archiver a")
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        segment
    }
}

#[test]
fn a_server_in_a_container_comes_back_to_a_moment() {
    let home = Household::new();
    home.start_db("data");
    home.sql(&format!("create tablespace one location '{}'", home.inside("space/one")));
    home.sql("create table votes (id int primary key, what text) tablespace one");
    home.engine.docker(["exec", "db", "pgbench", "-U", "keeper", "-q", "-i", "-s", "2", "postgres"]);

    let ran = home.run().expect(0);
    assert!(ran.step("database")["restore_point"].as_str().unwrap().ends_with('F'), "{ran}");
    assert!(!home.scratch.join("only-inside").exists(), "the mount points are gone");
    home.agent.ok(["doctor"]).says("PostgreSQL 15 in the container db answers and archives its WAL");

    // Two known transactions under load, and a moment between them.
    home.engine.docker(["exec", "--detach", "db", "pgbench", "-U", "keeper", "-c", "2", "-T", "6", "postgres"]);
    home.sql("insert into votes values (1, 'kept')");
    let moment = home.sql("select to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
    home.sql("insert into votes values (2, 'too late')");
    let kept = home.sql("select count(*) from pgbench_accounts");
    std::thread::sleep(Duration::from_secs(7));
    home.finish_segment();
    home.agent.ok(["wal", "push"]);
    assert_eq!(waiting(&home), [""; 0], "all of it is in the repository");

    // Back, and into the place of the original, as told.
    let to = home.scratch.join("restored");
    let ran = home.agent.ok(["restore", "database", "--to", to.to_str().unwrap(), "--at", &moment]);
    ran.says("docker stop db").says("docker start db");
    assert_eq!(to.join("global/pg_control").metadata().unwrap().uid(), UID);
    home.engine.docker(["stop", "db"]);
    let data = home.engine.volume("data").join("pg");
    mv(&data, &data.with_file_name("pg.before"));
    mv(&to, &data);
    for entry in fs::read_dir(data.join("pg_tblspc")).unwrap() {
        let link = entry.unwrap().path();
        let space = home.engine.volume("space").join("one");
        fs::remove_dir_all(&space).unwrap();
        mv(&fs::read_link(&link).unwrap(), &space);
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(home.inside("space/one"), &link).unwrap();
        std::os::unix::fs::lchown(&link, Some(UID), Some(UID)).unwrap();
    }
    mv(&data.join("postgresql.auto.conf.original"), &data.join("postgresql.auto.conf"));
    home.engine.docker(["start", "db"]);
    home.wait("db");
    assert_eq!(home.sql("select id, what from votes order by id"), "1|kept");
    assert_eq!(home.sql("select count(*) from pgbench_accounts"), kept);

    // It is the cluster it was, on a new timeline, also in another container on the same volume.
    let _ = home.run().expect(0);
    home.engine.docker(["restart", "db"]);
    home.wait("db");
    let _ = home.run().expect(0);
    home.engine.docker(["rm", "--force", "db"]);
    home.start_db("data");
    let ran = home.run().expect(0);
    assert!(ran.step("database")["restore_point"].as_str().unwrap().ends_with('I'), "{ran}");

    // An empty one in its place is not backed up over it, until that is meant.
    home.engine.docker(["rm", "--force", "db"]);
    home.start_db("empty");
    home.fails("this is another cluster than before", "pi-agent adopt database");
    home.agent.ok(["adopt", "database"]);
    let ran = home.run();
    assert!(ran.step("database")["restore_point"].as_str().unwrap().ends_with('F'), "{ran}");
}

/// An old image of the disk is put back: what storage has stays, and what is written from now on is beside it.
#[test]
fn a_cluster_that_went_back_goes_on_along_a_new_timeline() {
    let home = Household::new();
    home.start_db("data");
    home.sql("create table votes (id int primary key, what text)");
    let _ = home.run().expect(0);
    let (data, image) = (home.engine.volume("data").join("pg"), home.scratch.join("image"));
    let copy = |from: &Path, to: &Path| sh(Command::new("cp").arg("-a").arg(from).arg(to));
    let put_back = || {
        home.engine.docker(["stop", "db"]);
        fs::remove_dir_all(&data).unwrap();
        copy(&image, &data);
        home.engine.docker(["start", "db"]);
        home.wait("db");
    };
    home.engine.docker(["stop", "db"]);
    copy(&data, &image);
    home.engine.docker(["start", "db"]);
    home.wait("db");
    home.sql("insert into votes values (1, 'before')");
    let _ = home.run().expect(0);

    put_back();
    home.sql("insert into votes values (2, 'after')");
    home.finish_segment();
    home.fails("went back to an earlier state", "pi-agent adopt database");
    home.agent.ok(["adopt", "database"]).says("goes on on timeline 2").says("set aside in");
    assert_eq!(home.sql("select what from votes"), "after");
    assert_eq!(home.sql("select count(*) from pg_file_settings where name ~ 'recovery|restore_command'"), "0");
    let ran = home.run().expect(0);
    assert!(ran.step("database")["restore_point"].as_str().unwrap().ends_with('F'), "{ran}");

    // Once more, and the number is the next that is free.
    put_back();
    home.fails("went back to an earlier state", "pi-agent adopt database");
    home.agent.ok(["adopt", "database"]).says("goes on on timeline 3");
    let _ = home.run().expect(0);
    for (timeline, rows) in [("1", "before"), ("2", "after"), ("3", "")] {
        home.agent.ok(["restore", "database", "--in-place", "--yes", "--timeline", timeline]);
        home.wait("db");
        assert_eq!(home.sql("select what from votes"), rows, "timeline {timeline}");
    }
}

#[test]
fn a_server_in_a_container_is_put_back_in_its_place_and_goes_on() {
    let home = Household::new();
    home.start_db("data");
    home.sql("create table votes (id int primary key, what text)");
    let _ = home.run().expect(0);
    home.sql("insert into votes values (1, 'kept')");
    let moment = home.sql("select to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
    home.sql("delete from votes");
    let id = || home.engine.docker(["inspect", "--format", "{{.State.Pid}}", "db"]);
    let before = id();

    // What cannot be restored stops it for a moment at most.
    home.agent
        .run(["restore", "database", "--in-place", "--yes", "--at", "20200101-000000F"])
        .expect(1)
        .says("there is no backup 20200101-000000F");
    home.wait("db");
    let ran = home.agent.ok(["restore", "database", "--in-place", "--yes", "--at", &moment]);
    home.wait("db");
    assert!(id() != before, "it was started anew");
    assert_eq!(home.sql("select id, what from votes"), "1|kept");
    ran.says("pg.before-restore-").says("pi-agent run database");

    // The newest moment is what the server wrote last, though nobody had pushed it.
    let _ = home.run().expect(0);
    home.sql("insert into votes values (2, 'the last of all')");
    home.agent.ok(["restore", "database", "--in-place", "--yes"]);
    home.wait("db");
    assert_eq!(home.sql("select id, what from votes order by id"), "1|kept\n2|the last of all");
    let _ = home.run().expect(0);
}

/// The new machine's containers were started before the recovery: the database's made an empty cluster, and the files' looks
/// into an empty directory.
#[test]
fn containers_of_the_new_machine_are_stopped_for_a_recovery_and_see_what_came_back() {
    let home = Household::new();
    home.start_db("data");
    home.sql(&format!("create tablespace one location '{}'", home.inside("space/one")));
    home.sql("create table votes (id int primary key, what text) tablespace one");
    home.sql("insert into votes values (1, 'kept')");
    let _ = home.run().expect(0);
    home.sql("insert into votes values (2, 'the last of all')");
    home.finish_segment();
    home.agent.ok(["wal", "push"]);
    let kit = home.scratch.join("kit.txt");
    home.agent.ok(["recovery-kit", "--to", kit.to_str().unwrap()]);

    home.engine.docker(["rm", "--force", "db"]);
    home.engine.docker(["volume", "rm", "data", "space"]);
    for gone in ["etc", "state", "cache", "runtime", "spool", "files"] {
        fs::remove_dir_all(home.scratch.join(gone)).unwrap();
    }
    home.start_db("data");
    let files = home.scratch.join("files");
    let volume = format!("{}:/files", files.display());
    let forever = ["bash", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"];
    let reader = ["run", "--detach", "--network=none", "--name=reader", "--volume", &volume, DockerEngine::IMAGE];
    home.engine.docker([&reader[..], &forever].concat());
    let id = |name: &str| home.engine.docker(["inspect", "--format", "{{.State.Pid}}", name]);
    let before = ["db", "reader"].map(id);

    let ran = home.agent.ok(["recover", "--kit", kit.to_str().unwrap()]);
    home.wait("db");
    assert_eq!(home.engine.docker(["exec", "reader", "cat", "/files/one"]), "1", "{ran}");
    assert_eq!(home.sql("select id, what from votes order by id"), "1|kept\n2|the last of all", "{ran}");
    let after = ["db", "reader"].map(id);
    assert!(before[0] != after[0] && before[1] != after[1] && !after.contains(&"0".to_owned()), "{before:?} {after:?}");
    let _ = home.run().expect(0);

    // In place, too.
    home.sql("delete from votes where id = 1");
    home.finish_segment();
    let moment = home.sql("select to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
    home.sql("delete from votes");
    home.agent.ok(["restore", "database", "--in-place", "--yes", "--at", &moment]);
    home.wait("db");
    assert_eq!(home.sql("select id, what from votes order by id"), "2|the last of all");
}

/// Where the volume is the data itself, the container cannot see what is beside it.
#[test]
fn tablespaces_come_back_into_their_volume_or_nothing_is_done() {
    let home = Household::new();
    let volumes = [
        format!("data:{}", home.inside("data/pg")),
        format!("space:{}", home.inside("space")),
        format!("{}:/wal", home.spool().display()),
    ];
    let options: Vec<_> = volumes.iter().flat_map(|volume| ["--volume", volume.as_str()]).collect();
    let command = format!("archive_command={}", pi_agent::wal::archive_command("/wal".as_ref()));
    home.start("db", &options, &["archive_mode=on", "archive_timeout=60", &command]);
    home.sql(&format!("create tablespace one location '{}'", home.inside("space/one")));
    home.sql("create table votes (id int primary key) tablespace one; insert into votes values (7)");
    let _ = home.run().expect(0);

    // One that is somebody else's is not put back there.
    let space = home.engine.volume("space").join("one");
    chown(&space, Some(0), None).unwrap();
    let refused = home.agent.run(["restore", "database", "--in-place", "--yes"]).expect(2);
    refused.says("the container db does not see").says("--to DIR");
    chown(&space, Some(UID), None).unwrap();
    assert_eq!(home.sql("select id from votes"), "7", "it runs");
    home.sql("delete from votes");
    let newest = home.agent.ok(["points", "database", "--json"]).json()["points"][0]["id"].as_str().unwrap().to_owned();
    home.agent.ok(["restore", "database", "--in-place", "--yes", "--at", &newest]).says("/_data/one/");
    home.wait("db");
    assert_eq!(home.sql("select id from votes"), "7");
    let location = home.sql("select pg_tablespace_location(oid) from pg_tablespace where spcname = 'one'");
    assert_eq!(location, home.inside("space/one"));
    let _ = home.run().expect(0);
}

#[test]
fn what_is_wrong_with_a_container_fails_its_step_alone_and_says_what_to_do() {
    let mut home = Household::new();
    home.fails("there is no container \"db\"", "Docker has no containers");

    // Data that goes with the container.
    home.start("db", &[], &[]);
    home.fails("data/pg of the container db is in no volume", "      - db-data:/");
    home.engine.docker(["rm", "--force", "db"]);

    // WAL that goes nowhere.
    let data = format!("data:{}", home.inside("data"));
    home.start("db", &["--volume", &data], &[]);
    let line = format!("      - {0}:{0}", home.spool().display());
    home.fails("archive_mode is off", &line);
    home.agent.run(["doctor"]).expect(1).says(&line).says("ALTER SYSTEM SET archive_mode = 'on'");
    home.engine.docker(["rm", "--force", "db"]);
    let command = format!("archive_command={}", pi_agent::wal::archive_command(&home.spool()));
    home.start("db", &["--volume", &data], &["archive_mode=on", &command]);
    home.fails("the container does not see the WAL spool", &line);
    home.engine.docker(["rm", "--force", "db"]);

    // Not there, not running, not answering.
    home.start_db("data");
    let _ = home.run().expect(0);

    // Something else mounted over the volume, which the container does not see.
    let other = Tmpfs::mount(home.engine.volume("data"), 1 << 20);
    home.fails("the data of the container db is not in", "is something else mounted there?");
    fs::create_dir(other.path().join("pg")).unwrap();
    home.fails("the data of the container db is not in", "is something else mounted there?");
    drop(other);
    let _ = home.run().expect(0);

    // Its user may write anything into its lock file. What lies in the volume is shown nowhere else.
    let lock = home.engine.volume("data").join("pg/postmaster.pid");
    let written = fs::read_to_string(&lock).unwrap();
    let mut lines: Vec<_> = written.lines().collect();
    lines[1] = "/usr/bin";
    fs::write(&lock, lines.join("\n") + "\n").unwrap();
    home.fails("says that its data directory is /usr/bin", "name the directory itself");
    fs::write(&lock, written).unwrap();
    let _ = home.run().expect(0);

    home.engine.docker(["pause", "db"]);
    home.fails("the container db is paused", "docker unpause db");
    home.engine.docker(["unpause", "db"]);
    home.engine.docker(["rename", "db", "database"]);
    home.fails("there is no container \"db\"", "the containers are database");
    home.engine.docker(["rename", "database", "db"]);
    home.finish_segment();
    home.engine.docker(["stop", "db"]);
    home.fails("the container db does not run", "docker start db");

    // Without Docker WAL still leaves, and points are still found.
    home.engine.stop();
    assert!(!waiting(&home).is_empty());
    home.agent.ok(["wal", "push"]);
    assert_eq!(waiting(&home), [""; 0]);
    home.fails("Docker does not", "start docker");
    home.agent.ok(["points", "database"]).says("full");
    home.agent.ok(["status"]);
    home.agent.ok(["plan"]);
    home.engine.start_again();
    home.engine.docker(["start", "db"]);
    home.wait("db");
    let _ = home.run().expect(0);
}

/// pgBackRest inside of the image, which pushes into the same repository: no spool, and nothing to set up.
#[test]
fn a_container_that_pushes_its_wal_itself_needs_no_spool() {
    let home = Household::new();
    let repository = home.scratch.directory("storage/database");
    chown(&repository, Some(UID), Some(UID - 1)).unwrap();
    let own = home.scratch.join("own.conf");
    let text = format!(
        "[global]\nrepo1-path=/repository\nrepo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass={}\ncompress-type=zst\n\
         log-level-file=off\nlock-path=/tmp/pgbackrest\n",
        Config::CIPHER
    );
    fs::write(&own, text).unwrap();
    chown(&own, Some(UID), Some(UID - 1)).unwrap();
    let volumes = [
        format!("data:{}", home.inside("data")),
        format!("{}:/repository", repository.display()),
        format!("{}:/etc/own.conf:ro", own.display()),
    ];
    let options: Vec<_> = volumes.iter().flat_map(|volume| ["--volume", volume.as_str()]).collect();
    let command = format!(
        "archive_command=pgbackrest --config=/etc/own.conf --stanza=main --pg1-path={} archive-push %p",
        home.inside("data/pg")
    );
    home.start("db", &options, &["archive_mode=on", "archive_timeout=60", &command]);
    home.sql("create table votes (id int primary key, what text)");
    let _ = home.run().expect(0);
    home.sql("insert into votes values (1, 'kept')");
    home.finish_segment();
    let ran = home.agent.run(["doctor"]);
    ran.says("ok       step database: a segment of WAL was in the repository after");
    assert!(!home.spool().exists() || waiting(&home).is_empty(), "nothing went through the spool");

    let to = home.scratch.join("restored");
    home.agent.ok(["restore", "database", "--to", to.to_str().unwrap()]);
    home.engine.docker(["stop", "db"]);
    let data = home.engine.volume("data").join("pg");
    fs::remove_dir_all(&data).unwrap();
    mv(&to, &data);
    home.engine.docker(["start", "db"]);
    home.wait("db");
    assert_eq!(home.sql("select what from votes"), "kept");
}

#[test]
fn slow_a_restore_test_uses_the_containers_own_image() {
    let home = Household::new();
    home.start_db("data");
    home.sql(&format!("create tablespace one location '{}'", home.inside("space/one")));
    home.sql("create table votes (id int primary key, what text) tablespace one");
    home.sql("insert into votes select n, 'vote ' || n from generate_series(1, 5000) n");
    let _ = home.run().expect(0);
    for _ in 0..2 {
        home.sql("insert into votes select max(id) + 1, 'later' from votes");
        home.finish_segment();
    }
    home.agent.ok(["wal", "push"]);
    let before = home.engine.docker(["ps", "--all", "--quiet"]);
    let test = || home.agent.ok(["restore-test", "database", "--json"]);
    for ran in [test(), privately(&["/usr/lib/postgresql"], test)] {
        let checks = ran.step("database")["tested"]["checks"].to_string();
        for name in ["databases", "tables", "pg_amcheck", "dump", "moment"] {
            assert!(checks.contains(&format!("\"name\":\"{name}\"")), "no {name}: {ran}");
        }
        assert_eq!(home.engine.docker(["ps", "--all", "--quiet"]), before, "its container is gone");
    }

    // Killed while its container runs, it leaves one, until the next start of anything.
    let running = home.agent.start(["restore-test", "database"]);
    let started = Instant::now();
    while home.engine.docker(["ps", "--quiet"]).lines().count() < 2 {
        assert!(started.elapsed() < Duration::from_secs(120), "it starts no container");
        std::thread::sleep(Duration::from_millis(50));
    }
    running.signal(nix::sys::signal::Signal::SIGKILL);
    running.wait();
    std::thread::sleep(Duration::from_secs(7));
    home.agent.run(["check", "files"]);
    assert_eq!(home.engine.docker(["ps", "--all", "--quiet"]), before, "the next run removes it");

    // Without the container the image is not known: this machine's programs do what they can.
    home.engine.docker(["rm", "--force", "db"]);
    let ran = home.agent.run(["restore-test", "database", "--json"]);
    assert!([Some(0), Some(5)].contains(&ran.code()), "{ran}");
    ran.says("WAL");
}
