//! What happens to the files of a server that is down.

use std::fs::{self, File};
use std::path::PathBuf;

use super::set_up::Original;

/// A damage, and where it must be seen.
pub(super) struct Damage {
    pub name: &'static str,
    pub of: fn(&Original),
    pub check: &'static str,
    pub words: &'static str,
    /// It can be with the others of these in one backup, each of another relation.
    pub together: bool,
    /// From that version on nobody sees it: a dump brings numbers of pages from another cluster, so that fewer prove nothing.
    pub unseen_from: u32,
}

const PAGE: u64 = 8192;
const NEVER: u32 = u32::MAX;

/// Each is of another relation.
pub(super) const DAMAGES: &[Damage] = &[
    Damage {
        name: "a table has lost its end",
        of: |original| cut(&original.files["notes"]),
        check: "pg_amcheck",
        words: "public.notes",
        together: true,
        unseen_from: 18,
    },
    Damage {
        name: "a table's file is gone",
        of: |original| fs::remove_file(&original.files["ledger"]).unwrap(),
        check: "samples",
        words: "public.ledger",
        together: false,
        unseen_from: NEVER,
    },
    Damage {
        name: "a sequence's file is gone",
        of: |original| fs::remove_file(&original.files["numbers"]).unwrap(),
        check: "pg_amcheck",
        words: "public.numbers",
        together: true,
        unseen_from: NEVER,
    },
    Damage {
        name: "an index has lost its end",
        of: |original| cut(&original.files["by_word"]),
        check: "pg_amcheck",
        words: "public.by_word",
        together: true,
        unseen_from: 18,
    },
    Damage {
        name: "an index's file is gone",
        of: |original| fs::remove_file(&original.files["by_word"]).unwrap(),
        check: "samples",
        words: "public.ledger",
        together: false,
        unseen_from: NEVER,
    },
    Damage {
        name: "a leaf of an index is another",
        of: |original| flip(&original.files["by_entry"], PAGE + 7000),
        check: "pg_amcheck",
        words: "public.by_entry",
        together: false,
        unseen_from: NEVER,
    },
    Damage {
        name: "a row's bytes are others",
        of: |original| flip(&original.files["ledger"], 5 * PAGE + 8000),
        check: "pg_amcheck",
        words: "public.",
        together: false,
        unseen_from: NEVER,
    },
];

/// Leaves the first page.
fn cut(file: &PathBuf) {
    let file = File::options().write(true).open(file).unwrap();
    assert!(file.metadata().unwrap().len() > 4 * PAGE);
    file.set_len(PAGE).unwrap();
}

/// Changes bytes of a page from there on: where a row lies in it is another place in each version.
fn flip(file: &PathBuf, at: u64) {
    let mut content = fs::read(file).unwrap();
    let at = usize::try_from(at).unwrap();
    content[at..at + 190].iter_mut().step_by(19).for_each(|byte| *byte ^= 0x15);
    fs::write(file, content).unwrap();
}
