//! Damage of every kind to every part of a repository, as docs/damage.md has it: no damage passes a check or a restore test, and
//! a restore gives back all that is whole, names what is not, and says so by its exit code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{
    Agent, Cluster, Config, Household, LoopDisk, Ran, Random, Scratch, Size, Tree, TypedInto, by_effort, sh,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::health::with_clock;
use crate::postgres::{Host, STANZA};

/// What is promised.
const DOCUMENT: &str = include_str!("../../docs/damage.md");
/// The restore ends with nothing, and with `--at` of the restore point before all of that comes back.
const EARLIER: &str = "nothing; an earlier restore point, whole";
const DAMAGES: [&str; 3] = ["deleted", "truncated", "flipped"];

/// A file, as it was before it was damaged.
struct Good {
    path: PathBuf,
    content: Vec<u8>,
    owner: (u32, u32),
}

impl Good {
    /// Damages it.
    fn taken(path: PathBuf, damage: &str) -> Self {
        let content = fs::read(&path).unwrap();
        let data = path.metadata().unwrap();
        let middle = content.len() / 2;
        match damage {
            "deleted" => fs::remove_file(&path).unwrap(),
            "truncated" => fs::write(&path, &content[..middle]).unwrap(),
            _ => {
                let mut bad = content.clone();
                bad[middle] ^= 0x10;
                fs::write(&path, bad).unwrap();
            }
        }
        Self { path, content, owner: (data.uid(), data.gid()) }
    }

    fn put_back(self) {
        fs::write(&self.path, self.content).unwrap();
        chown(&self.path, Some(self.owner.0), Some(self.owner.1)).unwrap();
    }
}

/// What happened after a damage.
struct Seen {
    check: Ran,
    restore: Ran,
    test: Ran,
    back: &'static str,
}

/// The lines of the document's table under that title.
fn table(title: &str) -> Vec<[&'static str; 6]> {
    let section = DOCUMENT.split(&format!("\n## {title}\n")).nth(1).unwrap_or_else(|| panic!("no table {title}"));
    let section = section.split("\n## ").next().unwrap();
    let cells = |line: &'static str| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        cells.try_into().unwrap_or_else(|_| panic!("not six cells: {line}"))
    };
    section.lines().filter(|line| line.starts_with('|')).skip(2).map(cells).collect()
}

/// `CODE`, `CODE or CODE`, or `CODE: words … words`.
fn is_told(cell: &str, ran: &Ran) -> bool {
    let (codes, words) = cell.split_once(": ").unwrap_or((cell, ""));
    let said = |words: &str| ran.stdout.contains(words.trim()) || ran.stderr.contains(words.trim());
    codes.split(" or ").any(|code| ran.code() == Some(code.parse().unwrap())) && words.split('…').all(said)
}

/// Does each line of a table; in a short run each part of a repository is damaged in one of the ways, in turn.
fn every_line_holds(title: &str, files: impl Fn(&str) -> Vec<PathBuf>, look: impl Fn(&str) -> Seen) {
    let lines = table(title);
    let kinds: BTreeSet<_> = lines.iter().map(|[what, ..]| what).collect();
    assert_eq!(lines.len(), kinds.len() * DAMAGES.len(), "each of {kinds:?} in each way");
    let tried = |at: usize| by_effort(at / DAMAGES.len() % DAMAGES.len() == at % DAMAGES.len(), true);
    let mut wrong = Vec::new();
    for (_, [what, damage, check, restore, test, back]) in
        lines.iter().copied().enumerate().filter(|(at, _)| tried(*at))
    {
        let good: Vec<_> = files(what).into_iter().map(|file| Good::taken(file, damage)).collect();
        assert!(!good.is_empty(), "{what} {damage}");
        let seen = look(what);
        let [checked, restored, tested] =
            [(check, &seen.check), (restore, &seen.restore), (test, &seen.test)].map(|(cell, ran)| is_told(cell, ran));
        eprintln!(
            "{what} {damage}: check {:?}, restore {:?}, test {:?}, {}",
            seen.check.code(),
            seen.restore.code(),
            seen.test.code(),
            seen.back
        );
        for (good, ran) in [(checked, &seen.check), (restored, &seen.restore), (tested, &seen.test)] {
            if !good {
                wrong.push(format!("{what} {damage}: {ran}"));
            }
        }
        if seen.back != back {
            wrong.push(format!("{what} {damage}: {} came back, and not {back}", seen.back));
        }
        good.into_iter().for_each(Good::put_back);
    }
    assert!(wrong.is_empty(), "docs/damage.md, {title}, does not hold:\n{}", wrong.join("\n"));
}

