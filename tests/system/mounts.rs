//! What is mounted below a path: told where it is left out, and missed where it was entered.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use harness::{Agent, Config, LoopDevice, LoopDisk, Ran, Running, Scratch, Tmpfs, mounts_of_our_own, sh};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Where `path` lies when it was restored to `target`.
fn below(target: &Path, path: &Path) -> PathBuf {
    target.join(path.strip_prefix("/").unwrap())
}

fn ext4(at: &Path) -> LoopDisk {
    LoopDisk::make(at, 8 << 20, &["mkfs.ext4", "-q"], "rw")
}

/// What a run says of the step beside its outcome, as one text.
fn told(night: &Ran) -> String {
    night.step("d")["problems"].to_string()
}

/// The doctor's findings of that severity about the step, as one text.
fn doctor(agent: &Agent, severity: &str) -> String {
    let findings = agent.run(["doctor", "--json"]).json()["findings"].clone();
    let ours = findings.as_array().unwrap().iter().filter(|found| found["severity"] == severity);
    ours.filter(|found| found["subject"] == "step d")
        .map(|found| format!("{}\n{}\n", found["message"], found["advice"]))
        .collect()
}

fn restored(scratch: &Scratch, agent: &Agent, name: &str) -> PathBuf {
    let to = scratch.join(name);
    agent.ok(["restore", "d", "--to", to.to_str().unwrap()]);
    to
}

/// A run that fails because of the step, and what for.
fn failure(agent: &Agent) -> String {
    let night = agent.run(["run", "--json"]).expect(3);
    let error = night.step("d")["error"].clone();
    assert!(error["hint"].as_str().unwrap().contains("pi-agent adopt d"), "{error}");
    error["message"].as_str().unwrap().to_owned()
}

#[test]
fn a_disk_that_is_left_out_is_told_once_by_a_run_and_always_by_those_who_are_asked() {
    let scratch = Scratch::new();
    let data = scratch.directory("srv/data");
    fs::write(data.join("file"), "on the card").unwrap();
    let disk = ext4(&data.join("disk"));
    fs::write(disk.path().join("file"), "on the disk").unwrap();
    let place = disk.path().to_str().unwrap().to_owned();
    let config = Config::local(scratch.path());
    let agent = config.clone().directory("d", &[&data], "").write();
    let advice = "add it to `paths`, or one-file-system = false";

    let plan = agent.ok(["plan"]);
    assert!(plan.stdout.contains(&place) && plan.stdout.contains(advice), "{plan}");
    let first = agent.ok(["run", "--json"]);
    assert_eq!(first.step("d")["outcome"], "succeeded", "{first}");
    let said = told(&first);
    assert!(
        said.contains(&format!("{place} is left out")) && said.contains("ext4 of /dev/loop") && said.contains(advice)
    );
    let second = agent.ok(["run", "--json"]);
    assert_eq!(told(&second), "[]", "once");
    for _ in 0..2 {
        let note = doctor(&agent, "note");
        assert!(note.contains(&place) && note.contains(advice), "{note}");
        agent.ok(["plan"]).says(&place);
    }
    agent.ok(["status"]);
    let to = below(&restored(&scratch, &agent, "to"), &data);
    assert!(to.join("file").exists() && to.join("disk").is_dir() && !to.join("disk/file").exists());

    // Whoever excludes it knows of it.
    let quiet = config.directory("d", &[&data], &format!("exclude = [{place:?}]")).write();
    quiet.ok(["adopt", "d"]);
    let said = format!("{}{}{}", told(&quiet.ok(["run", "--json"])), doctor(&quiet, "note"), quiet.ok(["plan"]));
    assert!(!said.contains(&place), "{said}");

    // Without it nothing is missing.
    disk.unmount();
    let agent = Config::local(scratch.path()).directory("d", &[&data], "").write();
    agent.ok(["run"]);
    assert_eq!(doctor(&agent, "problem"), "");
}

