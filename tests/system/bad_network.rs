//! A server that fails, and one that is not there.

use std::time::{Duration, Instant};

use harness::{Config, Fault, Faults, Garage, Household, Scratch, Size, TlsProxy, Tree, by_effort, sh};

struct Host {
    proxy: TlsProxy,
    scratch: Scratch,
    household: Household,
    config: Config,
    _garage: Garage,
}

fn host(size: Size, storage: &str) -> Host {
    let garage = Garage::start();
    let proxy = TlsProxy::before(&garage);
    let scratch = Scratch::new();
    let household = Household::make(scratch.join("srv"), size, 1);
    let keys = (Garage::KEY_ID, Garage::KEY);
    let config = Config::s3(scratch.path(), "s3://backups/host", &proxy.endpoint(), proxy.ca_file(), keys)
        .storage(storage)
        .directory("foundry", &[&household.foundry()], "")
        .directory("logs", &[&household.logs()], "");
    Host { proxy, scratch, household, config, _garage: garage }
}

fn back_up_through_faults(size: Size, faults: Faults) {
    // A stalled request is given up after the timeout, so it is kept short here.
    let mut host = host(size, "timeout = \"3s\"\nretry-for = \"2m\"");
    let agent = host.config.write();
    host.proxy.set(faults.clone());
    let ran = agent.ok(["run", "--json"]);
    let traffic = host.proxy.take_traffic();
    assert!(traffic.faulty() > 5, "too little went wrong to prove anything: {traffic:?}");
    let retried = ran.step("foundry")["requests"]["retried"].as_u64().unwrap();
    assert!(retried > 0, "{ran}");
    let first = Tree::read(host.household.foundry());

    host.household.change(0.02);
    agent.ok(["run"]);
    host.proxy.set(Faults::none());
    sh(host.config.restic("foundry").args(["check", "--read-data"]));
    sh(host.config.restic("logs").args(["check", "--read-data"]));

    host.proxy.set(faults);
    let below = host.household.foundry().strip_prefix("/").unwrap().to_owned();
    let points = agent.ok(["points", "foundry", "--json"]).json();
    let id = points["points"][0]["id"].as_str().unwrap();
    for (at, tree) in [(id, first), ("latest", Tree::read(host.household.foundry()))] {
        let target = host.scratch.join("restored").join(at);
        agent.ok(["restore", "foundry", "--at", at, "--to", target.to_str().unwrap()]);
        tree.assert_equals(target.join(&below));
        std::fs::remove_dir_all(target).unwrap();
    }
}

#[test]
fn a_fifth_of_the_requests_fail_quickly() {
    back_up_through_faults(Size { bytes: 60_000_000, files: 300 }, Faults::some(1, 0.2, &Fault::QUICK));
}

#[test]
fn slow_a_tenth_of_the_requests_fails_or_stalls() {
    let faults = Faults { stall: Duration::from_secs(20), ..Faults::some(2, 0.1, &Fault::ALL) };
    back_up_through_faults(by_effort(Size { bytes: 150_000_000, files: 300 }, Size::LARGE), faults);
}

#[test]
fn a_server_that_is_down_is_told_in_bounded_time_and_the_next_night_is_well() {
    let host = host(Size::SMALL, "timeout = \"2s\"\nretry-for = \"4s\"");
    let agent = host.config.write();
    agent.ok(["run"]);
    let success = agent.ok(["status", "--json"]).step("foundry")["last_success"].clone();

    host.proxy.set_down(true);
    let started = Instant::now();
    let ran = agent.run(["run", "--json"]).expect(3);
    assert!(started.elapsed() < Duration::from_secs(90), "{ran}");
    for step in ["foundry", "logs", "agent"] {
        assert_eq!(ran.step(step)["outcome"], "failed", "{ran}");
    }
    ran.says("refused");
    assert_eq!(agent.ok(["status", "--json"]).step("foundry")["last_success"], success);
    let target = host.scratch.join("never");
    let ran = agent.run(["restore", "foundry", "--to", target.to_str().unwrap()]).expect(1);
    assert!(ran.took < Duration::from_secs(40), "{ran}");

    host.proxy.set_down(false);
    agent.ok(["run"]);
}

#[test]
fn a_server_nobody_vouches_for_and_keys_it_does_not_know_are_not_tried_again() {
    let host = host(Size::SMALL, "");
    let agent = host.config.write();
    agent.ok(["run"]);

    host.config.secret("aws.env", "AWS_ACCESS_KEY_ID=GKffffffffffffffffffffffff\nAWS_SECRET_ACCESS_KEY=wrong");
    let started = Instant::now();
    let ran = agent.run(["run", "foundry", "--json"]).expect(3);
    ran.says("aws.env");
    assert!(started.elapsed() < Duration::from_secs(20), "{ran}");

    host.config.write();
    let other = TlsProxy::before(&host._garage);
    let text = host.config.text();
    let ours = host.proxy.ca_file().display().to_string();
    assert!(text.contains(&ours));
    std::fs::write(host.config.file(), text.replace(&ours, &other.ca_file().display().to_string())).unwrap();
    let started = Instant::now();
    let ran = agent.run(["run", "foundry", "--json"]).expect(3);
    ran.says("certificate");
    assert!(started.elapsed() < Duration::from_secs(20), "{ran}");
}