/// Two nights of a household in a folder.
struct Home {
    scratch: Scratch,
    source: PathBuf,
    agent: Agent,
    /// Contents by path, after the first night and after the second.
    nights: [BTreeMap<Vec<u8>, String>; 2],
    /// What the second night added to the repositories.
    added: Vec<PathBuf>,
    /// The restore point of the first night.
    first: String,
}

impl Home {
    fn new() -> Self {
        let scratch = Scratch::new();
        let mut household = Household::make(scratch.directory("srv"), Size::SMALL, 11);
        let source = household.foundry();
        // Every check reads everything.
        let agent = Config::local(scratch.path()).directory("foundry", &[&source], "check-every = \"90d\"").write();
        let contents = || Tree::read(&source).contents().into_iter().collect::<BTreeMap<_, _>>();
        agent.ok(["run"]);
        let (first, before) = (contents(), files(&scratch.join("storage")));
        household.change(0.3);
        agent.ok(["run"]);
        let nights = [first, contents()];
        let points = agent.ok(["points", "foundry", "--json"]).json();
        let first = points["points"][0]["id"].as_str().unwrap().to_owned();
        let mut added = files(&scratch.join("storage"));
        added.retain(|file| !before.contains(file));
        Self { scratch, source, agent, nights, added, first }
    }

    fn restic(&self, step: &str, arguments: &[&str]) -> String {
        let password = self.scratch.join("password");
        fs::write(&password, Config::PASSWORD).unwrap();
        let mut command = Command::new("restic");
        command.arg("-r").arg(self.scratch.join("storage").join(step));
        sh(command.arg("--password-file").arg(password).arg("--no-cache").args(arguments))
    }

    /// The largest file of that kind that the second night added to a step's repository: all in it is of its snapshot.
    fn file(&self, step: &str, kind: &str) -> PathBuf {
        let repository = self.scratch.join("storage").join(step);
        let added = |folder: &str| {
            let folder = repository.join(folder);
            self.added.iter().filter(move |path| path.starts_with(&folder)).cloned().collect::<Vec<_>>()
        };
        let found = match kind {
            "key" => files(&repository.join("keys")),
            "config" => vec![repository.join("config")],
            "index" => added("index"),
            "snapshot" => added("snapshots"),
            packs => {
                let wanted = packs.split(' ').next().unwrap();
                let mut of_kind = Vec::new();
                for index in self.restic(step, &["list", "index"]).lines() {
                    let index: Value = serde_json::from_str(&self.restic(step, &["cat", "index", index])).unwrap();
                    for pack in index["packs"].as_array().unwrap() {
                        if pack["blobs"][0]["type"] == wanted {
                            of_kind.push(pack["id"].as_str().unwrap().to_owned());
                        }
                    }
                }
                let mut packs = added("data");
                packs.retain(|path| of_kind.iter().any(|id| path.ends_with(id)));
                packs
            }
        };
        found.into_iter().max_by_key(|path| path.metadata().unwrap().len()).expect(kind)
    }

    fn forget_cache(&self) {
        let _ = fs::remove_dir_all(self.scratch.join("cache/repositories"));
    }

    fn restored(&self, step: &str, at: &str) -> (Ran, PathBuf) {
        let to = self.scratch.join("to");
        let _ = fs::remove_dir_all(&to);
        let _ = fs::remove_file(self.scratch.join("to.unfinished"));
        (self.agent.run(["restore", step, "--to", to.to_str().unwrap(), "--at", at]), to)
    }

    /// Restores the newest; what came back.
    fn restore(&self) -> (Ran, &'static str) {
        let (ran, back) = self.restore_at("latest");
        if back != "nothing" {
            return (ran, back);
        }
        match self.restore_at(&self.first) {
            (earlier, "the night before") if earlier.code() == Some(0) => (ran, EARLIER),
            _ => (ran, back),
        }
    }

