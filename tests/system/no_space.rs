//! Disks that are full: what can be done is done, what cannot fails plainly, and nothing that was there is lost.

use std::process::Command;

use harness::{Config, Household, Scratch, Size, Tmpfs, Tree, sh};

const MIB: u64 = 1 << 20;

#[test]
fn a_full_repository_disk_fails_the_step_and_keeps_the_older_points() {
    let scratch = Scratch::new();
    let disk = Tmpfs::mount(scratch.join("storage"), 24 * MIB);
    let mut household = Household::make(scratch.join("srv"), Size::SMALL, 1);
    let config = Config::local(scratch.path()).directory("foundry", &[&household.foundry()], "");
    let agent = config.write();
    agent.ok(["run"]);
    let first = Tree::read(household.foundry());

    disk.fill();
    household.change(0.3);
    let ran = agent.run(["run", "--json"]).expect(3);
    assert_eq!(ran.step("foundry")["outcome"], "failed", "{ran}");
    ran.says("No space left on device");
    let points = agent.ok(["points", "foundry", "--json"]).json();
    assert_eq!(points["points"].as_array().unwrap().len(), 1, "{points}");

    disk.make_room();
    agent.ok(["run"]);
    agent.ok(["check"]);
    let id = points["points"][0]["id"].as_str().unwrap();
    let below = household.foundry().strip_prefix("/").unwrap().to_owned();
    for (at, tree) in [(id, &first), ("latest", &Tree::read(household.foundry()))] {
        let target = scratch.join("restored").join(at);
        agent.ok(["restore", "foundry", "--at", at, "--to", target.to_str().unwrap()]);
        tree.assert_equals(target.join(&below));
    }
    let names = sh(Command::new("find").arg(disk.path()).args(["-type", "f", "-printf", "%f\n"]));
    assert!(!names.lines().any(|name| name.contains("tmp")), "half-written files stayed: {names}");
}

/// What a night stored before the disk was full is in no index, and nobody would ever come to remove it.
#[test]
fn one_night_that_is_too_large_is_the_only_one_that_fails() {
    let scratch = Scratch::new();
    let disk = Tmpfs::mount(scratch.join("storage"), 40 * MIB);
    let source = scratch.directory("srv");
    let agent = Config::local(scratch.path()).directory("data", &[&source], "").write();
    let random = |seed, bytes| harness::Random::new(seed).bytes(bytes);
    std::fs::write(source.join("kept"), random(1, 8_000_000)).unwrap();
    agent.ok(["run"]);
    std::fs::write(source.join("large"), random(2, 50_000_000)).unwrap();
    agent.run(["run"]).expect(3).says("No space left on device");
    std::fs::remove_file(source.join("large")).unwrap();
    std::fs::write(source.join("more"), random(3, 12_000_000)).unwrap();
    agent.ok(["run"]);
    agent.ok(["check"]);
    drop(disk);
}

#[test]
fn a_full_state_disk_costs_history_but_no_backup() {
    let scratch = Scratch::new();
    let disk = Tmpfs::mount(scratch.join("state"), 4 * MIB);
    let household = Household::make(scratch.join("srv"), Size::SMALL, 1);
    let agent = Config::local(scratch.path()).directory("foundry", &[&household.foundry()], "").write();
    agent.ok(["run"]);

    disk.fill();
    let ran = agent.run(["run", "--json"]);
    // 1: whether anybody will be told cannot be made sure, so that whoever started it must.
    assert!(matches!(ran.code(), Some(0 | 1 | 5)), "{ran}");
    assert_eq!(ran.step("foundry")["outcome"], "succeeded", "{ran}");
    let points = agent.ok(["points", "foundry", "--json"]).json();
    assert_eq!(points["points"].as_array().unwrap().len(), 2, "{points}");
    if ran.code() == Some(5) {
        ran.says("state database");
    }

    disk.make_room();
    agent.ok(["run"]);
    assert_eq!(agent.ok(["status", "--json"]).step("foundry")["last_outcome"], "succeeded");
}

#[test]
fn a_state_disk_that_is_full_from_the_start_costs_no_backup_either() {
    let scratch = Scratch::new();
    let disk = Tmpfs::mount(scratch.join("state"), 4 * MIB);
    disk.fill();
    let household = Household::make(scratch.join("srv"), Size::SMALL, 1);
    let agent = Config::local(scratch.path()).directory("foundry", &[&household.foundry()], "").write();
    let ran = agent.run(["run", "foundry", "--json"]).expect(1);
    assert_eq!(ran.step("foundry")["outcome"], "succeeded", "{ran}");
    disk.make_room();
    agent.ok(["run"]);
}

#[test]
fn a_full_cache_disk_does_not_cost_the_backup_of_files() {
    let scratch = Scratch::new();
    let disk = Tmpfs::mount(scratch.join("cache"), 4 * MIB);
    disk.fill();
    let mut household = Household::make(scratch.join("srv"), Size::SMALL, 1);
    let agent = Config::local(scratch.path()).directory("foundry", &[&household.foundry()], "").write();
    let ran = agent.run(["run", "--json"]);
    assert_eq!(ran.step("foundry")["outcome"], "succeeded", "{ran}");

    disk.make_room();
    household.change(0.1);
    agent.ok(["run"]);
    let target = scratch.join("restored");
    agent.ok(["restore", "foundry", "--to", target.to_str().unwrap()]);
    Tree::read(household.foundry()).assert_equals(target.join(household.foundry().strip_prefix("/").unwrap()));
}
