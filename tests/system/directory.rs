//! Directory steps against restic, the other implementation of the same format, and against what goes wrong at home.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Agent, Config, Household, LoopDevice, Scratch, Size, Tmpfs, Tree, oddities, sh};
use nix::mount::{MsFlags, mount, umount};
use serde_json::Value;

/// restic on the repository of a step in a local storage folder.
fn restic(scratch: &Scratch, repository: &Path, arguments: &[&str]) -> String {
    let password = scratch.join("password");
    fs::write(&password, Config::PASSWORD).unwrap();
    let mut command = Command::new("restic");
    command.arg("-r").arg(repository).arg("--password-file").arg(password).arg("--cache-dir");
    sh(command.arg(scratch.join("restic-cache")).args(arguments))
}

/// Where `path` lies when it was restored to `target`.
fn below(target: &Path, path: &Path) -> PathBuf {
    target.join(path.strip_prefix("/").unwrap())
}

fn points(agent: &Agent, step: &str) -> Vec<Value> {
    agent.ok(["points", step, "--json"]).json()["points"].as_array().unwrap().clone()
}

#[test]
fn slow_restic_and_we_restore_everything_a_file_system_allows() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv/odd");
    oddities(&source, 5_000_000_000);
    let before = Tree::read(&source);
    let config = Config::local(scratch.path()).directory("odd", &[&source], "");
    let agent = config.write();
    let night = agent.ok(["run", "--json"]);
    assert_eq!(night.step("odd")["outcome"], "succeeded", "{night}");

    let repository = config.storage_folder().join("odd");
    let checked = restic(&scratch, &repository, &["check", "--read-data"]);
    assert!(checked.contains("no errors were found"), "{checked}");

    let ours = scratch.join("ours");
    let restored = agent.ok(["restore", "odd", "--to", ours.to_str().unwrap(), "--privileges"]);
    before.assert_equals(below(&ours, &source));
    assert!(!restored.stdout.contains("\n! "), "nothing is other than it was: {restored}");

    let theirs = scratch.join("theirs");
    restic(&scratch, &repository, &["restore", "latest", "--target", theirs.to_str().unwrap()]);
    let differences = before.differences(&Tree::read(below(&theirs, &source)));
    // Before 0.15 restic writes holes as zeros, and it does not know link targets that are not UTF-8 (nor does it keep
    // them in snapshots of its own).
    let known = |difference: &&String| difference.contains("was sparse") || difference.starts_with("link to bytes:");
    let real: Vec<_> = differences.iter().filter(|difference| !known(difference)).collect();
    assert!(real.is_empty(), "{real:#?}");
}

#[test]
fn a_restore_of_some_paths_and_over_what_is_there() {
    let scratch = Scratch::new();
    let household = Household::make(scratch.directory("srv"), Size::SMALL, 1);
    let (logs, foundry) = (household.logs(), household.foundry());
    let disk_image = foundry.join("Data/disk.img");
    File::create(&disk_image).unwrap().set_len(50_000_000).unwrap();
    let agent = Config::local(scratch.path()).directory("all", &[&foundry, &logs], "").write();
    agent.ok(["run"]);

    let to = scratch.join("some");
    let wanted = logs.join("nginx/access.log");
    agent.ok(["restore", "all", "--to", to.to_str().unwrap(), "--path", wanted.to_str().unwrap()]);
    assert_eq!(fs::read(below(&to, &wanted)).unwrap(), fs::read(&wanted).unwrap());
    assert!(!below(&to, &foundry).exists() && !below(&to, &logs.join("nginx/error.log")).exists());
    let missing = agent.run(["restore", "all", "--to", scratch.join("no").to_str().unwrap(), "--path", "/no/such"]);
    missing.expect(1).says("/no/such is not in snapshot");

    // What was changed since is put right, what was a link is not followed, what was a hole is one again.
    let world = foundry.join("Data/worlds/world-0");
    let before = Tree::read(&foundry);
    fs::remove_dir_all(&world).unwrap();
    fs::remove_file(&disk_image).unwrap();
    let elsewhere = scratch.directory("elsewhere");
    symlink(&elsewhere, &world).unwrap();
    fs::write(foundry.join("Data/worlds/world-1/world.json"), "overwritten").unwrap();
    agent.run(["restore", "all", "--to", "/", "--path", foundry.to_str().unwrap()]).expect(2).says("not empty");
    agent.ok(["restore", "all", "--to", "/", "--path", foundry.to_str().unwrap(), "--overwrite"]);
    before.assert_equals(&foundry);
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);

    // Where it cannot go, no file is left that only looks like one.
    let small = Tmpfs::mount(scratch.join("small"), 2 << 20);
    fs::write(small.path().join("in the way"), "").unwrap();
    agent.run(["restore", "all", "--to", small.path().to_str().unwrap(), "--overwrite"]).expect(1).says("room");
    assert!(!below(small.path(), &disk_image).exists());
}

