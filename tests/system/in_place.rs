//! `restore --in-place`: it is where it was, who uses it was stopped meanwhile, and the old is still there.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use harness::cluster::give_to_postgres;
use harness::{Cluster, Config, DockerEngine, Household, Random, Scratch, Size, Tmpfs, Tree, sh};
use nix::sys::signal::Signal;

use crate::postgres::Host;

fn names(directory: &Path) -> Vec<String> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// What was there before.
pub(crate) fn kept(place: &Path) -> Vec<PathBuf> {
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
    let nowhere = foundry.join("nowhere");
    agent.run(["restore", "all", "--in-place", "--yes", "--path", nowhere.to_str().unwrap()]).expect(1).says("nowhere");
    assert!(!foundry.join("nowhere.restoring.unfinished").exists(), "nothing was begun");
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
    fs::hard_link(&world, scratch.join("other-name")).unwrap();
    let ran = agent.ok(["restore", "all", "--in-place", "--yes", "--path", &paths[0], "--path", &paths[1]]);
    ran.says(&format!("{} had other names (hard links): they keep what was there before", paths[0]));
    let old = kept(&world);
    assert_eq!(fs::read_to_string(&old[0]).unwrap(), "overwritten");
    fs::remove_file(&old[0]).unwrap();
    // The directory around them has changed with their names.
    let differences = before[0].differences(&Tree::read(&foundry));
    assert!(differences.iter().all(|one| one.contains("time")), "{differences:#?}");
}

#[test]
fn a_disk_that_is_mounted_there_changes_what_is_in_it_and_a_small_one_is_not_filled() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv/data");
    fs::write(source.join("file"), vec![7; 3 << 20]).unwrap();
    let agent = Config::local(scratch.path()).directory("data", &[&source], "").write();
    sh(Command::new("setfacl").args(["-m", "u:1234:rwx"]).arg(&source));
    let list = xattr::get(&source, "system.posix_acl_access").unwrap();
    agent.ok(["run"]);
    {
        let disk = Tmpfs::mount(&source, 8 << 20);
        fs::create_dir(source.join("lost+found")).unwrap();
        fs::write(source.join("file"), "spoiled").unwrap();
        fs::write(source.join("since"), "since").unwrap();
        let done = agent.ok(["restore", "data", "--in-place", "--yes"]);
        let old = kept(&source.join("data")).remove(0);
        done.says(&format!("rm -rf {}", old.display()));
        let names = |folder: &Path| {
            let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&old), ["file", "since"]);
        assert_eq!(xattr::get(&source, "system.posix_acl_access").unwrap(), list);
        assert_eq!(names(&source), [old.file_name().unwrap(), "file".as_ref(), "lost+found".as_ref()]);
        assert_eq!(fs::read(source.join("file")).unwrap(), vec![7; 3 << 20]);
        // One below it would go with the old.
        let _below = Tmpfs::mount(disk.path().join("below"), 1 << 20);
        agent.run(["restore", "data", "--in-place", "--yes"]).expect(2).says("data/below is a mounted disk");
    }
    fs::remove_dir_all(&source).unwrap();
    let srv = scratch.join("srv");
    let _small = Tmpfs::mount(&srv, 1 << 20);
    agent.run(["restore", "data", "--in-place", "--yes"]).expect(1).says("are needed");
    assert!(!source.exists());
}

