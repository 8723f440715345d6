//! What a restore into a directory leaves alone: storage, originals that are seen below the target, links above the paths, and files
//! of a person that have a name of its own.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Agent, Config, Random, Scratch, Tmpfs, mounts_of_our_own, sh};

fn below(target: &Path, path: &Path) -> PathBuf {
    target.join(path.strip_prefix("/").unwrap())
}

/// A step `data` of that path, with a file in it, backed up.
fn backed_up(scratch: &Scratch, path: &Path) -> Agent {
    fs::write(path.join("file"), "good").unwrap();
    let agent = Config::local(scratch.path()).directory("data", &[path], "").write();
    agent.ok(["run"]);
    fs::write(path.join("file"), "since").unwrap();
    agent
}

fn restore(to: &Path) -> [&str; 4] {
    ["restore", "data", "--to", to.to_str().unwrap()]
}

#[test]
fn nothing_is_restored_into_the_storage() {
    let scratch = Scratch::new();
    let agent = backed_up(&scratch, &scratch.directory("srv/data"));
    let storage = scratch.join("storage");
    assert!(storage.is_dir());
    symlink(&storage, scratch.join("link")).unwrap();
    for to in [storage.join("data/keys/new"), storage.clone(), scratch.join("link/new")] {
        let ran = agent.run([&restore(&to)[..], &["--overwrite"]].concat()).expect(2);
        ran.says("is in the storage").says("choose a directory outside");
    }
    assert!(!storage.join("data/keys/new").exists() && !storage.join("new").exists());
}

#[test]
fn an_original_that_is_seen_below_the_target_is_not_overwritten() {
    let scratch = Scratch::new();
    let data = scratch.directory("srv/data/volume");
    let agent = backed_up(&scratch, data.parent().unwrap());
    fs::write(data.join("file"), "original").unwrap();
    agent.ok(["run"]);
    fs::write(data.join("file"), "since").unwrap();
    let to = scratch.join("to");
    let seen = below(&to, &data);
    fs::create_dir_all(&seen).unwrap();
    mounts_of_our_own();
    sh(Command::new("mount").arg("--bind").args([&data, &seen]));
    let ran = agent.run([&restore(&to)[..], &["--overwrite"]].concat()).expect(2);
    ran.says("would be overwritten").says(&format!("umount {}", seen.display()));
    assert_eq!(fs::read_to_string(data.join("file")).unwrap(), "since");
    sh(Command::new("umount").arg(&seen));
    agent.ok([&restore(&to)[..], &["--overwrite"]].concat());
    assert_eq!(fs::read_to_string(seen.join("file")).unwrap(), "original");
}

#[test]
fn a_link_above_the_paths_stays() {
    let scratch = Scratch::new();
    let (disk, home) = (scratch.directory("srv/disk"), scratch.join("srv/home"));
    fs::create_dir(disk.join("pi")).unwrap();
    symlink("disk", &home).unwrap();
    let agent = backed_up(&scratch, &home.join("pi"));
    let ran = agent.run([&restore(Path::new("/"))[..], &["--overwrite"]].concat()).expect(2);
    ran.says("srv/home is a link").says("--in-place");
    assert!(home.is_symlink());
    agent.ok(["restore", "data", "--in-place", "--yes"]);
    assert!(home.is_symlink());
    assert_eq!(fs::read_to_string(disk.join("pi/file")).unwrap(), "good");
}

#[test]
fn a_file_of_a_person_with_the_name_of_the_note_stays() {
    let scratch = Scratch::new();
    let data = scratch.directory("srv/data");
    let agent = backed_up(&scratch, &data);
    let (to, theirs) = (scratch.join("thesis"), scratch.join("thesis.unfinished"));
    fs::write(&theirs, "my chapter").unwrap();
    agent.run(restore(&to)).expect(2).says("thesis.unfinished").says("move it away");
    let beside = scratch.join("srv/data.restoring.unfinished");
    fs::write(&beside, "my chapter").unwrap();
    agent.run(["restore", "data", "--in-place", "--yes"]).expect(2).says("data.restoring.unfinished");
    // With `--overwrite` the note lies in the directory.
    agent.ok([&restore(&to)[..], &["--overwrite"]].concat());
    for file in [&theirs, &beside] {
        assert_eq!(fs::read_to_string(file).unwrap(), "my chapter");
    }
    assert_eq!(fs::read_to_string(data.join("file")).unwrap(), "since");
}