    fn restore_at(&self, at: &str) -> (Ran, &'static str) {
        let (ran, to) = self.restored("foundry", at);
        let top = to.join(self.source.strip_prefix("/").unwrap());
        if !top.exists() {
            return (ran, "nothing");
        }
        let there: BTreeMap<_, _> = Tree::read(&top).contents().into_iter().collect();
        let is_named = |name: &[u8]| {
            let name = String::from_utf8_lossy(name);
            let path = Path::new(name.trim_end_matches('/'));
            path.ancestors().any(|path| ran.stdout.contains(&format!("{}: ", top.join(path).display())))
        };
        let [before, night] = &self.nights;
        let is_there = |(name, content): (&Vec<u8>, &String)| there.get(name) == Some(content);
        let back = match () {
            () if night.iter().all(is_there) => "everything",
            () if before.iter().all(is_there) => "the night before",
            () if night.iter().all(|(name, content)| is_there((name, content)) || is_named(name)) => {
                "all but what is named"
            }
            () => "less than is said",
        };
        (ran, back)
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let text =
        sh(Command::new("find").arg(folder).args(["-type", "f", "-size", "+0", "-not", "-name", "CACHEDIR.TAG"]));
    text.lines().map(PathBuf::from).collect()
}

#[test]
fn slow_no_damage_to_files_passes() {
    let home = Home::new();
    let cache = home.scratch.join("cache/repositories/foundry");
    let damaged = |what: &str| match what {
        "cache" => {
            home.agent.ok(["check", "foundry"]);
            files(&cache)
        }
        "state database" => vec![home.agent.state().join("state.db")],
        kind => vec![home.file("foundry", kind)],
    };
    every_line_holds("Files", damaged, |what| {
        // What is only a copy is read first by who uses it; else nobody must have another copy.
        let forget = || {
            if what != "cache" {
                home.forget_cache();
            }
        };
        let history = home.agent.state().join("state.db");
        let damaged = fs::read(&history);
        forget();
        let (restore, back) = home.restore();
        forget();
        let check = home.agent.run(["check", "foundry"]);
        // It was made anew by the check.
        match damaged {
            Ok(damaged) if what == "state database" => fs::write(history, damaged).unwrap(),
            Err(_) => fs::remove_file(history).unwrap(),
            Ok(_) => {}
        }
        let test = home.agent.run(["restore-test", "foundry"]);
        Seen { check, restore, test, back }
    });
    // A night that begins with a damaged cache adds nothing that is.
    for damage in DAMAGES {
        files(&cache).into_iter().for_each(|file| drop(Good::taken(file, damage)));
        home.agent.ok(["run", "foundry"]);
    }
    home.agent.ok(["check", "foundry"]);
    home.agent.ok(["restore-test"]);
    let (ran, back) = home.restore();
    assert_eq!((ran.code(), back), (Some(0), "everything"), "{ran}");
}

#[test]
fn no_damage_to_the_saved_history_passes() {
    let home = Home::new();
    let damaged = |what: &str| match what {
        "saved history" => vec![home.file("agent", "data pack")],
        _ => vec![home.file("agent", "snapshot")],
    };
    every_line_holds("The agent's own repository", damaged, |_| {
        home.forget_cache();
        let (restore, to) = home.restored("agent", "latest");
        let back = match files(&to).iter().any(|file| file.ends_with("state.db")) {
            true => "the night before",
            false => "all but what is named",
        };
        home.forget_cache();
        let check = home.agent.run(["check", "agent"]);
        let test = home.agent.run(["restore-test", "agent"]);
        Seen { check, restore, test, back }
    });
}

#[test]
fn lost_keys_are_told() {
    let home = Home::new();
    // Half-deleted: no pack of data is left, and still all names are.
    fs::remove_dir_all(home.scratch.join("etc/secrets/master-keys")).unwrap();
    for (damage, told) in [("deleted", "no key file any more"), ("flipped", "is damaged")] {
        let good = Good::taken(home.file("foundry", "key"), damage);
        let (ran, _) = home.restore();
        ran.expect(1).says(told).says("put a copy of keys/ back");
        good.put_back();
    }
    fs::write(home.scratch.join("etc/secrets/restic.key"), "another").unwrap();
    let (ran, _) = home.restore();
    ran.expect(2).says("the password in restic.key is not this repository's");
}

/// A full backup, an incremental one, and WAL before and behind each.
struct Database {
    host: Host,
    /// What each kind of damage is done to.
    files: BTreeMap<&'static str, PathBuf>,
    /// The first backup, and what was in the database then.
    first: (String, String),
    /// Everything before each segment of WAL, and at last all of it.
    dumps: BTreeMap<&'static str, String>,
}

impl Database {
    fn new() -> Self {
        let host = Host::local();
        let storage = host.scratch.join("storage/database");
        let (mut paths, mut dumps) = (BTreeMap::new(), BTreeMap::new());
        let mut written = |what: &'static str| {
            dumps.insert(what, host.cluster.dump());
            host.insert(what);
            let segment = host.cluster.finish_segment();
            host.agent.ok(["wal", "push"]);
            let all = files(&storage.join("archive"));
            let is_it = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(&segment);
            paths.insert(what, all.into_iter().find(is_it).unwrap());
        };
        host.insert("at first");
        let full = host.good_run();
        let first = (full, host.cluster.dump());
        written("WAL before the newest backup");
        let label = host.good_run();
        written("WAL since");
        written("newest WAL");
        dumps.insert("everything", host.cluster.dump());
        let backup = storage.join("backup").join(STANZA).join(&label);
        paths.insert("manifest", backup.join("backup.manifest"));
        let of_backup = files(&backup).into_iter().filter(|path| !path.to_string_lossy().contains("backup.manifest"));
        let largest = of_backup.max_by_key(|path| path.metadata().unwrap().len());
        paths.insert("files of the backup", largest.unwrap());
        Self { host, files: paths, first, dumps }
    }

