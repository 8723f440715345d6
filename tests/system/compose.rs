//! The household of docs/docker.md, as it stands there: its compose file, brought up by Docker's own program, its
//! configuration, and the commands that bring the database back.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::document::{self, block, blocks};
use harness::leveldb::READER;
use harness::{Agent, Config, DockerEngine, Scratch, TypedInto, privately, sh};

struct Household {
    engine: DockerEngine,
    scratch: Scratch,
    agent: Agent,
}

impl Household {
    /// Up and running; the agent is configured as the document says.
    fn up() -> Self {
        let scratch = Scratch::new();
        let engine = DockerEngine::start_as_usual();
        document::stand_ins(&engine);
        fs::create_dir_all("/srv/secrets").unwrap();
        fs::write("/srv/secrets/db-password", "correct horse\n").unwrap();
        fs::set_permissions("/srv/secrets/db-password", fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(scratch.directory("compose").join("compose.yaml"), block("yaml")).unwrap();
        let config = Config::local(scratch.path()).spool("/var/spool/pgbackrest");
        let agent = blocks("toml").into_iter().fold(config, Config::table).write();
        let household = Self { engine, scratch, agent };
        household.compose(&["up", "--detach"]);
        household.wait_for_the_database();
        household.wait_for_records(1);
        household
    }

    /// With the program of that name, which reads `compose.yaml`.
    fn compose(&self, arguments: &[&str]) {
        sh(Command::new("docker-compose").args(arguments).current_dir(self.scratch.join("compose")));
    }

    fn psql(&self, sql: &str) -> Option<String> {
        let psql = ["exec", "db", "psql", "-U", "postgres", "-XAtqc", sql];
        let output = self.engine.command(psql).output().unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    #[track_caller]
    fn sql(&self, sql: &str) -> String {
        self.psql(sql).unwrap_or_else(|| panic!("{sql}: {}", self.engine.docker(["logs", "db"])))
    }

    fn wait_for_the_database(&self) {
        let started = Instant::now();
        while self.psql("select 1").is_none() {
            assert!(started.elapsed() < Duration::from_secs(60), "{}", self.engine.docker(["logs", "db"]));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Setup, on a machine that knows nothing yet, finds what the document has, and writes that.
    fn is_found_by_setup(&self) {
        let place = |name: &str| self.scratch.join("other").join(name).display().to_string();
        let agent = Agent::new(place("etc/config.toml"), place("state"));
        let (storage, cache, runtime) = (format!("file://{}", place("storage")), place("cache"), place("runtime"));
        let flags = ["setup", "--unattended", "--name=pi", "--storage", &storage, "--cache", &cache];
        let ran = agent.run(flags.into_iter().chain(["--runtime", &runtime, "--no-enable"]));
        // 5: the doctor wants WAL in a repository that no run has made yet.
        assert!(matches!(ran.code(), Some(0 | 5)), "{ran}");
        ran.says("PostgreSQL 15 archives its WAL already");
        assert!(!ran.stdout.contains("_data belongs to no server"), "{ran}");
        let written = steps(&fs::read_to_string(place("etc/config.toml")).unwrap());
        for wanted in blocks("toml").into_iter().flat_map(steps) {
            let found = written.iter().find(|step| step["name"] == wanted["name"]).unwrap_or_else(|| panic!("{ran}"));
            for (key, value) in &wanted {
                assert_eq!(found.get(key), Some(value), "{key} of {found:?}");
            }
        }
    }

    fn wait_for_records(&self, count: usize) {
        let started = Instant::now();
        while self.records() < count {
            assert!(started.elapsed() < Duration::from_secs(60), "{}", self.engine.docker(["logs", "foundry"]));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn records(&self) -> usize {
        let acknowledged = fs::read_to_string("/srv/foundry/data/Data/worlds/saltmarsh/acknowledged");
        acknowledged.unwrap_or_default().lines().count()
    }

    /// Commands of the document, in which the program has the name it has when it is installed.
    fn shell(&self, script: &str) {
        let words = self.agent.command([""; 0]);
        let words: Vec<_> = std::iter::once(words.get_program())
            .chain(words.get_args())
            .map(|word| format!("'{}'", word.to_str().unwrap()))
            .collect();
        let program = self.scratch.directory("bin").join("pi-agent");
        fs::write(&program, format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" "))).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
        let output = Command::new("sh").args(["-exc", script]).env("PATH", path).output().unwrap();
        assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The `[[step]]`s of a configuration.
fn steps(text: &str) -> Vec<toml::Table> {
    let table: toml::Table = text.parse().unwrap();
    table["step"].as_array().unwrap().iter().map(|step| step.as_table().unwrap().clone()).collect()
}

/// The SQL in the doctor's advice, a statement each.
fn statements(advice: &str) -> Vec<String> {
    let (_, rest) = advice.split_once("in psql as a superuser: ").expect("SQL to paste");
    let (sql, _) = rest.split_once(" then restart PostgreSQL").expect("a restart is needed");
    sql.split(" ALTER SYSTEM")
        .enumerate()
        .map(|(n, rest)| if n == 0 { rest.into() } else { format!("ALTER SYSTEM{rest}") })
        .collect()
}

/// Types the statements into the terminal that the document names.
fn paste(statements: &[String]) {
    let mut command = Command::new("docker");
    command.args(["exec", "-it", "db", "psql", "-U", "postgres"]);
    assert!(document::TEXT.contains("`docker exec -it db psql -U postgres`"));
    let mut terminal = TypedInto::start(&command);
    for statement in statements {
        terminal.sees("postgres=#").types(statement).sees("ALTER SYSTEM\n");
    }
    terminal.sees("postgres=#").types("\\q");
    assert!(terminal.wait().success(), "{}", terminal.screen());
}

/// Now, to the second, which has begun after everything that was done before.
fn moment() -> String {
    std::thread::sleep(Duration::from_millis(1100));
    let now = jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S").to_string();
    std::thread::sleep(Duration::from_millis(1100));
    now
}

#[test]
fn slow_the_household_of_the_document_is_backed_up_and_comes_back() {
    let databases = ["/etc/postgresql", "/var/lib/postgresql", "/var/spool/pgbackrest"];
    let places = [&databases[..], &["/run", "/srv", "/var/lib/docker"]].concat();
    privately(&places, || {
        let home = Household::up();
        TcpStream::connect("127.0.0.1:30000").expect("Foundry's port is this machine's");

        // The doctor says what to paste.
        let doctor = home.agent.run(["doctor", "--json"]).expect(1).json();
        let findings = doctor["findings"].as_array().unwrap();
        let advice = findings.iter().filter_map(|finding| finding["advice"].as_str());
        let advice: Vec<_> = advice.filter(|advice| advice.contains("ALTER SYSTEM")).collect();
        let [advice] = advice[..] else { panic!("{findings:#?}") };
        let statements = statements(advice);
        assert_eq!(statements.len(), 3, "{statements:?}");
        paste(&statements);
        sh(Command::new("docker").args(["restart", "db"]));
        home.wait_for_the_database();
        assert_eq!(home.sql("show archive_timeout"), "10min");

        // A night.
        home.sql("create table votes (id int)");
        let before = home.records();
        let ran = home.agent.ok(["run", "--json"]);
        let quiet = ran.step("foundry")["quiet_milliseconds"].as_u64().unwrap();
        eprintln!("Foundry was quiet for {quiet} ms");
        assert!(quiet < 30_000, "{ran}");
        assert_eq!(home.engine.docker(["inspect", "--format", "{{.State.Status}}", "foundry"]), "running");
        home.agent.ok(["doctor"]).says("PostgreSQL 15 in the container db answers and archives its WAL");
        home.agent.ok(["points"]).says("database").says("foundry");

        // Foundry's files are back at their paths, and the world opens.
        let to = home.scratch.join("restored");
        home.agent.ok(["restore", "foundry", "--to", to.to_str().unwrap()]);
        let data = to.join("srv/foundry/data");
        assert_eq!(fs::read_to_string(data.join("Config/options.json")).unwrap(), "{\"port\": 30000}\n");
        let volume = format!("{}:/data", data.display());
        let run = ["run", "--rm", "--network=none", "--volume", &volume, DockerEngine::IMAGE];
        let reader = ["python3", "-c", READER, "/data/Data/worlds/saltmarsh"];
        let count: usize = home.engine.docker(run.into_iter().chain(reader)).parse().unwrap();
        assert!(count >= before && before > 0, "{count} records, {before} were acknowledged before");

        // The database at a moment between two rows, put back by the commands of the document.
        home.sql("insert into votes values (1)");
        let moment = moment();
        home.sql("insert into votes values (2)");
        let segment = home.sql("select pg_walfile_name(pg_switch_wal())");
        let archived = format!("select coalesce(last_archived_wal >= '{segment}', false) from pg_stat_archiver");
        let started = Instant::now();
        while home.sql(&archived) != "t" {
            assert!(started.elapsed() < Duration::from_secs(30), "{segment} is not archived");
            std::thread::sleep(Duration::from_millis(50));
        }
        home.agent.ok(["wal", "push"]);
        let waiting = pi_agent::wal::waiting("/var/spool/pgbackrest/database".as_ref()).unwrap();
        assert_eq!(waiting, [""; 0], "all of it is in the repository");
        let (begin, rest) = block("sh").split_once("--at \"").unwrap();
        let (_, end) = rest.split_once('"').unwrap();
        home.shell(&format!("{begin}--at \"{moment}\"{end}"));
        assert_eq!(home.sql("select id from votes"), "1");

        // Made anew on the same volume it goes on.
        home.compose(&["up", "--detach", "--force-recreate", "db"]);
        home.wait_for_the_database();
        home.agent.ok(["run"]);
        home.is_found_by_setup();
    });
}
