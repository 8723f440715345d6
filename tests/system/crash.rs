//! kill -9 at random moments, of whatever is at work: afterwards nothing runs on, nothing is claimed that is not there, the next
//! run succeeds, and every point there ever was restores to what it was made of.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::processes::descendants_polled;
use harness::{Agent, Census, Cluster, Config, Garage, Household, Ran, Random, Running, Scratch, Size, TlsProxy, Tree};
use harness::{by_effort, sh};
use nix::sys::signal::{Signal, kill};

/// What is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Supervisor,
    Step,
    PgBackRest,
}

/// What a restore point must give back.
enum Made {
    Files(Tree),
    /// Everything as SQL.
    Database(String),
}

struct Host {
    scratch: Scratch,
    household: Household,
    cluster: Cluster,
    agent: Agent,
    repository: String,
    ca_file: Option<std::path::PathBuf>,
    random: Random,
    /// Every restore point of `foundry` and `database` that a run has told of.
    known: BTreeMap<String, Made>,
    /// How long a run that nobody disturbs takes.
    usual: Duration,
}

impl Host {
    fn local(seed: u64) -> Self {
        let scratch = Scratch::new();
        let config = Config::local(scratch.path());
        let repository = config.storage_folder().join("foundry").display().to_string();
        Self::new(scratch, config, repository, None, seed)
    }

    fn s3(proxy: &TlsProxy, seed: u64) -> Self {
        let scratch = Scratch::new();
        let keys = (Garage::KEY_ID, Garage::KEY);
        let config = Config::s3(scratch.path(), "s3://backups/host", &proxy.endpoint(), proxy.ca_file(), keys);
        let repository = format!("s3:{}/{}/host/foundry", proxy.endpoint(), Garage::BUCKET);
        Self::new(scratch, config, repository, Some(proxy.ca_file().to_owned()), seed)
    }

    fn new(
        scratch: Scratch,
        config: Config,
        repository: String,
        ca_file: Option<std::path::PathBuf>,
        seed: u64,
    ) -> Self {
        let household = Household::make(scratch.join("srv"), Size { bytes: 40_000_000, files: 200 }, seed);
        let archive = pi_agent::wal::archive_command(&scratch.join("spool/main")).replace('\'', "''");
        let cluster = Cluster::make(&scratch, "server", &format!("archive_command = '{archive}'"));
        let config = config.step(&cluster.step("database", "main", ""));
        let config = config.directory("foundry", &[&household.foundry()], "");
        let agent = config.directory("logs", &[&household.logs()], "keep = { last = 2 }").write();
        cluster.start();
        cluster.sql("create table sessions (id int generated always as identity, notes text)");
        let (random, known, usual) = (Random::new(seed), BTreeMap::new(), Duration::ZERO);
        Self { scratch, household, cluster, agent, repository, ca_file, random, known, usual }
    }

    fn a_day_passes(&mut self) {
        self.household.change(0.3);
        self.cluster.sql("insert into sessions (notes) select md5(i::text) from generate_series(1, 2000) i");
    }

    /// A run that nobody disturbs succeeds in full.
    fn run_in_peace(&mut self) {
        let ran = self.agent.ok(["run", "--json"]);
        self.usual = ran.took;
        self.remember(&ran);
    }

    /// Takes up what a run says it has made, and insists that it is there.
    fn remember(&mut self, ran: &Ran) {
        let told = ran.json();
        let there = self.agent.ok(["points", "--json"]).json();
        let there: Vec<_> = there["points"].as_array().unwrap().iter().map(|point| &point["id"]).collect();
        for step in told["steps"].as_array().unwrap() {
            let success = matches!(step["outcome"].as_str(), Some("succeeded" | "degraded"));
            assert_eq!(success, !step["restore_point"].is_null(), "{ran}");
            assert!(!success || there.contains(&&step["restore_point"]), "a point that is not there: {ran}\n{there:?}");
            let made = match step["name"].as_str() {
                Some("foundry") if success => Made::Files(Tree::read(self.household.foundry())),
                Some("database") if success => Made::Database(self.cluster.dump()),
                _ => continue,
            };
            self.known.insert(step["restore_point"].as_str().unwrap().to_owned(), made);
        }
    }

    fn last_successes(&self) -> BTreeMap<String, String> {
        let status = self.agent.ok(["status", "--json"]).json();
        let steps = status["steps"].as_array().unwrap();
        steps.iter().map(|step| (step["name"].to_string(), step["last_success"].to_string())).collect()
    }

