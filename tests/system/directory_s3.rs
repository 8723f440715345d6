//! Directory steps on a real S3 server over TLS, on good and bad lines.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::{Agent, Config, Fault, Faults, Garage, Household, Scratch, Size, TlsProxy, Tree};

struct Bucket {
    scratch: Scratch,
    _garage: Garage,
    proxy: TlsProxy,
}

impl Bucket {
    fn new() -> Self {
        let garage = Garage::start();
        let proxy = TlsProxy::before(&garage);
        Self { scratch: Scratch::new(), _garage: garage, proxy }
    }

    fn config(&self) -> Config {
        let url = format!("s3://{}/pi-test", Garage::BUCKET);
        let keys = (Garage::KEY_ID, Garage::KEY);
        Config::s3(self.scratch.path(), &url, &self.proxy.endpoint(), self.proxy.ca_file(), keys)
    }

    fn restore_equals(&self, agent: &Agent, step: &str, source: &Path, before: &Tree) {
        let to = self.scratch.join(format!("restored-{step}"));
        agent.ok(["restore", step, "--to", to.to_str().unwrap()]);
        before.assert_equals(below(&to, source));
        fs::remove_dir_all(to).unwrap();
    }
}

fn below(target: &Path, path: &Path) -> PathBuf {
    target.join(path.strip_prefix("/").unwrap())
}

#[test]
fn nights_on_s3_are_few_requests_and_come_back() {
    let bucket = Bucket::new();
    let mut household = Household::make(bucket.scratch.directory("srv"), Size::SMALL, 11);
    let source = household.foundry();
    let agent = bucket.config().directory("foundry", &[&source], "").write();
    agent.ok(["run"]);
    household.change(0.05);
    agent.ok(["run"]);
    bucket.restore_equals(&agent, "foundry", &source, &Tree::read(&source));

    bucket.proxy.take_traffic();
    let night = agent.ok(["run", "foundry", "--json"]);
    let requests = night.step("foundry")["requests"].clone();
    let seen = bucket.proxy.take_traffic();
    // The agent's own step is in the same run, so what the line saw is no less.
    assert!(requests["put"].as_u64().unwrap() <= seen.of("PUT") && seen.of("PUT") > 0, "{requests} {seen:?}");
    assert!(requests["bytes_up"].as_u64().unwrap() > 0 && requests["retried"] == 0, "{requests}");
    agent.ok(["check"]);
    agent.ok(["prune"]);
}

#[test]
fn a_line_that_fails_every_tenth_request_completes_and_checks_clean() {
    let bucket = Bucket::new();
    let household = Household::make(bucket.scratch.directory("srv"), Size::MIDDLE, 12);
    let source = household.foundry();
    let agent = bucket.config().storage("timeout = \"2s\"").directory("foundry", &[&source], "").write();
    bucket.proxy.set(Faults::some(12, 0.1, &Fault::ALL));
    let night = agent.ok(["run", "--json"]);
    assert!(night.step("foundry")["requests"]["retried"].as_u64().unwrap() > 0, "{night}");
    agent.ok(["run"]);
    agent.ok(["check"]);
    let before = Tree::read(&source);
    bucket.restore_equals(&agent, "foundry", &source, &before);
    assert!(bucket.proxy.traffic().faulty() > 5, "{:?}", bucket.proxy.traffic());
    bucket.proxy.set(Faults::none());
    agent.ok(["check"]);
    bucket.restore_equals(&agent, "foundry", &source, &before);
}

