//! Golden tests of the configuration's messages: each `config/NAME.toml` is refused (or accepted) exactly as `config/NAME.txt` says.
//!
//! `UPDATE_GOLDEN=1 cargo test -p pi-agent --test config` writes what is said now; read the difference before committing it.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use pi_agent::config::{KEYS, Missing, parse};
use proptest::prelude::*;

const FILE: &str = "/etc/pi-agent/config.toml";

fn cases(extension: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config");
    let mut files: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|found| found == extension));
    files.sort();
    files
}

/// What a person is told about that text.
fn told(text: &str) -> String {
    match parse(text, Path::new(FILE)) {
        Ok(settings) => {
            let warnings = settings.warnings.iter().map(|warning| format!("warning: {warning}\n"));
            format!("accepted\n{}", warnings.collect::<String>())
        }
        Err(errors) => format!("{errors}\n"),
    }
}

/// The lines that differ, with `-` before what was expected and `+` before what was told.
fn difference(expected: &str, told: &str) -> String {
    let mut text = String::new();
    let (old, new): (Vec<_>, Vec<_>) = (expected.lines().collect(), told.lines().collect());
    for line in old.iter().filter(|line| !new.contains(line)) {
        writeln!(text, "- {line}").unwrap();
    }
    for line in new.iter().filter(|line| !old.contains(line)) {
        writeln!(text, "+ {line}").unwrap();
    }
    if text.is_empty() { "the same lines in another order\n".into() } else { text }
}

#[test]
fn messages_are_as_recorded() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let inputs = cases("toml");
    assert!(inputs.len() > 10, "the folder of cases was not found");
    let mut wrong = String::new();
    for input in &inputs {
        let golden = input.with_extension("txt");
        let told = told(&std::fs::read_to_string(input).unwrap());
        if update {
            std::fs::write(&golden, &told).unwrap();
            continue;
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        if expected != told {
            write!(wrong, "{}\n{}\n", golden.display(), difference(&expected, &told)).unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}UPDATE_GOLDEN=1 records what is told now");
}

#[test]
fn every_key_is_seen_to_be_refused_and_every_record_has_its_case() {
    let told: String = cases("txt").iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let words: BTreeSet<&str> = told.split(|c: char| !(c.is_ascii_lowercase() || c == '-')).collect();
    let unseen: Vec<_> = KEYS.iter().filter(|key| !words.contains(key.name)).map(|key| key.name).collect();
    assert!(unseen.is_empty(), "no case shows a mistake in {unseen:?}");
    for record in cases("txt") {
        assert!(record.with_extension("toml").exists(), "{} has no case", record.display());
    }
}

/// A default that is written out means the same as none.
#[test]
fn defaults_are_what_the_table_says() {
    let text = |section: &str, line: &str| {
        let mut text = String::new();
        for (name, body) in [
            ("[host]", "name = \"pi\""),
            ("[storage]", "url = \"s3://bucket/pi\"\nregion = \"eu-west-1\""),
            ("[secrets]", ""),
            ("[local]", ""),
            ("[notify]", ""),
            ("[alarms]", ""),
            ("[[step]]", "name = \"d\"\nkind = \"directory\"\npaths = [\"/srv\"]"),
            ("postgres", "name = \"p\"\nkind = \"postgres\"\ndata-directory = \"/srv/p\""),
            ("[step.keep]", "daily = 3"),
        ] {
            let heading = if name == "postgres" { "[[step]]" } else { name };
            let extra = if name == section { line } else { "" };
            let extra = if extra.starts_with("daily") { "" } else { extra };
            writeln!(text, "{heading}\n{body}\n{extra}").unwrap();
        }
        text
    };
    // `[step.keep]` follows the last step, so it belongs to that one; `keep` itself is tried on the other.
    let json = |text: &str| serde_json::to_string(&parse(text, Path::new(FILE)).unwrap()).unwrap();
    let without = json(&text("none", ""));
    let mut tried = 0;
    for key in KEYS {
        if let Missing::Is(default) = key.missing {
            let section = key.only.filter(|kind| *kind == "postgres").unwrap_or(key.section);
            assert_eq!(json(&text(section, &format!("{} = {default}", key.name))), without, "{}", key.name);
            tried += 1;
        }
    }
    assert!(tried > 15);
}

proptest! {
    #[test]
    fn no_text_panics_the_parser(text in "\\PC{0,200}") {
        let _ = told(&text);
    }

    #[test]
    fn no_values_panic_the_parser(
        lines in proptest::collection::vec((0..KEYS.len(), prop_oneof![
            "\\PC{0,20}",
            any::<i64>().prop_map(|n| n.to_string()),
            "[0-9]{1,22}[smhdKMGTiB]{0,3}".prop_map(|text| format!("\"{text}\"")),
            "(file|s3|https?)://\\PC{0,12}".prop_map(|text| format!("{text:?}")),
            Just("{ daily = 0x7fffffffffffffff, x.y = [1, {}] }".to_owned()),
            Just("[[], \"/\", {}, 1979-05-27]".to_owned()),
            Just("\"forever\"".to_owned()),
        ]), 0..12),
    ) {
        let mut text = String::new();
        for (key, value) in lines {
            let key = KEYS[key];
            let section = key.section.trim_matches(['[', ']']);
            let double = key.section.starts_with("[[");
            let heading = if key.section.is_empty() { String::new() } else if double { format!("[[{section}]]") } else { key.section.to_owned() };
            writeln!(text, "{heading}\n{} = {value}", key.name).unwrap();
        }
        let _ = told(&text);
    }
}
