//! Restore tests of clusters that settings and objects make hostile: no false alarm, no missed damage, and nothing is touched.

mod damages;
mod set_up;
mod table;

use crate::postgres::Host;
use harness::{Cluster, Ran, by_effort};
use serde_json::Value;

use damages::{DAMAGES, Damage};
use set_up::{Hostile, Original};
use table::TABLE;

/// The checks of a test: name, verdict and note.
fn checks(ran: &Ran) -> Vec<[String; 3]> {
    let checks =
        ran.step("database")["tested"]["checks"].as_array().unwrap_or_else(|| panic!("no checks: {ran}")).clone();
    let text = |check: &Value, key: &str| check[key].as_str().unwrap().to_owned();
    checks.iter().map(|check| ["name", "verdict", "note"].map(|key| text(check, key))).collect()
}

/// How many objects a note has beside those that it names.
fn more(note: &str) -> usize {
    let counted = note.rsplit_once(" and ").and_then(|(_, more)| more.strip_suffix(" more")?.parse().ok());
    counted.unwrap_or_default()
}

/// What is wrong with a test of a healthy cluster, of which just this cannot be tested.
fn wrong(checks: &[[String; 3]], untested: &[&str], is_dumped: bool) -> Vec<String> {
    let mut wrong: Vec<_> =
        checks.iter().filter(|[_, verdict, _]| verdict == "failed").map(|check| check.join(": ")).collect();
    for name in ["repository", "WAL", "databases", "tables", "samples", "extensions", "pg_amcheck", "dump", "moment"] {
        if name == "dump" && !is_dumped {
            continue;
        }
        let of_it: Vec<_> = checks.iter().filter(|[found, ..]| found == name).collect();
        let notes: Vec<_> =
            of_it.iter().filter(|[_, verdict, _]| verdict == "untested").map(|[.., note]| note).collect();
        let expected = untested.iter().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.split_once(": "));
        let expected: Vec<_> = expected.collect();
        let is_there =
            |(object, words): &&(&str, &str)| notes.iter().any(|note| note.contains(object) && note.contains(words));
        let there = expected.iter().filter(is_there).count();
        // Of a dump a few errors are named, in a note for each database.
        let all =
            there + notes.iter().map(|note| more(note)).sum::<usize>() == expected.len() || name == "dump" && there > 0;
        let passed =
            of_it.iter().any(|[_, verdict, _]| verdict == "passed") || matches!(name, "samples" | "extensions");
        if !all || notes.is_empty() && (!passed || !expected.is_empty()) {
            wrong.push(format!("{name}: {notes:?} instead of {expected:?}"));
        }
    }
    wrong
}

/// Makes such a cluster, whose restore test means what it says.
#[track_caller]
fn healthy(hostile: &[&Hostile]) -> Original {
    let original = Original::new(hostile);
    let version = Cluster::newest();
    let is_dumped = hostile.iter().all(|one| version < one.told_from);
    match is_dumped {
        true => drop(original.host.good_run()),
        false => drop(original.host.run().expect(5)),
    }
    original.gone();
    let ran = original.host.agent.run(["restore-test", "database", "--json"]);
    let here = |line: &&'static str| match line.strip_prefix("before 17: ") {
        Some(line) => (version < 17).then_some(line),
        None => Some(*line),
    };
    let untested: Vec<_> = hostile.iter().flat_map(|one| one.untested).filter_map(here).collect();
    let untested: Vec<_> = untested.into_iter().filter(|line| is_dumped || !line.starts_with("dump: ")).collect();
    let wrong = wrong(&checks(&ran), &untested, is_dumped);
    assert!(wrong.is_empty(), "{}\n{ran}", wrong.join("\n"));
    assert_eq!(ran.code(), Some(if untested.is_empty() { 0 } else { 5 }), "{ran}");
    assert_eq!(original.canary.touched(), [""; 0], "{ran}");
    original
}

/// Each damage is a failure of its check, which names what is damaged.
#[track_caller]
fn is_seen(original: &Original, damages: &[&Damage]) {
    original.back(|| damages.iter().for_each(|damage| (damage.of)(original)));
    let ran = original.host.run();
    assert!(matches!(ran.code(), Some(0 | 5)), "a backup is made as long as the server runs: {ran}");
    original.gone();
    let ran = original.host.agent.run(["restore-test", "database", "--json"]).expect(3);
    let checks = checks(&ran);
    let failed = |damage: &&&Damage| {
        checks
            .iter()
            .any(|[name, verdict, note]| verdict == "failed" && name == damage.check && note.contains(damage.words))
    };
    let missed: Vec<_> = damages.iter().filter(|damage| !failed(damage)).map(|damage| damage.name).collect();
    assert!(missed.is_empty(), "not seen: {missed:?} {ran}");
    assert_eq!(original.canary.touched(), [""; 0], "{ran}");
}

/// Where it is in the table.
fn position(name: &str) -> usize {
    TABLE.iter().position(|(found, _)| *found == name).unwrap()
}

fn alone(name: &str) {
    let at = position(name);
    let original = healthy(&[&TABLE[at].1]);
    let seen: Vec<_> = DAMAGES.iter().filter(|damage| Cluster::newest() < damage.unseen_from).collect();
    is_seen(&original, &[seen[at % seen.len()]]);
}

#[test]
fn slow_whatever_is_hostile_about_a_cluster_its_test_means_what_it_says() {
    let together: Vec<_> = TABLE.iter().map(|(_, one)| one).filter(|one| !one.alone).collect();
    healthy(&together);
}

#[test]
fn a_backup_that_could_not_be_restored_is_not_made() {
    let host = Host::local();
    host.cluster.sql("create database \"zwei\nzeilen\"");
    let (message, hint) = host.failed_run();
    assert!(message.contains(r#"the database "zwei\nzeilen" has a line break in its name"#), "{message}");
    let cure = hint.strip_prefix("in psql as a superuser: ").unwrap();
    host.cluster.sql(cure);
    host.good_run();
}

#[test]
fn slow_each_damage_is_seen_and_named() {
    let original = Original::new(&[]);
    original.host.good_run();
    original.gone();
    let can_be_seen = |damage: &&Damage| damage.together && Cluster::newest() < damage.unseen_from;
    let together: Vec<_> = DAMAGES.iter().filter(can_be_seen).collect();
    is_seen(&original, &together);
}

#[test]
fn slow_a_changed_byte_is_seen_without_checksums_where_an_index_knows_better() {
    let flips = DAMAGES.iter().filter(|damage| damage.name.ends_with("another") || damage.name.ends_with("others"));
    for damage in flips.take(by_effort(1, 2)) {
        let original = Original::new(&[&TABLE[position("no_checksums")].1]);
        original.host.good_run();
        original.gone();
        is_seen(&original, &[damage]);
    }
}