#[test]
fn the_note_is_in_a_disk_above_which_nothing_can_be_written() {
    let scratch = Scratch::new();
    let agent = backed_up(&scratch, &scratch.directory("srv/data"));
    let above = Tmpfs::mount(scratch.join("above"), 1 << 20);
    let disk = Tmpfs::mount(above.path().join("disk"), 8 << 20);
    sh(Command::new("mount").args(["-o", "remount,ro"]).arg(above.path()));
    let note = disk.path().join(".pi-agent.unfinished");
    // As a power cut leaves it.
    let begun = r#"{"step":"data","begun":"20260101-000000-000","at":"Latest","point":null,"paths":[],"whole":null}"#;
    fs::write(&note, begun).unwrap();
    for more in [&[][..], &["--overwrite"]] {
        agent.ok([&restore(disk.path())[..], more].concat());
        assert!(!note.exists());
    }
    assert_eq!(fs::read_to_string(below(disk.path(), &scratch.join("srv/data/file"))).unwrap(), "good");
    sh(Command::new("mount").args(["-o", "remount,rw"]).arg(above.path()));
}

#[test]
fn a_name_that_is_no_visible_text_comes_back_alone_and_is_shown_escaped() {
    let scratch = Scratch::new();
    let data = scratch.directory("srv/data");
    let odd = data.join(OsStr::from_bytes(b"caf\xe9\x1b[2J"));
    fs::create_dir(&odd).unwrap();
    fs::write(odd.join("inside"), "good").unwrap();
    let agent = backed_up(&scratch, &data);
    let to = scratch.join("to");
    let (begin, alone) = (["restore", "data"].map(OsStr::new), [OsStr::new("--path"), odd.as_os_str()]);
    let restored = |place: &[&OsStr]| agent.ok([&begin[..], place, &alone].concat());
    let out = restored(&[OsStr::new("--to"), to.as_os_str()]);
    out.says(r"$'").says(r"\x1b[2J'");
    let in_place = restored(&["--in-place", "--yes"].map(OsStr::new));
    for ran in [&out, &in_place] {
        assert!(!ran.stdout.contains('\u{1b}') && !ran.stderr.contains('\u{1b}'), "{ran}");
    }
    assert_eq!(fs::read_to_string(below(&to, &odd).join("inside")).unwrap(), "good");
    // What is printed is what removes the old.
    sh(Command::new("bash").arg("-ec").arg(in_place.stdout.lines().find(|line| line.contains("rm -rf")).unwrap()));
    assert_eq!(fs::read_dir(&data).unwrap().count(), 2);
}

#[test]
fn what_is_left_of_a_damaged_file_takes_no_other_files_name() {
    let scratch = Scratch::new();
    let data = scratch.directory("srv/data");
    fs::write(data.join("large"), Random::new(3).bytes(6 << 20)).unwrap();
    fs::write(data.join("large.incomplete"), "theirs").unwrap();
    let agent = backed_up(&scratch, &data);
    let packs =
        Command::new("find").arg(scratch.join("storage/data/data")).args(["-type", "f", "-size", "+1M"]).output();
    let packs = String::from_utf8(packs.unwrap().stdout).unwrap();
    let pack = File::options().write(true).open(packs.lines().next().unwrap()).unwrap();
    pack.write_all_at(&[0; 100], 500_000).unwrap();
    let to = scratch.join("to");
    agent.run(restore(&to)).expect(5).says("the others are in").says("large.incomplete.incomplete");
    let restored = |name: &str| fs::read(below(&to, &data).join(name)).unwrap();
    assert_eq!(restored("large.incomplete"), b"theirs");
    assert_eq!(restored("large.incomplete.incomplete").len(), 6 << 20);
}
