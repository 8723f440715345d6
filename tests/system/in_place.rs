//! `restore --in-place`: it is where it was, who uses it was stopped meanwhile, and the old is still there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Cluster, Config, DockerEngine, Household, Scratch, Size, Tmpfs, Tree, sh};

use crate::postgres::Host;

/// What was there before.
fn kept(place: &Path) -> Vec<PathBuf> {
    let start = format!("{}.before-restore-", place.file_name().unwrap().to_str().unwrap());
    let entries = fs::read_dir(place.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&start)).collect()
}

#[test]
fn directories_change_places_with_what_is_there() {
    let scratch = Scratch::new();
    let household = Household::make(scratch.directory("srv"), Size::SMALL, 7);
    let (foundry, logs) = (household.foundry(), household.logs());
    let agent = Config::local(scratch.path()).directory("all", &[&foundry, &logs], "").write();
    agent.ok(["run"]);
    let before = [&foundry, &logs].map(Tree::read);
    let world = foundry.join("Data/worlds/world-1/world.json");

    // Nobody is there to say yes.
    agent.run(["restore", "all", "--in-place"]).expect(2).says("--yes");
    agent.run(["restore", "all", "--in-place", "--yes", "--path", "/etc"]).expect(2).says("in no path of all");
    agent.run(["restore", "all"]).expect(2).says("--to DIR");

    // All of it; one of the two is gone with what was above it.
    fs::write(&world, "overwritten").unwrap();
    fs::write(foundry.join("new"), "since").unwrap();
    fs::remove_dir_all(&logs).unwrap();
    let ran = agent.ok(["restore", "all", "--in-place", "--yes"]);
    let old = kept(&foundry);
    assert_eq!((old.len(), kept(&logs).len()), (1, 0), "{ran}");
    assert_eq!(fs::read_to_string(old[0].join("new")).unwrap(), "since");
    ran.says(&format!("rm -rf {}", old[0].display()));
    sh(Command::new("sh").arg("-ec").arg(ran.stdout.lines().find(|line| line.contains("rm -rf")).unwrap()));
    before[0].assert_equals(&foundry);
    before[1].assert_equals(&logs);

    // One file, and one folder that is no more.
    fs::write(&world, "overwritten").unwrap();
    fs::remove_dir_all(foundry.join("Data/worlds/world-0")).unwrap();
    let paths = [world.to_str().unwrap(), foundry.join("Data/worlds/world-0").to_str().unwrap()].map(str::to_owned);
    agent.ok(["restore", "all", "--in-place", "--yes", "--path", &paths[0], "--path", &paths[1]]);
    let old = kept(&world);
    assert_eq!(fs::read_to_string(&old[0]).unwrap(), "overwritten");
    fs::remove_file(&old[0]).unwrap();
    // The directory around them has changed with their names.
    let differences = before[0].differences(&Tree::read(&foundry));
    assert!(differences.iter().all(|one| one.contains("time")), "{differences:#?}");
}

#[test]
fn a_disk_that_is_mounted_there_is_not_renamed_and_a_small_one_is_not_filled() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv/data");
    fs::write(source.join("file"), vec![7; 3 << 20]).unwrap();
    let agent = Config::local(scratch.path()).directory("data", &[&source], "").write();
    agent.ok(["run"]);
    {
        let _disk = Tmpfs::mount(&source, 1 << 20);
        agent.run(["restore", "data", "--in-place", "--yes"]).expect(2).says("is a mounted disk");
    }
    fs::remove_dir_all(&source).unwrap();
    let srv = scratch.join("srv");
    let _small = Tmpfs::mount(&srv, 1 << 20);
    agent.run(["restore", "data", "--in-place", "--yes"]).expect(2).says("are needed");
    assert!(!source.exists());
}