#[test]
fn a_repository_that_restic_made_is_used() {
    let scratch = Scratch::new();
    let mut household = Household::make(scratch.directory("srv"), Size::SMALL, 2);
    let source = household.foundry();
    let config = Config::local(scratch.path()).directory("foundry", &[&source], "");
    let agent = config.write();
    let repository = config.storage_folder().join("foundry");
    restic(&scratch, &repository, &["init"]);
    restic(&scratch, &repository, &["backup", source.to_str().unwrap()]);
    let theirs = Tree::read(&source);

    let refused = agent.run(["run"]).expect(3);
    assert!(refused.stdout.contains("pi-agent adopt"), "{refused}");
    agent.ok(["adopt"]);
    household.change(0.1);
    let ours = Tree::read(&source);
    let night = agent.ok(["run", "--json"]);
    let step = night.step("foundry");
    assert!(
        step["bytes_added"].as_u64().unwrap() < step["bytes_processed"].as_u64().unwrap() / 2,
        "most was there already: {night}"
    );

    let points = points(&agent, "foundry");
    assert_eq!(points.len(), 2, "{points:?}");
    for (point, tree) in points.iter().zip([theirs, ours]) {
        let id = point["id"].as_str().unwrap();
        let to = scratch.join(&id[..8]);
        agent.ok(["restore", "foundry", "--to", to.to_str().unwrap(), "--at", &id[..10]]);
        tree.assert_equals(below(&to, &source));
    }
    restic(&scratch, &repository, &["check", "--read-data"]);
}

/// The agent without root's right to read everything.
fn as_nobody(agent: &Agent, arguments: &[&str]) -> (i32, Value) {
    let output = agent.command(arguments).uid(65534).gid(65534).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let document = serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("no JSON: {text}\n{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), document)
}

fn step<'a>(document: &'a Value, name: &str) -> &'a Value {
    document["steps"].as_array().unwrap().iter().find(|step| step["name"] == name).unwrap()
}

#[test]
fn what_cannot_be_read_is_named_counted_and_read_when_it_can_be() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv/data");
    for name in ["one", "two", "three"] {
        fs::write(source.join(name), name).unwrap();
    }
    let closed = scratch.directory("srv/data/closed");
    fs::write(closed.join("inside"), "inside").unwrap();
    let agent = Config::local(scratch.path()).directory("data", &[&source], "").write();
    fs::create_dir_all(agent.state()).unwrap();
    sh(Command::new("chown").arg("-R").arg("65534:65534").arg(scratch.path()));
    let set = |path: &Path, mode: u32| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();

    set(&source.join("two"), 0);
    set(&closed, 0);
    let (code, night) = as_nobody(&agent, &["run", "--json"]);
    let first = step(&night, "data");
    assert_eq!((code, &first["outcome"], &first["files_skipped"]), (5, &"degraded".into(), &2.into()), "{night:#}");
    let told = first.to_string();
    assert!(told.contains("data/two") && told.contains("data/closed"), "both are named: {told}");
    // Whoever restores that point is told, too.
    let restore = |name: &str| {
        let to = scratch.join(name);
        let mut command = agent.command(["restore", "data", "--to", to.to_str().unwrap()]);
        (to, command.uid(65534).gid(65534).output().unwrap())
    };
    let (_, output) = restore("lacking");
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("could not be read when this restore point was made"),
        "{output:?}"
    );

    set(&source.join("two"), 0o644);
    set(&closed, 0o755);
    let before = Tree::read(&source);
    let (code, night) = as_nobody(&agent, &["run", "--json"]);
    assert_eq!((code, &step(&night, "data")["outcome"]), (0, &"succeeded".into()), "{night:#}");
    let (to, output) = restore("to");
    assert!(output.status.success(), "{output:?}");
    before.assert_equals(below(&to, &source));
}

