//! What a snapshot says is what was read: of files that change meanwhile, and of every kind of path.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use harness::{Config, LoopDisk, Scratch, Tmpfs, Tree, by_effort, sh};

/// Where `path` lies when it was restored to `target`.
fn below(target: &Path, path: &Path) -> PathBuf {
    target.join(path.strip_prefix("/").unwrap())
}

/// Writes to files without pause, and knows every content that each of them had since it began.
struct Writer {
    root: PathBuf,
    files: usize,
    /// As checksums.
    known: Mutex<HashMap<PathBuf, HashSet<u64>>>,
}

impl Writer {
    fn new(root: PathBuf, files: usize) -> Arc<Self> {
        let this = Self { root, files, known: Mutex::default() };
        for number in 0..files {
            let path = this.path(number);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, Self::content(number, 0)).unwrap();
        }
        // They keep the readers busy: what comes behind them is seen long before it is read.
        for number in 0..50 {
            fs::write(this.root.join(format!("{}/{}-large", number % 10, number * 97)), vec![0; 200_000]).unwrap();
        }
        Arc::new(this)
    }

    fn path(&self, number: usize) -> PathBuf {
        self.root.join(format!("{}/{number}", number % 10))
    }

    /// Each round's is of another byte and length, within a page: more is written piece by piece.
    fn content(number: usize, round: usize) -> Vec<u8> {
        vec![b'a' + (round % 26) as u8; 10 + (number * 7 + round * 13) % 3000]
    }

    /// To be called before it does.
    fn becomes(&self, path: &Path, content: &[u8]) {
        self.known.lock().unwrap().entry(path.into()).or_default().insert(checksum(content));
    }

    fn write(&self, over: &AtomicBool) {
        self.known.lock().unwrap().clear();
        for number in 0..self.files {
            let path = self.path(number);
            self.becomes(&path, &fs::read(&path).unwrap());
        }
        for round in 1.. {
            for number in 0..self.files {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                self.change(number, round);
            }
        }
    }

    fn change(&self, number: usize, round: usize) {
        let path = self.path(number);
        let content = Self::content(number, round);
        let open = || File::options().write(true).open(&path).unwrap();
        match (number + round) % 4 {
            // Replaced by a new one, as careful programs do.
            0 => {
                let new = path.with_extension("new");
                self.becomes(&new, &content);
                self.becomes(&new, b"");
                self.becomes(&path, &content);
                fs::write(&new, content).unwrap();
                fs::rename(new, path).unwrap();
            }
            // Written anew in its place, in one call.
            1 => {
                self.becomes(&path, b"");
                self.becomes(&path, &content);
                let mut file = File::options().write(true).truncate(true).open(&path).unwrap();
                file.write_all(&content).unwrap();
            }
            // Longer.
            2 => {
                let mut now = fs::read(&path).unwrap();
                let at = now.len() as u64;
                now.extend(&content[..10]);
                self.becomes(&path, &now);
                open().write_all_at(&content[..10], at).unwrap();
            }
            // Shorter.
            _ => {
                let mut now = fs::read(&path).unwrap();
                now.truncate(now.len() / 2);
                self.becomes(&path, &now);
                open().set_len(now.len() as u64).unwrap();
            }
        }
    }
}

