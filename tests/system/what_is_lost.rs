//! What was lost or damaged behind the agent's back is told, in words of ours, and by `status` until it is mended.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::{Agent, Config, Scratch, sh};
use jiff::Timestamp;
use pi_agent::state::{Opened, State};
use pi_agent::steps::{Outcome, StepResult};

use crate::health::alarms;

/// Three nights of one directory.
fn three_nights(scratch: &Scratch, options: &str) -> (Config, Agent, PathBuf) {
    let source = scratch.directory("srv/data");
    let config = Config::local(scratch.path()).directory("data", &[&source], options);
    let agent = config.write();
    for number in 0..3 {
        fs::write(source.join("file"), format!("{number}")).unwrap();
        agent.ok(["run", "data"]);
    }
    (config, agent, source)
}

fn one_of(folder: &Path) -> PathBuf {
    fs::read_dir(folder).unwrap().next().unwrap().unwrap().path()
}

#[test]
fn damage_that_a_check_by_hand_finds_is_alarming_until_it_is_mended() {
    let scratch = Scratch::new();
    let (config, agent, _) = three_nights(&scratch, "");
    let index = one_of(&scratch.join("storage/data/index"));
    let mut content = fs::read(&index).unwrap();
    content[40] ^= 1;
    fs::write(&index, content).unwrap();

    let checked = agent.run(["check", "data", "--json"]).expect(3);
    let told = checked.step("data")["error"].to_string();
    assert!(told.contains("index/") && told.contains("is damaged"), "{told}");
    assert!(told.contains("restic -r /") && told.contains("pi-agent repair"), "{told}");
    for theirs in ["rustic", "acktrace", "nonce"] {
        assert!(!checked.stdout.contains(theirs) && !checked.stderr.contains(theirs), "{theirs}: {checked}");
    }
    let is_alarming = || alarms(&agent).contains(&"check".to_owned());
    assert!(is_alarming());
    let _ = agent.run(["run", "data"]).expect(5);
    assert!(is_alarming(), "a backup beside it is no check");
    agent.ok(["repair", "data", "--yes"]);
    agent.ok(["check", "data"]);
    assert!(!is_alarming());
    sh(config.restic("data").args(["check", "--read-data"]));

    // What the library warns of by itself is for the journal.
    let pack = one_of(&one_of(&scratch.join("storage/data/data")));
    fs::write(&pack, [fs::read(&pack).unwrap(), b"x".to_vec()].concat()).unwrap();
    let checked = agent.run(["check", "data"]).expect(3);
    assert!(!checked.stdout.contains("rustic") && !checked.stderr.contains("rustic"), "{checked}");
}

#[test]
fn a_restore_point_that_is_gone_is_told_by_the_next_run_once() {
    let scratch = Scratch::new();
    let (config, agent, source) = three_nights(&scratch, "keep = { last = 3 }");
    fs::remove_file(one_of(&scratch.join("storage/data/snapshots"))).unwrap();
    fs::write(source.join("file"), "4").unwrap();
    let night = agent.run(["run", "data", "--json"]).expect(5);
    let told = night.step("data")["error"]["message"].as_str().unwrap().to_owned();
    assert!(told.starts_with("the restore point ") && told.contains(" is gone from "), "{told}");
    agent.ok(["run", "data"]);
    agent.ok(["check", "data"]);

    // One that was only rewritten is there.
    sh(config.restic("data").args(["tag", "--add", "kept", "latest"]));
    agent.ok(["run", "data"]);

    // It is restored by its time, and stays longer than `keep` says: whoever tagged it may want it.
    let then = Timestamp::now().to_string();
    std::thread::sleep(Duration::from_secs(1));
    fs::write(source.join("file"), "5").unwrap();
    for _ in 0..4 {
        agent.ok(["run", "data"]);
    }
    let to = scratch.join("then");
    agent.ok(["restore", "data", "--at", &then, "--to", to.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(to.join(source.strip_prefix("/").unwrap()).join("file")).unwrap(), "4");
}

/// It has forgotten and not noted it: the plug was pulled in between.
#[test]
fn what_a_run_that_was_cut_off_has_forgotten_is_not_missed() {
    let scratch = Scratch::new();
    let (_, agent, _) = three_nights(&scratch, "keep = { last = 2 }");
    let state = || match State::open(&agent.state().join("state.db")).unwrap() {
        Opened::Ready(state) | Opened::Fresh(state, _) => state,
    };
    let facts = state().facts("data").unwrap();
    agent.ok(["run", "data"]);
    agent.ok(["run", "data"]);
    let (mut state, now) = (state(), Timestamp::now());
    state.begin_run("cut-off", None, now).unwrap();
    state.begin_step("cut-off", 0, "data", "directory", "backup", now).unwrap();
    let result = StepResult { facts, ..StepResult::of(Outcome::Succeeded) };
    state.finish_step("cut-off", 0, "data", &result, now).unwrap();
    drop(state);
    let night = agent.run(["run", "data", "--json"]);
    assert!(!night.step("data").to_string().contains("gone"), "{night}");
}

#[test]
fn a_night_of_which_exclude_leaves_nothing_is_not_green() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv/data");
    fs::write(source.join("file"), "1").unwrap();
    let agent = Config::local(scratch.path()).directory("data", &[&source], "exclude = [\"**\"]").write();
    let night = agent.run(["run", "data", "--json"]).expect(5);
    assert!(night.step("data")["error"]["message"].as_str().unwrap().contains("not one file is backed up"), "{night}");
    let nothing = agent.ok(["points", "data", "--path", "srv/data/file"]);
    assert!(nothing.stdout.contains("no restore point holds srv/data/file"), "{nothing}");
}