#[test]
fn a_server_that_is_down_fails_the_step_in_bounded_time() {
    let bucket = Bucket::new();
    let source = bucket.scratch.directory("srv/data");
    fs::write(source.join("file"), "x").unwrap();
    let agent = bucket.config().storage("retry-for = \"5s\"").directory("data", &[&source], "").write();
    bucket.proxy.set_down(true);
    let night = agent.run(["run", "--json"]).expect(3);
    let error = night.step("data")["error"].clone();
    assert!(night.took < Duration::from_secs(40), "{night}");
    assert!(error["message"].as_str().unwrap().contains("refused"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("endpoint"), "{error}");
    bucket.proxy.set_down(false);
    agent.ok(["run"]);
}

#[test]
fn wrong_keys_a_wrong_bucket_and_an_unknown_authority_are_told_at_once() {
    let bucket = Bucket::new();
    let source = bucket.scratch.directory("srv/data");
    fs::write(source.join("file"), "x").unwrap();
    let url = |name: &str| format!("s3://{name}/pi-test");
    let (endpoint, ca) = (bucket.proxy.endpoint(), bucket.proxy.ca_file());
    let wrong_secret = "f".repeat(64);
    let cases = [
        (url(Garage::BUCKET), (Garage::KEY_ID, wrong_secret.as_str()), "AWS_SECRET_ACCESS_KEY"),
        (url(Garage::BUCKET), ("GK0000000000000000000000aa", Garage::KEY), "aws.env"),
        (url("no-such-bucket"), (Garage::KEY_ID, Garage::KEY), "bucket"),
    ];
    for (url, keys, hint) in cases {
        let config = Config::s3(bucket.scratch.join(hint), &url, &endpoint, ca, keys);
        let night = config.directory("data", &[&source], "").write().run(["run", "--json"]).expect(3);
        let error = night.step("data")["error"].clone();
        assert!(error["hint"].as_str().unwrap_or_default().contains(hint), "{error}");
        assert!(night.took < Duration::from_secs(20), "it was not tried again: {night}");
        for secret in [keys.0, keys.1, "X-Amz-Signature"] {
            assert!(!night.stdout.contains(secret) && !night.stderr.contains(secret), "no secret is shown: {night}");
        }
    }
    // Another authority with the same name.
    let other = TlsProxy::new("127.0.0.1:1".parse().unwrap());
    let keys = (Garage::KEY_ID, Garage::KEY);
    let config = Config::s3(bucket.scratch.join("ca"), &url(Garage::BUCKET), &endpoint, other.ca_file(), keys);
    let night = config.directory("data", &[&source], "").write().run(["run", "--json"]).expect(3);
    let error = night.step("data")["error"].clone();
    assert!(error["hint"].as_str().unwrap().contains("ca-file"), "{error}");
}

#[test]
fn time_runs_out_on_a_slow_line_and_the_next_nights_go_on() {
    let bucket = Bucket::new();
    let household = Household::make(bucket.scratch.directory("srv"), Size { bytes: 90_000_000, files: 300 }, 13);
    let source = household.foundry();
    let more = "keep = { last = 5 }\nmax-duration = \"10s\"";
    let agent = bucket.config().directory("foundry", &[&source], more).write();
    bucket.proxy.set(Faults::slow(2_500_000));
    let first = agent.run(["run", "--json"]).expect(5);
    assert_eq!(first.step("foundry")["outcome"], "unfinished", "{first}");
    let points = |kind: &str| {
        let document = agent.ok(["points", "foundry", "--json"]).json();
        document["points"].as_array().unwrap().iter().filter(|point| point["kind"] == kind).count()
    };
    assert_eq!((points("unfinished"), points("snapshot")), (1, 0));
    let to = bucket.scratch.join("none");
    agent.run(["restore", "foundry", "--to", to.to_str().unwrap()]).expect(1).says("no complete snapshot");

    let mut nights = 1;
    loop {
        let night = agent.run(["run", "--json"]);
        nights += 1;
        match night.step("foundry")["outcome"].as_str().unwrap() {
            "unfinished" => assert!(nights < 12, "each night goes on where the last one stopped"),
            outcome => break assert_eq!(outcome, "succeeded", "{night}"),
        }
    }
    assert_eq!((points("unfinished"), points("snapshot")), (0, 1), "after {nights} nights");
    bucket.proxy.set(Faults::none());
    bucket.restore_equals(&agent, "foundry", &source, &Tree::read(&source));
    agent.ok(["check"]);
}

#[test]
fn a_certificate_that_ends_soon_is_told() {
    let bucket = Bucket::new();
    let household = Household::make(bucket.scratch.directory("srv"), Size::SMALL, 12);
    let agent = bucket.config().directory("foundry", &[&household.foundry()], "").write();
    agent.ok(["run"]);
    // The tests' certificates are good for two days.
    let alarms = agent.ok(["alarms", "--json"]).json();
    let certificate = alarms["alarms"].as_array().unwrap().iter().find(|alarm| alarm["name"] == "certificate").cloned();
    assert_eq!(certificate.expect("told")["tone"], "critical", "{alarms}");
}
