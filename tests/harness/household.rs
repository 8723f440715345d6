//! A household to back up: Foundry's data, logs and configs, of any size, the same for the same seed.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::Random;

/// How large a Foundry tree is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Bytes, roughly.
    pub bytes: u64,
    /// Files, roughly.
    pub files: u64,
}

impl Size {
    /// For tests of behaviour.
    pub const SMALL: Self = Self { bytes: 3_000_000, files: 120 };
    /// For tests that must be caught in the middle of their work.
    pub const MIDDLE: Self = Self { bytes: 100_000_000, files: 600 };
    /// For tests of endurance.
    pub const LARGE: Self = Self { bytes: 1_000_000_000, files: 1_800 };
    /// What the peers were measured with.
    pub const BENCH: Self = Self { bytes: 1_500_000_000, files: 2_700 };
}

/// `foundry/`, `logs/` and `configs/` under one root.
#[derive(Debug)]
pub struct Household {
    root: PathBuf,
    random: Random,
    nights: u64,
}

/// Worlds in a Foundry tree; each is a handful of LevelDB databases.
const WORLDS: u64 = 3;
const DATABASES: [&str; 5] = ["actors", "items", "journal", "messages", "scenes"];

impl Household {
    /// Makes it under `root`.
    pub fn make(root: impl Into<PathBuf>, size: Size, seed: u64) -> Self {
        let mut household = Self { root: root.into(), random: Random::new(seed), nights: 0 };
        household.make_foundry(size);
        household.make_logs();
        household.make_configs();
        household
    }

    /// One that is there already; `night` (from 1) is which change comes next.
    pub fn existing(root: impl Into<PathBuf>, night: u64) -> Self {
        Self { root: root.into(), random: Random::new(night), nights: night - 1 }
    }

    /// Foundry's data.
    pub fn foundry(&self) -> PathBuf {
        self.root.join("foundry")
    }

    /// Log directories.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Secrets and machine-local files.
    pub fn configs(&self) -> PathBuf {
        self.root.join("configs")
    }

    /// A day passes: about that fraction of Foundry's files is changed, a few come and go, logs grow.
    pub fn change(&mut self, fraction: f64) {
        self.nights += 1;
        let night = self.nights;
        let files = files_in(&self.foundry());
        for file in &files {
            if self.random.chance(fraction) {
                self.change_file(file);
            }
        }
        let asset = self.random.bytes(200_000);
        write(&self.foundry().join(format!("Data/assets/new/night-{night}.webp")), &asset);
        if let Some(gone) = files.iter().find(|file| file.to_string_lossy().contains("assets/notes")) {
            fs::remove_file(gone).expect("a file we made");
        }
        for log in files_in(&self.logs()) {
            let lines = self.log_lines(200);
            append(&log, &lines);
        }
        let token = self.random.number();
        write(&self.configs().join("app/token"), format!("{token:016x}\n").as_bytes());
    }

    fn change_file(&mut self, file: &Path) {
        match file.extension().and_then(|extension| extension.to_str()) {
            // LevelDB appends to its log and never rewrites a table: a new one replaces an old one.
            Some("log") => {
                let record = self.record(4_000);
                append(file, &record);
            }
            Some("ldb") => {
                let table = self.record(40_000);
                fs::remove_file(file).expect("a file we made");
                let number = self.random.within(100_000..1_000_000);
                write(&file.with_file_name(format!("{number:06}.ldb")), &table);
            }
            _ => {
                let length = usize::try_from(fs::metadata(file).expect("a file we made").len()).expect("in memory");
                let bytes = self.random.bytes(length.max(1));
                write(file, &bytes);
            }
        }
    }

