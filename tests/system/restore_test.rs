//! Restore tests on real parts: what passes, what must not pass, and what is left of a test that was killed.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::{
    Agent, Census, Config, Household, LoopDevice, LoopDisk, Ran, Random, Scratch, Size, Tmpfs, by_effort, descendants,
    sh,
};
use jiff::{SignedDuration, Timestamp};
use nix::sys::signal::Signal;
use pi_agent::restore_test::Tested;
use pi_agent::state::{Opened, State};
use pi_agent::steps::{Figures, Outcome, StepResult};
use serde_json::Value;

use crate::postgres::Host;

/// What a test leaves nothing in.
fn places(scratch: &Scratch) -> [PathBuf; 2] {
    [scratch.join("cache/pi-agent-restore-test"), scratch.join("runtime/restore-test")]
}

fn nothing_is_left(scratch: &Scratch) {
    for place in places(scratch) {
        assert!(!place.exists(), "{} is left", place.display());
    }
}

/// The checks of a step, as `NAME: VERDICT`.
fn verdicts(ran: &Ran, step: &str) -> Vec<String> {
    let checks = ran.step(step)["tested"]["checks"].clone();
    let text = |check: &Value, key: &str| check[key].as_str().unwrap().to_owned();
    let checks = checks.as_array().unwrap_or_else(|| panic!("no checks: {ran}")).iter();
    checks.map(|check| format!("{}: {}", text(check, "name"), text(check, "verdict"))).collect()
}

fn household(scratch: &Scratch, config: Config, more: &str) -> (Household, Agent, Config) {
    let household = Household::make(scratch.directory("srv"), Size::SMALL, 1);
    let config = config.directory("foundry", &[&household.foundry()], more);
    let agent = config.write();
    (household, agent, config)
}

/// A test that fails, and names what.
#[track_caller]
fn fails(agent: &Agent, step: &str, what: &str) -> Ran {
    let ran = agent.run(["restore-test", step, "--json"]).expect(3);
    assert_eq!(ran.step(step)["outcome"], "failed", "{ran}");
    assert!(ran.step(step).to_string().contains(what), "expected {what:?}: {ran}");
    ran
}

#[test]
fn a_directory_comes_back_byte_for_byte() {
    let scratch = Scratch::new();
    let critical = "restore-test = { critical = [\"Data/worlds/*/world.json\"] }";
    let (_household, agent, config) = household(&scratch, Config::local(scratch.path()), critical);
    agent.ok(["run"]);
    // Neither the cache nor opened keys nor history is needed.
    fs::remove_dir_all(config.secrets().join("master-keys")).unwrap();
    fs::remove_dir_all(scratch.join("cache")).unwrap();

    let ran = agent.ok(["restore-test", "--json"]);
    let expected = ["content", "owners, modes, times", "critical files", "time", "newest moment"];
    assert_eq!(verdicts(&ran, "foundry"), expected.map(|name| format!("{name}: passed")), "{ran}");
    assert_eq!(verdicts(&ran, "agent").len(), 5, "its own history, too: {ran}");
    let tested = &ran.step("foundry")["tested"];
    assert!(tested["bytes"] == tested["whole_bytes"] && tested["bytes"].as_u64().unwrap() > 100_000, "{ran}");
    assert!(tested["rto_seconds"].as_f64().unwrap() > 0.0 && tested["rpo_seconds"].as_u64().unwrap() < 600, "{ran}");
    nothing_is_left(&scratch);
    assert!(!config.secrets().join("master-keys").exists(), "it keeps no key");
}