#[test]
fn on_a_disk_of_its_own_only_the_names_of_this_restore_are_not_a_persons() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv/data");
    let _disk = Tmpfs::mount(&source, 8 << 20);
    fs::create_dir(source.join("lost+found")).unwrap();
    let names = ["data.restoring.txt", "data.before-restore-plan.md", "lost+found/found"].map(|name| source.join(name));
    let write = |text: &str| names.iter().for_each(|name| fs::write(name, text).unwrap());
    let read = || names.each_ref().map(|name| fs::read_to_string(name).unwrap());
    write("good");
    fs::write(source.join("data.restoring"), "mine").unwrap();
    let agent = Config::local(scratch.path()).directory("data", &[&source], "").write();
    agent.ok(["run"]);
    write("spoilt");
    agent.run(["restore", "data", "--in-place", "--yes"]).expect(1).says("data.restoring");
    fs::remove_file(source.join("data.restoring")).unwrap();
    let ran = agent.run(["restore", "data", "--in-place", "--yes"]).expect(5);
    ran.says("data.restoring was not put back");
    assert_eq!(read(), ["good"; 3]);
    let old = kept(&source.join("data")).remove(0);
    assert_eq!(fs::read_to_string(old.join("lost+found/found")).unwrap(), "spoilt");
    // What was kept before stays where it is.
    agent.run(["restore", "data", "--in-place", "--yes"]).expect(5).says("data.restoring was not put back");
    assert!(old.exists() && kept(&source.join("data")).len() == 3, "with the plan");
}

#[test]
fn paths_in_each_other_come_back_together_and_the_storage_in_them_stays() {
    let scratch = Scratch::new();
    let (source, storage) = (scratch.directory("srv/data"), scratch.directory("srv/data/storage"));
    fs::create_dir(source.join("sub")).unwrap();
    let files = [source.join("file"), source.join("sub/file")];
    files.iter().for_each(|file| fs::write(file, "good").unwrap());
    let exclude = format!("exclude = [\"{}\"]", storage.display());
    let agent = Config::local(scratch.path()).directory("data", &[&source, &source.join("sub")], &exclude).write();
    let config = fs::read_to_string(scratch.join("etc/config.toml")).unwrap();
    let outside = scratch.join("storage").display().to_string();
    fs::write(scratch.join("etc/config.toml"), config.replace(&outside, &storage.display().to_string())).unwrap();
    agent.ok(["run"]);
    for round in ["first", "second"] {
        files.iter().for_each(|file| fs::write(file, "spoilt").unwrap());
        agent.ok(["restore", "data", "--in-place", "--yes"]);
        assert!(files.iter().all(|file| fs::read_to_string(file).unwrap() == "good"), "{round}");
    }
    agent.ok(["check"]);
}

#[test]
fn a_name_that_has_no_room_for_ours_is_cut() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv");
    let (folder, file) = (source.join("d".repeat(255)), source.join("f".repeat(225)));
    fs::create_dir(&folder).unwrap();
    for file in [&folder.join("file"), &file] {
        fs::write(file, "good").unwrap();
    }
    let agent = Config::local(scratch.path()).directory("data", &[&source], "").write();
    agent.ok(["run"]);
    for file in [&folder.join("file"), &file] {
        fs::write(file, "spoilt").unwrap();
    }
    for path in [&folder, &file] {
        agent.ok(["restore", "data", "--in-place", "--yes", "--path", path.to_str().unwrap()]);
    }
    // The old has its own name still.
    for name in [&folder.join("file"), &file].map(|file| file.strip_prefix(&source).unwrap().to_owned()) {
        let above = fs::read_dir(&source).unwrap().map(|entry| entry.unwrap().path().join(&name));
        let old: Vec<_> = above.filter(|path| path.exists()).map(|path| fs::read_to_string(path).unwrap()).collect();
        assert_eq!(old, ["spoilt"], "{name:?}");
        assert_eq!(fs::read_to_string(source.join(&name)).unwrap(), "good");
    }
    let to = scratch.join("t".repeat(250));
    agent.ok(["restore", "data", "--to", to.to_str().unwrap()]);
}