    fn restored(&self, at: &str) -> (Ran, Option<String>) {
        let scratch = &self.host.scratch;
        let to = scratch.join("to");
        let _ = fs::remove_dir_all(&to);
        let _ = fs::remove_dir_all(scratch.join("to.tablespaces"));
        let _ = fs::remove_file(scratch.join("to.unfinished"));
        let ran = self.host.agent.run(["restore", "database", "--to", to.to_str().unwrap(), "--at", at]);
        let dump = matches!(ran.code(), Some(0 | 5)).then(|| Cluster::existing(scratch, &to).start().dump());
        (ran, dump)
    }

    fn look(&self, what: &str) -> Seen {
        let (restore, dump) = self.restored("latest");
        let back = match dump {
            Some(dump) if dump == self.dumps["everything"] => "everything",
            Some(dump) if self.dumps.get(what) == Some(&dump) => "all before it",
            Some(_) => "something else",
            None if self.restored(&self.first.0).1.as_ref() == Some(&self.first.1) => EARLIER,
            None => "nothing",
        };
        let check = self.host.agent.run(["check", "database"]);
        let test = self.host.agent.run(["restore-test", "database"]);
        Seen { check, restore, test, back }
    }

    fn every_line_holds(&self, title: &str) {
        every_line_holds(title, |what| vec![self.files[what].clone()], |what| self.look(what));
        self.host.agent.ok(["check", "database"]);
        self.host.agent.ok(["restore-test", "database"]);
    }
}

#[test]
fn slow_no_damage_to_a_database_passes() {
    Database::new().every_line_holds("A database");
}

#[test]
fn slow_no_damage_to_wal_passes() {
    Database::new().every_line_holds("A database's WAL");
}