#[test]
fn an_unmounted_disk_fails_and_costs_no_restore_point() {
    let scratch = Scratch::new();
    let source = scratch.directory("mnt/disk");
    let on = || mount(Some("tmpfs"), &source, Some("tmpfs"), MsFlags::empty(), Some("size=1m")).unwrap();
    on();
    fs::write(source.join("file"), "on the disk").unwrap();
    let keep = "keep = { last = 1 }";
    let agent = Config::local(scratch.path()).directory("disk", &[&source], keep).write();
    agent.ok(["run"]);

    umount(&source).unwrap();
    let empty = agent.run(["run", "--json"]).expect(3);
    let error = empty.step("disk")["error"].clone();
    assert!(error["message"].as_str().unwrap().contains("is empty"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("pi-agent adopt disk"), "{error}");
    fs::write(source.join("stray"), "on the card").unwrap();
    agent.run(["run"]).expect(3).says("another disk");
    assert_eq!(points(&agent, "disk").len(), 1);

    agent.ok(["adopt", "disk"]);
    agent.ok(["run"]);
    assert_eq!(points(&agent, "disk").len(), 2);
}

#[test]
fn a_source_that_is_missing_or_a_link_fails_with_the_path() {
    let scratch = Scratch::new();
    let (real, link) = (scratch.directory("srv/real"), scratch.join("srv/link"));
    fs::write(real.join("file"), "x").unwrap();
    symlink(&real, &link).unwrap();
    let dangling = scratch.join("srv/dangling");
    symlink(scratch.join("srv/nowhere"), &dangling).unwrap();
    let agent = Config::local(scratch.path())
        .directory("link", &[&link], "")
        .directory("dangling", &[&dangling], "")
        .directory("missing", &[&scratch.join("srv/missing")], "")
        .directory("real", &[&real], "")
        .write();
    let night = agent.run(["run", "--json"]).expect(3);
    for name in ["link", "dangling", "missing"] {
        let step = night.step(name);
        assert_eq!(step["outcome"], "failed", "{step}");
        assert!(step["error"]["message"].as_str().unwrap().contains(&format!("srv/{name}")), "{step}");
    }
    assert!(night.step("link")["error"]["hint"].as_str().unwrap().contains("srv/real"));
    assert_eq!(night.step("real")["outcome"], "succeeded");
}

#[test]
fn another_file_systems_content_stays_out_unless_it_is_named() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv");
    let mounted = scratch.directory("srv/mounted");
    fs::write(source.join("file"), "x").unwrap();
    mount(Some("tmpfs"), &mounted, Some("tmpfs"), MsFlags::empty(), Some("size=1m")).unwrap();
    fs::write(mounted.join("other"), "x").unwrap();
    let agent = Config::local(scratch.path())
        .directory("without", &[&source], "")
        .directory("with", &[&source, &mounted], "")
        .directory("crossing", &[&source], "one-file-system = false")
        .write();
    let night = agent.run(["run"]);
    let restored = |step: &str| {
        let to = scratch.join(step);
        agent.ok(["restore", step, "--to", to.to_str().unwrap()]);
        let to = below(&to, &source);
        assert!(to.join("file").is_file() && to.join("mounted").is_dir());
        to.join("mounted/other").is_file()
    };
    let found = ["without", "with", "crossing"].map(restored);
    umount(&mounted).unwrap();
    let _ = night.expect(0);
    assert_eq!(found, [false, true, true]);
}

