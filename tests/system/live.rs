//! Live paths, with a real LevelDB in a real container that never stops writing.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use harness::leveldb::{READER, WRITER};
use harness::{
    Agent, Census, Config, DockerEngine, Process, Ran, Random, Running, Scratch, Tree, by_effort, descendants, oddities,
};
use nix::sys::signal::{Signal, kill};

struct Host {
    engine: DockerEngine,
    scratch: Scratch,
}

impl Host {
    /// `argument` for the writer.
    fn start(argument: &[&str]) -> Self {
        let (engine, scratch) = (DockerEngine::start(), Scratch::new());
        fs::create_dir_all(scratch.join("srv/data/worlds")).unwrap();
        fs::write(scratch.join("srv/data/options.json"), "{}").unwrap();
        let host = Self { engine, scratch };
        let volume = format!("{}:/data", host.data().display());
        let run = ["run", "--detach", "--network=none", "--name=foundry", "--volume", &volume, DockerEngine::IMAGE];
        let writer = ["python3", "-c", WRITER, "/data/worlds"];
        host.engine.docker(run.iter().copied().chain(writer).chain(argument.iter().copied()));
        host
    }

    fn data(&self) -> PathBuf {
        self.scratch.join("srv/data")
    }

    fn agent(&self, live: &str) -> Agent {
        let other = self.scratch.join("srv/other");
        fs::create_dir_all(&other).unwrap();
        fs::write(other.join("file"), "text").unwrap();
        let live = format!("live = {{ paths = [\"worlds\"], {live} }}");
        let config = Config::local(self.scratch.path()).directory("foundry", &[&self.data()], &live);
        config.directory("other", &[&other], "").write().env("DOCKER_HOST", self.engine.host())
    }

    fn state(&self) -> String {
        self.engine.docker(["inspect", "--format", "{{.State.Status}}", "foundry"])
    }

    fn acknowledged(&self) -> usize {
        fs::read_to_string(self.data().join("worlds/acknowledged")).unwrap_or_default().lines().count()
    }

    /// Passes when it is running and writes; how long that took.
    #[track_caller]
    fn assert_writes(&self, patience: Duration) -> Duration {
        let (before, started) = (self.acknowledged(), Instant::now());
        while self.acknowledged() == before {
            assert!(started.elapsed() < patience, "nothing is written for {patience:?}: it is {}", self.state());
            std::thread::sleep(Duration::from_millis(10));
        }
        started.elapsed()
    }

    /// Passes when nothing of ours keeps it still any more, and it writes; how long that took.
    #[track_caller]
    fn assert_goes_on(&self, patience: Duration) -> Duration {
        let started = Instant::now();
        while self.note().exists() {
            assert!(started.elapsed() < patience, "not let go on for {patience:?}: it is {}", self.state());
            std::thread::sleep(Duration::from_millis(10));
        }
        self.assert_writes(patience);
        started.elapsed()
    }

    /// Whether it is paused within ten seconds.
    fn gets_paused(&self) -> bool {
        let started = Instant::now();
        while self.state() != "paused" {
            if started.elapsed() > Duration::from_secs(10) {
                return false;
            }
        }
        true
    }

