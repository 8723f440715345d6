//! Damage of every kind to every part of a repository: the check notices each, and a restore gives back all that is whole,
//! names what is not, and says so by its exit code.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Agent, Cluster, Config, Household, Ran, Scratch, Size, Tree, sh};
use serde_json::Value;

use crate::postgres::{Host, STANZA};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    Delete,
    Truncate,
    Flip,
}

const EVERY: [Damage; 3] = [Damage::Delete, Damage::Truncate, Damage::Flip];

impl Damage {
    /// Does it, and gives back what was there.
    fn to(self, file: &Path) -> Vec<u8> {
        let good = fs::read(file).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        match self {
            Self::Delete => return fs::remove_file(file).map(|()| good).unwrap(),
            Self::Truncate => bad.truncate(middle),
            Self::Flip => bad[middle] ^= 0x10,
        }
        fs::write(file, bad).unwrap();
        good
    }
}

/// Two nights of a household in a folder.
struct Home {
    scratch: Scratch,
    source: PathBuf,
    agent: Agent,
    /// Contents by path, after the first night and after the second.
    nights: [BTreeMap<Vec<u8>, String>; 2],
}

impl Home {
    fn new() -> Self {
        let scratch = Scratch::new();
        let mut household = Household::make(scratch.directory("srv"), Size::SMALL, 11);
        let source = household.foundry();
        // Every check reads everything.
        let agent = Config::local(scratch.path()).directory("foundry", &[&source], "check-every = \"90d\"").write();
        agent.ok(["run"]);
        let contents = || Tree::read(&source).contents().into_iter().collect::<BTreeMap<_, _>>();
        let first = contents();
        household.change(0.3);
        agent.ok(["run"]);
        let nights = [first, contents()];
        Self { scratch, source, agent, nights }
    }

    fn repository(&self) -> PathBuf {
        self.scratch.join("storage/foundry")
    }

    fn restic(&self, arguments: &[&str]) -> String {
        let password = self.scratch.join("password");
        fs::write(&password, Config::PASSWORD).unwrap();
        let mut command = Command::new("restic");
        command.arg("-r").arg(self.repository()).arg("--password-file").arg(password).arg("--no-cache");
        sh(command.args(arguments))
    }