    /// Nine tenths of the bytes are maps and music, which do not compress; most of the files are small.
    fn make_foundry(&mut self, size: Size) {
        let data = self.foundry().join("Data");
        let assets = (size.files / 3).max(3);
        let mean = size.bytes * 9 / 10 / assets;
        for number in 0..assets {
            let length = self.random.within(mean / 4..mean * 7 / 4 + 1);
            let (folder, extension) = *self.random.pick(&[("maps", "webp"), ("music", "mp3"), ("tokens", "png")]);
            let path = data.join(format!("assets/{folder}/{:02}/{number:04}.{extension}", number % 17));
            self.write_random(&path, length);
        }
        let tables = (size.files / 20).max(WORLDS * DATABASES.len() as u64);
        let table_mean = (size.bytes / 12 / tables).max(1_000);
        for number in 0..tables {
            let world = number % WORLDS;
            let database = DATABASES[usize::try_from(number).expect("small") % DATABASES.len()];
            let folder = data.join(format!("worlds/world-{world}/data/{database}"));
            let table = self.record(usize::try_from(table_mean).expect("fits in memory"));
            write(&folder.join(format!("{number:06}.ldb")), &table);
            let log = self.record(8_000);
            write(&folder.join("000003.log"), &log);
            write(&folder.join("CURRENT"), b"MANIFEST-000002\n");
            write(&folder.join("MANIFEST-000002"), &log[..200]);
            write(&folder.join("LOCK"), b"");
        }
        for world in 0..WORLDS {
            let text = format!("{{\"id\":\"world-{world}\",\"title\":\"World {world}\",\"system\":\"dnd5e\"}}\n");
            write(&data.join(format!("worlds/world-{world}/world.json")), text.as_bytes());
        }
        let made = files_in(&self.foundry()).len() as u64;
        for number in 0..size.files.saturating_sub(made).max(10) {
            let length = usize::try_from(self.random.within(100..9_000)).expect("small");
            let text = self.record(length);
            write(&data.join(format!("assets/notes/{:02}/note {number}.json", number % 23)), &text);
        }
    }

    fn make_logs(&mut self) {
        for service in ["nginx/access.log", "nginx/error.log", "foundry/debug.log", "app/app.log"] {
            let lines = self.log_lines(2_000);
            write(&self.logs().join(service), &lines);
        }
    }

    fn make_configs(&mut self) {
        for name in ["foundry/options.json", "nginx/nginx.conf", "app/token", "db/password"] {
            let token = self.random.number();
            write(&self.configs().join(name), format!("{token:016x}\n").as_bytes());
        }
    }

    fn write_random(&mut self, path: &Path, length: u64) {
        let mut file = create(path);
        let mut left = length;
        while left > 0 {
            let part = left.min(1 << 20);
            file.write_all(&self.random.bytes(usize::try_from(part).expect("a MiB"))).expect("there is space");
            left -= part;
        }
    }

    /// Half random, half repeating, as documents in a LevelDB table are: compresses to about a half.
    fn record(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 64);
        while bytes.len() < length {
            bytes.extend_from_slice(b"{\"_id\":\"flags\",\"value\":\"");
            bytes.extend_from_slice(&self.random.bytes(24));
        }
        bytes.truncate(length);
        bytes
    }

    fn log_lines(&mut self, count: usize) -> Vec<u8> {
        let mut lines = Vec::new();
        for _ in 0..count {
            let (address, status) = (self.random.within(1..255), *self.random.pick(&[200, 200, 304, 404]));
            let path = self.random.number();
            writeln!(lines, "10.0.0.{address} - - \"GET /{path:016x} HTTP/1.1\" {status} 512").expect("to memory");
        }
        lines
    }
}

/// Every file below `root`, sorted.
fn files_in(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("list {}: {error}", folder.display())) {
            let path = entry.expect("a directory we made").path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

fn create(path: &Path) -> fs::File {
    let parent = path.parent().expect("a file has a folder");
    fs::create_dir_all(parent).unwrap_or_else(|error| panic!("make {}: {error}", parent.display()));
    fs::File::create(path).unwrap_or_else(|error| panic!("write {}: {error}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) {
    create(path).write_all(bytes).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
}

fn append(path: &Path, bytes: &[u8]) {
    let mut file = fs::OpenOptions::new().append(true).open(path).expect("a file we made");
    file.write_all(bytes).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Scratch, Tree};

    #[test]
    fn the_same_seed_makes_the_same_household_and_a_change_is_small() {
        let scratch = Scratch::new();
        let one = Household::make(scratch.join("one"), Size::SMALL, 7);
        let mut other = Household::make(scratch.join("other"), Size::SMALL, 7);
        let contents = |household: &Household| Tree::read(&household.root).contents();
        let before = contents(&one);
        assert_eq!(before, contents(&other));

        let size: u64 = files_in(&one.foundry()).iter().map(|file| fs::metadata(file).unwrap().len()).sum();
        assert!((2_000_000..4_500_000).contains(&size), "{size} bytes");
        assert!((100..200).contains(&files_in(&one.foundry()).len()), "{} files", files_in(&one.foundry()).len());

        other.change(0.05);
        let changed = contents(&other);
        let same = before.iter().filter(|entry| changed.contains(entry)).count();
        assert!(same < before.len() && same > before.len() / 2, "{same} of {} stayed", before.len());
    }
}