#[test]
fn a_share_at_a_time_all_of_it_comes_back() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv/files");
    for number in 0..60 {
        fs::write(source.join(format!("{number}.txt")), Random::new(number).bytes(100_000)).unwrap();
    }
    fs::write(source.join("always.json"), "{}").unwrap();
    let critical = "restore-test = { critical = [\"always.json\"] }";
    let config = Config::local(scratch.path()).directory("files", &[&source], critical);
    let config = config.table("[restore-test]\nbudget = \"2MiB\"\nmonths = 12\n");
    let agent = config.write();
    agent.ok(["run"]);
    let (mut files, mut seen) = (0, Vec::new());
    for _ in 0..3 {
        let ran = agent.ok(["restore-test", "files", "--json"]);
        let step = ran.step("files");
        assert_eq!(step["tested"]["share"]["of"], 3, "{ran}");
        assert!(step["tested"]["bytes"].as_u64() < step["tested"]["whole_bytes"].as_u64(), "{ran}");
        assert!(step["tested"]["projected_rto_seconds"].as_f64() > step["tested"]["rto_seconds"].as_f64(), "{ran}");
        seen.push(step["tested"]["share"]["part"].as_u64().unwrap());
        files += step["files"].as_u64().unwrap();
    }
    assert_eq!(seen, [1, 2, 3]);
    // What is critical comes back each time.
    assert_eq!(files, 60 + 3);

    // A share that cannot be restored does not keep the others from their turn.
    let size = |path: &PathBuf| fs::metadata(path).unwrap().len();
    let packs = fs::read_dir(config.storage_folder().join("files/data")).unwrap();
    let packs = packs.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap().map(|pack| pack.unwrap().path()));
    fs::remove_file(packs.max_by_key(size).unwrap()).unwrap();
    let next = || fails(&agent, "files", "").step("files")["tested"]["share"]["part"].as_u64().unwrap();
    assert_eq!([next(), next()], [1, 2]);
}

#[test]
fn it_refuses_what_does_not_fit() {
    let scratch = Scratch::new();
    let small = Tmpfs::mount(scratch.join("small"), 1 << 20);
    let table = format!("[restore-test]\ndirectory = \"{}\"\n", small.path().display());
    let source = scratch.directory("srv/large");
    fs::write(source.join("large"), Random::new(1).bytes(3 << 20)).unwrap();
    let agent = Config::local(scratch.path()).directory("large", &[&source], "").table(&table).write();
    agent.ok(["run"]);
    let ran = fails(&agent, "large", "a restore test needs 3.0 MiB");
    ran.says("[restore-test] directory may be on another disk");
    assert_eq!(fs::read_dir(small.path()).unwrap().count(), 0);
}

/// The note of a check of a step.
fn note(ran: &Ran, step: &str, name: &str) -> String {
    let checks = ran.step(step)["tested"]["checks"].clone();
    let check = checks.as_array().unwrap().iter().find(|check| check["name"] == name).cloned();
    check.unwrap_or_else(|| panic!("no {name}: {ran}"))["note"].as_str().unwrap().to_owned()
}

#[test]
fn what_the_disk_of_the_test_cannot_hold_is_said_and_is_no_failure() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv/files");
    let make = |name: &str, mode: u32| {
        let file = source.join(name);
        fs::write(&file, name).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        file
    };
    sh(Command::new("setfacl").args(["-m", "u:1234:rw"]).arg(make("list", 0o640)));
    chown(make("others", 0o604), Some(1234), Some(1235)).unwrap();
    fs::hard_link(source.join("others"), source.join("link")).unwrap();
    let test_on = |directory: &Path| {
        let table = format!("[restore-test]\ndirectory = \"{}\"\n", directory.display());
        let agent = Config::local(scratch.path()).directory("files", &[&source], "").table(&table).write();
        agent.ok(["run"]);
        agent.run(["restore-test", "files", "--json"]).expect(0)
    };
    let metadata = |ran: &Ran| note(ran, "files", "owners, modes, times");

    // The list is lost, and with it the group's bits of the mode, which were its mask.
    let disk = LoopDisk::make(scratch.join("disk"), 160 << 20, &["mkfs.btrfs", "-q"], "noacl");
    let ran = test_on(disk.path());
    let untested = "1 modes, 1 attributes were not tested, because this test cannot set them here";
    assert!(metadata(&ran).contains(untested), "{ran}");
    assert!(verdicts(&ran, "files").iter().all(|verdict| verdict.ends_with("passed")), "{ran}");
    disk.unmount();

    // A stick has none of all that.
    let (image, usb) = (scratch.join("usb.image"), scratch.directory("usb"));
    File::create(&image).unwrap().set_len(64 << 20).unwrap();
    sh(Command::new("mkfs.exfat").arg(&image));
    let device = LoopDevice::of(&image);
    sh(Command::new("mount.exfat-fuse").arg(device.path()).arg(&usb));
    let ran = test_on(&usb);
    sh(Command::new("umount").arg(&usb));
    for what in [" owners", " modes", " times", "1 attributes", "1 hard links"] {
        assert!(metadata(&ran).contains(what), "{what}: {ran}");
    }
    assert!(note(&ran, "files", "content").starts_with("every byte of "), "{ran}");
}

