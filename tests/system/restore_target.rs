//! What a restore says against what is on the disk afterwards: power cuts, damage that shows in no time, and targets that refuse
//! some of it.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::{Agent, Config, LoopDevice, LoopDisk, Ran, Random, Scratch, Tmpfs, Tree, by_effort, sh};

const MIB: u64 = 1 << 20;
const EXT4: &[&str] = &["mkfs.ext4", "-q", "-F"];

/// A step `data` of `source`, backed up.
fn backed_up(scratch: &Scratch, source: &Path) -> Agent {
    let agent = Config::local(scratch.path()).directory("data", &[source], "").write();
    agent.ok(["run"]);
    agent
}

fn below(target: &Path, path: &Path) -> PathBuf {
    target.join(path.strip_prefix("/").unwrap())
}

fn restore(agent: &Agent, to: &Path, more: &[&str]) -> Ran {
    let mut arguments = vec!["restore", "data", "--to", to.to_str().unwrap()];
    arguments.extend(more);
    agent.run(arguments)
}

/// All of it comes back.
fn restored(agent: &Agent, to: &Path, more: &[&str]) -> Ran {
    restore(agent, to, more).expect(0)
}

/// A line of the report names a path that ends so, and nothing of a library is on the screen.
fn names(ran: &Ran, path: &str, what: &str) {
    let named = ran.stdout.lines().any(|line| line.starts_with("! ") && line.contains(path) && line.contains(what));
    assert!(named, "{path}: {what} is not named in {ran}");
    assert!(!ran.stderr.contains("panicked") && !ran.stdout.contains("panicked"), "{ran}");
}

#[test]
fn slow_whatever_cuts_the_power_every_file_is_whole_or_said_to_be_unfinished() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv");
    let mut random = Random::new(1);
    // Of these moments the last few come when it has said that all is there.
    let (count, moments, after) = by_effort((20, 5, 2), (100, 20, 6));
    let files: Vec<_> = (0..count).map(|number: u64| source.join(number.to_string())).collect();
    for file in &files {
        fs::write(file, random.bytes(1_500_000)).unwrap();
    }
    let agent = backed_up(&scratch, &source);
    let at = scratch.join("disk");
    let disk = LoopDisk::make(&at, (100 + count * 3) * MIB, EXT4, "commit=1");
    let to = at.join("to");
    let cut = |number: usize| {
        let copy = scratch.join(format!("cut-{number}"));
        sh(Command::new("cp").args(["--sparse=always"]).arg(disk.image()).arg(&copy));
        copy
    };

    // What the disk holds at some moments: while it restores, when it has said that all is there, and later.
    let mut cuts = Vec::new();
    let mut running = agent.start(["restore", "data", "--to", to.to_str().unwrap()]);
    while cuts.len() < moments - after && !running.has_ended() {
        std::thread::sleep(Duration::from_millis(by_effort(200, 20)));
        cuts.push(cut(cuts.len()));
    }
    let ran = running.wait();
    assert_eq!(ran.code(), Some(0), "{ran}");
    let said = cuts.len();
    while cuts.len() < moments {
        cuts.push(cut(cuts.len()));
        std::thread::sleep(Duration::from_millis(2000 / after as u64));
    }
    cuts.push(cut(moments));
    disk.unmount();

    let good = |file: &PathBuf| fs::read(below(&to, file)).is_ok_and(|found| found == fs::read(file).unwrap());
    let (mut unfinished, mut whole) = (0, 0);
    for (number, copy) in cuts.iter().enumerate() {
        let disk = LoopDisk::mount(copy, &at, "commit=1");
        let begun = to.exists() && fs::read_dir(&to).unwrap().next().is_some();
        let noted = at.join("to.unfinished").exists();
        assert!(noted || !begun || files.iter().all(good), "{number}: spoilt, and no note says so");
        assert!(number < said || files.iter().all(good), "{number}: it was said to be there");
        assert!(number < moments || !noted, "{number}: it is there, and a note says that it is not");
        unfinished += u32::from(noted);
        whole += u32::from(!noted && begun);
        if noted || !begun {
            let ran = restore(&agent, &to, &[]);
            assert_eq!(ran.code(), Some(0), "{number}: {ran}");
            assert!(files.iter().all(good), "{number}: it goes on");
        }
        disk.unmount();
        fs::remove_file(copy).unwrap();
    }
    println!(
        "{} moments, {said} of them while it restored: {unfinished} noted as unfinished, {whole} whole; the same command ends them all",
        cuts.len()
    );
}