fn checksum(content: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

/// Does `work` while files are written to.
fn meanwhile<T>(writer: &Arc<Writer>, work: impl FnOnce() -> T) -> T {
    let over = Arc::new(AtomicBool::new(false));
    let thread = {
        let (writer, over) = (writer.clone(), over.clone());
        thread::spawn(move || writer.write(&over))
    };
    let result = work();
    over.store(true, Ordering::Relaxed);
    thread.join().unwrap();
    result
}

fn churn(files: usize, backups: usize) {
    let scratch = Scratch::new();
    let source = scratch.directory("srv");
    let writer = Writer::new(source.clone(), files);
    let config = Config::local(scratch.path()).directory("busy", &[&source], "").table("[limits]\nread = \"2MiB\"");
    let agent = config.write();
    for number in 0..backups {
        let night = meanwhile(&writer, || agent.run(["run", "--json"]));
        assert!(matches!(night.code(), Some(0 | 5)), "{night}");
        let step = night.step("busy");
        let (skipped, problems) = (step["files_skipped"].as_u64().unwrap(), step["problems"].to_string());
        let to = scratch.join(format!("to-{number}"));
        let restore = agent.run(["restore", "busy", "--to", to.to_str().unwrap()]);
        let _ = restore.expect(if skipped == 0 { 0 } else { 5 });
        let restored = below(&to, &source);
        let known = writer.known.lock().unwrap();
        let mut whole = 0;
        for directory in fs::read_dir(&restored).unwrap() {
            for file in fs::read_dir(directory.unwrap().path()).unwrap() {
                let file = file.unwrap().path();
                if file.to_str().unwrap().ends_with("-large") {
                    continue;
                }
                let name = source.join(file.strip_prefix(&restored).unwrap());
                let content = fs::read(&file).unwrap();
                assert!(
                    known.get(&name).is_some_and(|known| known.contains(&checksum(&content))),
                    "{} was never {} bytes of {:?}",
                    name.display(),
                    content.len(),
                    content.first()
                );
                whole += 1;
            }
        }
        // Each name was there all the time, so what did not come back is named; of many the first, and how many more.
        let missing = (0..files).map(|number| writer.path(number));
        let missing: Vec<_> = missing.filter(|path| !below(&to, path).exists()).collect();
        let is_named = |path: &&PathBuf| problems.contains(&format!("cannot read {}: ", path.display()));
        let named = missing.iter().filter(is_named).count();
        let more = problems.contains("more files cannot be read");
        assert!(named == missing.len() || more, "{named} of {missing:?} are named: {night}");
        assert!(missing.len() as u64 <= skipped, "{} are missing, {skipped} are counted: {night}", missing.len());
        assert!(whole >= files * 9 / 10, "{whole} of {files} files: {night}");
        println!("backup {number}: {whole} of {files} files as they were at one moment, {} named", missing.len());
        drop(known);
        fs::remove_dir_all(to).unwrap();
    }
    let restic = |arguments: &[&str]| sh(config.restic("busy").args(arguments));
    assert!(restic(&["check", "--read-data"]).contains("no errors were found"));
    agent.ok(["check"]);
}

#[test]
fn a_file_that_is_written_to_comes_back_as_it_was_at_one_moment() {
    churn(500, 2);
}

#[test]
fn slow_many_files_that_are_written_to_come_back_as_they_were_at_one_moment() {
    let (files, backups) = by_effort((2_000, 2), (10_000, 10));
    churn(files, backups);
}

/// Patterns that leave nothing of the whole file system but `kept`.
fn only(kept: &Path) -> String {
    let mut patterns = vec!["/*".to_owned()];
    let mut above: Vec<_> = kept.ancestors().filter(|path| path.parent().is_some()).collect();
    above.reverse();
    for path in above {
        patterns.push(format!("!{}", path.display()));
        if path != kept {
            patterns.push(format!("{}/*", path.display()));
        }
    }
    format!("exclude = {patterns:?}")
}

/// Backs up `paths`; `kept` is then in the snapshot, for restic as for us, and `left_out` is not.
fn agreed(scratch: &Scratch, name: &str, paths: &[&Path], more: &str, kept: &[&Path], left_out: &[&Path]) {
    let root = scratch.directory(format!("case-{name}"));
    let config = Config::local(&root).directory("odd", paths, more);
    let agent = config.write();
    let trees: Vec<_> = kept.iter().map(Tree::read).collect();
    let night = agent.ok(["run", "--json"]);
    assert_eq!(night.step("odd")["outcome"], "succeeded", "{name}: {night}");
    // A second one finds the first.
    agent.ok(["run"]);
    let restic = |arguments: &[&str]| sh(config.restic("odd").args(arguments));
    let checked = restic(&["check", "--read-data"]);
    assert!(checked.contains("no errors were found"), "{name}: {checked}");
    agent.ok(["check"]);
    agent.ok(["prune"]);

    let (ours, theirs) = (root.join("ours"), root.join("theirs"));
    agent.ok(["restore", "odd", "--to", ours.to_str().unwrap(), "--privileges"]);
    restic(&["restore", "latest", "--target", theirs.to_str().unwrap()]);
    for to in [&ours, &theirs] {
        for (path, tree) in kept.iter().zip(&trees) {
            tree.assert_equals(below(to, path));
        }
        for path in left_out {
            assert!(!below(to, path).exists(), "{name}: {}", path.display());
        }
    }
}

#[test]
fn restic_and_we_agree_on_every_kind_of_path() {
    let scratch = Scratch::new();
    let data = scratch.directory("srv/data");
    let (keep, other) = (data.join("cache/keep"), data.join("other"));
    for directory in [&keep, &other] {
        fs::create_dir_all(directory).unwrap();
        fs::write(directory.join("file"), "content").unwrap();
    }
    let odd = data.join("other/a\n\u{1b}[2J\"\\ü");
    fs::create_dir(&odd).unwrap();
    fs::write(odd.join("x"), "x").unwrap();
    let (file, cached) = (other.join("file"), data.join("cache/file"));
    fs::write(&cached, "cached").unwrap();

    // On the system's own disk; what tests write may lie on another one.
    let of_the_system = tempfile::tempdir_in("/var/tmp").unwrap();
    let on_root = of_the_system.path().join("data");
    sh(Command::new("cp").arg("--archive").args([&data, &on_root]));
    agreed(&scratch, "root", &[Path::new("/")], &only(&on_root), &[&on_root], &[]);
    agreed(&scratch, "file", &[&file], "", &[&file], &[&odd]);
    agreed(&scratch, "nested", &[&data, &keep, &file], "", &[&data], &[]);
    agreed(&scratch, "excluded", &[&data, &keep], "exclude = [\"cache/\"]", &[&keep, &other], &[&cached]);
    agreed(&scratch, "excluded-file", &[&other, &file], "exclude = [\"file\"]", &[&file, &odd], &[]);

    let disk = Tmpfs::mount(scratch.join("srv/data/disk"), 1 << 20);
    fs::write(disk.path().join("file"), "on a disk").unwrap();
    fs::create_dir(disk.path().join("deep")).unwrap();
    fs::write(disk.path().join("deep/file"), "on a disk").unwrap();
    let deep = disk.path().join("deep");
    agreed(&scratch, "mount", &[disk.path()], "", &[disk.path()], &[]);
    agreed(&scratch, "mount-inside", &[&data, disk.path()], "", &[&data], &[]);
    agreed(&scratch, "inside-a-mount", &[&data, &deep], "", &[&deep, &other], &[]);
    agreed(&scratch, "mounts", &[&data], "one-file-system = false", &[&data], &[]);
}

#[test]
fn restic_and_we_agree_on_every_kind_of_file() {
    let scratch = Scratch::new();
    let odd = scratch.directory("srv/odd");
    for name in ["access list", "capability", "deep/link"] {
        fs::create_dir_all(odd.join(name).parent().unwrap()).unwrap();
        fs::write(odd.join(name), name).unwrap();
    }
    fs::hard_link(odd.join("deep/link"), odd.join("link")).unwrap();
    sh(Command::new("mkfifo").arg(odd.join("pipe")));
    sh(Command::new("mknod").arg(odd.join("device")).args(["c", "1", "3"]));
    sh(Command::new("setfacl").args(["-m", "u:1234:rw"]).arg(odd.join("access list")));
    sh(Command::new("setfacl").args(["-d", "-m", "u:1234:rx"]).arg(odd.join("deep")));
    sh(Command::new("setcap").arg("cap_net_raw+ep").arg(odd.join("capability")));
    agreed(&scratch, "kinds", &[&odd], "", &[&odd], &[]);

    let disk = LoopDisk::make(scratch.join("pool"), 128 << 20, &["mkfs.btrfs", "-q"], "rw");
    let pool = disk.path().join("data");
    for place in [&pool, &pool.join("subvolume")] {
        sh(Command::new("btrfs").args(["subvolume", "create"]).arg(place));
        fs::write(place.join("file"), "content").unwrap();
    }
    agreed(&scratch, "subvolume", &[&pool], "", &[&pool], &[]);
}

#[test]
fn a_path_through_a_link_is_refused_or_what_a_person_expects() {
    let scratch = Scratch::new();
    let data = scratch.directory("srv/data");
    fs::write(data.join("file"), "content").unwrap();
    std::os::unix::fs::symlink(scratch.join("srv"), scratch.join("link")).unwrap();
    let through = scratch.join("link/data");
    agreed(&scratch, "through", &[&through], "", &[&through], &[]);
    // It may lead elsewhere tomorrow.
    let agent = Config::local(scratch.directory("moved")).directory("odd", &[&through], "").write();
    agent.ok(["run"]);
    fs::rename(scratch.join("link"), scratch.join("old")).unwrap();
    fs::create_dir_all(scratch.join("v2/data")).unwrap();
    fs::write(scratch.join("v2/data/other"), "content").unwrap();
    std::os::unix::fs::symlink(scratch.join("v2"), scratch.join("link")).unwrap();
    let leads = format!("leads to {} now", scratch.join("v2/data").display());
    agent.run(["run"]).expect(3).says(&leads).says("pi-agent adopt odd");
    agent.run(["doctor"]).says(&leads);
    agent.ok(["adopt", "odd"]);
    agent.ok(["run"]);
    std::os::unix::fs::symlink(&data, scratch.join("itself")).unwrap();
    let config = Config::local(scratch.join("refused")).directory("odd", &[&scratch.join("itself")], "");
    fs::create_dir(scratch.join("refused")).unwrap();
    config.write().run(["run"]).expect(3).says("is a symbolic link");
}

#[test]
fn all_points_hold_the_root_and_a_restore_of_it_is_one_of_everything() {
    let scratch = Scratch::new();
    let data = scratch.directory("srv");
    fs::write(data.join("a"), "file").unwrap();
    let agent = Config::local(scratch.path()).directory("d", &[&data], "").write();
    agent.ok(["run"]);
    fs::remove_file(data.join("a")).unwrap();
    fs::create_dir(data.join("a")).unwrap();
    fs::write(data.join("a/b"), "below what was a file").unwrap();
    agent.ok(["run"]);
    let points = |path: &str| agent.ok(["points", "d", "--path", path, "--json"]).json()["points"].clone();
    assert_eq!(points("/").as_array().unwrap().len(), 2);
    assert_eq!(points("//").as_array().unwrap().len(), 2);
    // In one of the two it would lie below a file.
    assert_eq!(points(data.join("a/b").to_str().unwrap()).as_array().unwrap().len(), 1);
    assert_eq!(points("/no/such").as_array().unwrap().len(), 0);
    let to = scratch.join("to");
    agent.ok(["restore", "d", "--to", to.to_str().unwrap(), "--path", "/"]);
    Tree::read(&data).assert_equals(below(&to, &data));
}

#[test]
fn names_reach_no_screen_raw() {
    let scratch = Scratch::new();
    let data = scratch.directory("srv");
    let name = data.join(std::ffi::OsStr::from_bytes(b"a\n! all is well\x1b[2J\xff"));
    fs::write(&name, "x").unwrap();
    let agent = Config::local(scratch.path()).directory("d", &[&data], "").write();
    // A directory in the place of the file, so that its restore is told.
    agent.ok(["run"]);
    let to = scratch.join("to");
    fs::create_dir_all(below(&to, &name)).unwrap();
    let refused = agent.run(["restore", "d", "--to", to.to_str().unwrap(), "--overwrite"]);
    assert_ne!(refused.code(), Some(0), "{refused}");
    for text in [&refused.stdout, &refused.stderr] {
        assert!(!text.contains('\u{1b}') && !text.lines().any(|line| line.starts_with("! all is well")), "{refused}");
    }
    refused.says(r"a\n! all is well\u{1b}[2J\xff");
}

#[test]
fn a_run_that_nobody_listens_to_backs_up_all_the_same() {
    let scratch = Scratch::new();
    let data = scratch.directory("srv");
    // Which cannot be read, so that there is something to warn of.
    let agent = Config::local(scratch.path()).directory("d", &[&data, Path::new("/proc/self/mem")], "").write();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let status = agent.command(["run"]).stdout(full()).stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(5), "one file cannot be read");
    assert_eq!(agent.ok(["points", "d", "--json"]).json()["points"].as_array().unwrap().len(), 1);
}

