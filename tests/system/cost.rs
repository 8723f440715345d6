//! What a night costs: requests, as the server's side counts them, and writes to this machine's disks, as the kernel does.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use harness::{Agent, Config, Garage, Household, Random, Scratch, Size, TlsProxy, Tmpfs, Traffic, Tree, privately, sh};
use jiff::{SignedDuration, Timestamp};
use nix::sys::resource::{UsageWho, getrusage};
use pi_agent::monitor::Problem;
use pi_agent::state::{Opened, State};
use pi_agent::steps::{Outcome, StepResult};

/// A household whose storage is a bucket.
struct Host {
    scratch: Scratch,
    proxy: TlsProxy,
    household: Household,
    _garage: Garage,
}

impl Host {
    /// With its household below `/srv`: who calls this has that for itself. The directories above what is backed up are in
    /// each snapshot, and in `/tmp` other tests come and go.
    fn new(seed: u64) -> Self {
        let (scratch, garage) = (Scratch::new(), Garage::start());
        let household = Household::make("/srv", Size::SMALL, seed);
        Self { proxy: TlsProxy::before(&garage), scratch, household, _garage: garage }
    }

    fn config(&self) -> Config {
        let url = format!("s3://{}/host", Garage::BUCKET);
        let keys = (Garage::KEY_ID, Garage::KEY);
        Config::s3(self.scratch.path(), &url, &self.proxy.endpoint(), self.proxy.ca_file(), keys)
    }

    /// What a run asks for.
    fn asked(&self, agent: &Agent) -> Traffic {
        self.proxy.take_traffic();
        agent.ok(["run"]);
        self.proxy.take_traffic()
    }
}

/// Of one step, by kind: `LIST`, `PUT snapshots`, ….
fn of_step(seen: &Traffic, step: &str) -> Vec<String> {
    let asked = seen.below(&format!("{}/host/{step}/", Garage::BUCKET));
    asked.iter().map(|asked| asked.split('/').next().unwrap_or_default().trim().to_owned()).collect()
}