#[test]
fn one_damaged_file_never_stops_the_nights() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv/data");
    fs::write(source.join("file"), "1").unwrap();
    let config = Config::local(scratch.path()).directory("data", &[&source], "");
    let agent = config.write();
    agent.ok(["run"]);
    let points = || agent.run(["points", "data", "--json"]).json()["points"].as_array().unwrap().len();
    let night = |number: usize| {
        fs::write(source.join("file"), number.to_string()).unwrap();
        let ran = agent.run(["run", "data", "--json"]).expect(5);
        let step = ran.step("data");
        assert_eq!(step["outcome"], "degraded", "{ran}");
        assert!(step["error"]["message"].as_str().unwrap().contains("is damaged and left out"), "{ran}");
        assert!(step["error"]["hint"].as_str().unwrap().contains("put a copy of it back"), "{ran}");
        let to = scratch.join(format!("to-{number}"));
        let _ = agent.run(["restore", "data", "--to", to.to_str().unwrap()]);
        let file = to.join(source.strip_prefix("/").unwrap()).join("file");
        assert_eq!(fs::read_to_string(file).unwrap(), number.to_string(), "{ran}");
    };
    let mut number = 1;
    for kind in ["snapshots", "index"] {
        for content in [&b""[..], b"not what its name says"] {
            let bad = scratch.join("storage/data").join(kind).join("00".repeat(32));
            fs::write(&bad, content).unwrap();
            let before = points();
            for _ in 0..2 {
                number += 1;
                night(number);
            }
            assert_eq!(points(), before + 2, "each night has its point");
            fs::remove_file(&bad).unwrap();
            agent.ok(["run", "data"]);
        }
    }

    agent.ok(["check", "data"]);
    sh(config.restic("data").args(["check", "--read-data"]));
}

/// A storage on a disk that says what it cannot read: two nights of one file.
struct BadDisk {
    scratch: Scratch,
    source: PathBuf,
    config: Config,
    agent: Agent,
    disk: Option<LoopDisk>,
}

impl BadDisk {
    const OPTIONS: &str = "max_inline=0";

    fn new() -> Self {
        let scratch = Scratch::new();
        let disk = LoopDisk::make(scratch.join("storage"), 256 << 20, &["mkfs.btrfs", "-q"], Self::OPTIONS);
        let source = scratch.directory("srv/data");
        fs::write(source.join("large"), Random::new(3).bytes(3 << 20)).unwrap();
        let config = Config::local(scratch.path()).directory("data", &[&source], "");
        let agent = config.write();
        let this = Self { scratch, source, config, agent, disk: Some(disk) };
        for night in 0..2 {
            this.night(&night.to_string()).expect(0).says("succeeded");
        }
        this
    }

    fn night(&self, content: &str) -> Ran {
        fs::write(self.source.join("file"), content).unwrap();
        self.agent.run(["run", "data", "--json"])
    }

    /// Makes the largest file of that kind unreadable; its path.
    fn spoil(&mut self, kind: &str) -> PathBuf {
        let of_kind = files(&self.scratch.join("storage/data").join(kind));
        let file = of_kind.into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
        let content = fs::read(&file).unwrap();
        self.disk = self.disk.take().map(|disk| disk.with_bad_place(&content, Self::OPTIONS));
        assert_eq!(fs::read(&file).unwrap_err().raw_os_error(), Some(5), "EIO");
        self.forget_cache();
        file
    }

    fn forget_cache(&self) {
        fs::remove_dir_all(self.scratch.join("cache/repositories")).unwrap();
    }

    fn points(&self) -> usize {
        self.agent.run(["points", "data", "--json"]).json()["points"].as_array().unwrap().len()
    }

    fn restore(&self) -> (Ran, PathBuf) {
        let to = self.scratch.join("to");
        let _ = fs::remove_dir_all(&to);
        let ran = self.agent.run(["restore", "data", "--to", to.to_str().unwrap()]);
        (ran, to.join(self.source.strip_prefix("/").unwrap()))
    }

    /// All is as in a repository that was never damaged.
    fn lives_on(&self, content: &str) {
        self.forget_cache();
        let _ = self.night(content).expect(0);
        self.agent.ok(["check", "data"]);
        sh(self.config.restic("data").args(["check", "--read-data"]));
        let (ran, to) = self.restore();
        Tree::read(&self.source).assert_equals(&to);
        assert_eq!(ran.code(), Some(0), "{ran}");
    }
}