#[test]
fn excludes_leave_out_what_they_name_and_nothing_else() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv");
    for name in
        ["a.tmp", "a.txt", "cache/x", "deep/cache/x", "deep/b.tmp", "deep/b.txt", "only/here/x", "deep/only/here/x"]
    {
        let path = source.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
    let anchored = source.join("only/here");
    let exclude = format!("exclude = [\"**/*.tmp\", \"cache/\", \"{}\"]", anchored.display());
    let agent = Config::local(scratch.path()).directory("d", &[&source], &exclude).write();
    agent.ok(["run"]);
    let to = scratch.join("to");
    agent.ok(["restore", "d", "--to", to.to_str().unwrap()]);
    let has = |name: &str| below(&to, &source).join(name).exists();
    assert!(has("a.txt") && has("deep/b.txt") && has("deep/only/here/x") && has("only"));
    assert!(!has("a.tmp") && !has("cache") && !has("deep/cache") && !has("deep/b.tmp") && !has("only/here"));
}

#[test]
fn a_wrong_password_and_another_machines_place_are_refused_with_what_to_do() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv/data");
    fs::write(source.join("file"), "x").unwrap();
    let config = Config::local(scratch.path()).directory("data", &[&source], "");
    let agent = config.write();
    agent.ok(["run"]);

    // The kept master key opens it without a password; without that, the password counts.
    let keys = config.secrets().join("master-keys");
    let key = keys.join("data.json");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o7777, 0o600);
    fs::remove_dir_all(&keys).unwrap();
    config.secret("restic.key", "something else");
    let refused = agent.run(["run", "--json"]).expect(3);
    let error = refused.step("data")["error"].clone();
    assert!(error["message"].as_str().unwrap().contains("restic.key"), "{error}");
    assert!(!refused.stderr.contains("something else") && !refused.stdout.contains("something else"));
    config.secret("restic.key", Config::PASSWORD);
    // A damaged key file is no obstacle.
    fs::create_dir_all(&keys).unwrap();
    fs::write(&key, "{").unwrap();
    agent.ok(["run"]);
    assert!(fs::metadata(&key).unwrap().len() > 10);

    let owner = config.storage_folder().join("host.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&owner).unwrap()).unwrap();
    record["machine_id"] = "0123456789abcdef0123456789abcdef".into();
    record["host"] = "pi-elsewhere".into();
    fs::write(&owner, record.to_string()).unwrap();
    let count = points(&agent, "data").len();
    let refused = agent.run(["run", "--json"]).expect(3);
    let error = refused.step("data")["error"].clone();
    assert!(error["message"].as_str().unwrap().contains("pi-elsewhere"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("pi-agent adopt"), "{error}");
    assert_eq!(points(&agent, "data").len(), count);
    let to = scratch.join("to");
    agent.ok(["restore", "data", "--to", to.to_str().unwrap()]);
    agent.ok(["adopt"]);
    agent.ok(["run"]);
}

#[test]
fn a_missing_storage_folder_is_no_empty_one() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv/data");
    fs::write(source.join("file"), "x").unwrap();
    let config = Config::local(scratch.path()).directory("data", &[&source], "");
    let agent = config.write();
    agent.ok(["run"]);
    fs::rename(config.storage_folder(), scratch.join("away")).unwrap();
    agent.run(["run"]).expect(3).says("held this machine's backups");
    agent.run(["points"]).expect(1).says("does not exist");
    assert!(!config.storage_folder().exists(), "no new repository appears where the disk should be");
    fs::rename(scratch.join("away"), config.storage_folder()).unwrap();

    // A repository that lost its config is not begun anew over its data.
    fs::remove_file(config.storage_folder().join("data/config")).unwrap();
    agent.run(["run"]).expect(3).says("is no repository but holds");
}