    fn wait_for_records(&self, count: usize) {
        let started = Instant::now();
        while self.acknowledged() < count {
            let log = || self.engine.docker(["logs", "foundry"]);
            assert!(started.elapsed() < Duration::from_secs(60), "{} records: {}", self.acknowledged(), log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The latest restore point holds a database that opens, with every record acknowledged before the pause.
    #[track_caller]
    fn assert_restores(&self, agent: &Agent, at_least: usize) -> PathBuf {
        let to = self.scratch.join("restored");
        let _ = fs::remove_dir_all(&to);
        agent.ok(["restore", "foundry", "--to", to.to_str().unwrap(), "--privileges"]);
        let restored = to.join(self.data().strip_prefix("/").unwrap());
        let volume = format!("{}:/data", restored.display());
        let run = ["run", "--rm", "--network=none", "--volume", &volume, DockerEngine::IMAGE];
        let reader = run.iter().copied().chain(["python3", "-c", READER, "/data/worlds"]);
        let count: usize = self.engine.docker(reader).parse().unwrap();
        assert!(count >= at_least, "{count} records, {at_least} were acknowledged before");
        restored
    }

    fn assert_nothing_left(&self) {
        assert!(!self.scratch.join("cache/staging/foundry").exists());
        assert_eq!(fs::read_dir(self.scratch.join("state/quiet")).unwrap().count(), 0);
    }

    fn note(&self) -> PathBuf {
        self.scratch.join("state/quiet/foundry.json")
    }
}

#[track_caller]
fn quiet(ran: &Ran) -> u64 {
    ran.step("foundry")["quiet_milliseconds"].as_u64().unwrap_or_else(|| panic!("no quiet time: {ran}"))
}

#[test]
fn a_leveldb_that_never_stops_is_whole_in_each_snapshot() {
    let mut host = Host::start(&[]);
    let odd = host.data().join("worlds/odd");
    oddities(&odd, 64 << 20);
    host.wait_for_records(20_000);

    for pause in ["pause = \"docker:foundry\"", "pause = \"docker-stop:foundry\""] {
        let agent = host.agent(pause);
        let before = host.acknowledged();
        let ran = agent.ok(["run", "--json"]);
        host.assert_writes(Duration::from_secs(10));
        eprintln!("{pause}: quiet for {} ms", quiet(&ran));
        assert!((1..30_000).contains(&quiet(&ran)), "{ran}");
        assert_eq!(ran.step("foundry")["problems"], serde_json::json!([]), "{ran}");
        host.assert_nothing_left();
        let restored = host.assert_restores(&agent, before);
        // What is held apart keeps everything that makes up a file.
        Tree::read(&odd).assert_equals(restored.join("worlds/odd"));
        assert!(restored.join("options.json").exists());
    }

    // Paused by somebody else: so it stays.
    let agent = host.agent("pause = \"docker:foundry\"");
    host.engine.docker(["pause", "foundry"]);
    let ran = agent.ok(["run", "--json"]);
    ran.says("the container foundry was paused before and stays so");
    assert_eq!(host.state(), "paused");
    assert!(ran.step("foundry")["quiet_milliseconds"].is_null());
    host.assert_restores(&agent, 0);
    // What did not change is known by its own times, though its copy is new, and not read again.
    let ran = agent.ok(["run", "--json"]);
    assert_eq!(ran.step("foundry")["files_changed"], 0, "{ran}");
    agent.ok(["doctor"]).says("the container foundry is paused, and stays so");
    host.engine.docker(["unpause", "foundry"]);
    agent.ok(["doctor"]).says("the container foundry writes to the live part");

    // No such container, and no Docker: the others run.
    let wrong = host.agent("pause = \"docker:foundri\"");
    wrong.run(["doctor"]).expect(1).says("there is no container \"foundri\"").says("the containers are foundry");
    let ran = wrong.run(["run", "--json"]).expect(3);
    ran.says("there is no container").says("the containers are foundry");
    assert_eq!(ran.step("other")["outcome"], "succeeded", "{ran}");
    host.engine.stop();
    agent.run(["doctor"]).expect(1).says("step foundry: Docker does not run").says("systemctl start docker");
    let ran = agent.run(["run", "--json"]).expect(3);
    ran.says("Docker");
    assert_eq!(ran.step("foundry")["outcome"], "failed", "{ran}");
    assert_eq!(ran.step("other")["outcome"], "succeeded", "{ran}");
    host.engine.start_again();
    host.assert_nothing_left();
}

/// Writes to random pages without pause, each time a larger number; the pages, in order.
fn scribble(file: &Path, over: &AtomicBool) -> Vec<u64> {
    let (mut random, mut written) = (Random::new(5), Vec::new());
    let file = fs::File::options().write(true).open(file).unwrap();
    while !over.load(Ordering::Relaxed) {
        let page = random.within(0..PAGES);
        written.push(page);
        file.write_all_at(&(written.len() as u64).to_le_bytes(), page * PAGE).unwrap();
        std::thread::sleep(Duration::from_micros(20));
    }
    written
}

const PAGE: u64 = 4096;
const PAGES: u64 = 8192;

#[test]
fn a_file_that_changes_though_nobody_was_to_write_is_told_and_is_no_mixture() {
    let scratch = Scratch::new();
    let data = scratch.directory("srv/data");
    let (busy, still) = (data.join("busy"), data.join("still"));
    fs::write(&busy, vec![0; usize::try_from(PAGE * PAGES).unwrap()]).unwrap();
    fs::write(&still, "still").unwrap();
    let live = "live = { paths = [\".\"], quiet = [\"/usr/bin/true\"], resume = [\"/usr/bin/true\"] }";
    let live = live.replace("\".\"", &format!("{data:?}"));
    let agent = Config::local(scratch.path()).directory("data", &[&data], &live).write();
    let over = AtomicBool::new(false);
    let (written, ran) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| scribble(&busy, &over));
        let ran = agent.run(["run", "data", "--json"]);
        over.store(true, Ordering::Relaxed);
        (writer.join().unwrap(), ran)
    });
    let ran = ran.expect(5);
    let step = ran.step("data");
    assert!(step.to_string().contains("busy changed though nobody was to write"), "{ran}");