#[test]
fn what_is_there_is_read_whatever_its_size_and_time() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv/data");
    let (file, good) = (source.join("file"), Random::new(2).bytes(300_000));
    fs::write(&file, &good).unwrap();
    let agent = backed_up(&scratch, &source);
    let spoil = |path: &Path| {
        let time = path.metadata().unwrap().modified().unwrap();
        let file = File::options().write(true).open(path).unwrap();
        file.write_all_at(&[0; 50_000], 1000).unwrap();
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
    };
    spoil(&file);
    let ran = restored(&agent, Path::new("/"), &["--path", source.to_str().unwrap(), "--overwrite"]);
    assert_eq!(fs::read(&file).unwrap(), good);
    // It did change something there, and says so.
    assert!(!ran.stdout.contains("nothing in the original places was changed"), "{ran}");
    ran.says("was restored where it was");

    // One that goes on trusts no more.
    let to = scratch.join("to");
    restored(&agent, &to, &[]).says("nothing in the original places was changed");
    spoil(&below(&to, &file));
    let _ = restored(&agent, &to, &["--overwrite"]);
    assert_eq!(fs::read(below(&to, &file)).unwrap(), good);
}

#[test]
fn one_file_that_the_target_refuses_costs_no_other() {
    let scratch = Scratch::new();
    let disk = LoopDisk::make(scratch.join("disk"), 64 * MIB, EXT4, "rw");
    let source = disk.path().join("data");
    fs::create_dir_all(source.join("closed")).unwrap();
    fs::create_dir(source.join("file")).unwrap();
    let names_of = ["a", "b", "c", "closed/d", "file/e", "z"];
    for name in names_of {
        fs::write(source.join(name), format!("good {name}")).unwrap();
    }
    let agent = backed_up(&scratch, &source);
    for name in names_of {
        fs::write(source.join(name), "spoilt").unwrap();
    }
    // Immutable; a directory in which nothing can be made; a directory in the place of a file.
    fs::remove_file(source.join("closed/d")).unwrap();
    fs::remove_file(source.join("c")).unwrap();
    fs::create_dir(source.join("c")).unwrap();
    fs::write(source.join("c/mine"), "mine").unwrap();
    sh(Command::new("chattr").arg("+i").arg(source.join("b")).arg(source.join("closed")));
    let ran = restore(&agent, Path::new("/"), &["--path", source.to_str().unwrap(), "--overwrite"]);
    sh(Command::new("chattr").arg("-i").arg(source.join("b")).arg(source.join("closed")));
    let ran = ran.expect(5);
    names(&ran, "data/b", "Operation not permitted");
    names(&ran, "closed/d", "Operation not permitted");
    names(&ran, "data/c", "a directory is in its place");
    for name in ["a", "file/e", "z"] {
        assert_eq!(fs::read_to_string(source.join(name)).unwrap(), format!("good {name}"), "{ran}");
    }
    assert_eq!(fs::read_to_string(source.join("c/mine")).unwrap(), "mine");
    assert!(!ran.stdout.contains("repository damaged") && !ran.stdout.contains("lost"), "{ran}");
}

#[test]
fn a_disk_without_links_and_attributes_gets_all_contents() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv");
    fs::create_dir(source.join("b")).unwrap();
    for name in ["a", "b/c", "m", "README", "readme", "what?", "z"] {
        fs::write(source.join(name), name).unwrap();
    }
    fs::hard_link(source.join("a"), source.join("hl")).unwrap();
    let agent = backed_up(&scratch, &source);
    let (image, usb) = (scratch.join("usb.image"), scratch.directory("usb"));
    File::create(&image).unwrap().set_len(64 * MIB).unwrap();
    sh(Command::new("mkfs.exfat").arg(&image));
    let device = LoopDevice::of(&image);
    sh(Command::new("mount.exfat-fuse").arg(device.path()).arg(&usb));
    let to = usb.join("to");
    let ran = restore(&agent, &to, &[]);
    let read = |name: &str| fs::read_to_string(below(&to, &source).join(name)).unwrap_or_default();
    let contents = ["a", "b/c", "hl", "m", "README", "z"].map(read);
    sh(Command::new("umount").arg(&usb));
    assert_eq!(contents, ["a", "b/c", "a", "m", "README", "z"], "{ran}");
    let ran = ran.expect(5);
    names(&ran, "srv/hl", "no hard link");
    names(&ran, "srv/readme", "upper and lower case");
    names(&ran, "srv/what?", "was not restored");
}

