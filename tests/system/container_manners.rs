//! What a database in a container is backed up and brought back from, whatever the manners of its image: each of them goes
//! through the same story.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::{Agent, DockerEngine, Official, Ran, by_effort, privately, sh};
use pi_agent::steps::postgres::SetUp;

use crate::container_postgres::Household;

const NOW: &str = "select to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
/// Where images have the data, and what they are given by.
const DATABASES: &str = "/var/lib/postgresql";

/// One image and the way that it is run.
#[derive(Clone, Copy)]
struct Manners {
    name: &'static str,
    image: Official,
    /// Where the volume is, and where in it the data.
    volume: &'static str,
    data: &'static str,
    /// More of its environment.
    environment: &'static [&'static str],
    /// Another user than the image's, with a name from outside.
    user: Option<u32>,
    /// The engine has users of its own.
    remapped: bool,
}

const PLAIN: Manners = Manners {
    name: "Debian",
    image: Official::Debian,
    volume: "/var/lib/postgresql/data",
    data: "/var/lib/postgresql/data/pgdata",
    environment: &["POSTGRES_DB=app"],
    user: None,
    remapped: false,
};

const ALL: [Manners; 6] = [
    PLAIN,
    Manners { name: "Alpine", image: Official::Alpine, data: "/var/lib/postgresql/data", environment: &[], ..PLAIN },
    Manners {
        name: "PostgreSQL 18",
        volume: "/var/lib/postgresql",
        data: "/var/lib/postgresql/18/docker",
        environment: &["POSTGRES_INITDB_ARGS=--locale=C --data-checksums"],
        ..PLAIN
    },
    Manners {
        name: "WAL elsewhere",
        environment: &["POSTGRES_INITDB_WALDIR=/var/lib/postgresql/wal/of", "POSTGRES_INITDB_ARGS=--no-locale"],
        ..PLAIN
    },
    Manners { name: "another user", user: Some(1000), ..PLAIN },
    Manners { name: "remapped users", remapped: true, ..PLAIN },
];

struct Home {
    home: Household,
    manners: Manners,
    image: &'static str,
}

impl Home {
    fn new(manners: Manners) -> Self {
        let engine = if manners.remapped { DockerEngine::start_remapped() } else { DockerEngine::start() };
        let image = manners.image.provide(&engine);
        Self { home: Household::of(engine), manners, image }
    }

    /// The number of the server's user on this machine.
    fn uid(&self) -> u32 {
        let first = if self.manners.remapped { DockerEngine::REMAPPED } else { 0 };
        first + self.manners.user.unwrap_or(self.manners.image.uid())
    }

    fn docker<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> String {
        self.home.engine.docker(arguments)
    }

    fn sql(&self, sql: &str) -> String {
        self.home.sql(sql)
    }

    /// Starts `db` on that volume; a server that asks for nothing but what its image has.
    fn start(&self, volume: &str, more: &[&str]) {
        let Manners { environment, user, volume: at, data, .. } = self.manners;
        let (spool, wal) = (self.home.spool(), format!("wal-of-{volume}:/var/lib/postgresql/wal"));
        let mut options = vec![format!("{volume}:{at}"), format!("{0}:{0}", spool.display())];
        if at != DATABASES {
            options.push(wal);
        }
        if let Some(user) = user {
            // As the image's own manual has it: such a user brings its name along, and its directories.
            let names = self.home.scratch.join("passwd");
            fs::write(&names, format!("root:x:0:0::/root:/bin/sh\nme:x:{user}:{user}::/:/bin/sh\n")).unwrap();
            fs::set_permissions(&names, fs::Permissions::from_mode(0o644)).unwrap();
            options.push(format!("{}:/etc/passwd:ro", names.display()));
            for volume in options.iter().filter_map(|option| option.split_once(':')).map(|(volume, _)| volume) {
                if !volume.starts_with('/') {
                    self.docker(["volume", "create", volume]);
                    chown(self.home.engine.volume(volume), Some(user), Some(user)).unwrap();
                }
            }
        }
        let user = user.map(|user| format!("--user={user}:{user}"));
        let data = format!("PGDATA={data}");
        let environment =
            ["POSTGRES_USER=keeper", "POSTGRES_PASSWORD=secret", &data].into_iter().chain(environment.iter().copied());
        let mut arguments = vec!["run", "--detach", "--network=none", "--stop-signal=SIGINT", "--name=db"];
        arguments.extend(environment.flat_map(|pair| ["--env", pair]));
        arguments.extend(options.iter().flat_map(|volume| ["--volume", volume.as_str()]));
        arguments.extend(user.as_deref());
        arguments.extend(more);
        arguments.extend([self.image, "-c", "shared_buffers=16MB", "-c", "listen_addresses="]);
        self.docker(arguments);
    }