#[test]
fn damage_that_made_no_difference_is_told_and_what_made_one_replaces_nothing() {
    let scratch = Scratch::new();
    let (one, two) = (scratch.directory("srv/one"), scratch.directory("srv/two"));
    for (number, path) in [(1, &one), (2, &two)] {
        fs::write(path.join("file"), Random::new(number).bytes(2_000_000)).unwrap();
    }
    let good = [&one, &two].map(|path| fs::read(path.join("file")).unwrap());
    let agent = Config::local(scratch.path()).directory("data", &[&one, &two], "").write();
    agent.ok(["run"]);
    let repository = scratch.join("storage/data");
    let spoil = || [&one, &two].iter().for_each(|path| fs::write(path.join("file"), "spoilt").unwrap());
    let in_place = || agent.run(["restore", "data", "--in-place", "--yes"]);

    // Nothing of what is restored was in the config, nor in another night's snapshot.
    fs::remove_file(repository.join("config")).unwrap();
    fs::write(repository.join("snapshots").join("00".repeat(32)), "").unwrap();
    spoil();
    let ran = in_place().expect(5);
    ran.says("! the config of").says("is lost or damaged; it is read without").says("is damaged and left out");
    assert_eq!([&one, &two].map(|path| fs::read(path.join("file")).unwrap()), good, "{ran}");
    assert_eq!(fs::read_to_string(kept(&one)[0].join("file")).unwrap(), "spoilt");
    assert_eq!(ran.stdout.matches("the config of").count(), 1, "once, whatever the number of paths: {ran}");
    for old in [&one, &two].into_iter().flat_map(|path| kept(path)) {
        fs::remove_dir_all(old).unwrap();
    }
    let told = agent.run(["restore", "data", "--in-place", "--yes", "--json"]).expect(5);
    assert!(told.json()["problems"].to_string().contains("the config of"), "{told}");

    // What is lost of what is restored.
    let packs = sh(Command::new("find").arg(repository.join("data")).args(["-type", "f", "-size", "+500k"]));
    packs.lines().for_each(|pack| fs::remove_file(pack).unwrap());
    spoil();
    in_place().expect(1).says("nothing was replaced, for not all came back as it was");
    assert_eq!(fs::read_to_string(two.join("file")).unwrap(), "spoilt");
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
    engine.docker(["pause", "reader"]);
    agent.run(["restore", "foundry", "--in-place", "--yes"]).expect(2).says("docker unpause reader");
    engine.docker(["unpause", "reader"]);
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
    // There are three timelines in the archive by now, and a restore test is at a loss with none.
    host.insert("on the third timeline");
    host.good_run();
    host.agent.ok(["restore-test", "database"]).says("older WAL: good: each of ");
    // The old is a whole cluster.
    assert_eq!(Cluster::existing(&host.scratch, &old[0]).start().dump(), spoiled);
}

/// On small cards a database has its tablespaces, and perhaps its WAL, on other disks.
#[test]
fn what_a_database_has_on_other_disks_comes_back_there() {
    let host = Host::local();
    let [space, wal] = ["space", "nvme"].map(|name| host.scratch.join(name));
    host.cluster.stop();
    let disks = [Tmpfs::mount(&space, 100 << 20), Tmpfs::mount(&wal, 400 << 20)];
    give_to_postgres(&space);
    // Nobody but the server passes through what is above its WAL.
    sh(Command::new("chown").arg("root:postgres").arg(&wal));
    sh(Command::new("chmod").arg("750").arg(&wal));
    host.cluster.start();
    host.cluster.sql(&format!("create tablespace one location '{}'", space.display()));
    host.cluster.sql("create table votes (id int primary key, what text) tablespace one");
    host.cluster.sql("insert into votes select n, repeat('x', 1000) from generate_series(1, 20000) n");
    let place = host.cluster.data().to_owned();
    host.cluster.stop();
    let wal = wal.join("wal");
    fs::create_dir(&wal).unwrap();
    give_to_postgres(&wal);
    let link = place.join("pg_wal");
    sh(Command::new("cp").arg("-aT").args([&link, &wal]));
    fs::remove_dir_all(&link).unwrap();
    symlink(&wal, &link).unwrap();
    host.cluster.start();
    host.good_run();
    let good = host.cluster.dump();
    let mut id = host.labels().remove(0);
    let links = |data: &Path| {
        let space = fs::read_dir(data.join("pg_tblspc")).unwrap().next().unwrap().unwrap().path();
        [space, data.join("pg_wal")].map(|link| fs::read_link(link).unwrap())
    };

    // The room is counted on each disk: where the WAL comes, for what the recovery needs of it.
    host.cluster.stop();
    for (disk, place) in disks.iter().zip([&space, &wal]) {
        disk.fill();
        let ran = host.agent.run(["restore", "database", "--in-place", "--yes", "--at", &id]).expect(1);
        ran.says("are needed, and ").says(&place.display().to_string());
        disk.make_room();
    }
    host.cluster.start();

    for number in 1..=2 {
        host.cluster.sql("delete from votes");
        host.cluster.finish_segment();
        host.cluster.stop();
        let before = kept(&place);
        let done = host.agent.ok(["restore", "database", "--in-place", "--yes", "--at", &id]);
        assert_eq!(links(&place), [space.clone(), wal.clone()], "{done}");
        host.cluster.start();
        assert_eq!(host.cluster.dump(), good, "{done}");
        let old = kept(&place).into_iter().find(|old| !before.contains(old)).unwrap();
        let asides = [&space, &wal].map(|disk| disk.join(old.file_name().unwrap()));
        assert_eq!(links(&old), asides, "{done}");
        done.says(&format!("rm -rf {} {} {}", old.display(), asides[0].display(), asides[1].display()));
        // The old is a whole cluster.
        let clone = Cluster::existing(&host.scratch, &old);
        assert_eq!(clone.start().sql("select count(*) from votes"), "0", "{number}");
        clone.stop();
        // A backup beside what is kept is one of the cluster alone, and comes back in its turn.
        host.good_run();
        id = host.labels().pop().unwrap();
        for aside in asides.iter().chain([&old]) {
            fs::remove_dir_all(aside).unwrap();
        }
    }
    host.cluster.stop();
    drop(disks);
}