/// Whoever can write to the storage could have put them there, and others may reach the target.
#[test]
fn rights_of_others_come_back_only_where_they_were_or_where_that_is_wanted() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv");
    for name in ["plain", "set-id", "capable"] {
        fs::write(source.join(name), name).unwrap();
    }
    fs::set_permissions(source.join("set-id"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::create_dir(source.join("shared")).unwrap();
    fs::set_permissions(source.join("shared"), fs::Permissions::from_mode(0o2775)).unwrap();
    sh(Command::new("setcap").arg("cap_net_raw+ep").arg(source.join("capable")));
    sh(Command::new("mknod").arg(source.join("disk")).args(["b", "7", "0"]));
    let agent = backed_up(&scratch, &source);
    let before = Tree::read(&source);

    let to = scratch.join("to");
    let ran = restore(&agent, &to, &[]).expect(5);
    names(
        &ran,
        "srv/set-id",
        "left out, because others may reach what is restored there: set-id bits or capabilities of files: 2, device files: 1",
    );
    ran.says("--privileges");
    let mode = |name: &str| below(&to, &source).join(name).metadata().map(|found| found.mode() & 0o7777).ok();
    assert_eq!([mode("set-id"), mode("shared"), mode("disk")], [Some(0o755), Some(0o2775), None], "{ran}");
    assert!(xattr::get(below(&to, &source).join("capable"), "security.capability").unwrap().is_none());
    assert_eq!(fs::read(below(&to, &source).join("capable")).unwrap(), b"capable");

    let _ = restored(&agent, &to, &["--privileges", "--overwrite"]);
    before.assert_equals(below(&to, &source));
    fs::remove_dir_all(&source).unwrap();
    let _ = agent.run(["restore", "data", "--in-place", "--yes"]).expect(0);
    before.assert_equals(&source);
}

#[test]
fn a_refused_restore_leaves_no_note_and_one_that_writes_over_others_has_one() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv");
    fs::write(source.join("large"), Random::new(1).bytes(40_000_000)).unwrap();
    let agent = backed_up(&scratch, &source);
    let small = Tmpfs::mount(scratch.join("small"), 20 * MIB);
    let to = small.path().join("to");
    restore(&agent, &to, &[]).expect(1).says("are needed");
    let left: Vec<_> = small.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [""; 0], "nothing was begun");
    // So what a person puts there is theirs.
    fs::create_dir(&to).unwrap();
    fs::write(to.join("mine"), "mine").unwrap();
    restore(&agent, &to, &[]).expect(2).says("not empty");

    let to = scratch.directory("full");
    fs::create_dir_all(below(&to, &source)).unwrap();
    fs::write(below(&to, &source).join("large"), Random::new(2).bytes(40_000_000)).unwrap();
    let running = agent.start(["restore", "data", "--to", to.to_str().unwrap(), "--overwrite"]);
    let note = scratch.join("full.unfinished");
    let began = std::time::Instant::now();
    while !note.exists() {
        assert!(began.elapsed() < Duration::from_secs(60), "no note of what may be torn");
        std::thread::sleep(Duration::from_millis(2));
    }
    running.signal(nix::sys::signal::Signal::SIGKILL);
    let _ = running.wait();
    assert!(note.exists(), "some of it may be torn");
    let _ = restored(&agent, &to, &["--overwrite"]);
    assert!(!note.exists());
    Tree::read(&source).assert_equals(below(&to, &source));
}

#[test]
fn a_restore_goes_into_no_directory_of_our_own() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv");
    fs::write(source.join("file"), "content").unwrap();
    let agent = backed_up(&scratch, &source);
    for own in ["etc/secrets", "cache", "spool", "runtime"] {
        restore(&agent, &scratch.join(own).join("to"), &[]).expect(2).says("a directory of pi-agent's own");
        assert!(!scratch.join(own).join("to").exists());
    }
}

#[test]
fn an_access_list_that_is_lost_is_told_and_grants_nobody_more() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv");
    let file = source.join("file");
    fs::write(&file, "secret").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    sh(Command::new("setfacl").args(["-m", "u:1234:rw"]).arg(&file));
    let agent = backed_up(&scratch, &source);
    let disk = LoopDisk::make(scratch.join("disk"), 160 * MIB, &["mkfs.btrfs", "-q"], "noacl");
    let to = disk.path().join("to");
    let ran = restore(&agent, &to, &[]).expect(5);
    names(&ran, "srv/file", "lacks its access list (ACL)");
    // The group's bits of the mode were the mask of the list, which allowed to write.
    assert_eq!(below(&to, &file).metadata().unwrap().mode() & 0o777, 0o640, "{ran}");
    // Elsewhere it is as it was.
    let _ = restored(&agent, &scratch.join("to"), &[]);
    let list = sh(Command::new("getfacl").arg("-pc").arg(below(&scratch.join("to"), &file)));
    assert!(list.contains("user:1234:rw-") && list.contains("group::r--"), "{list}");
}