#[test]
fn a_disk_that_holds_no_such_attributes_and_times_makes_no_backup_a_bad_one() {
    let scratch = Scratch::new();
    let source = LoopDisk::make(scratch.join("srv"), 160 << 20, &["mkfs.btrfs", "-q"], "defaults");
    let ext4 = LoopDisk::make(scratch.join("disk"), 100 << 20, &["mkfs.ext4", "-q", "-F"], "defaults");
    let (large, early) = (source.path().join("large"), source.path().join("early"));
    for file in [&large, &early] {
        fs::write(file, "text").unwrap();
    }
    sh(Command::new("setfattr").args(["-n", "user.large", "-v", &"v".repeat(12_000)]).arg(&large));
    sh(Command::new("touch").args(["-d", "1601-01-01 00:00:00 UTC"]).arg(&early));
    let table = format!("[restore-test]\ndirectory = \"{}\"\n", ext4.path().join("test").display());
    let agent = Config::local(scratch.path()).directory("files", &[source.path()], "").table(&table).write();
    agent.ok(["run"]);
    let ran = agent.ok(["restore-test", "files", "--json"]);
    let untested = "1 times, 1 attributes were not tested";
    assert!(note(&ran, "files", "owners, modes, times").contains(untested), "{ran}");
}

/// A restore test of the step that is remembered: of half a day, and what else it was.
fn remember(agent: &Agent, figures: Figures, tested: Tested) {
    let Opened::Ready(mut state) = State::open(&agent.state().join("state.db")).unwrap() else {
        panic!("none was made")
    };
    let (then, now) = (Timestamp::now() - SignedDuration::from_hours(13), Timestamp::now());
    let result = StepResult { figures, tested: Some(tested), ..StepResult::of(Outcome::Succeeded) };
    state.begin_run("long ago", None, then).unwrap();
    state.begin_step("long ago", 0, "foundry", "directory", "restore-test", then).unwrap();
    state.finish_step("long ago", 0, "foundry", &result, now).unwrap();
    state.finish_run("long ago", Outcome::Succeeded, &[], now).unwrap();
}

#[test]
fn it_refuses_what_takes_longer_than_it_may() {
    let scratch = Scratch::new();
    let (_household, agent, _) = household(&scratch, Config::local(scratch.path()), "");
    agent.ok(["run"]);
    remember(&agent, Figures::default(), Tested { bytes: 1 << 20, ..Tested::default() });
    fails(&agent, "foundry", "by what the last ones took, and may take 12 h").says("[restore-test] max-duration");
    nothing_is_left(&scratch);
}

#[test]
fn it_refuses_what_takes_more_memory_than_there_is() {
    let scratch = Scratch::new();
    let (_household, agent, _) = household(&scratch, Config::local(scratch.path()), "");
    agent.ok(["run"]);
    remember(&agent, Figures { peak_memory: Some(1 << 40), ..Figures::default() }, Tested::default());
    fails(&agent, "foundry", "a restore test needs 1.0 TiB of memory, and ").says("stop what is not needed meanwhile");
    nothing_is_left(&scratch);
}