#[test]
fn a_disk_that_was_entered_is_missed_until_somebody_says_that_it_is_gone() {
    let scratch = Scratch::new();
    let data = scratch.directory("srv/data");
    fs::write(data.join("file"), "on the card").unwrap();
    let disk = ext4(&data.join("disk"));
    fs::write(disk.path().join("world"), "on the disk").unwrap();
    let (image, at) = (disk.image().to_owned(), disk.path().to_owned());
    let memory = Tmpfs::mount(data.join("memory"), 1 << 20);
    let agent = Config::local(scratch.path()).directory("d", &[&data], "one-file-system = false").write();
    let night = agent.ok(["run", "--json"]);
    assert_eq!(told(&night), "[]");
    assert!(below(&restored(&scratch, &agent, "to"), &at.join("world")).exists());
    agent.ok(["run"]);
    assert_eq!(format!("{}{}", doctor(&agent, "note"), doctor(&agent, "problem")), "");

    // It held nothing: it may go.
    drop(memory);
    agent.ok(["run"]);

    disk.unmount();
    let gone = format!("{} is not mounted any more", at.display());
    assert!(failure(&agent).contains(&gone));
    fs::write(at.join("stray"), "on the card").unwrap();
    assert!(failure(&agent).contains(&gone), "a file in its place is not the disk");
    assert!(doctor(&agent, "problem").contains(&gone));
    let status = agent.run(["status"]).stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(status.contains(&gone), "{status}");

    let other = ext4(&scratch.join("srv/data/other"));
    let other_image = other.image().to_owned();
    fs::write(other.path().join("file"), "x").unwrap();
    other.unmount();
    fs::remove_dir(data.join("other")).unwrap();
    let other = LoopDisk::mount(&other_image, &at, "rw");
    assert!(failure(&agent).contains("lies on another disk"));
    other.unmount();

    let disk = LoopDisk::mount(&image, &at, "rw");
    agent.ok(["run"]);
    fs::remove_file(at.join("world")).unwrap();
    assert!(at.join("lost+found").is_dir(), "which is nothing");
    assert!(failure(&agent).contains(&format!("{} is empty", at.display())));

    disk.unmount();
    agent.ok(["adopt", "d"]);
    agent.ok(["run"]);
    agent.ok(["run"]);
}

#[test]
fn a_disk_that_goes_while_it_is_to_be_read_makes_no_good_night() {
    let scratch = Scratch::new();
    let data = scratch.directory("srv/data");
    let disk = Tmpfs::mount(data.join("disk"), 1 << 20);
    fs::write(disk.path().join("file"), "x").unwrap();
    let (agent, run) = run_under_way(&scratch, &data, "one-file-system = false", Moment::Looked);
    drop(disk);
    degraded(run, &format!("while it was read: {} is not mounted any more", data.join("disk").display()));
    agent.run(["run"]).expect(3).says("is not mounted any more");
}

/// When something happens to a run.
#[derive(Clone, Copy)]
enum Moment {
    /// The paths were looked at, and nothing is read yet.
    Looked,
    /// The first file is open.
    Reading,
}

impl Moment {
    fn has_come(self, scratch: &Scratch, data: &Path) -> bool {
        match self {
            Self::Looked => scratch.join("storage/d/keys").exists(),
            Self::Reading => is_read(&data.join("before-")),
        }
    }
}

/// Whether a file is open whose path begins so.
pub(crate) fn is_read(begins: &Path) -> bool {
    let is_it = |file: PathBuf| {
        fs::read_link(file).is_ok_and(|to| to.to_string_lossy().starts_with(&*begins.to_string_lossy()))
    };
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut files = processes.filter_map(|process| fs::read_dir(process.path().join("fd")).ok()).flatten().flatten();
    files.any(|file| is_it(file.path()))
}

/// A directory whose first files take four seconds to read, and a run that has come so far with it.
fn run_under_way(scratch: &Scratch, data: &Path, more: &str, moment: Moment) -> (Agent, Running) {
    for number in 0..12 {
        fs::write(data.join(format!("before-{number:02}")), vec![number; 100_000]).unwrap();
    }
    let config = Config::local(scratch.path()).directory("d", &[data], more);
    let agent = config.table("[limits]\nread = \"300KiB\"").write();
    let run = agent.start(["run", "--json"]);
    let started = Instant::now();
    while !moment.has_come(scratch, data) {
        assert!(started.elapsed() < Duration::from_secs(30), "it does not begin");
        std::thread::sleep(Duration::from_millis(10));
    }
    (agent, run)
}

/// Whether that degraded a run, among others.
#[track_caller]
fn degraded(run: Running, wanted: &str) {
    let night = run.wait().expect(5);
    let step = night.step("d");
    assert_eq!(step["outcome"], "degraded", "{night}");
    assert!(format!("{}{}", step["error"], step["problems"]).contains(wanted), "{wanted}: {night}");
}