#[test]
fn a_path_that_gets_too_long_is_named_and_tested() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv");
    // As long as it may be where it is: each directory adds 201 bytes.
    let mut deep = source.clone();
    while deep.as_os_str().len() + 201 + 2 <= 4090 {
        deep.push("d".repeat(200));
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("f"), "deep").unwrap();
    fs::write(source.join("z"), "z").unwrap();
    let agent = backed_up(&scratch, &source);
    let to = scratch.join("p".repeat(200));
    let ran = restore(&agent, &to, &[]).expect(5);
    names(&ran, "srv/", "too long");
    assert_eq!(fs::read_to_string(below(&to, &source).join("z")).unwrap(), "z");
    // The test's own directory is long, too, and no person has to go there.
    agent.ok(["restore-test", "data"]);
}

#[test]
fn holes_need_no_room_and_a_full_disk_costs_only_what_it_cannot_take() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv");
    let sparse = File::create(source.join("sparse")).unwrap();
    sparse.set_len(1 << 30).unwrap();
    sparse.write_all_at(b"middle", 500_000_000).unwrap();
    for number in 0..30 {
        fs::write(source.join(number.to_string()), "text").unwrap();
    }
    let agent = backed_up(&scratch, &source);
    let disk = Tmpfs::mount(scratch.join("small"), 16 * MIB);
    let limit = |files: u32| {
        let limit = format!("remount,size=16m,nr_inodes={files}");
        sh(Command::new("mount").args(["-o", &limit]).arg(disk.path()));
    };
    limit(20);
    let to = disk.path().join("to");
    let ran = restore(&agent, &to, &[]).expect(5);
    names(&ran, "srv/9", "the disk is full");
    assert_eq!(fs::read_to_string(below(&to, &source).join("0")).unwrap(), "text");
    // With room, the same command goes on.
    limit(200);
    let _ = restored(&agent, &to, &[]);
    assert_eq!(fs::read_to_string(below(&to, &source).join("9")).unwrap(), "text");
    assert_eq!(below(&to, &source).join("sparse").metadata().unwrap().len(), 1 << 30);
    assert!(!disk.path().join("to.unfinished").exists());
}

#[test]
fn a_file_that_fails_fails_by_all_its_names() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv");
    let folder = scratch.directory("srv/small");
    let content = Random::new(9).bytes(3_000_000);
    fs::write(folder.join("a"), &content).unwrap();
    fs::hard_link(folder.join("a"), folder.join("b")).unwrap();
    fs::hard_link(folder.join("a"), folder.join("c")).unwrap();
    fs::write(source.join("z"), "z").unwrap();
    let agent = backed_up(&scratch, &source);
    // Of a target that is spread over disks nobody knows beforehand what fits where.
    let to = scratch.directory("to");
    let small = below(&to, &folder);
    let disk = Tmpfs::mount(&small, MIB);
    let ran = restore(&agent, &to, &["--overwrite"]).expect(5);
    for name in ["a", "b", "c"] {
        names(&ran, &format!("small/{name}"), "was not restored: the disk is full");
        assert!(!small.join(name).exists(), "{name} looks like the file: {ran}");
    }
    assert_eq!(fs::read_to_string(below(&to, &source).join("z")).unwrap(), "z");
    // With room, the same command goes on.
    sh(Command::new("mount").args(["-o", "remount,size=8m"]).arg(disk.path()));
    let _ = restored(&agent, &to, &["--overwrite"]);
    let inode = |name: &str| small.join(name).metadata().unwrap().ino();
    assert!(inode("a") == inode("b") && inode("a") == inode("c"));
    assert_eq!(fs::read(small.join("c")).unwrap(), content);
}

#[test]
fn the_note_of_another_restore_stays() {
    let scratch = Scratch::new();
    let (one, two) = (scratch.directory("srv/one"), scratch.directory("srv/two"));
    fs::write(one.join("file"), "one").unwrap();
    fs::write(two.join("file"), "two").unwrap();
    let config = Config::local(scratch.path()).directory("data", &[&one], "").directory("other", &[&two], "");
    let agent = config.write();
    agent.ok(["run"]);
    let to = scratch.join("to");
    let _ = restored(&agent, &to, &[]);
    // As a power cut leaves it.
    let note = scratch.join("to.unfinished");
    let begun = r#"{"step":"data","begun":"20260101-000000-000","at":"Latest","point":null,"paths":[],"whole":null}"#;
    fs::write(&note, begun).unwrap();
    agent.ok(["restore", "other", "--to", to.to_str().unwrap(), "--overwrite"]);
    assert!(note.exists(), "what it is about is not whole yet");
    let _ = restored(&agent, &to, &[]);
    assert!(!note.exists());
}