#[test]
fn what_is_critical_must_be_there_and_whole() {
    let scratch = Scratch::new();
    let more = "restore-test = { critical = [\"worlds/*/world.json\", \"no/such.db\"] }";
    let (household, agent, _) = household(&scratch, Config::local(scratch.path()), more);
    let world = household.foundry().join("Data/worlds/world-1/world.json");
    fs::write(&world, "{\"id\": \"world-1\"").unwrap();
    agent.ok(["run"]);
    let ran = fails(&agent, "foundry", "world-1/world.json is not JSON");
    ran.says("the snapshot holds no no/such.db");
    assert!(verdicts(&ran, "foundry").contains(&"content: passed".to_owned()), "it is what was backed up: {ran}");
}

#[test]
fn slow_a_database_comes_back_to_its_newest_moment_and_to_another() {
    let host = database(
        "[step.restore-test]\ncount = [\"postgres.public.voters\"]\n\
         assert = [{ database = \"postgres\", sql = \"select count(*) >= 2 from voters\" }]",
    );
    let ran = host.agent.ok(["restore-test", "database", "--json"]);
    let verdicts = verdicts(&ran, "database");
    assert!(verdicts.iter().all(|verdict| verdict.ends_with(": passed")), "{ran}");
    for name in
        ["databases", "WAL", "tables", "rows", "assertion", "pg_amcheck", "pg_checksums", "dump", "moment", "time"]
    {
        assert!(name == "pg_checksums" || verdicts.contains(&format!("{name}: passed")), "no {name}: {ran}");
    }
    assert_eq!(ran.step("database")["tested"]["wanted_rpo_seconds"], 1800, "{ran}");
    nothing_is_left(&host.scratch);
    host.good_run();
}

/// A database with a backup, and WAL behind it in three segments.
fn database(more: &str) -> Host {
    let scratch = Scratch::new();
    let local = Config::local(scratch.path());
    let host = Host::with(scratch, &local, more);
    host.insert("before");
    host.agent.ok(["run"]);
    for name in ["one", "two", "three"] {
        host.insert(name);
        host.cluster.finish_segment();
    }
    host.agent.ok(["wal", "push"]);
    host
}

#[test]
fn a_test_that_takes_too_long_is_ended_and_has_failed() {
    let scratch = Scratch::new();
    let config = Config::local(scratch.path()).table("[restore-test]\nmax-duration = \"1s\"\n");
    let host = Host::with(scratch, &config, "");
    host.good_run();
    let running = host.agent.start(["restore-test", "database", "--json"]);
    let census = Census::of(running.pid());
    let ran = running.wait().expect(3);
    ran.says("the test was not done after 1 s and was ended").says("[restore-test] max-duration");
    census.assert_all_gone(Duration::from_secs(1));
    nothing_is_left(&host.scratch);
    assert_eq!(host.agent.run(["status", "--json"]).step("database")["last_restore_test"]["outcome"], "failed");
}

#[test]
fn slow_a_table_that_is_gone_and_an_assertion_that_is_false_are_named() {
    let host = database(
        "[step.restore-test]\nassert = [{ database = \"postgres\", sql = \"select count(*) > 1000 from voters\" }]",
    );
    host.cluster.sql("create table kept (id int); create table lost (id int)");
    host.agent.ok(["run"]);
    host.cluster.sql("drop table lost");
    // As if the server here lacked an extension that the database uses.
    host.cluster.sql("update pg_extension set extname = 'postgis' where extname = 'plpgsql'");
    host.cluster.finish_segment();
    host.agent.ok(["wal", "push"]);
    let ran = fails(&host.agent, "database", "postgres: public.lost is missing");
    ran.says("select count(*) > 1000 from voters: \\\"f\\\" instead of true");
    ran.says("not tested, because the server here lacks postgis");
    assert!(!ran.stdout.contains("public.kept"), "{ran}");
    nothing_is_left(&host.scratch);
    // It is shown, and alarming.
    let status = host.agent.run(["status", "--json"]);
    assert_eq!(status.step("database")["last_restore_test"]["outcome"], "failed", "{status}");
    let alarms = status.json()["alarms"].to_string();
    assert!(alarms.contains("restore-test") && alarms.contains("public.lost is missing"), "{status}");
    host.agent.ok(["status"]).says("failed");
    let metrics = fs::read_to_string(host.agent.state().join("pi-agent.prom")).unwrap();
    assert!(metrics.contains("pi_agent_backup_restore_test_good{step=\"database\"} 0\n"), "{metrics}");
}