#[test]
fn a_disk_that_is_mounted_again_while_it_is_read_makes_no_good_night() {
    let scratch = Scratch::new();
    let data = scratch.directory("srv/data");
    let made = ext4(&scratch.join("disk"));
    fs::write(made.path().join("file"), "x").unwrap();
    let (image, at) = (made.image().to_owned(), data.join("disk"));
    made.unmount();
    let disk = LoopDisk::mount(&image, &at, "rw");
    let (agent, run) = run_under_way(&scratch, &data, "one-file-system = false", Moment::Reading);
    // Not by the way, while it is read.
    let busy = Command::new("umount").arg(&at).output().unwrap();
    assert!(String::from_utf8_lossy(&busy.stderr).contains("busy"), "{busy:?}");
    sh(Command::new("umount").arg("--lazy").arg(&at));
    let again = LoopDisk::mount(&image, &at, "rw");
    degraded(run, &format!("while it was read: {} was mounted again", at.display()));
    agent.ok(["run"]);
    again.unmount();
    drop(disk);
}

#[test]
fn a_disk_that_comes_before_its_place_is_read_is_told() {
    a_disk_comes(Moment::Looked);
}

#[test]
fn a_disk_that_comes_while_others_are_read_is_told() {
    a_disk_comes(Moment::Reading);
}

fn a_disk_comes(moment: Moment) {
    let scratch = Scratch::new();
    mounts_of_our_own();
    let data = scratch.directory("srv/data");
    let late = scratch.directory("srv/data/late");
    fs::write(late.join("covered"), "on the card").unwrap();
    let (agent, run) = run_under_way(&scratch, &data, "", moment);
    let disk = Tmpfs::mount(&late, 1 << 20);
    fs::write(disk.path().join("file"), "on the disk").unwrap();
    degraded(run, &format!("{} is left out: something was mounted there while the backup was made", late.display()));
    let to = below(&restored(&scratch, &agent, "to"), &late);
    assert_eq!(fs::read_dir(to).unwrap().count(), 0, "neither what it covers nor what is on it");
    agent.ok(["run"]).says(&format!("{} is left out", late.display()));
}

#[test]
fn another_way_to_configure_it_forgets_what_was_entered() {
    let scratch = Scratch::new();
    let data = scratch.directory("srv/data");
    fs::write(data.join("file"), "x").unwrap();
    let disk = Tmpfs::mount(data.join("disk"), 1 << 20);
    fs::write(disk.path().join("file"), "x").unwrap();
    let configured = |more: &str| Config::local(scratch.path()).directory("d", &[&data], more).write();
    configured("one-file-system = false").ok(["run"]);
    drop(disk);
    configured("one-file-system = false\nexclude = [\"disk\"]").ok(["run"]);
    configured("one-file-system = true").ok(["run"]);
}

#[test]
fn what_a_new_disk_covers_was_in_the_backup_until_now() {
    let scratch = Scratch::new();
    let data = scratch.directory("srv/data");
    let worlds = scratch.directory("srv/data/worlds");
    fs::write(worlds.join("world"), "on the card").unwrap();
    fs::write(data.join("file"), "beside it").unwrap();
    let agent = Config::local(scratch.path()).directory("d", &[&data], "").write();
    agent.ok(["run"]);
    let disk = Tmpfs::mount(&worlds, 1 << 20);
    fs::write(disk.path().join("world"), "moved to a disk").unwrap();
    let night = agent.run(["run", "--json"]).expect(5);
    let error = night.step("d")["error"]["message"].as_str().unwrap().to_owned();
    assert!(error.contains(&format!("{} is in no restore point from now on", worlds.display())), "{error}");
    agent.ok(["run"]);
    agent.ok(["plan"]).says(worlds.to_str().unwrap());
}

/// A file system whose program is in the test's hands; until dropped.
struct Fuse {
    at: PathBuf,
    _device: LoopDevice,
    program: Pid,
}

impl Fuse {
    fn mount(image: &Path, at: &Path) -> Self {
        fs::File::create(image).and_then(|file| file.set_len(16 << 20)).unwrap();
        sh(Command::new("mkfs.exfat").arg(image));
        let device = LoopDevice::of(image);
        fs::create_dir_all(at).unwrap();
        sh(Command::new("mount.exfat-fuse").arg(device.path()).arg(at));
        let found = sh(Command::new("pgrep").args(["--full", &format!("^mount.exfat-fuse {} ", device.path())]));
        let program = Pid::from_raw(found.trim().parse().unwrap());
        Self { at: at.into(), _device: device, program }
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        let _ = kill(self.program, Signal::SIGCONT);
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
    }
}