#[test]
fn damage_is_found_and_told_and_a_damaged_cache_is_not_damage() {
    let scratch = Scratch::new();
    let household = Household::make(scratch.directory("srv"), Size::SMALL, 3);
    let config = Config::local(scratch.path()).directory("foundry", &[&household.foundry()], "");
    let agent = config.write();
    agent.ok(["run"]);

    // As after a power cut: files of the right length full of zeros, or of none.
    for (number, file) in files(&scratch.join("cache/repositories/foundry")).iter().enumerate() {
        let length = if number % 2 == 0 { fs::metadata(file).unwrap().len() } else { 0 };
        fs::write(file, vec![0; usize::try_from(length).unwrap()]).unwrap();
    }
    agent.ok(["run"]);
    agent.ok(["check"]);
    agent.ok(["prune"]);

    let repository = config.storage_folder().join("foundry");
    let pack =
        files(&repository.join("data")).into_iter().max_by_key(|file| fs::metadata(file).unwrap().len()).unwrap();
    let good = fs::read(&pack).unwrap();
    fs::write(&pack, &good[..good.len() / 2]).unwrap();
    agent.run(["check", "foundry"]).expect(3).says("repository damaged");
    fs::remove_file(&pack).unwrap();
    agent.run(["check", "foundry"]).expect(3).says("repository damaged");
    fs::write(&pack, good).unwrap();
    agent.ok(["check", "foundry"]);
}

fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.retain(|file| file.file_name().unwrap() != "CACHEDIR.TAG");
    found.sort();
    found
}

#[test]
fn owners_of_the_directories_above_come_back_too() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv/app/data");
    fs::write(source.join("file"), "x").unwrap();
    chown(scratch.join("srv/app"), Some(1234), Some(5678)).unwrap();
    fs::set_permissions(scratch.join("srv/app"), Permissions::from_mode(0o2750)).unwrap();
    let agent = Config::local(scratch.path()).directory("app", &[&source], "").write();
    agent.ok(["run"]);
    let to = scratch.join("to");
    agent.ok(["restore", "app", "--to", to.to_str().unwrap()]);
    let above = below(&to, &scratch.join("srv/app"));
    let metadata = fs::metadata(above).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (1234, 5678, 0o2750));
}

/// As after a reboot with two USB disks. XFS tells no id but the number of its device.
#[test]
fn a_disk_is_the_same_by_another_number_and_the_card_below_it_is_not() {
    let scratch = Scratch::new();
    let place = scratch.directory("usb");
    let image = scratch.join("image");
    File::create(&image).unwrap().set_len(320 << 20).unwrap();
    sh(Command::new("mkfs.xfs").arg("-q").arg(&image));
    let numbers = [LoopDevice::of(&image), LoopDevice::of(&image)];
    let agent = Config::local(scratch.path()).directory("usb", &[&place], "").write();
    for device in numbers.iter().map(LoopDevice::path) {
        sh(Command::new("mount").arg(device).arg(&place));
        let night = || {
            fs::write(place.join("file"), "kept").unwrap();
            agent.run(["run"]).code().into_iter().chain(agent.run(["doctor"]).code()).collect::<Vec<_>>()
        };
        let codes = night();
        sh(Command::new("umount").arg(&place));
        assert_eq!(codes, [0, 0], "{device}: run and doctor");
    }

    // Without it the place is on the system's own disk, whatever lies there.
    fs::write(place.join("file"), "not kept").unwrap();
    let ran = agent.run(["run", "usb", "--json"]).expect(3);
    ran.says("another disk");
    assert_eq!(points(&agent, "usb").len(), 2, "{ran}");
}