#[test]
fn one_file_on_a_bad_place_of_the_disk_stops_nothing_and_is_set_aside() {
    let mut home = BadDisk::new();
    for kind in ["snapshots", "index"] {
        let before = home.points();
        let bad = home.spoil(kind);
        let name = format!("{kind}/{}", bad.file_name().unwrap().to_str().unwrap());
        let ran = home.night("third").expect(5);
        let step = ran.step("data");
        let message = step["error"]["message"].as_str().unwrap();
        assert_eq!(step["outcome"], "degraded", "{ran}");
        assert!(message.contains(&name) && message.contains("is damaged and left out"), "{ran}");
        assert!(message.contains("Input/output error"), "{ran}");
        assert!(step["error"]["hint"].as_str().unwrap().contains("pi-agent repair data"), "{ran}");
        home.forget_cache();
        let lost = usize::from(kind == "snapshots");
        assert_eq!(home.points(), before + 1 - lost);
        let path = home.source.join("file");
        let versions = home.agent.run(["points", "data", "--path", path.to_str().unwrap(), "--json"]);
        assert_eq!(versions.json()["points"].as_array().unwrap().len(), before + 1 - lost, "{versions}");
        let (ran, to) = home.restore();
        assert_eq!(fs::read_to_string(to.join("file")).unwrap(), "third", "{ran}");
        let _ = ran.expect(5).says("is damaged and left out");

        home.agent.run(["repair", "data"]).expect(2).says("Input/output error").says("nothing was changed");
        assert!(bad.exists());
        home.agent.ok(["repair", "data", "--yes"]).says("mended");
        assert!(!bad.exists() && home.scratch.join("storage/data/set-aside").join(&name).exists());
        home.lives_on("fourth");
    }
}

#[test]
fn a_pack_on_a_bad_place_of_the_disk_loses_only_what_lies_there() {
    let mut home = BadDisk::new();
    let bad = home.spoil("data");
    home.agent.run(["repair", "data", "--yes"]).expect(0).says("contents were not read");
    let said = home.agent.run(["repair", "data", "--read-data"]).expect(2);
    let pieces = said.stdout.split("is damaged: ").nth(1).unwrap_or_else(|| panic!("{said}"));
    let numbers: Vec<u32> = pieces.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert!(numbers[0] > 0 && numbers[0] < numbers[1], "some are whole: {said}");
    home.agent.ok(["repair", "data", "--read-data", "--yes"]).says("mended");
    assert!(bad.exists(), "no pack is deleted");
    let _ = home.night("third").expect(0);
    let (ran, to) = home.restore();
    Tree::read(&home.source).assert_equals(&to);
    assert_eq!(ran.code(), Some(0), "{ran}");
}

#[test]
fn a_key_on_a_bad_place_of_the_disk_is_told_and_stops_no_night() {
    let mut home = BadDisk::new();
    let password = home.scratch.join("password");
    fs::write(&password, Config::PASSWORD).unwrap();
    sh(home.config.restic("data").args(["key", "add", "--new-password-file"]).arg(&password));
    home.spoil("keys");
    let _ = home.night("third").expect(0);
    let (ran, _) = home.restore();
    assert_eq!(ran.code(), Some(0), "{ran}");
    home.agent.run(["check", "data"]).expect(3).says("keys/").says("Input/output error");
    home.agent.run(["repair", "data"]).expect(5).says("cannot be mended").says("Input/output error");
    // The other one opens it, also where no key was kept.
    fs::remove_dir_all(home.config.secrets().join("master-keys")).unwrap();
    let (ran, to) = home.restore();
    assert_eq!(fs::read_to_string(to.join("file")).unwrap(), "third", "{ran}");
}

#[test]
fn a_damaged_key_file_beside_a_whole_one_stops_no_night() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv");
    fs::write(source.join("file"), "kept").unwrap();
    let config = Config::local(scratch.path()).directory("data", &[&source], "");
    let agent = config.write();
    agent.ok(["run"]);
    let password = scratch.join("password");
    fs::write(&password, Config::PASSWORD).unwrap();
    sh(config.restic("data").args(["key", "add", "--new-password-file"]).arg(&password));
    let keys: Vec<_> =
        fs::read_dir(config.storage_folder().join("data/keys")).unwrap().map(|key| key.unwrap()).collect();
    assert_eq!(keys.len(), 2);
    for key in keys.iter().map(fs::DirEntry::path) {
        let whole = fs::read(&key).unwrap();
        // restic makes them read-only.
        fs::remove_file(&key).unwrap();
        fs::write(&key, &whole[..whole.len() / 2]).unwrap();
        fs::remove_dir_all(config.secrets().join("master-keys")).unwrap();
        let night = agent.ok(["run", "data", "--json"]);
        assert_eq!(night.step("data")["outcome"], "succeeded", "{night}");
        fs::write(&key, &whole).unwrap();
    }
}