/// The key that this machine keeps opens it all the same.
#[test]
fn a_repository_that_restic_key_opens_no_more_is_told_each_night() {
    let scratch = Scratch::new();
    let (config, agent, _) = three_nights(&scratch, "");
    let keys = scratch.join("storage/data/keys");
    let file = one_of(&keys);
    let whole = fs::read(&file).unwrap();
    let told = |words: &str| {
        for _ in 0..2 {
            let night = agent.run(["run", "data", "--json"]).expect(5);
            let said = night.step("data")["error"]["message"].as_str().unwrap().to_owned();
            assert!(said.contains(words), "no {words}: {night}");
        }
    };
    for part in [whole.len() / 2, 0] {
        fs::write(&file, &whole[..part]).unwrap();
        told("is damaged");
    }
    fs::remove_file(&file).unwrap();
    told("it has no key file any more");
    fs::write(&file, &whole).unwrap();
    agent.ok(["run", "data"]);

    // Another password's key in place of ours.
    let other = scratch.join("other");
    fs::write(&other, "another password").unwrap();
    sh(config.restic("data").args(["key", "add", "--new-password-file"]).arg(&other));
    fs::remove_file(&file).unwrap();
    told("opens none of the key files");
    fs::write(&file, &whole).unwrap();
    fs::remove_file(fs::read_dir(&keys).unwrap().map(|key| key.unwrap().path()).find(|key| *key != file).unwrap())
        .unwrap();
    agent.ok(["run", "data"]);
    // And another password in restic.key.
    let password = config.secrets().join("restic.key");
    let before = fs::read(&password).unwrap();
    fs::write(&password, "changed").unwrap();
    told("opens none of the key files");
    fs::write(&password, before).unwrap();
    agent.ok(["run", "data"]);
}

/// The cache has it before storage does. Only what had arrived can have been removed.
#[test]
fn an_index_that_never_arrived_is_not_missed_and_one_that_had_is() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv");
    fs::write(source.join("file"), "kept").unwrap();
    let agent = Config::local(scratch.path()).directory("data", &[&source], "").write();
    for (number, arrived) in [(0, false), (1, true)] {
        fs::write(source.join("new"), number.to_string()).unwrap();
        agent.ok(["run", "data"]);
        for index in fs::read_dir(scratch.join("storage/data/index")).unwrap().map(|entry| entry.unwrap()) {
            fs::remove_file(index.path()).unwrap();
            let mark = format!("cache/repositories/data/{}.on-its-way", index.file_name().display());
            if !arrived {
                fs::write(scratch.join(mark), "").unwrap();
            }
        }
        let night = agent.run(["run", "data", "--json"]);
        assert_eq!(night.code(), Some(if arrived { 5 } else { 0 }), "{night}");
        assert_eq!(night.to_string().contains("find out who removed them"), arrived, "{night}");
        agent.ok(["check", "data"]);
    }
}