    let to = scratch.join("to");
    let restore = agent.run(["restore", "data", "--to", to.to_str().unwrap()]);
    let restored = to.join(data.strip_prefix("/").unwrap());
    // Who restores a point that lacks a file is told.
    let _ = restore.expect(if restored.join("busy").exists() { 0 } else { 5 });
    assert_eq!(fs::read_to_string(restored.join("still")).unwrap(), "still");
    let Ok(content) = fs::read(restored.join("busy")) else {
        assert!(step.to_string().contains("cannot read") && step.to_string().contains("/busy"), "it is named: {ran}");
        return;
    };
    // What was written up to the newest number that is in it, and nothing later.
    let number = |page: &[u8]| u64::from_le_bytes(page[..8].try_into().unwrap());
    let found: Vec<_> = content.chunks(usize::try_from(PAGE).unwrap()).map(number).collect();
    let newest = usize::try_from(*found.iter().max().unwrap()).unwrap();
    let mut expected = vec![0; found.len()];
    for (number, page) in (1..).zip(&written[..newest]) {
        expected[usize::try_from(*page).unwrap()] = number;
    }
    assert!(found == expected, "a mixture of several moments: {ran}");
}

fn with_argument(ancestor: &Running, word: &str) -> Option<Process> {
    descendants(ancestor.pid())
        .into_iter()
        .find(|process| process.arguments().get(1).is_some_and(|first| first == word))
}

/// A run at the moment when the note is written and the writer is about to be paused.
fn until_paused(host: &Host, agent: &Agent) -> Running {
    let mut running = agent.start(["run", "--json"]);
    let started = Instant::now();
    while !host.note().exists() {
        assert!(!running.has_ended() && started.elapsed() < Duration::from_secs(120), "it never paused anything");
        std::thread::sleep(Duration::from_millis(1));
    }
    running
}

/// 200 MB that look changed at any time, so that the copy under the pause takes a while.
fn with_maps() -> (Host, Agent) {
    let host = Host::start(&["touch"]);
    fill(&host.data().join("worlds/maps"), 200);
    host.wait_for_records(1000);
    let agent = host.agent("pause = \"docker:foundry\", at-most = \"20s\"");
    agent.ok(["run"]);
    (host, agent)
}

fn fill(folder: &Path, megabytes: u8) {
    fs::create_dir_all(folder).unwrap();
    let mut random = Random::new(5);
    for number in 0..megabytes {
        fs::write(folder.join(number.to_string()), random.bytes(1_000_000)).unwrap();
    }
}