/// An unlogged table is empty in each restore.
#[test]
fn slow_a_table_whose_rows_are_in_no_backup_is_not_counted() {
    let host = database("[step.restore-test]\ncount = [\"postgres.public.kept\"]");
    host.cluster.sql("create unlogged table kept as select * from generate_series(1, 5000)");
    host.agent.ok(["run"]);
    let ran = host.agent.run(["doctor"]);
    ran.says("no restore test can count postgres.public.kept: it is unlogged");
    let ran = host.agent.run(["restore-test", "database"]).expect(5);
    ran.says("rows: not tested, because: postgres.public.kept cannot come back: it is unlogged");
}

#[test]
fn slow_killed_at_any_moment_nothing_is_left_after_the_next_start() {
    let host = database("");
    let began = std::time::Instant::now();
    host.agent.ok(["restore-test", "database"]);
    let whole = began.elapsed();
    let mut random = Random::new(7);
    for number in 0..by_effort(3, 12) {
        let mut running = host.agent.start(["restore-test", "database"]);
        let census = Census::of(running.pid());
        std::thread::sleep(whole.mul_f64(random.fraction()));
        if running.has_ended() {
            census.assert_all_gone(Duration::from_secs(1));
            continue;
        }
        match number % 3 {
            // As systemd stops it: it cleans up itself.
            0 => running.signal(Signal::SIGTERM),
            // The supervisor alone: its step ends by itself.
            1 => running.signal(Signal::SIGKILL),
            // All of it at once.
            _ => {
                let below = descendants(running.pid());
                running.signal(Signal::SIGKILL);
                for process in below {
                    let _ = nix::sys::signal::kill(process.pid(), Signal::SIGKILL);
                }
            }
        }
        running.wait();
        census.assert_all_gone(Duration::from_secs(15));
        if number % 3 > 0 {
            // Whoever comes next cleans up: here the shortest run there is.
            host.agent.run(["check", "agent"]);
        }
        nothing_is_left(&host.scratch);
    }
    host.agent.ok(["restore-test", "database"]);
    // Nothing of it went into the real repository.
    host.good_run();
}

#[test]
fn slow_from_a_bucket_too() {
    let garage = harness::Garage::start();
    let proxy = harness::TlsProxy::before(&garage);
    let scratch = Scratch::new();
    let keys = (harness::Garage::KEY_ID, harness::Garage::KEY);
    let config = Config::s3(scratch.path(), "s3://backups/host", &proxy.endpoint(), proxy.ca_file(), keys);
    let household = Household::make(scratch.directory("srv"), Size::SMALL, 1);
    let config = config.directory("foundry", &[&household.foundry()], "");
    let host = Host::with(scratch, &config, "");
    host.insert("one");
    host.agent.ok(["run"]);
    let ran = host.agent.run(["restore-test", "--json"]);
    for step in ["foundry", "database", "agent"] {
        assert_eq!(ran.step(step)["outcome"], "succeeded", "{step}: {ran}");
    }
    assert!(ran.step("foundry")["requests"]["bytes_down"].as_u64().unwrap() > 100_000, "{ran}");
    nothing_is_left(&host.scratch);
}