/// What a night asks for besides: a listing with which it opens, and the lock; one more listing shows who else holds one, and all that lies there.
fn beside_others(within: &[&'static str]) -> Vec<&'static str> {
    [&["LIST", "PUT locks", "LIST"], within, &["DELETE locks"]].concat()
}

#[test]
fn an_unchanged_night_is_five_requests_a_step() {
    privately(&["/srv"], || {
        let host = Host::new(61);
        let (foundry, logs) = (host.household.foundry(), host.household.logs());
        let agent = host.config().directory("foundry", &[&foundry], "").directory("logs", &[&logs], "").write();
        agent.ok(["run"]);
        agent.ok(["run"]);

        let seen = host.asked(&agent);
        for step in ["foundry", "logs"] {
            assert_eq!(of_step(&seen, step), beside_others(&["PUT snapshots"]), "{seen:#?}");
        }
        // The run's own, once: whose place it is, its history (which has changed), the status for who looks in from elsewhere.
        let run = ["GET host.json", "PUT host.json", "PUT status.json"];
        let asked = seen.below(&format!("{}/host/", Garage::BUCKET));
        assert_eq!(asked.iter().filter(|asked| run.contains(&asked.as_str())).count(), 3, "{seen:#?}");
        assert_eq!(
            of_step(&seen, "agent"),
            beside_others(&["PUT data", "PUT data", "PUT index", "PUT snapshots"]),
            "{seen:#?}"
        );
        assert_eq!(seen.total(), 2 * 5 + 3 + 8, "and nothing else: {seen:#?}");

        // A changed one: what is new, and where it is.
        fs::write(foundry.join("new.txt"), "something new").unwrap();
        let seen = host.asked(&agent);
        assert_eq!(
            of_step(&seen, "foundry"),
            beside_others(&["PUT data", "PUT data", "PUT index", "PUT snapshots"]),
            "{seen:#?}"
        );
        assert_eq!(of_step(&seen, "logs"), beside_others(&["PUT snapshots"]), "{seen:#?}");
    });
}

#[test]
fn a_check_that_reads_all_asks_once_for_a_pack() {
    privately(&["/srv"], || {
        let host = Host::new(63);
        let source = host.household.foundry();
        fs::write(source.join("film"), Random::new(63).bytes(12_000_000)).unwrap();
        let all = "check-every = \"30d\"\nread-all-months = 1";
        let agent = host.config().directory("foundry", &[&source], all).write();
        let stored = agent.run(["run", "--json"]).step("foundry")["bytes_stored"].as_u64().unwrap();
        host.proxy.take_traffic();
        agent.ok(["check", "foundry"]);
        let seen = host.proxy.take_traffic();
        let asked = seen.below(&format!("{}/host/foundry/", Garage::BUCKET));
        let packs = || asked.iter().filter(|asked| asked.starts_with("GET data/"));
        let twice: Vec<_> = packs().filter(|pack| packs().filter(|other| other == pack).count() > 1).collect();
        assert!(packs().count() > 3, "{asked:#?}");
        // A pack of trees: they are read, too.
        assert!(twice.len() <= 2, "{asked:#?}");
        assert!(seen.bytes_down >= stored, "all of {stored} bytes: {seen:#?}");
    });
}

#[test]
fn what_others_add_and_remove_is_noticed() {
    privately(&["/srv"], || {
        let host = Host::new(62);
        let source = host.household.foundry();
        let agent = host.config().directory("foundry", &[&source], "").write();
        agent.ok(["run"]);
        agent.ok(["run"]);
        let night = || agent.run(["run", "foundry", "--json"]).step("foundry");

        // Another program uploads what we do not have yet: tonight it is known.
        let elsewhere = host.scratch.directory("elsewhere");
        let mut random = Random::new(62);
        // Each is one piece to restic and to us: of long ones restic makes longer pieces than we do.
        for number in 0..12 {
            let (there, content) = (elsewhere.join(format!("film-{number}")), random.bytes(500_000));
            fs::write(&there, content).unwrap();
            fs::copy(&there, source.join(there.file_name().unwrap())).unwrap();
        }
        sh(host.config().restic("foundry").args(["backup", "--quiet", "--host", "another"]).arg(&elsewhere));
        let known = night();
        assert_eq!(known["outcome"], "succeeded", "{known}");
        assert!(known["bytes_added"].as_u64().unwrap() < 1_000_000, "it is in the repository already: {known}");

        // It removes all of ours, and their data: nothing that is gone may be taken for stored.
        let points = agent.ok(["points", "foundry", "--json"]).json();
        let ids: Vec<_> =
            points["points"].as_array().unwrap().iter().map(|point| point["id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(ids.len(), 3 + 1, "ours and the other one: {points}");
        sh(host.config().restic("foundry").args(["forget", "--quiet", "--prune", "--max-unused", "0"]).args(&ids));
        let anew = night();
        assert!(anew["error"]["message"].as_str().unwrap().contains("holds none now"), "{anew}");
        assert!(anew["bytes_added"].as_u64().unwrap() > 12 * 500_000, "all is uploaded again: {anew}");
        sh(host.config().restic("foundry").args(["check", "--read-data"]));
        let to = host.scratch.join("restored");
        agent.ok(["restore", "foundry", "--to", to.to_str().unwrap()]);
        Tree::read(&source).assert_equals(to.join(source.strip_prefix("/").unwrap()));

        // A key is added: the repository is looked at again, once.
        let password = host.scratch.join("password");
        fs::write(&password, "another password\n").unwrap();
        sh(host.config().restic("foundry").args(["key", "add", "--new-password-file"]).arg(password));
        let looked = ["LIST", "GET config", "PUT locks", "LIST", "PUT snapshots", "DELETE locks"];
        assert_eq!(of_step(&host.asked(&agent), "foundry"), looked);
        assert_eq!(of_step(&host.asked(&agent), "foundry"), beside_others(&["PUT snapshots"]));
    });
}

/// Bytes that the ended children of this test wrote, as the kernel counts.
fn written() -> u64 {
    u64::try_from(getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().block_writes()).unwrap() * 512
}

/// Fills the state database with 3 MB of history.
fn years_ago(agent: &Agent) {
    let Opened::Ready(mut state) = State::open(&agent.state().join("state.db")).unwrap() else {
        panic!("none was made")
    };
    let problem = Problem { message: "a long story ".repeat(1500), hint: None };
    for night in 0..150 {
        let then = Timestamp::now() - SignedDuration::from_hours(24 * (500 - night));
        let run = format!("run-{night}");
        let result = StepResult { problems: vec![problem.clone()], ..StepResult::of(Outcome::Succeeded) };
        state.begin_run(&run, None, then).unwrap();
        state.begin_step(&run, 0, "foundry", "directory", "backup", then).unwrap();
        state.finish_step(&run, 0, "foundry", &result, then).unwrap();
        state.finish_run(&run, Outcome::Succeeded, &[], then).unwrap();
    }
}

#[test]
fn an_unchanged_night_writes_little_here_and_says_how_much() {
    privately(&["/srv"], || {
        let host = Host::new(63);
        let (foundry, logs) = (host.household.foundry(), host.household.logs());
        let agent = host.config().directory("foundry", &[&foundry], "").directory("logs", &[&logs], "").write();
        agent.ok(["run"]);
        years_ago(&agent);
        // As on a machine with systemd.
        let _memory = Tmpfs::mount(host.scratch.join("runtime"), 64 << 20);
        agent.ok(["run"]);

        let before = written();
        let night = agent.ok(["run", "--json"]);
        let kernel = written() - before;
        let told = night.json()["bytes_written_here"].as_u64().unwrap();
        assert!(kernel < 2 << 20, "an unchanged night wrote {kernel} bytes: {night}");
        assert!(told <= kernel && kernel - told < 512 << 10, "told {told}, counted {kernel}: {night}");
        let of_step = night.step("foundry")["bytes_written_here"].as_u64().unwrap();
        assert!(of_step < told, "{night}");
        let status = agent.ok(["status", "--json"]);
        assert_eq!(status.step("foundry")["bytes_written_here"], of_step, "{status}");
        agent.ok(["status"]).says("to this machine's disks");
    });
}

#[test]
fn storage_in_a_folder_is_no_wear_of_the_card() {
    let scratch = Scratch::new();
    let household = Household::make(scratch.directory("srv"), Size::MIDDLE, 64);
    let agent = Config::local(scratch.path()).directory("foundry", &[&household.foundry()], "").write();
    let before = written();
    let first = agent.ok(["run", "--json"]);
    let kernel = written() - before;
    let told = first.json()["bytes_written_here"].as_u64().unwrap();
    let stored = first.step("foundry")["requests"]["bytes_up"].as_u64().unwrap();
    assert!(stored > 4 << 20 && told < kernel - stored, "told {told}, counted {kernel}, stored {stored}: {first}");
}

/// Bytes and inodes below a directory.
fn taken(directory: &Path) -> (u64, u64) {
    let Ok(entries) = fs::read_dir(directory) else { return (0, 0) };
    entries.filter_map(Result::ok).fold((0, 0), |(bytes, inodes), entry| {
        let Ok(metadata) = entry.metadata() else { return (bytes, inodes) };
        let below = if metadata.is_dir() { taken(&entry.path()) } else { (metadata.blocks() * 512, 0) };
        (bytes + below.0, inodes + below.1 + 1)
    })
}

#[test]
fn the_cache_stays_below_its_bound_and_old_steps_leave_it() {
    privately(&["/srv"], || {
        let mut host = Host::new(65);
        let source = host.household.foundry();
        let cache = host.scratch.join("cache/repositories");
        fs::create_dir_all(cache.join("gone/0123")).unwrap();
        fs::write(cache.join("gone/0123/x"), "of a step that is no more").unwrap();
        // 48 inodes.
        let agent = host.config().local_lines("max-size = \"768KiB\"").directory("foundry", &[&source], "").write();
        let mut nights = Vec::new();
        for _ in 0..8 {
            agent.ok(["run"]);
            nights.push(taken(&cache));
            host.household.change(0.1);
        }
        assert!(nights.iter().all(|(bytes, inodes)| *bytes <= 768 << 10 && *inodes <= 48), "{nights:?}");
        assert!(nights.windows(2).any(|pair| pair[0].1 > pair[1].1), "it never came to the bound: {nights:?}");
        assert!(!cache.join("gone").exists());
        agent.ok(["check"]);
        let to = host.scratch.join("restored");
        agent.ok(["run"]);
        agent.ok(["restore", "foundry", "--to", to.to_str().unwrap()]);
        Tree::read(&source).assert_equals(to.join(source.strip_prefix("/").unwrap()));
    });
}

#[test]
fn a_cache_that_is_lost_costs_nothing_but_requests() {
    privately(&["/srv"], || {
        let host = Host::new(67);
        let source = host.household.foundry();
        let agent = host.config().directory("foundry", &[&source], "").write();
        agent.ok(["run"]);
        let cache = host.scratch.join("cache");
        fs::remove_dir_all(&cache).unwrap();
        agent.ok(["run"]);
        assert_eq!(of_step(&host.asked(&agent), "foundry"), beside_others(&["PUT snapshots"]), "it is filled again");

        // And in the midst of nights, over and over.
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let _ = fs::remove_dir_all(cache.join("repositories"));
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
            });
            for night in 0..3 {
                let mut file = fs::File::options().append(true).create(true).open(source.join("grows")).unwrap();
                writeln!(file, "night {night}").unwrap();
                let ran = agent.run(["run", "--json"]);
                assert_eq!(ran.step("foundry")["outcome"], "succeeded", "{ran}");
            }
            over.store(true, Ordering::Relaxed);
        });
        sh(host.config().restic("foundry").args(["check", "--read-data"]));
        let to = host.scratch.join("restored");
        agent.ok(["restore", "foundry", "--to", to.to_str().unwrap()]);
        Tree::read(&source).assert_equals(to.join(source.strip_prefix("/").unwrap()));
    });
}
