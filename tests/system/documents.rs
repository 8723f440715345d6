//! The JSON that others may rely on: keys are added, never renamed.

use std::collections::BTreeSet;
use std::fs;

use harness::{Config, Scratch};
use serde_json::Value;

#[track_caller]
fn has_keys(object: &Value, keys: &[&str]) {
    let object = object.as_object().expect("an object");
    let found: BTreeSet<&str> = object.keys().map(String::as_str).collect();
    let missing: Vec<_> = keys.iter().filter(|key| !found.contains(**key)).collect();
    assert!(missing.is_empty(), "{missing:?} are missing among {found:?}");
}

#[track_caller]
fn is_a_time(value: &Value) {
    let text = value.as_str().expect("a time");
    assert!(text.parse::<jiff::Timestamp>().is_ok() && !text.ends_with('Z'), "{text} is RFC 3339 with an offset");
}

#[test]
fn run_status_points_and_restore_keep_their_promises() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv/foundry");
    fs::write(source.join("world.json"), "{}").unwrap();
    let agent = Config::local(scratch.path()).directory("foundry", &[&source], "").write();

    let fresh = agent.ok(["status", "--json"]);
    assert_eq!(fresh.json()["healthy"], false, "nothing was ever backed up");
    assert_eq!(fresh.step("foundry")["last_success"], Value::Null);

    let alarms = agent.ok(["alarms", "--json"]).json();
    has_keys(&alarms, &["schema", "alarms"]);
    has_keys(&alarms["alarms"][0], &["name", "step", "tone", "since", "message", "hint"]);
    is_a_time(&alarms["alarms"][0]["since"]);

    // Without one there would be an alarm as soon as there is a backup.
    agent.ok(["recovery-kit", "--to", scratch.join("kit").to_str().unwrap()]);
    let run = agent.ok(["run", "--json"]);
    let document = run.json();
    has_keys(&document, &["schema", "run_id", "started_at", "finished_at", "outcome", "steps"]);
    is_a_time(&document["started_at"]);
    let step = run.step("foundry");
    has_keys(&step, &["name", "outcome", "error", "restore_point", "bytes_added", "requests"]);
    assert_eq!(step["error"], Value::Null);

    let status = agent.ok(["status", "--json"]);
    let document = status.json();
    has_keys(&document, &["schema", "host", "generated_at", "healthy", "steps", "alarms"]);
    is_a_time(&document["generated_at"]);
    assert_eq!(document["healthy"], true);
    let step = status.step("foundry");
    has_keys(
        &step,
        &[
            "name",
            "kind",
            "last_outcome",
            "last_success",
            "age_seconds",
            "duration_seconds",
            "bytes_processed",
            "bytes_added",
            "bytes_stored",
            "files_skipped",
            "restore_points",
            "success_rate_30d",
            "last_restore_test",
            "wal",
        ],
    );
    is_a_time(&step["last_success"]);
    assert_eq!(step["success_rate_30d"], 1.0);

    let points = agent.ok(["points", "foundry", "--json"]).json();
    has_keys(&points, &["schema", "points", "windows"]);
    let point = &points["points"][0];
    has_keys(point, &["step", "id", "time", "kind", "bytes"]);
    is_a_time(&point["time"]);
    assert_eq!(point["id"], run.step("foundry")["restore_point"]);

    let target = scratch.join("restored");
    let restored = agent.ok(["restore", "foundry", "--json", "--to", target.to_str().unwrap()]).json();
    has_keys(&restored, &["schema", "step", "to", "restore_point", "time", "next"]);
}

#[test]
fn exit_codes_tell_what_kind_of_wrong_it_was() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv/foundry");
    fs::write(source.join("world.json"), "{}").unwrap();
    let config = Config::local(scratch.path()).directory("foundry", &[&source], "");
    let agent = config.write();

    let _ = agent.run(["run", "no-such-step"]).expect(2).says("there is no step \"no-such-step\"");
    let _ = agent.run(["no-such-command"]).expect(2);
    let _ = agent.run(["restore", "foundry", "--to", "/tmp", "--at", "latest"]).expect(2).says("not empty");
    fs::remove_dir_all(&source).unwrap();
    let _ = agent.run(["run"]).expect(3);
    fs::write(config.file(), "[host").unwrap();
    let _ = agent.run(["run"]).expect(2).says("config.toml:1");
}