#[test]
fn slow_whatever_is_killed_while_it_is_paused_the_writer_goes_on() {
    let (host, agent) = with_maps();
    let mut random = Random::new(17);
    let (mut struck, mut slowest, mut tries) = (0, Duration::ZERO, 0);
    // Each kind of victim once, or five times in a full run.
    let wanted = by_effort(4, 20);
    while struck < wanted {
        tries += 1;
        assert!(tries < 3 * wanted, "only {struck} of {tries} kills came while it was paused");
        let running = until_paused(&host, &agent);
        let census = Census::of(running.pid());
        std::thread::sleep(Duration::from_millis(300).mul_f64(random.fraction()));
        let victims = match struck % 4 {
            0 => vec![running.pid()],
            1 => with_argument(&running, "step").iter().map(Process::pid).collect(),
            2 => with_argument(&running, "guard").iter().map(Process::pid).collect(),
            _ => with_argument(&running, "step").iter().map(Process::pid).chain([running.pid()]).collect(),
        };
        struck += u32::from(host.note().exists());
        for victim in victims {
            // It may have ended by itself.
            let _ = kill(victim, Signal::SIGKILL);
        }
        slowest = slowest.max(host.assert_goes_on(Duration::from_secs(5)));
        let _ = running.wait();
        census.assert_all_gone(Duration::from_secs(10));
        assert_eq!((host.state().as_str(), host.note().exists()), ("running", false));
    }
    eprintln!("{tries} kills, {struck} of them while it was paused; it wrote again within {slowest:?}");
    let before = host.acknowledged();
    agent.ok(["run"]);
    host.assert_nothing_left();
    host.assert_restores(&agent, before);
}

/// As when the plug is pulled while the writer is paused: everything at once, the guard too.
fn cut_off_in_mid_pause(host: &Host, agent: &Agent) {
    for _ in 0..10 {
        let running = until_paused(host, agent);
        let step = with_argument(&running, "step").expect("a step pauses it");
        kill(step.pid(), Signal::SIGSTOP).unwrap();
        let paused = host.gets_paused();
        let everything = descendants(running.pid());
        kill(running.pid(), Signal::SIGSTOP).unwrap();
        everything.iter().rev().for_each(|process| kill(process.pid(), Signal::SIGSTOP).unwrap());
        everything.iter().for_each(|process| kill(process.pid(), Signal::SIGKILL).unwrap());
        kill(running.pid(), Signal::SIGKILL).unwrap();
        let _ = running.wait();
        assert!(host.note().exists());
        if paused && host.state() == "paused" {
            return;
        }
        // It was stopped before it asked Docker to pause the writer or, on a busy machine, after it asked for the contrary.
        agent.run(["resume"]);
    }
    panic!("it was never cut off in mid-pause");
}

#[test]
fn the_writer_goes_on_after_a_power_cut_a_stop_and_its_time() {
    let (host, agent) = with_maps();
    for resumes in ["boot", "resume", "run"] {
        cut_off_in_mid_pause(&host, &agent);
        let ran = agent.run([resumes]);
        ran.says("the container foundry was left quiet by a backup that was cut off; it goes on");
        host.assert_writes(Duration::from_secs(1));
        assert!(!host.note().exists());
    }

    // Stopped in mid-pause: at once.
    let running = until_paused(&host, &agent);
    running.signal(Signal::SIGTERM);
    host.assert_goes_on(Duration::from_secs(3));
    let _ = running.wait().expect(3);
    assert!(!host.note().exists());

    // A step that hangs: the guard's own clock.
    let agent = host.agent("pause = \"docker:foundry\", at-most = \"2s\"");
    let running = until_paused(&host, &agent);
    let step = with_argument(&running, "step").unwrap();
    kill(step.pid(), Signal::SIGSTOP).unwrap();
    assert!(host.gets_paused());
    let took = host.assert_goes_on(Duration::from_secs(5));
    kill(step.pid(), Signal::SIGCONT).unwrap();
    let ran = running.wait().expect(5);
    assert_eq!(ran.step("foundry")["outcome"], "degraded", "{ran}");
    ran.says("not copied within the time its writer may be quiet (2 s)");
    assert!((1900..5000).contains(&quiet(&ran)), "{took:?}: {ran}");
    host.assert_nothing_left();
}