#[test]
fn what_does_not_answer_and_is_not_read_holds_nothing_up() {
    let scratch = Scratch::new();
    let data = scratch.directory("srv/data");
    fs::write(data.join("file"), "x").unwrap();
    let fuse = Fuse::mount(&scratch.join("image"), &data.join("fuse"));
    fs::write(fuse.at.join("file"), "x").unwrap();
    let agent = Config::local(scratch.path()).directory("d", &[&data], "").write();
    kill(fuse.program, Signal::SIGSTOP).unwrap();
    let asked = Instant::now();
    assert!(doctor(&agent, "note").contains(fuse.at.to_str().unwrap()));
    agent.ok(["plan"]).says(fuse.at.to_str().unwrap());
    assert!(asked.elapsed() < Duration::from_secs(10), "neither touches it");
    let night = agent.ok(["run", "--json"]);
    assert!(told(&night).contains(&format!("{} is left out", fuse.at.display())), "{night}");
    assert!(night.took < Duration::from_secs(60), "{night}");
    kill(fuse.program, Signal::SIGCONT).unwrap();
    assert_eq!(fs::read_to_string(fuse.at.join("file")).unwrap(), "x", "it is put aside for the backup alone");
    let to = restored(&scratch, &agent, "to");
    assert!(below(&to, &data.join("file")).exists() && below(&to, &fuse.at).is_dir());
}

fn bind(from: &Path, at: &Path) {
    mounts_of_our_own();
    sh(Command::new("mount").arg("--bind").args([from, at]));
}

/// Unmounts at the end, whatever happens.
struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_bound_directory_of_the_same_disk_is_read_and_missed() {
    let scratch = Scratch::new();
    let (data, elsewhere) = (scratch.directory("srv/data"), scratch.directory("elsewhere"));
    let (bound, itself) = (scratch.directory("srv/data/bound"), scratch.directory("srv/data/itself"));
    fs::write(elsewhere.join("file"), "x").unwrap();
    fs::write(itself.join("file"), "x").unwrap();
    let agent = Config::local(scratch.path()).directory("d", &[&data], "").write();
    bind(&elsewhere, &bound);
    let _bound = Unmount(bound.clone());
    // As systemd does for the directories that a unit may not write to.
    bind(&itself, &itself);
    let inert = Unmount(itself.clone());
    let night = agent.ok(["run", "--json"]);
    assert_eq!(told(&night), "[]");
    assert_eq!(doctor(&agent, "note"), "");
    let to = restored(&scratch, &agent, "to");
    assert!(below(&to, &bound.join("file")).exists() && below(&to, &itself.join("file")).exists());

    drop(inert);
    agent.ok(["run"]);
    sh(Command::new("umount").arg(&bound));
    assert!(failure(&agent).contains(&format!("{} is not mounted any more", bound.display())));
}