#[test]
fn a_container_is_stopped_for_the_exchange_and_sees_the_new() {
    let (engine, scratch) = (DockerEngine::start(), Scratch::new());
    let data = scratch.directory("srv/data");
    fs::write(data.join("value"), "good").unwrap();
    let live = "live = { paths = [\".\"], pause = \"docker:foundry\" }";
    let live = live.replace("\".\"", &format!("{:?}", data.join("world")));
    fs::create_dir(data.join("world")).unwrap();
    let agent = Config::local(scratch.path()).directory("foundry", &[&data], &live).write();
    let agent = agent.env("DOCKER_HOST", engine.host());
    let start = |name: &str, volume: &str| {
        let script = "trap 'exit 0' TERM; while :; do sleep 0.1; done";
        engine.docker([
            "run",
            "--detach",
            "--network=none",
            "--name",
            name,
            "--volume",
            volume,
            DockerEngine::IMAGE,
            "bash",
            "-c",
            script,
        ]);
    };
    start("foundry", &format!("{}:/data", data.display()));
    start("reader", &format!("{}:/data:ro", data.display()));
    start("stranger", "/var/empty:/data");
    let started = |name: &str| engine.docker(["inspect", "--format", "{{.State.Status}} {{.State.StartedAt}}", name]);
    agent.ok(["run"]);
    let before = ["foundry", "reader", "stranger"].map(started);
    fs::write(data.join("value"), "bad").unwrap();
    agent.ok(["restore", "foundry", "--in-place", "--yes"]);
    for name in ["foundry", "reader"] {
        assert_eq!(engine.docker(["exec", name, "cat", "/data/value"]), "good", "{name} sees the new");
    }
    let after = ["foundry", "reader", "stranger"].map(started);
    assert!(after.iter().all(|one| one.starts_with("running")), "{after:?}");
    assert!(before[0] != after[0] && before[1] != after[1] && before[2] == after[2], "{before:?} {after:?}");
    assert_eq!(fs::read_to_string(kept(&data)[0].join("value")).unwrap(), "bad");

    // What fails leaves it as it was, and running.
    let id = "0123456789";
    agent.run(["restore", "foundry", "--in-place", "--yes", "--at", id]).expect(1).says("there is no snapshot");
    assert_eq!(started("foundry"), after[0]);
    // Who stood still stays so.
    engine.docker(["stop", "--time=0", "foundry"]);
    agent.ok(["restore", "foundry", "--in-place", "--yes"]).says("was stopped before and stays so");
    assert!(started("foundry").starts_with("exited"));
}

#[test]
fn a_database_comes_back_in_its_place_and_the_old_is_kept() {
    let host = Host::local();
    host.insert("before");
    host.good_run();
    let (moment, at_moment) = host.moment();
    host.cluster.sql("delete from voters");
    let spoiled = host.cluster.dump();

    let place = host.cluster.data().to_owned();
    let restore = |more: &[&str]| host.agent.run(["restore", "database", "--in-place", "--yes"].iter().chain(more));
    let refused = restore(&["--at", &moment]).expect(2);
    refused.says("no unit of systemd is its");
    assert!(host.cluster.is_running());
    host.cluster.finish_segment();
    host.cluster.stop();
    let done = restore(&["--at", &moment]).expect(0);
    host.cluster.start();
    assert_eq!(host.cluster.dump(), at_moment);
    assert_eq!(host.cluster.sql("show archive_mode"), "on");
    let old = kept(&place);
    assert_eq!(old.len(), 1, "{done}");
    done.says(&old[0].display().to_string());
    // It goes on: backups, WAL, and the newest moment.
    host.insert("after the disaster");
    host.good_run();
    host.insert("not in any backup");
    let newest = host.cluster.dump();
    host.cluster.finish_segment();
    host.cluster.stop();
    let _ = restore(&[]).expect(0);
    assert_eq!(host.cluster.start().dump(), newest);
    // The old is a whole cluster.
    assert_eq!(Cluster::existing(&host.scratch, &old[0]).start().dump(), spoiled);
}
