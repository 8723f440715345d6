//! The doctor on real parts: what it finds, what it advises, and that it leaves everything as it was.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use harness::{Agent, Config, Garage, Ran, Scratch, TlsProxy, Tree};
use serde_json::Value;

struct Host {
    scratch: Scratch,
    config: Config,
    agent: Agent,
    source: PathBuf,
}

fn host() -> Host {
    let scratch = Scratch::new();
    let source = scratch.directory("srv/foundry");
    fs::write(source.join("world.json"), "{}").unwrap();
    let config = Config::local(scratch.path()).directory("foundry", &[&source], "");
    let agent = config.write();
    Host { scratch, config, agent, source }
}

/// The findings of that severity.
fn findings(ran: &Ran, severity: &str) -> Vec<Value> {
    let document = ran.json();
    let all = document["findings"].as_array().expect("a list").clone();
    for finding in &all {
        assert_eq!(finding["advice"].is_null(), finding["severity"] == "ok", "{finding}");
    }
    all.into_iter().filter(|finding| finding["severity"] == severity).collect()
}

/// Passes when exactly one problem is found, with that subject, message and advice.
#[track_caller]
fn one_problem(agent: &Agent, subject: &str, message: &str, advice: &str) {
    let ran = agent.run(["doctor", "--json"]).expect(1);
    assert_eq!(ran.json()["healthy"], false);
    let problems = findings(&ran, "problem");
    assert_eq!(problems.len(), 1, "{ran}");
    assert_eq!(problems[0]["subject"], subject);
    let has = |key: &str, text: &str| problems[0][key].as_str().is_some_and(|found| found.contains(text));
    assert!(has("message", message) && has("advice", advice), "{ran}");
}

#[test]
fn a_healthy_host_is_left_as_it_was() {
    let host = host();
    host.agent.ok(["run"]);
    let before = Tree::read(host.scratch.path());
    let ran = host.agent.ok(["doctor", "--json"]);
    assert_eq!(ran.json()["healthy"], true);
    let well = findings(&ran, "ok");
    let said = |text: &str| well.iter().any(|finding| finding["message"].as_str().is_some_and(|it| it.contains(text)));
    assert!(said("can be read and written") && said("restic.key") && said("srv/foundry can be read"), "{ran}");
    let after = Tree::read(host.scratch.path());
    // Directories in which the small object came and went have new times, and SQLite keeps two files beside what it reads.
    let ours = |line: &String| !line.contains("time") && !line.contains("state.db-");
    let changed: Vec<_> = before.differences(&after).into_iter().filter(ours).collect();
    assert!(changed.is_empty(), "{changed:#?}");
    assert!(host.agent.ok(["doctor"]).stdout.ends_with("all is well\n"));
}

#[test]
fn every_mistake_of_the_configuration_is_told_at_once() {
    let host = host();
    let text = host.config.text().replace("[storage]", "[storage]\ntimeout = 30\nbuckets = 1");
    fs::write(host.config.file(), text).unwrap();
    let ran = host.agent.run(["doctor", "--json"]).expect(2);
    let problems = findings(&ran, "problem");
    assert_eq!(problems.len(), 2, "{ran}");
    assert!(problems[0]["message"].as_str().unwrap().contains("config.toml:5: [storage] timeout = 30: wanted"));
    let _ = host.agent.run(["run"]).expect(2).says("buckets: unknown key");
}

#[test]
fn secrets_that_others_can_read_are_found_and_refused() {
    let host = host();
    let key = host.config.secrets().join("restic.key");
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let command = format!("chmod 600 {}", key.display());
    one_problem(&host.agent, "secrets", "others than its owner", &command);
    let refused = host.agent.run(["run"]).expect(3);
    assert!(refused.stdout.contains(&command), "{refused}");
    // The advice is what mends it.
    assert!(std::process::Command::new("sh").args(["-c", &command]).status().unwrap().success());
    host.agent.ok(["run"]);
    fs::remove_file(&key).unwrap();
    one_problem(&host.agent, "secrets", "it does not exist", "chmod 600");
}

#[test]
fn storage_that_is_gone_or_another_machines_is_found() {
    let host = host();
    host.agent.ok(["run"]);
    let storage = host.config.storage_folder();
    let owner = storage.join("host.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&owner).unwrap()).unwrap();
    record["machine_id"] = "another".into();
    fs::write(&owner, record.to_string()).unwrap();
    one_problem(&host.agent, "storage", "belongs to the machine test-host", "pi-agent adopt");
    host.agent.ok(["adopt"]);
    host.agent.ok(["doctor"]);

    fs::rename(&storage, host.scratch.join("unplugged")).unwrap();
    one_problem(&host.agent, "storage", "held this machine's backups", "mount the disk");
    assert!(!storage.exists(), "an unmounted disk gets no folder of ours");
}

#[test]
fn a_source_that_is_suddenly_empty_is_found() {
    let host = host();
    host.agent.ok(["run"]);
    fs::remove_file(host.source.join("world.json")).unwrap();
    one_problem(&host.agent, "step foundry", "empty", "pi-agent adopt foundry");
    fs::remove_dir(&host.source).unwrap();
    one_problem(&host.agent, "step foundry", "srv/foundry", "ls -ld");
}

#[test]
fn a_damaged_history_is_a_warning() {
    let host = host();
    fs::create_dir_all(host.agent.state()).unwrap();
    fs::write(host.agent.state().join("state.db"), [0x5a; 4096]).unwrap();
    let ran = host.agent.ok(["doctor", "--json"]);
    let warnings = findings(&ran, "warning");
    assert!(warnings.iter().any(|finding| finding["subject"] == "state"), "{ran}");
    assert_eq!(fs::read(host.agent.state().join("state.db")).unwrap(), [0x5a; 4096], "the doctor repairs nothing");
}

#[test]
fn a_bucket_is_tried_and_one_out_of_reach_is_told_in_seconds() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv/foundry");
    fs::write(source.join("world.json"), "{}").unwrap();
    let garage = Garage::start();
    let proxy = TlsProxy::before(&garage);
    let url = format!("s3://{}/host", Garage::BUCKET);
    let host = |endpoint: &str, key: &str| {
        Config::s3(scratch.path(), &url, endpoint, proxy.ca_file(), (Garage::KEY_ID, key))
            .directory("foundry", &[&source], "")
            .write()
    };
    let well = host(&proxy.endpoint(), Garage::KEY).ok(["doctor"]);
    assert!(well.stdout.contains("can be read and written"), "{well}");

    one_problem(&host(&proxy.endpoint(), "wrong"), "storage", "Invalid signature", "aws.env");

    let started = Instant::now();
    one_problem(&host("https://localhost:1", Garage::KEY), "storage", "no answer", "nothing listens there");
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
}