#[test]
fn a_btrfs_subvolume_is_entered_and_a_snapshot_is_told() {
    let scratch = Scratch::new();
    let disk = LoopDisk::make(scratch.join("pool"), 128 << 20, &["mkfs.btrfs", "-q"], "rw");
    let pool = disk.path().to_owned();
    let data = pool.join("data");
    let btrfs =
        |arguments: &[&str], paths: &[&Path]| sh(Command::new("btrfs").arg("subvolume").args(arguments).args(paths));
    for place in ["data", "data/worlds", "data/worlds/deep", "elsewhere"] {
        btrfs(&["create"], &[&pool.join(place)]);
        fs::write(pool.join(place).join("file"), place).unwrap();
    }
    fs::create_dir(data.join(".snapshots")).unwrap();
    btrfs(&["snapshot", "-r"], &[&data, &data.join(".snapshots/1")]);
    btrfs(&["snapshot", "-r"], &[&data.join("worlds"), &data.join(".snapshots/2")]);
    btrfs(&["snapshot"], &[&data.join("worlds"), &data.join("copy")]);
    let mounted = data.join("mounted");
    fs::create_dir(&mounted).unwrap();
    sh(Command::new("mount").args(["-o", "loop,subvol=elsewhere"]).arg(disk.image()).arg(&mounted));
    let _mounted = Unmount(mounted.clone());

    let agent = Config::local(scratch.path()).directory("d", &[&data], "").write();
    let night = agent.ok(["run", "--json"]);
    let said = told(&night);
    let first = data.join(".snapshots/1");
    assert!(
        said.contains(&format!("2 read-only btrfs snapshots are left out, the first {}", first.display())),
        "{said}"
    );
    assert!(said.contains(&format!("{} is left out", mounted.display())), "{said}");
    let to = below(&restored(&scratch, &agent, "to"), &data);
    let has = |name: &str| to.join(name).exists();
    assert!(has("file") && has("worlds/file") && has("worlds/deep/file") && has("copy/file"));
    assert!(has(".snapshots/1") && !has(".snapshots/1/file") && !has(".snapshots/2/file") && !has("mounted/file"));

    assert_eq!(told(&agent.ok(["run", "--json"])), "[]", "once");
    let note = doctor(&agent, "note");
    assert!(note.contains("2 read-only btrfs snapshots") && note.contains(mounted.to_str().unwrap()), "{note}");
    agent.ok(["plan"]).says("2 read-only btrfs snapshots");

    // Everything, when it is asked for.
    let all = Config::local(scratch.join("all"));
    fs::create_dir(scratch.join("all")).unwrap();
    let all = all.directory("d", &[&data], "one-file-system = false").write();
    all.ok(["run"]);
    let everything = below(&restored(&scratch, &all, "everything"), &data);
    assert!(everything.join(".snapshots/2/file").exists() && everything.join("mounted/file").exists());

    // A path that is rolled back to a snapshot of itself lies on the same disk.
    let path = pool.join("elsewhere");
    let back = Config::local(scratch.directory("back")).directory("d", &[&path], "").write();
    back.ok(["run"]);
    btrfs(&["snapshot"], &[&path, &pool.join("again")]);
    fs::rename(&path, pool.join("set-aside")).unwrap();
    fs::rename(pool.join("again"), &path).unwrap();
    back.ok(["run"]);

    // One that is gone is missed until somebody says that it may go, and so is one that a snapshot put back lacks.
    btrfs(&["delete"], &[&data.join("copy")]);
    let gone = format!("the subvolume {} is gone", data.join("copy").display());
    assert!(failure(&agent).contains(&gone) && failure(&agent).contains(&gone));
    assert!(doctor(&agent, "problem").contains(&gone));
    fs::write(data.join("copy"), "a file").unwrap();
    assert!(failure(&agent).contains(&gone), "a file in its place is not the subvolume");
    agent.ok(["adopt", "d"]);
    agent.ok(["run"]);
    btrfs(&["delete"], &[&data.join("worlds/deep")]);
    fs::create_dir(data.join("worlds/deep")).unwrap();
    assert!(failure(&agent).contains(&format!("{} is empty", data.join("worlds/deep").display())));
    agent.ok(["adopt", "d"]);
    agent.ok(["run"]);
}

#[test]
fn of_the_whole_machine_only_disks_are_told() {
    let scratch = Scratch::new();
    // Tests may have a disk of their own for what they write, which is then left out as a whole.
    let of_the_system = tempfile::tempdir_in("/var/tmp").unwrap();
    let disk = Tmpfs::mount(of_the_system.path().join("disk"), 1 << 20);
    let exclude = format!("exclude = [\"{}/storage\"]", scratch.path().display());
    for more in ["one-file-system = true", "one-file-system = false"] {
        let agent =
            Config::local(scratch.path()).directory("d", &[Path::new("/")], &format!("{exclude}\n{more}")).write();
        let plan = agent.ok(["plan"]).stdout;
        let left_out = |place: &str| plan.contains(&format!("\n   {place}"));
        for made_up in ["/proc", "/sys", "/dev", "/run", "/tmp "] {
            assert!(!left_out(made_up), "{made_up}: {plan}");
        }
        assert_eq!(left_out(disk.path().to_str().unwrap()), more.ends_with("true"), "{plan}");
    }
}

