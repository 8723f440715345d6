//! The key files of a repository: which a password may open, and what is wrong with the others. They are the only plain text in it: who
//! may write to the storage, without any key, says in them what opening one costs, and how many there are.

use rustic_core::Id;
use rustic_core::repofile::KeyFile;

use super::Repository;
use super::cipher;
use super::damage::Damaged;
use crate::error::{Error, Kind, Result};
use crate::monitor::Problem;
use crate::storage::SMALL;

/// Bytes of memory. rustic's own key files take 134 MB, restic's 32 to 64.
const MEMORY: u64 = 160 << 20;
/// N × r × p that one may take: 64 times restic's N and r, of which a Pi goes through some four a second.
const WORK: u64 = 64 << 18;
/// What all together may take until one opens.
pub(super) const WORK_OF_ALL: u64 = 2 * WORK;

/// One that a password may open.
pub(super) struct Candidate {
    /// `keys/NAME`.
    pub file: String,
    pub size: u64,
    pub content: KeyFile,
    /// N × r × p of scrypt.
    pub work: u64,
}

impl Repository {
    /// The key files that may be opened, this host's first, then the cheapest; and what is no key file, though its name is one's.
    ///
    /// # Errors
    /// Storage fails.
    pub(super) fn key_files(&self) -> Result<(Vec<Candidate>, Vec<Damaged>)> {
        let (mut candidates, mut damaged) = (Vec::new(), Vec::new());
        for (file, size) in self.store().list("keys/")? {
            // What has another kind of name is none of the repository's.
            let Some(name) = file.rsplit('/').next().filter(|name| name.parse::<Id>().is_ok()) else { continue };
            let read = match self.store().get_small(&file, SMALL) {
                Err(error) if error.is_unread() => return Err(error),
                read => read,
            };
            let why = match read.map(|content| (cipher::name(&content) == name).then(|| judged(&content))) {
                Ok(Some(Ok((content, work)))) => {
                    candidates.push(Candidate { file, size, content, work });
                    continue;
                }
                Ok(Some(Err(why))) => format!(" ({why})"),
                Ok(None) => String::new(),
                // Removed meanwhile.
                Err(error) if error.kind() == Kind::NotFound => continue,
                Err(error) => format!(" ({})", error.chain()),
            };
            damaged.push(Damaged { name: name.to_owned(), why });
        }
        let others = |found: &Candidate| found.content.hostname.as_ref() != Some(&self.host);
        candidates.sort_by_key(|found| (others(found), found.work));
        Ok((candidates, damaged))
    }

    /// Notes key files that are damaged, where another one has opened the repository.
    pub(super) fn remark_on_keys(&mut self, damaged: &[Damaged]) {
        for Damaged { name, why } in damaged {
            let message = format!("keys/{name} in {} is damaged{why}; another key file opens it", self.store());
            self.remarks.push(Problem { message, hint: Some(NEEDED_OR_NOT.into()) });
        }
    }

    /// Why no password may open it, or not each one that could.
    ///
    /// # Errors
    /// Storage fails.
    pub fn key_trouble(&self) -> Result<Option<Error>> {
        let (whole, damaged) = self.key_files()?;
        Ok(self.trouble_of(whole.len(), &damaged))
    }

    pub(super) fn trouble_of(&self, whole: usize, damaged: &[Damaged]) -> Option<Error> {
        let store = self.store();
        let what = match damaged.first() {
            None if whole > 0 => return None,
            None => "it has no key file any more".to_owned(),
            Some(Damaged { name, why }) if whole > 0 => {
                let message = format!("keys/{name} in {store} is damaged{why}; key files that are whole: {whole}");
                return Some(Error::new(message).hint(NEEDED_OR_NOT));
            }
            Some(Damaged { name, why }) => format!("its key file keys/{name} is damaged{why}"),
        };
        let step = &self.step;
        Some(Error::new(format!("open {store}: {what}, and without one nothing in it can be read")).hint(
            format!("put a copy of keys/ back; or master-keys/{step}.json from the secrets of the machine that made it into this one's"),
        ))
    }
}

const NEEDED_OR_NOT: &str = "put a copy of it back; or remove it, if nobody needs its password any more";

/// A key file and the work of opening it, or why it is none.
fn judged(content: &[u8]) -> std::result::Result<(KeyFile, u64), String> {
    let file: KeyFile = serde_json::from_slice(content).map_err(|_| "it is no key file of restic's".to_owned())?;
    let (n, r, p) = (u64::from(file.n), u64::from(file.r), u64::from(file.p));
    if file.kdf != "scrypt" || !n.is_power_of_two() || n < 2 || r == 0 || p == 0 {
        return Err(format!("no password makes a key with {} and N = {n}, r = {r}, p = {p}", file.kdf.escape_debug()));
    }
    // scrypt's own figures: a block is 128 r bytes, and it keeps N of them, p and two more. None of these is over 32 bits.
    let memory = u128::from(128 * r) * u128::from(n + p + 2);
    if memory > MEMORY.into() {
        return Err(format!(
            "to open it takes {} MiB of memory, which no program that makes them asks for",
            memory >> 20
        ));
    }
    // With so little memory N × p has less than 45 bits, and r has 21.
    match n * p * r {
        work if work > WORK => Err(format!("to open it takes {} times as long as restic's", work >> 18)),
        work => Ok((file, work)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn why(n: u64, r: u64, p: u64) -> Option<String> {
        let text = json!({ "kdf": "scrypt", "N": n, "r": r, "p": p, "data": "", "salt": "" }).to_string();
        judged(text.as_bytes()).err()
    }

    #[test]
    fn what_other_programs_make_is_opened_and_nothing_that_costs_more() {
        // This program's, restic's on a fast machine, rustic's.
        for (n, r, p) in [(1 << 15, 8, 4), (1 << 15, 8, 20), (1 << 16, 8, 3), (1 << 17, 8, 1)] {
            assert_eq!(why(n, r, p), None);
        }
        let refused = [
            (1 << 22, 8, 1, "4096 MiB"),
            (1 << 40, 8, 1, "no key file"),
            (0, 0, 0, "N = 0"),
            (1, 8, 1, "N = 1"),
            (3, 8, 1, "N = 3"),
            (1 << 15, 8, 1_000_000, "MiB"),
            (1 << 15, 1 << 30, 1, "MiB"),
            (1 << 31, u64::from(u32::MAX), u64::from(u32::MAX), "MiB"),
            (2, 1, u64::from(u32::MAX), "MiB"),
            (1 << 15, 8, 65, "65 times as long"),
            (2, 1, 1 << 30, "MiB"),
        ];
        for (n, r, p, told) in refused {
            assert!(why(n, r, p).is_some_and(|why| why.contains(told)), "{n} {r} {p}: {:?}", why(n, r, p));
        }
        for text in ["", "x", "{}", "[]", "null", r#"{"kdf":"argon2","N":32768,"r":8,"p":1,"data":"","salt":""}"#] {
            assert!(judged(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn no_key_file_panics() {
        let file = json!({ "kdf": "scrypt", "N": 32768, "r": 8, "p": 1, "data": "AAAA", "salt": "BBBB", "created": "2026-11-20T03:00:00Z" });
        crate::fuzzed::fuzz(&[file.to_string().as_bytes()], |content| drop(judged(content)));
    }
}
