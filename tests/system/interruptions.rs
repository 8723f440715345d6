//! Runs that are stopped, held up or cut short, and what they leave to the next one.

use std::fs;
use std::time::{Duration, Instant};

use harness::{Agent, Census, Config, Fault, Faults, Garage, Household, Running, Scratch, Size, TlsProxy, Tree};
use nix::sys::signal::Signal;

struct Host {
    proxy: TlsProxy,
    scratch: Scratch,
    household: Household,
    _garage: Garage,
}

/// 40 MB to back up to a server over a line that can be as slow as a test needs.
fn host() -> Host {
    let garage = Garage::start();
    let proxy = TlsProxy::before(&garage);
    let scratch = Scratch::new();
    let household = Household::make(scratch.join("srv"), Size { bytes: 40_000_000, files: 200 }, 1);
    Host { proxy, scratch, household, _garage: garage }
}

impl Host {
    fn agent(&self, storage: &str, step: &str) -> Agent {
        let keys = (Garage::KEY_ID, Garage::KEY);
        Config::s3(self.scratch.path(), "s3://backups/host", &self.proxy.endpoint(), self.proxy.ca_file(), keys)
            .storage(storage)
            .directory("foundry", &[&self.household.foundry()], step)
            .directory("logs", &[&self.household.logs()], "")
            .write()
    }

    fn assert_restores(&self, agent: &Agent) {
        let target = self.scratch.join("restored");
        agent.ok(["restore", "foundry", "--to", target.to_str().unwrap()]);
        let below = self.household.foundry().strip_prefix("/").unwrap().to_owned();
        Tree::read(self.household.foundry()).assert_equals(target.join(below));
    }
}

fn wait_until_it_uploads(host: &Host, running: &mut Running) {
    let started = Instant::now();
    while host.proxy.traffic().bytes_up < 1_000_000 {
        assert!(!running.has_ended(), "the run ended before it uploaded anything");
        assert!(started.elapsed() < Duration::from_secs(60), "nothing is uploaded after a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_signal_ends_everything_within_ten_seconds_and_the_next_run_goes_on() {
    let host = host();
    let agent = host.agent("", "");
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        host.proxy.take_traffic();
        host.proxy.set(Faults::slow(300_000));
        let mut running = agent.start(["run", "--json"]);
        let census = Census::of(running.pid());
        wait_until_it_uploads(&host, &mut running);
        running.signal(signal);
        let asked = Instant::now();
        let ran = running.wait().expect(3);
        assert!(asked.elapsed() < Duration::from_secs(10), "it took {:?} to end: {ran}", asked.elapsed());
        assert!(census.assert_all_gone(Duration::from_secs(1)) >= 1);
        assert_eq!(ran.step("foundry")["outcome"], "interrupted", "{ran}");
        assert_eq!(ran.step("logs")["outcome"], "skipped", "{ran}");
        assert_eq!(ran.json()["outcome"], "interrupted", "{ran}");
        let status = agent.ok(["status", "--json"]).step("foundry");
        assert_eq!((&status["last_outcome"], &status["last_success"]), (&"interrupted".into(), &().into()));
    }
    host.proxy.set(Faults::none());
    agent.ok(["run"]);
    host.assert_restores(&agent);
}

#[test]
fn an_upgrade_in_mid_run_changes_nothing_for_it() {
    let host = host();
    let program = host.scratch.join("pi-agent");
    fs::copy(Agent::binary(), &program).unwrap();
    let agent = host.agent("", "").program(&program);
    host.proxy.set(Faults::slow(2_000_000));
    let mut running = agent.start(["run", "--json"]);
    wait_until_it_uploads(&host, &mut running);
    // As dpkg does it: another file takes the name.
    let newer = host.scratch.join("pi-agent.dpkg-new");
    fs::write(&newer, "not the program that runs").unwrap();
    fs::rename(&newer, &program).unwrap();
    host.proxy.set(Faults::none());
    let ran = running.wait().expect(0);
    assert_eq!(ran.step("logs")["outcome"], "succeeded", "{ran}");
}

#[test]
fn a_second_run_is_told_who_holds_the_lock() {
    let host = host();
    let agent = host.agent("", "");
    host.proxy.set(Faults::slow(300_000));
    let mut running = agent.start(["run", "--json"]);
    wait_until_it_uploads(&host, &mut running);
    let pid = running.pid();
    for command in ["run", "prune", "check"] {
        agent.run([command]).expect(4).says(&format!("process {pid}"));
    }
    // What only reads asks for no lock.
    agent.ok(["status"]);
    agent.ok(["points", "foundry"]);
    host.proxy.set(Faults::none());
    let _ = running.wait().expect(0);
    agent.ok(["run"]);
}

#[test]
fn a_step_without_progress_is_ended_and_the_next_one_runs() {
    let host = host();
    let agent = host.agent("timeout = \"10m\"", "stall = \"6s\"");
    agent.ok(["run"]);
    fs::write(host.household.foundry().join("large"), harness::Random::new(1).bytes(8_000_000)).unwrap();
    host.proxy.set(Faults { only: "/foundry/", ..Faults::some(1, 1.0, &[Fault::Stall]) });
    let started = Instant::now();
    let running = agent.start(["run", "--json"]);
    let census = Census::of(running.pid());
    let ran = running.wait().expect(3);
    assert!(started.elapsed() < Duration::from_secs(60), "{ran}");
    let step = ran.step("foundry");
    assert_eq!(step["outcome"], "failed", "{ran}");
    assert!(step["error"]["message"].as_str().unwrap().contains("no progress for 6 s"), "{ran}");
    for later in ["logs", "agent"] {
        assert_eq!(ran.step(later)["outcome"], "succeeded", "{ran}");
    }
    census.assert_all_gone(Duration::from_secs(1));
    host.proxy.set(Faults::none());
    agent.ok(["run"]);
    host.assert_restores(&agent);
}

#[test]
fn max_duration_leaves_a_backup_unfinished_and_the_next_night_goes_on() {
    let host = host();
    let agent = host.agent("", "max-duration = \"8s\"");
    host.proxy.set(Faults::slow(600_000));
    let ran = agent.run(["run", "--json"]).expect(5);
    assert_eq!(ran.step("foundry")["outcome"], "unfinished", "{ran}");
    assert_eq!(ran.step("logs")["outcome"], "succeeded", "the database is not to pay for it: {ran}");
    let sent = host.proxy.take_traffic().bytes_up;
    assert!(sent > 2_000_000, "only {sent} bytes were sent in 8 s");

    host.proxy.set(Faults::none());
    let ran = agent.ok(["run", "--json"]);
    assert_eq!(ran.step("foundry")["outcome"], "succeeded", "{ran}");
    let rest = host.proxy.take_traffic().bytes_up;
    let all: u64 = 38_000_000;
    assert!(rest + sent / 2 < all, "{sent} bytes were sent the first night, and {rest} again");
    host.assert_restores(&agent);
}