/// Names in directories of the server's user lead root nowhere.
#[test]
fn links_of_the_servers_user_give_nothing_of_roots_away() {
    let host = Host::local();
    host.insert("one");
    host.good_run();
    host.cluster.stop();
    let theirs = host.cluster.data().parent().unwrap().to_owned();
    give_to_postgres(&theirs);
    let goals = ["sbin", "bin"].map(|name| host.scratch.directory(format!("goals/{name}")));
    let stage = theirs.join("data.restoring");
    for (link, goal) in [(theirs.join("copy"), &goals[0]), (stage.clone(), &goals[1])] {
        symlink(goal, &link).unwrap();
        sh(Command::new("chown").args(["-h", "postgres:"]).arg(&link));
    }
    let to = theirs.join("copy").display().to_string();
    host.agent.run(["restore", "database", "--to", &to]).expect(1).says("is a link of somebody else's");
    host.agent.run(["restore", "database", "--in-place", "--yes"]).expect(1).says("is a link of somebody else's");
    for goal in &goals {
        let found = fs::metadata(goal).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o777, names(goal)), (0, 0o755, vec![]), "{}", goal.display());
    }
    fs::remove_file(stage).unwrap();
    host.agent.ok(["restore", "database", "--in-place", "--yes"]);
    assert_eq!(host.cluster.start().sql("select count(*) from voters"), "1");
}

/// The disk of a tablespace is gone with the data: it comes back beside the data, and then always there.
#[test]
fn a_tablespace_whose_disk_is_gone_comes_back_beside_the_data() {
    let host = Host::local();
    let space = host.scratch.directory("space");
    give_to_postgres(&space);
    host.cluster.sql(&format!("create tablespace one location '{}'", space.display()));
    host.cluster.sql("create table votes (id int primary key) tablespace one");
    host.cluster.sql("insert into votes values (1)");
    host.good_run();
    let good = host.cluster.dump();
    let place = host.cluster.data().to_owned();
    let settled = place.with_file_name("data.tablespaces");
    for number in 1..=2 {
        host.cluster.sql("delete from votes");
        host.cluster.finish_segment();
        host.cluster.stop();
        if number == 1 {
            fs::remove_dir_all(&space).unwrap();
        }
        let before = kept(&place);
        let id = host.labels().remove(0);
        let done = host.agent.ok(["restore", "database", "--in-place", "--yes", "--at", &id]);
        done.says(&format!("{} now", settled.display()));
        host.cluster.start();
        // A dump says where it is.
        let moved = |dump: &str| {
            let places = [space.clone(), settled.join("one")].map(|place| place.display().to_string());
            places.iter().fold(dump.to_owned(), |dump, place| dump.replace(place, "HERE"))
        };
        assert_eq!(moved(&host.cluster.dump()), moved(&good), "{done}");
        let old = kept(&place).into_iter().find(|old| !before.contains(old) && old.join("base").exists()).unwrap();
        let spaces = PathBuf::from(format!("{}.tablespaces", old.display()));
        assert_eq!(spaces.exists(), number == 2, "{done}");
    }
}