/// Whoever may write to the storage, without any key, says in key files what opening them costs, and how many there are.
#[test]
fn key_files_that_cost_too_much_are_left_out() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv");
    fs::write(source.join("file"), "kept").unwrap();
    let config = Config::local(scratch.path()).directory("data", &[&source], "");
    let agent = config.write();
    agent.ok(["run"]);
    let keys = config.storage_folder().join("data/keys");
    let ours = fs::read_dir(&keys).unwrap().next().unwrap().unwrap().path();
    let ours: Value = serde_json::from_slice(&fs::read(ours).unwrap()).unwrap();
    let mut number = 0;
    let mut add = |cost: [u64; 3]| {
        number += 1;
        let mut key = ours.clone();
        (key["N"], key["r"], key["p"]) = (cost[0].into(), cost[1].into(), cost[2].into());
        (key["hostname"], key["data"]) = (format!("other-{number}").into(), ours["salt"].clone());
        let content = key.to_string();
        let name: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(keys.join(&name), content).unwrap();
        name
    };
    let refused = [
        ([1 << 22, 8, 1], "to open it takes 4096 MiB"),
        ([1 << 40, 8, 1], "it is no key file of restic's"),
        ([0, 0, 0], "N = 0"),
        ([1 << 15, 8, 1_000_000], "MiB of memory"),
        ([1 << 15, 1 << 30, 1], "MiB of memory"),
    ]
    .map(|(cost, told)| (add(cost), told));
    // These cost what others do. This host's own is tried before them.
    (0..200).for_each(|_| drop(add([1 << 15, 8, 1])));
    fs::remove_dir_all(config.secrets().join("master-keys")).unwrap();
    let night = agent.ok(["run", "data", "--json"]);
    assert_eq!(night.step("data")["outcome"], "succeeded", "{night}");
    let report = night.json().to_string();
    for (name, told) in refused {
        let rest = report.split_once(&name).unwrap_or_else(|| panic!("{name}: {night}")).1;
        assert!(rest.split_once("another key file").unwrap().0.contains(told), "{told}: {night}");
    }
}

#[test]
fn a_repair_that_a_person_does_not_want_leaves_the_damage_and_says_so() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv/data");
    fs::write(source.join("file"), "1").unwrap();
    let agent = Config::local(scratch.path()).directory("data", &[&source], "").write();
    agent.ok(["run"]);
    let bad = scratch.join("storage/data/index").join("00".repeat(32));
    fs::write(&bad, "not what its name says").unwrap();
    let mut terminal = TypedInto::start(&agent.command(["repair", "data"]));
    terminal.sees("is damaged").sees("Go on").types("no").sees("nothing was changed");
    assert_eq!(terminal.wait().code(), Some(3), "{}", terminal.screen());
    assert!(bad.exists());
    let mut terminal = TypedInto::start(&agent.command(["repair", "data"]));
    terminal.sees("Go on").types("yes").sees("mended");
    assert_eq!(terminal.wait().code(), Some(0), "{}", terminal.screen());
    assert!(!bad.exists());
}