    /// The largest file of that kind.
    fn file(&self, kind: &str) -> PathBuf {
        let largest =
            |paths: Vec<PathBuf>| paths.into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
        let below = |folder: &str| {
            fs::read_dir(self.repository().join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect()
        };
        match kind {
            "key" => largest(below("keys")),
            "config" => self.repository().join("config"),
            "index" => largest(below("index")),
            "snapshot" => {
                let newest = self.agent.ok(["points", "foundry", "--json"]).json()["points"][1]["id"].clone();
                self.repository().join("snapshots").join(newest.as_str().unwrap())
            }
            "state database" => self.agent.state().join("state.db"),
            packs => {
                let wanted = packs.split(' ').next().unwrap();
                let mut found = Vec::new();
                for index in self.restic(&["list", "index"]).lines() {
                    let index: Value = serde_json::from_str(&self.restic(&["cat", "index", index])).unwrap();
                    let of_kind = |pack: &&Value| pack["blobs"][0]["type"] == wanted;
                    for pack in index["packs"].as_array().unwrap().iter().filter(of_kind) {
                        let id = pack["id"].as_str().unwrap();
                        found.push(self.repository().join("data").join(&id[..2]).join(id));
                    }
                }
                largest(found)
            }
        }
    }

    fn forget_cache(&self) {
        let _ = fs::remove_dir_all(self.scratch.join("cache/repositories"));
    }

    /// Restores the newest; what differs from that night and is not named.
    fn restore(&self, night: usize) -> (Ran, Vec<String>, usize) {
        let to = self.scratch.join("to");
        let _ = fs::remove_dir_all(&to);
        let _ = fs::remove_file(self.scratch.join("to.unfinished"));
        let ran = self.agent.run(["restore", "foundry", "--to", to.to_str().unwrap()]);
        let top = to.join(self.source.strip_prefix("/").unwrap());
        if !top.exists() {
            return (ran, Vec::new(), 0);
        }
        let there: BTreeMap<_, _> = Tree::read(&top).contents().into_iter().collect();
        let named = |name: &str| {
            Path::new(name).ancestors().any(|path| ran.stdout.contains(&format!("{}: ", top.join(path).display())))
        };
        let wrong = |(name, content): (&Vec<u8>, &String)| {
            let name = String::from_utf8_lossy(name).into_owned();
            let name = name.trim_end_matches('/').to_owned();
            (there.get(name.as_bytes()) != Some(content) && !named(&name)).then_some(name)
        };
        let unnamed = self.nights[night].iter().filter_map(wrong).collect();
        let good = self.nights[night].iter().filter(|(name, content)| there.get(*name) == Some(content)).count();
        (ran, unnamed, good)
    }
}

/// What, what a restore ends with for each damage, which night comes back, and whether it does whole.
const TABLE: [(&str, [i32; 3], [usize; 3], bool); 6] = [
    ("key", [0, 0, 0], [1, 1, 1], true),
    ("config", [5, 5, 5], [1, 1, 1], true),
    ("index", [5, 5, 5], [1, 1, 1], true),
    // Gone without a trace in storage: only the history knows of it, and the check tells.
    ("snapshot", [0, 5, 5], [0, 0, 0], true),
    ("tree pack", [5, 5, 5], [1, 1, 1], false),
    ("data pack", [5, 5, 5], [1, 1, 1], false),
];

#[test]
fn slow_no_damage_to_files_passes_and_all_that_is_whole_comes_back() {
    let home = Home::new();
    for (kind, codes, nights, whole) in TABLE {
        let file = home.file(kind);
        for (number, damage) in EVERY.into_iter().enumerate() {
            let good = damage.to(&file);
            home.forget_cache();
            let check = home.agent.run(["check", "foundry"]);
            assert_eq!(check.code(), Some(3), "{damage:?} {kind}: {check}");
            home.forget_cache();
            let (ran, unnamed, count) = home.restore(nights[number]);
            assert_eq!(ran.code(), Some(codes[number]), "{damage:?} {kind}: {ran}");
            assert_eq!(unnamed, [""; 0], "{damage:?} {kind}: {ran}");
            let all = home.nights[nights[number]].len();
            assert!(
                if whole { count == all } else { count > 0 && count < all },
                "{damage:?} {kind}: {count} of {all}: {ran}"
            );
            eprintln!("{damage:?} {kind}: {count} of {all} whole, exit code {}", codes[number]);
            fs::write(&file, good).unwrap();
        }
    }
    home.forget_cache();
    home.agent.ok(["check", "foundry"]);
    let (ran, unnamed, _) = home.restore(1);
    assert_eq!((ran.code(), unnamed), (Some(0), Vec::new()), "{ran}");
}

#[test]
fn what_is_only_a_copy_may_be_damaged_and_lost_keys_are_told() {
    let home = Home::new();
    for damage in EVERY {
        for file in files(&home.scratch.join("cache/repositories/foundry")) {
            damage.to(&file);
        }
        let (ran, unnamed, _) = home.restore(1);
        assert_eq!((ran.code(), unnamed), (Some(0), Vec::new()), "{damage:?} cache: {ran}");
        home.agent.ok(["check", "foundry"]);
    }
    for damage in EVERY {
        let file = home.file("state database");
        let good = damage.to(&file);
        let (ran, unnamed, _) = home.restore(1);
        assert_eq!((ran.code(), unnamed), (Some(0), Vec::new()), "{damage:?} state database: {ran}");
        let check = home.agent.run(["check", "foundry"]);
        eprintln!("{damage:?} state database: {check}");
        fs::write(&file, good).unwrap();
    }

    // Half-deleted: no pack of data is left, and still all names are.
    fs::remove_dir_all(home.scratch.join("etc/secrets/master-keys")).unwrap();
    let key = home.file("key");
    let good = fs::read(&key).unwrap();
    for (damage, told) in [(Damage::Delete, "no key file any more"), (Damage::Flip, "is damaged")] {
        damage.to(&key);
        let (ran, ..) = home.restore(1);
        ran.expect(1).says(told).says("put a copy of keys/ back");
        fs::write(&key, &good).unwrap();
    }
    fs::write(home.scratch.join("etc/secrets/restic.key"), "another").unwrap();
    let (ran, ..) = home.restore(1);
    ran.expect(2).says("the password in restic.key is not this repository's");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let text =
        sh(Command::new("find").arg(folder).args(["-type", "f", "-size", "+0", "-not", "-name", "CACHEDIR.TAG"]));
    text.lines().map(PathBuf::from).collect()
}

#[test]
fn slow_no_damage_to_a_database_passes() {
    let host = Host::local();
    host.insert("first");
    let label = host.good_run();
    host.insert("since");
    let segment = host.cluster.finish_segment();
    host.agent.ok(["wal", "push"]);
    host.insert("and more");
    host.cluster.finish_segment();
    host.agent.ok(["wal", "push"]);
    let newest = host.cluster.dump();
    let storage = host.scratch.join("storage/database");
    let manifest = storage.join("backup").join(STANZA).join(&label).join("backup.manifest");
    let wal = files(&storage.join("archive"));
    let wal = wal.into_iter().find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&segment)).unwrap();
    for (kind, file) in [("manifest", &manifest), ("WAL segment", &wal)] {
        for damage in EVERY {
            let good = damage.to(file);
            let check = host.agent.run(["check", "database"]);
            let to = host.scratch.join("to");
            let _ = fs::remove_dir_all(&to);
            let _ = fs::remove_dir_all(host.scratch.join("to.tablespaces"));
            let _ = fs::remove_file(host.scratch.join("to.unfinished"));
            let ran = host.agent.run(["restore", "database", "--to", to.to_str().unwrap()]);
            eprintln!(
                "{damage:?} {kind}: check {:?}, restore {:?} {}{}",
                check.code(),
                ran.code(),
                ran.stdout,
                ran.stderr
            );
            assert_eq!(check.code(), Some(3), "{damage:?} {kind}: {check}");
            if ran.code() == Some(0) {
                let clone = Cluster::existing(&host.scratch, &to);
                assert_eq!(clone.start().dump(), newest, "{damage:?} {kind}");
            } else {
                assert!([Some(1), Some(5)].contains(&ran.code()), "{damage:?} {kind}: {ran}");
            }
            fs::write(file, good).unwrap();
            harness::cluster::give_to_postgres(file);
        }
    }
    host.agent.ok(["check", "database"]);
}