/// People move their data onto a larger disk, and leave a link.
#[test]
fn a_data_directory_that_is_a_link_comes_back_where_that_leads() {
    let host = Host::local();
    host.cluster.stop();
    let (data, disk) = (host.cluster.data(), host.scratch.directory("disk"));
    let (there, wal) = (disk.join("main"), host.scratch.join("wal"));
    fs::rename(data, &there).unwrap();
    symlink(&there, data).unwrap();
    fs::rename(there.join("pg_wal"), &wal).unwrap();
    symlink(&wal, there.join("pg_wal")).unwrap();
    host.cluster.start();
    host.insert("one");
    host.good_run();
    let good = host.cluster.dump();
    host.cluster.stop();
    let done = host.agent.ok(["restore", "database", "--in-place", "--yes"]);
    assert_eq!(
        [data.to_owned(), there.join("pg_wal")].map(|link| fs::read_link(link).unwrap()),
        [there.clone(), wal.clone()]
    );
    assert_eq!(kept(&there).len(), 1);
    sh(Command::new("sh").arg("-ec").arg(done.stdout.lines().find(|line| line.contains("rm -rf")).unwrap()));
    assert_eq!(fs::read_dir(&disk).unwrap().count(), 1);
    assert!(!names(&wal).iter().any(|name| name.contains("restor")), "{:?}", names(&wal));
    assert_eq!(host.cluster.start().dump(), good);
    host.cluster.stop();

    // One that leads to somebody else's directory makes root give nothing away there.
    let others = host.scratch.directory("others");
    fs::remove_file(data).unwrap();
    symlink(&others, data).unwrap();
    host.agent.run(["restore", "database", "--in-place", "--yes"]).expect(2).says("does not lead to a data directory");
    assert!(fs::metadata(&others).unwrap().uid() == 0 && fs::read_dir(&others).unwrap().next().is_none());
}

/// A night that comes meanwhile waits, and is told why it did nothing; the next one is as any other.
#[test]
fn a_night_that_comes_meanwhile_is_told_so_and_the_next_one_runs() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv/data");
    for name in 0..20 {
        fs::write(source.join(name.to_string()), Random::new(name).bytes(3 << 20)).unwrap();
    }
    let agent = Config::local(scratch.path()).directory("data", &[&source], "").write();
    agent.ok(["run"]);
    let mut restoring = agent.start(["restore", "data", "--in-place", "--yes"]);
    let started = Instant::now();
    while !scratch.join("srv/data.restoring").exists() {
        assert!(!restoring.has_ended() && started.elapsed() < Duration::from_secs(60), "it does not begin");
        std::thread::sleep(Duration::from_millis(1));
    }
    restoring.signal(Signal::SIGSTOP);
    let night = agent.run(["run", "--reason", "timer"]).expect(4);
    night.says("`pi-agent restore`, since").says("when it has ended: pi-agent run");
    agent.ok(["status"]);
    restoring.signal(Signal::SIGCONT);
    let _ = restoring.wait().expect(0);
    assert_eq!(agent.ok(["run", "--json"]).step("data")["outcome"], "succeeded");
    let status = agent.ok(["status", "--json"]);
    assert_eq!(status.step("data")["last_outcome"], "succeeded", "{status}");
    let alarms = agent.run(["alarms"]);
    assert!(!alarms.stdout.contains("cut off") && !alarms.stdout.contains("old"), "{alarms}");
}