    fn wait(&self) {
        // The temporary server of the first start answers, too.
        let started = Instant::now();
        let first = || self.home.engine.command(["exec", "db", "cat", "/proc/1/comm"]).output().unwrap().stdout;
        while first() != b"postgres\n" {
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "{:?}",
                self.home.engine.command(["logs", "db"]).output()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        self.home.wait("db");
    }

    /// What the doctor says of a server that archives nothing.
    fn set_up(&self) {
        let set_up = SetUp::unseen(&self.home.spool(), Duration::from_secs(1800));
        set_up.statements.iter().for_each(|statement| drop(self.sql(statement)));
        self.docker(["restart", "db"]);
        self.wait();
    }

    fn run(&self) -> Ran {
        self.home.run().expect(0)
    }

    fn agent(&self) -> &Agent {
        &self.home.agent
    }

    fn rows(&self) -> String {
        self.sql("select string_agg(what, ' ' order by id) from votes")
    }

    fn insert(&self, what: &str) {
        self.sql(&format!("insert into votes (what) values ('{what}')"));
    }

    /// Types the commands that a report has, as a person does; whether all went well.
    fn shell(&self, options: &str, report: &str) -> bool {
        let lines = report.lines().filter_map(|line| line.strip_prefix("  "));
        let script: String = lines.flat_map(|line| [line.trim_start(), "\n"]).collect();
        let mut shell = Command::new("sh");
        shell.args([options, &script]).env("DOCKER_HOST", self.home.engine.host()).status().unwrap().success()
    }

    fn restore(&self, name: &str, more: &[&str]) -> (PathBuf, Ran) {
        let to = self.home.scratch.join(name);
        let ran = self.agent().ok(["restore", "database", "--to", to.to_str().unwrap()].iter().chain(more));
        assert_eq!(to.join("global/pg_control").metadata().unwrap().uid(), self.uid());
        (to, ran)
    }

    /// A database with rows that each locale has in another order.
    fn with_votes(&self) {
        self.start("data", &[]);
        self.wait();
        self.set_up();
        self.sql("create table votes (id serial, what text)");
        self.sql("create index on votes (what)");
        self.sql("insert into votes (what) select c from unnest(string_to_array('b A a B', ' ')) c");
        self.insert("one");
    }

    /// A first night.
    fn is_backed_up(&self) {
        for name in ["a=b", "host=127.0.0.1 port=1", "it's 100%"] {
            self.sql(&format!("create database \"{name}\""));
        }
        self.sql("alter system set log_min_messages = 'panic'");
        self.sql("select pg_reload_conf()");
        let ran = self.run();
        assert!(ran.step("database")["restore_point"].as_str().unwrap().ends_with('F'), "{ran}");
        self.agent().ok(["doctor"]).says("PostgreSQL 15 in the container db answers and archives its WAL");
    }

    /// A moment, and each way back to it.
    fn comes_back(&self) {
        self.insert("five");
        let moment = self.sql(NOW);
        self.insert("too late");
        self.agent().ok(["wal", "push", "--switch"]);
        self.agent().ok(["points", "database"]).says("full");
        let tested = self.agent().ok(["restore-test", "database"]);
        let databases = self.sql("select count(*) from pg_database where datallowconn");
        tested.says(&format!("databases: good: all {databases} open"));

        // By the commands that are printed.
        let (_, ran) = self.restore("my copy", &["--at", &moment]);
        assert!(self.shell("-exc", &ran.stdout), "{ran}");
        self.wait();
        assert_eq!(self.rows(), "b A a B one two three four five");
        self.run();

        // In place, by the image's own programs and by this machine's.
        let mut rows = self.rows();
        for (hidden, what) in
            by_effort(&[("/usr/lib/postgresql", "six")][..], &[("/usr/lib/postgresql", "six"), ("/mnt", "seven")])
        {
            self.insert(what);
            rows = format!("{rows} {what}");
            let moment = self.sql(NOW);
            self.sql("delete from votes");
            let in_place = ["restore", "database", "--in-place", "--yes", "--at", &moment];
            privately(&[hidden], || self.agent().ok(in_place));
            self.wait();
            assert_eq!(self.rows(), rows);
            self.run();
        }
    }

    /// What a server that was killed had not handed over is taken from it.
    fn hands_over(&self) {
        let command = self.sql("show archive_command");
        self.sql("alter system set archive_command = 'false # pgbackrest'");
        self.sql("select pg_reload_conf()");
        for what in ["two", "three"] {
            self.insert(what);
            self.sql("select pg_switch_wal()");
        }
        self.insert("four");
        self.docker(["kill", "db"]);
        self.agent().ok(["wal", "push"]);
        let (to, _) = self.restore("newest", &[]);
        let found = sh(Command::new("grep")
            .args(["--recursive", "--files-with-matches", "--text", "four"])
            .arg(to.join("base")));
        assert!(!found.is_empty(), "what came last is not there");
        self.docker(["start", "db"]);
        self.wait();
        self.sql(&format!("alter system set archive_command = '{}'", command.replace('\'', "''")));
        self.sql("select pg_reload_conf()");
        assert_eq!(self.rows(), "b A a B one two three four");
        self.run();
    }

    /// Another cluster in its place is taken when that is meant, and takes the dumps of the old in.
    fn is_adopted(&self) {
        let points = self.agent().ok(["points", "database", "--json"]).json();
        let dump = points["points"].as_array().unwrap().iter().find(|point| point["kind"] == "dump").unwrap();
        let to = self.home.scratch.join("dump");
        let dump = self.agent().ok([
            "restore",
            "database",
            "--to",
            to.to_str().unwrap(),
            "--at",
            dump["id"].as_str().unwrap(),
        ]);
        self.docker(["rm", "--force", "db"]);
        self.start("empty", &[]);
        self.wait();
        self.set_up();
        self.home.run().expect(3).says("pi-agent adopt database");
        self.agent().ok(["adopt", "database"]);
        self.run();
        assert!(self.shell("-xc", &dump.stdout), "{dump}");
        assert_eq!(self.rows(), "b A a B one");
    }
}

/// Whoever's turn it is today; all of them in a full run.
fn tonight() -> Vec<Manners> {
    let day = usize::try_from(jiff::Zoned::now().day_of_year()).unwrap();
    by_effort(vec![ALL[day % ALL.len()]], ALL.to_vec())
}

/// Does the work on a machine on which 999 is somebody else.
fn with_a_stranger(work: impl FnOnce() + Send) {
    privately(&[DATABASES], || {
        let names = harness::Scratch::new();
        let file = names.join("passwd");
        let text = fs::read_to_string("/etc/passwd").unwrap() + "stranger:x:999:999::/:/usr/sbin/nologin\n";
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        sh(Command::new("mount").arg("--bind").arg(&file).arg("/etc/passwd"));
        work();
    });
}

#[test]
fn slow_whatever_its_image_does_a_database_comes_back() {
    for manners in tonight() {
        eprintln!("{}", manners.name);
        with_a_stranger(|| {
            let home = Home::new(manners);
            home.with_votes();
            home.is_backed_up();
            home.hands_over();
            home.comes_back();
            if by_effort(false, true) {
                home.is_adopted();
            }
        });
    }
}

/// The official images make their databases by a server that is there for that alone.
#[test]
fn a_first_start_is_waited_for() {
    with_a_stranger(|| {
        let home = Home::new(PLAIN);
        let scripts = home.home.scratch.directory("scripts");
        let set_up = SetUp::unseen(&home.home.spool(), Duration::from_secs(1800)).statements.join("\n");
        fs::write(scripts.join("1.sql"), format!("{set_up}\ncreate table early (id int);\nselect pg_sleep(4);\n"))
            .unwrap();
        home.start("data", &["--volume", &format!("{}:/docker-entrypoint-initdb.d:ro", scripts.display())]);
        let tables = ["exec", "db", "psql", "-XAtqU", "keeper", "-d", "app", "-c", "select count(*) from early"];
        let began = Instant::now();
        while !home.home.engine.command(tables).output().unwrap().status.success() {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "{:?}",
                home.home.engine.command(["logs", "db"]).output()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        home.run();
    });
}

#[test]
fn busyboxs_tools_fill_the_spool_as_safely() {
    let engine = DockerEngine::start();
    let image = Official::Alpine.provide(&engine);
    engine.docker([
        "run",
        "--detach",
        "--network=none",
        "--name=db",
        "--user=70:70",
        "--entrypoint=sleep",
        image,
        "600",
    ]);
    let run =
        |script: &str| engine.command(["exec", "--workdir=/tmp", "db", "sh", "-c", script]).status().unwrap().success();
    let segment = "000000010000000000000001";
    let command = pi_agent::wal::archive_command("/tmp/it's 100% odd".as_ref());
    let command = command.replace("%%", "\0").replace("%p", segment).replace("%f", segment).replace('\0', "%");
    let archive = || run(&command);
    assert!(run(&format!("readlink -f /bin/sh /bin/cp /bin/sync | grep -c busybox | grep 3; echo one >{segment}")));
    assert!(!archive(), "without its folder it fails");
    assert!(run("mkdir \"it's 100% odd\""));
    assert!(archive());
    assert!(archive(), "the same again");
    assert!(run(&format!("echo two >{segment}")));
    assert!(!archive(), "another of that name");
    assert_eq!(
        engine.docker(["exec", "db", "sh", "-c", &format!("cd /tmp/it*; ls -A; cat {segment}")]),
        format!("{segment}\none")
    );
}

/// Where the container is not there any more, its locales are this machine's, if it has any of that name, and so are its extensions.
#[test]
fn a_restore_test_without_the_image_takes_no_other_order_for_damage() {
    with_a_stranger(|| {
        let home = Home::new(ALL[1]);
        home.with_votes();
        let extension = "cd /usr/share/postgresql/15/extension; echo \"default_version = '1.0'\" >hunt.control
            echo 'create table hunted (id int)' >hunt--1.0.sql";
        home.docker(["exec", "db", "sh", "-ec", extension]);
        home.sql("create extension hunt");
        home.run();
        home.docker(["rm", "--force", "db"]);
        let ran = privately(&["/usr/lib/locale"], || {
            sh(Command::new("localedef").args(["-i", "en_US", "-f", "UTF-8", "en_US.UTF-8"]));
            home.agent().run(["restore-test", "database"])
        });
        ran.says("this machine's way to sort text").says("the server here lacks hunt");
        assert!(!ran.stdout.contains("FAILED") && ran.code() == Some(5), "{ran}");
    });
}