#[test]
fn a_lease_is_broken_and_the_file_stored() {
    const HOLDER: &str = "
import fcntl, os, signal, sys, time
f = os.open(sys.argv[1], os.O_RDWR)
signal.signal(signal.SIGIO, lambda *_: (time.sleep(0.1), fcntl.fcntl(f, fcntl.F_SETLEASE, fcntl.F_UNLCK)))
fcntl.fcntl(f, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print('held', flush=True)
time.sleep(60)
";
    let scratch = Scratch::new();
    let data = scratch.directory("srv");
    fs::write(data.join("file"), "leased").unwrap();
    let mut holder = Command::new("python3");
    let mut holder = holder.args(["-c", HOLDER]).arg(data.join("file")).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "held\n");
    let night = Config::local(scratch.path()).directory("d", &[&data], "").write().run(["run"]);
    holder.kill().and_then(|()| holder.wait()).unwrap();
    assert_eq!(night.code(), Some(0), "{night}");
}

/// The walk has been where they come to, and has yet to come to where they were.
#[test]
fn what_is_moved_while_all_is_read_is_in_the_snapshot() {
    let scratch = Scratch::new();
    let data = scratch.directory("srv");
    for directory in ["a", "z/moved/deep"] {
        fs::create_dir_all(data.join(directory)).unwrap();
    }
    for number in 0..8 {
        fs::write(data.join(format!("before-{number}")), vec![number; 100_000]).unwrap();
    }
    for name in ["a/file", "z/moved/deep/file", "z/mail"] {
        fs::write(data.join(name), name).unwrap();
    }
    let config = Config::local(scratch.path()).directory("d", &[&data], "").table("[limits]\nread = \"300KiB\"");
    let agent = config.write();
    let run = agent.start(["run", "d", "--json"]);
    let begun = Instant::now();
    while !crate::mounts::is_read(&data.join("before-")) {
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not begin");
        thread::sleep(Duration::from_millis(5));
    }
    for name in ["moved", "mail"] {
        fs::rename(data.join("z").join(name), data.join("a").join(name)).unwrap();
    }
    let night = run.wait().expect(0);
    assert_eq!(night.step("d")["outcome"], "succeeded", "{night}");
    let to = scratch.join("to");
    agent.ok(["restore", "d", "--to", to.to_str().unwrap()]);
    let at = |name: &str| data.join("a").join(name);
    Tree::read(at("moved")).assert_equals(below(&to, &at("moved")));
    assert!(fs::read(below(&to, &at("mail"))).unwrap() == b"z/mail" && below(&to, &at("file")).exists());
}