    /// False when there was nothing left to kill.
    fn kill_during_a_run(&mut self, victim: Victim) -> bool {
        let before = self.last_successes();
        let moment = self.usual.mul_f64(self.random.fraction());
        let running = self.agent.start(["run", "--json"]);
        let census = Census::of(running.pid());
        std::thread::sleep(moment);
        let killed = strike(victim, running, self.usual);
        census.assert_all_gone(Duration::from_secs(10));
        let Some(ran) = killed else { return false };

        match victim {
            // It said nothing, so what its history says now must hold against the points that are there.
            Victim::Supervisor => assert_eq!(ran.stdout, "", "{ran}"),
            Victim::Step | Victim::PgBackRest => {
                let _ = ran.step("agent");
                self.remember(&ran);
            }
        }
        let points = self.agent.ok(["points", "--json"]).json();
        for (step, success) in self.last_successes() {
            if before[&step] != success {
                let newest = points["points"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .rfind(|point| point["step"].as_str() == Some(step.trim_matches('"')));
                let time = newest.unwrap_or_else(|| panic!("{step} has no point, but a success: {ran}"));
                let moment = |text: &str| text.trim_matches('"').parse::<jiff::Timestamp>().unwrap();
                let age = moment(&success).duration_since(moment(&time["time"].to_string()));
                assert!(age.as_secs() <= 30, "{step}: a success at {success}, but the newest point is {time}: {ran}");
            }
        }
        true
    }

    fn assert_every_point_restores(&self) {
        let below = self.household.foundry().strip_prefix("/").unwrap().to_owned();
        for (id, made) in &self.known {
            let target = self.scratch.join("restored");
            let step = if matches!(made, Made::Files(_)) { "foundry" } else { "database" };
            self.agent.ok(["restore", step, "--at", id, "--to", target.to_str().unwrap()]);
            match made {
                Made::Files(tree) => tree.assert_equals(target.join(&below)),
                Made::Database(text) => {
                    let restored = Cluster::existing(&self.scratch, &target);
                    assert!(*text == restored.start().dump(), "{id} gave back another database");
                    restored.stop();
                }
            }
            std::fs::remove_dir_all(target).unwrap();
        }
        let mut restic = Command::new("restic");
        restic.env("RESTIC_REPOSITORY", &self.repository).env("RESTIC_PASSWORD", Config::PASSWORD);
        restic.env("AWS_ACCESS_KEY_ID", Garage::KEY_ID).env("AWS_SECRET_ACCESS_KEY", Garage::KEY);
        restic.env("AWS_DEFAULT_REGION", Garage::REGION);
        restic.args(self.ca_file.iter().map(|file| format!("--cacert={}", file.display())));
        sh(restic.args(["--no-cache", "check", "--read-data"]));
    }
}

/// Kills the victim as soon as there is one; `None` when the run ended before there was.
fn strike(victim: Victim, mut running: Running, patience: Duration) -> Option<Ran> {
    let started = Instant::now();
    while !running.has_ended() {
        let target = match victim {
            Victim::Supervisor => Some(running.pid()),
            Victim::Step => descendants_polled(running.pid())
                .into_iter()
                .find(|process| process.arguments().get(1).is_some_and(|word| word == "step"))
                .map(|process| process.pid()),
            Victim::PgBackRest => descendants_polled(running.pid())
                .into_iter()
                .find(|process| process.name == "pgbackrest")
                .map(|process| process.pid()),
        };
        if let Some(target) = target
            && kill(target, Signal::SIGKILL).is_ok()
        {
            return Some(running.wait());
        }
        assert!(started.elapsed() < patience * 10 + Duration::from_secs(60), "no {victim:?} to be seen");
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

/// Kills that hit something: four, or twenty in a full run.
fn kills(mut host: Host) {
    let wanted = by_effort(4, 20);
    host.run_in_peace();
    host.a_day_passes();
    host.run_in_peace();
    let mut hits = 0;
    for attempt in 0.. {
        assert!(attempt < 2 * wanted, "only {hits} of {attempt} kills hit anything");
        host.a_day_passes();
        let victim = *host.random.pick(&[Victim::Supervisor, Victim::Step, Victim::PgBackRest]);
        let hit = host.kill_during_a_run(victim);
        eprintln!("{victim:?}: {}", if hit { "killed" } else { "the run was over before" });
        hits += u32::from(hit);
        host.run_in_peace();
        if hits == wanted {
            break;
        }
    }
    host.assert_every_point_restores();
}

#[test]
fn slow_kills_with_local_storage() {
    kills(Host::local(20));
}

#[test]
fn slow_kills_with_s3() {
    let garage = Garage::start();
    let proxy = TlsProxy::before(&garage);
    kills(Host::s3(&proxy, 21));
}