#[test]
fn patterns_that_do_nothing_or_too_much_are_told_by_the_doctor() {
    let scratch = Scratch::new();
    let (data, swallowed) = (scratch.directory("srv/data"), scratch.directory("srv/swallowed"));
    for name in ["data/a.tmp", "data/a.txt", "data/keep.tmp", "swallowed/file"] {
        fs::write(scratch.join("srv").join(name), "x").unwrap();
    }
    let exclude =
        format!("exclude = [\"*.tmp\", \"!keep.tmp\", \"*.bak\", \"data/typo/\", \"{}/*\"]", swallowed.display());
    let agent = Config::local(scratch.path()).directory("d", &[&data, &swallowed], &exclude).write();
    let before = doctor(&agent, "note");
    assert!(
        before.contains(&format!("leaves nothing of {}", swallowed.display())) && !before.contains("*.bak"),
        "{before}"
    );
    agent.ok(["run"]);
    let note = doctor(&agent, "note");
    for idle in ["*.bak", "data/typo/"] {
        assert!(note.contains(&format!("exclude = \\\"{idle}\\\" left nothing out")), "{idle}: {note}");
    }
    assert!(!note.contains("*.tmp") && !note.contains("!keep.tmp"), "{note}");
    fs::write(data.join("old.bak"), "x").unwrap();
    agent.ok(["run"]);
    assert!(!doctor(&agent, "note").contains("*.bak"));
}

#[test]
fn setup_tells_what_its_steps_will_leave_out() {
    let scratch = Scratch::new();
    let data = scratch.directory("srv/data");
    fs::write(data.join("file"), "x").unwrap();
    scratch.directory("storage");
    let disk = Tmpfs::mount(data.join("disk"), 1 << 20);
    let place = |name: &str| scratch.join(name).display().to_string();
    let agent = Agent::new(scratch.join("etc/config.toml"), scratch.join("state"));
    let (storage, step) = (format!("file://{}/host", place("storage")), format!("d={}", data.display()));
    let (secrets, cache, spool, runtime) = (place("etc/secrets"), place("cache"), place("spool"), place("runtime"));
    let setup = agent.run([
        "setup",
        "--unattended",
        "--no-enable",
        "--name",
        "test-host",
        "--postgres",
        "none",
        "--storage",
        &storage,
        "--directory",
        &step,
        "--secrets",
        &secrets,
        "--cache",
        &cache,
        "--spool",
        &spool,
        "--runtime",
        &runtime,
    ]);
    setup.says(&format!("{} is left out", disk.path().display())).says("one-file-system = false");
}

#[test]
fn a_file_that_was_mounted_is_missed() {
    let scratch = Scratch::new();
    let data = scratch.directory("srv/data");
    let memory = Tmpfs::mount(scratch.join("memory"), 1 << 20);
    let (there, here) = (memory.path().join("file"), data.join("file"));
    fs::write(&there, "in memory").unwrap();
    fs::write(&here, "").unwrap();
    sh(Command::new("mount").arg("--bind").args([&there, &here]));
    let agent = Config::local(scratch.path()).directory("d", &[&data], "").write();
    agent.ok(["run"]);
    agent.ok(["run"]);
    sh(Command::new("umount").arg(&here));
    let gone = format!("{} is not mounted any more", here.display());
    assert!(failure(&agent).contains(&gone));
    assert!(doctor(&agent, "problem").contains(&gone));
    agent.ok(["adopt", "d"]);
    agent.ok(["run"]);
}

#[test]
fn a_mount_whose_name_is_no_text_is_the_same_each_night() {
    let scratch = Scratch::new();
    let data = scratch.directory("srv/data");
    let memory = Tmpfs::mount(data.join(std::ffi::OsStr::from_bytes(b"caf\xe9")), 1 << 20);
    fs::write(memory.path().join("file"), "x").unwrap();
    let agent = Config::local(scratch.path()).directory("d", &[&data], "one-file-system = false").write();
    agent.ok(["run"]);
    agent.ok(["run"]);
    drop(memory);
    assert!(failure(&agent).contains(r"caf\xe9"));
}

#[test]
fn storage_that_is_mounted_in_a_source_is_left_out_of_it_and_told() {
    let scratch = Scratch::new();
    let data = scratch.directory("srv/data");
    fs::write(data.join("file"), "x").unwrap();
    mounts_of_our_own();
    let config = Config::local(scratch.path()).directory("d", &[&data], "");
    let (here, there) = (data.join("usb"), config.storage_folder());
    fs::create_dir_all(&there).unwrap();
    fs::create_dir(&here).unwrap();
    sh(Command::new("mount").arg("--bind").args([&there, &here]));
    let agent = config.write();
    let night = agent.ok(["run", "--json"]);
    sh(Command::new("umount").arg(&here));
    assert!(told(&night).contains(&format!("{} is left out", here.display())), "{night}");
    assert_eq!(night.step("d")["files"], 1, "{night}");
}