#[test]
fn nothing_is_forgotten_or_pruned_beside_what_is_damaged() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv/data");
    let agent = |keep| Config::local(scratch.path()).directory("data", &[&source], keep).write();
    let points = |agent: &Agent| agent.run(["points", "data", "--json"]).json()["points"].as_array().unwrap().len();
    let mut number = 0;
    let mut night = |agent: &Agent| {
        number += 1;
        fs::write(source.join("file"), number.to_string()).unwrap();
        agent.run(["run", "data", "--json"])
    };
    // Older than the two days in which nothing is forgotten.
    for skew in ["-20d", "-15d"] {
        assert_eq!(night(&with_clock(&scratch, &agent("keep = \"forever\""), skew)).code(), Some(0));
    }
    let agent = agent("keep = { last = 1 }\nprune-every = \"1d\"");
    let storage = scratch.join("storage/data");
    let largest =
        |kind: &str| files(&storage.join(kind)).into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    for kind in ["snapshots", "index", "data"] {
        let good = Good::taken(largest(kind), "truncated");
        let _ = fs::remove_dir_all(scratch.join("cache/repositories"));
        let (before, packs) = (points(&agent), files(&storage.join("data")).len());
        let ran = night(&agent);
        assert_eq!(ran.step("data")["outcome"], "degraded", "{kind}: {ran}");
        assert_eq!(points(&agent), before + 1, "{kind}: nothing is forgotten: {ran}");
        let done: Vec<_> = ran.step("data")["maintenance"].as_array().unwrap().clone();
        assert!(done.iter().all(|done| done["what"] != "prune" && done["what"] != "forget"), "{kind}: {ran}");
        assert!(files(&storage.join("data")).len() >= packs, "{kind}");
        good.put_back();
    }
    let mended = night(&agent).expect(0);
    assert_eq!(points(&agent), 4, "the two old ones are forgotten: {mended}");
    agent.ok(["check", "data"]);
}

/// Damages one file of that kind of the newest night, has it mended, and lives on.
fn is_mended(what: &str, damage: &str) {
    let home = Home::new();
    let _ = Good::taken(home.file("foundry", what), damage);
    home.forget_cache();
    let storage = home.scratch.join("storage/foundry");
    let before = Tree::read(&storage).contents();
    // Said, and not done.
    let read_data: &[&str] = if damage == "flipped" { &["--read-data"] } else { &[] };
    let said = home.agent.run([&["repair", "foundry"], read_data].concat()).expect(2);
    said.says(if what == "snapshot" { "snapshots/" } else { "it is" }).says("nothing was changed");
    assert_eq!(Tree::read(&storage).contents(), before, "{what} {damage}");

    let packs = files(&storage.join("data"));
    home.agent.ok([&["repair", "foundry", "--yes"], read_data].concat()).says("mended");
    for pack in packs {
        assert!(pack.exists(), "{what} {damage}: {} was deleted", pack.display());
    }
    // And what is replaced, but of what is gone.
    assert_eq!(storage.join("set-aside").exists(), (what, damage) != ("index", "deleted"), "{what} {damage}");
    let whole = home.restic("foundry", &["check", "--read-data"]);
    assert!(whole.contains("no errors were found"), "{what} {damage}: {whole}");
    home.agent.ok([&["repair", "foundry", "--yes"], read_data].concat()).says("there is nothing to mend");
    // The first night is as it was, unless it was the one that lost something.
    let (earlier, back) = home.restore_at(&home.first);
    assert!(["the night before", "everything"].contains(&back), "{what} {damage}: {back} came back: {earlier}");

    // The nights go on, and have everything. What was set aside is missed once.
    let night = home.agent.run(["run", "foundry", "--json"]);
    let told = night.step("foundry")["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(night.code() == Some(0) || told.contains(" is gone from "), "{what} {damage}: {night}");
    home.agent.ok(["run", "foundry"]);
    home.agent.ok(["check", "foundry"]);
    let (ran, back) = home.restore();
    assert_eq!((ran.code(), back), (Some(0), "everything"), "{what} {damage}: {ran}");
}

#[test]
fn slow_a_damaged_repository_is_mended_and_the_nights_go_on() {
    let few = [("index", "truncated"), ("snapshot", "flipped"), ("tree pack", "flipped"), ("data pack", "deleted")];
    let all = ["index", "snapshot", "tree pack", "data pack"].map(|what| DAMAGES.map(|damage| (what, damage))).concat();
    // That a snapshot is gone is no damage that anybody could mend.
    for (what, damage) in by_effort(few.to_vec(), all).into_iter().filter(|one| *one != ("snapshot", "deleted")) {
        is_mended(what, damage);
    }
}
