//! The state database is a cache: damaged, gone or half-written, it costs no backup, and history comes back from storage.

use std::fs;
use std::path::Path;

use harness::{Agent, Config, Scratch};

fn household(scratch: &Scratch) -> Agent {
    let source = scratch.directory("srv/foundry");
    fs::write(source.join("world.json"), "{}").unwrap();
    Config::local(scratch.path()).directory("foundry", &[&source], "").write()
}

fn set_aside(state: &Path) -> bool {
    fs::read_dir(state).unwrap().any(|entry| entry.unwrap().file_name().to_string_lossy().contains(".damaged-"))
}

#[test]
fn a_damaged_state_database_is_set_aside_told_and_brought_back() {
    let scratch = Scratch::new();
    let agent = household(&scratch);
    agent.ok(["run", "--reason", "the first"]);
    let before = agent.ok(["status", "--json"]).step("foundry");

    let database = agent.state().join("state.db");
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{suffix}", database.display()));
    }
    let length = fs::metadata(&database).unwrap().len();
    fs::write(&database, vec![0x5a; usize::try_from(length).unwrap()]).unwrap();

    let night = agent.run(["run", "--json"]).expect(5);
    assert_eq!(night.json()["outcome"], "degraded", "a night with a damaged database is not all well: {night}");
    assert!(night.json()["problems"][0]["message"].as_str().unwrap().contains("brought back"), "{night}");
    assert_eq!(night.step("foundry")["outcome"], "succeeded");
    assert!(set_aside(agent.state()));

    // The first run happened before the copy was taken, so its own end is not in it; that it was, is.
    let text = fs::read(agent.state().join("state.db")).unwrap();
    assert!(
        text.windows(9).any(|window| window == b"the first"),
        "the reason of the first run is in the database again"
    );
    assert_eq!(before["restore_points"], 1);
    assert_eq!(agent.ok(["status", "--json"]).step("foundry")["restore_points"], 2);
    agent.ok(["run"]);
}

#[test]
fn a_new_card_gets_its_history_back() {
    let scratch = Scratch::new();
    let agent = household(&scratch);
    agent.ok(["run"]);
    agent.ok(["run"]);
    fs::remove_dir_all(agent.state()).unwrap();
    fs::remove_dir_all(scratch.join("cache")).unwrap();

    agent.ok(["run"]).says("history was brought back from storage");
    let status = agent.ok(["status", "--json"]).step("foundry");
    assert_eq!(status["restore_points"], 3);
}

#[test]
fn a_dry_run_changes_nothing_anywhere() {
    let scratch = Scratch::new();
    let agent = household(&scratch);
    let before = harness::Tree::read(scratch.path());
    let plan = agent.ok(["run", "--dry-run"]);
    assert!(plan.stdout.contains("1. foundry (directory)"), "{plan}");
    agent.ok(["plan", "--json"]).json();
    before.assert_equals(scratch.path());

    agent.ok(["run"]);
    let before = harness::Tree::read(scratch.path());
    agent.ok(["run", "--dry-run"]);
    agent.ok(["status"]);
    before.assert_equals(scratch.path());
}

#[test]
fn the_first_run_makes_the_place_and_a_later_one_does_not() {
    let scratch = Scratch::new();
    let agent = household(&scratch);
    let storage = scratch.join("storage");
    fs::remove_dir(&storage).unwrap();
    agent.ok(["run"]);

    // The disk is not mounted: the mount point is empty, or not even there.
    fs::rename(&storage, scratch.join("elsewhere")).unwrap();
    for mount_point in [false, true] {
        if mount_point {
            fs::create_dir(&storage).unwrap();
        }
        let night = agent.run(["run", "--json"]).expect(3);
        let error = night.step("foundry")["error"].clone();
        assert!(error["message"].as_str().unwrap().contains("held this machine's backups"), "{night}");
        assert!(error["hint"].as_str().unwrap().contains("mount the disk"), "{night}");
        assert_eq!(fs::read_dir(&storage).map_or(0, Iterator::count), 0, "nothing was written there");
    }
    fs::remove_dir(&storage).unwrap();
    fs::rename(scratch.join("elsewhere"), &storage).unwrap();
    agent.ok(["run"]);
}

#[test]
fn restore_points_that_are_gone_are_missed() {
    let scratch = Scratch::new();
    let agent = household(&scratch);
    agent.ok(["run"]);
    fs::remove_dir_all(scratch.join("storage/foundry")).unwrap();
    let night = agent.run(["run", "--json"]).expect(5);
    assert_eq!(night.step("foundry")["outcome"], "degraded");
    assert!(
        night.step("foundry")["error"]["message"].as_str().unwrap().contains("held restore points before"),
        "{night}"
    );
    agent.ok(["run"]);
}