/// A program that writes by `mmap` into a page that is on no disk yet gives the file no new time.
#[test]
fn what_is_written_by_mmap_between_two_nights_is_stored() {
    const WRITER: &str = "
import mmap, os, sys
file = open(sys.argv[1], 'r+b')
page = mmap.mmap(file.fileno(), 0)
page[:4] = b'then'
print('written', flush=True)
sys.stdin.readline()
page[:4] = b'now.'
print('written', flush=True)
sys.stdin.readline()
";
    let scratch = Scratch::new();
    let data = scratch.directory("srv");
    let file = data.join("file");
    fs::write(&file, vec![b'-'; 4096]).unwrap();
    let agent = Config::local(scratch.path()).directory("d", &[&data], "").write();
    let python =
        Command::new("python3").arg("-c").arg(WRITER).arg(&file).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut python = python.unwrap();
    let mut said = BufReader::new(python.stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "written");
    agent.ok(["run", "d"]);
    python.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    assert_eq!(said.next().unwrap().unwrap(), "written");
    agent.ok(["run", "d"]);
    drop(python.stdin.take());
    python.wait().unwrap();
    let to = scratch.join("to");
    agent.ok(["restore", "d", "--to", to.to_str().unwrap()]);
    assert_eq!(fs::read(below(&to, &file)).unwrap()[..4], *b"now.");
}
