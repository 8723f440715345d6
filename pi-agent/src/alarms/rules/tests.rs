//! Each alarm on evidence made by hand.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{backups, history, keys, machine, restores, wal};
use crate::alarms::clock::Trust;
use crate::alarms::evidence::{Evidence, StepEvidence, Unit};
use crate::alarms::registry::{Bad, Found, Telling, Verdict};
use crate::config::{Alarms, parse};
use crate::health::{Reading, Room, Trouble, Volume, What};
use crate::kit::record::Standing;
use crate::monitor::Problem;
use crate::notify::Tone;
use crate::state::{Backup, PastTest, RunEnd};
use crate::steps::Outcome::{self, Degraded, Failed, Interrupted, Skipped, Succeeded, Unfinished};
use crate::wal::{Alone, Hole, Mark, WalState};

const NOW: Timestamp = Timestamp::constant(1_795_230_000, 0);

fn ago(hours: i64) -> Timestamp {
    NOW - SignedDuration::from_hours(hours)
}

/// The defaults.
fn limits() -> Alarms {
    let text = "[host]\nname = \"pi\"\n[storage]\nurl = \"file:///mnt/usb/pi\"\n\
                [[step]]\nname = \"a\"\nkind = \"directory\"\npaths = [\"/srv\"]\n";
    parse(text, std::path::Path::new("/etc/pi-agent/config.toml")).unwrap().alarms
}

fn backup(outcome: Outcome, hours: i64) -> Backup {
    let error = (outcome != Succeeded).then(|| problem("disk on fire", "water"));
    Backup {
        started_at: ago(hours),
        finished_at: Some(ago(hours)),
        outcome: Some(outcome),
        error,
        more_problems: 0,
        bytes: None,
        machine: vec![],
    }
}

fn problem(message: &str, hint: &str) -> Problem {
    Problem { message: message.into(), hint: Some(hint.into()) }
}

fn step(backups: Vec<Backup>) -> StepEvidence {
    let mut step = StepEvidence { name: "foundry".into(), backups, ..StepEvidence::default() };
    let last_good = step.good().find_map(|backup| backup.finished_at);
    step.last_good = last_good;
    step
}

fn evidence(steps: Vec<StepEvidence>) -> Evidence {
    Evidence {
        now: NOW,
        clock: Trust::Trusted,
        steps,
        unreadable: None,
        cut_off: 0,
        run: None,
        certificate_end: None,
        contradicted: None,
        reading: Reading::default(),
        volumes: vec![],
        secrets: None,
        kit: Some(Standing::Saved),
        units: vec![],
    }
}

fn one(found: Vec<Found>) -> Verdict {
    assert_eq!(found.len(), 1, "{found:?}");
    found.into_iter().next().unwrap().1
}

#[track_caller]
fn is_bad(verdict: Verdict) -> Bad {
    match verdict {
        Verdict::Bad(bad) => bad,
        other => panic!("expected something bad: {other:?}"),
    }
}

fn of_steps(rule: fn(&Evidence, &Alarms) -> Vec<Found>, backups: Vec<Backup>) -> Verdict {
    one(rule(&evidence(vec![step(backups)]), &limits()))
}

#[test]
fn the_last_backup_that_ended_decides() {
    let last = |outcomes: &[Outcome]| {
        of_steps(backups::outcome, outcomes.iter().zip(1..).map(|(outcome, hours)| backup(*outcome, hours)).collect())
    };
    assert_eq!(last(&[]), Verdict::Unknown);
    assert_eq!(last(&[Interrupted, Skipped]), Verdict::Unknown);
    assert_eq!(last(&[Succeeded, Failed]), Verdict::Fine { as_of: Some(ago(1)) });
    let failed = is_bad(last(&[Interrupted, Failed, Failed, Degraded, Succeeded, Failed]));
    assert_eq!(
        (failed.tone, failed.title.as_str(), failed.text.as_str()),
        (Tone::Critical, "the backup failed", "disk on fire")
    );
    assert_eq!((failed.since, failed.as_of, failed.hint.as_deref()), (Some(ago(4)), Some(ago(2)), Some("water")));
    for (outcome, title) in [(Degraded, "the backup is degraded"), (Unfinished, "the backup is unfinished")] {
        let bad = is_bad(last(&[outcome, Succeeded]));
        assert_eq!((bad.tone, bad.title.as_str()), (Tone::Warning, title));
    }
}

#[test]
fn a_backup_ages_from_its_end_and_not_while_the_step_moves() {
    let age = |hours, moving| {
        let step = StepEvidence { moving, ..step(vec![backup(Succeeded, hours)]) };
        one(backups::age(&evidence(vec![step]), &limits()))
    };
    assert_eq!(age(26, false), Verdict::Fine { as_of: Some(ago(26)) });
    let old = is_bad(age(27, false));
    assert_eq!((old.tone, old.since, old.as_of), (Tone::Warning, Some(ago(1)), Some(ago(27))));
    assert_eq!(is_bad(age(3 * 26 + 1, false)).tone, Tone::Critical);
    assert_eq!(age(27, true), Verdict::Unknown, "it is being made");
    let never = is_bad(of_steps(backups::age, vec![backup(Failed, 1)]));
    assert_eq!((never.as_of, never.telling), (None, Telling::After(Duration::from_hours(26))));
}

#[test]
fn a_night_of_25_hours_is_no_old_backup() {
    // Clocks go back in the night: from 03:10 to 03:10 are 25 hours.
    assert!(matches!(of_steps(backups::age, vec![backup(Succeeded, 25)]), Verdict::Fine { .. }));
}

fn sized(sizes: &[u64]) -> Vec<Backup> {
    let of = |(size, hours)| Backup { bytes: Some(size), ..backup(Succeeded, hours) };
    sizes.iter().copied().zip(1..).map(of).collect()
}

#[test]
fn a_size_far_from_its_own_history_is_suspicious_on_both_sides() {
    const MIB: u64 = 1 << 20;
    let usual: Vec<u64> = (0..10).map(|night| (100 + night % 3) * MIB).collect();
    let after = |newest: &[u64]| of_steps(backups::size, sized(&[newest, &usual].concat()));
    assert!(matches!(after(&[120 * MIB]), Verdict::Fine { .. }), "the relative minimum");
    assert_eq!(is_bad(after(&[200 * MIB])).title, "the backup is much larger than usual");
    assert_eq!(is_bad(after(&[30 * MIB])).title, "the backup is much smaller than usual");
    is_bad(after(&[0]));
    is_bad(after(&[31 * MIB, 30 * MIB]));
    assert!(matches!(after(&[30 * MIB, 31 * MIB, 30 * MIB]), Verdict::Fine { .. }), "the new size has held");
    let short = of_steps(backups::size, sized(&[0, MIB, MIB, MIB, MIB, MIB, MIB]));
    assert_eq!(short, Verdict::Unknown, "six are no history");
    let scattered: Vec<u64> = (0..20).map(|night| (50 + night * 37 % 100) * MIB).collect();
    assert!(matches!(of_steps(backups::size, sized(&scattered)), Verdict::Fine { .. }), "it always varies");
    let growing: Vec<u64> = (0..31).rev().map(|night| night * MIB).collect();
    assert!(matches!(of_steps(backups::size, sized(&growing)), Verdict::Fine { .. }), "logs that only grow");
    let tiny = of_steps(backups::size, sized(&[9000, 3000, 3000, 3000, 3000, 3000, 3000, 3000]));
    assert!(matches!(tiny, Verdict::Fine { .. }), "a few kilobytes");
    let own = StepEvidence { own: true, ..step(sized(&[&[900 * MIB], &*usual].concat())) };
    assert_eq!(one(backups::size(&evidence(vec![own]), &limits())), Verdict::Unknown);
}

#[test]
fn a_spike_in_the_history_does_not_hide_the_next() {
    const MIB: u64 = 1 << 20;
    let mut history = vec![100 * MIB; 20];
    history[5] = 10_000 * MIB;
    is_bad(of_steps(backups::size, sized(&[&[10 * MIB], &*history].concat())));
}

#[test]
fn the_success_rate_is_over_all_steps_and_counts_each_night_once() {
    let rate = |outcomes: &[Outcome]| {
        of_steps(
            backups::success_rate,
            outcomes.iter().zip(1..).map(|(outcome, hours)| backup(*outcome, hours)).collect(),
        )
    };
    assert_eq!(rate(&[Failed, Failed, Failed]), Verdict::Unknown, "three are no rate");
    assert!(matches!(rate(&[Succeeded, Degraded, Succeeded, Succeeded]), Verdict::Fine { .. }));
    assert!(matches!(rate(&[Succeeded, Failed, Succeeded, Succeeded]), Verdict::Fine { .. }), "told by itself");
    let bad = is_bad(rate(&[Succeeded, Failed, Unfinished, Succeeded]));
    assert_eq!(bad.title, "only 2 of 4 backups of the last seven days are good");
    assert!(matches!(rate(&[Skipped, Succeeded, Interrupted, Succeeded, Succeeded, Succeeded]), Verdict::Fine { .. }));
    let cut_off = [Interrupted, Failed, Interrupted, Interrupted, Succeeded, Succeeded];
    assert_eq!(is_bad(rate(&cut_off)).title, bad.title, "two that were made again, and one that was not");
    let old = [&[Succeeded; 4][..], &[Failed; 8]].concat();
    let backups: Vec<_> = old.iter().zip(0..).map(|(outcome, night)| backup(*outcome, night * 42 + 1)).collect();
    assert!(matches!(of_steps(backups::success_rate, backups), Verdict::Fine { .. }), "a failure of last week");
    let almost: Vec<_> = (0..40).map(|n| backup(if n < 2 { Failed } else { Succeeded }, n + 1)).collect();
    assert!(matches!(of_steps(backups::success_rate, almost), Verdict::Fine { .. }), "95 % of forty");
    let all =
        [step(vec![backup(Succeeded, 1), backup(Failed, 25)]), step(vec![backup(Succeeded, 1), backup(Failed, 25)])];
    is_bad(one(backups::success_rate(&evidence(all.into()), &limits())));
}

#[test]
fn three_cut_off_in_a_row_are_the_machine() {
    let cut_off = |count| one(backups::cut_off(&Evidence { cut_off: count, ..evidence(vec![]) }, &limits()));
    assert_eq!(cut_off(2), Verdict::Fine { as_of: None });
    assert_eq!(is_bad(cut_off(3)).tone, Tone::Critical);
}

#[test]
fn a_check_is_due_from_the_first_backup_on() {
    let days = |days: u64| Some(Duration::from_hours(days * 24));
    let check = |every: Option<Duration>, first: Option<i64>, last: Option<i64>| {
        let (first_good, last_check) = (first.map(|days| ago(days * 24)), last.map(|days| ago(days * 24)));
        let step = StepEvidence { check_every: every, first_good, last_check, ..step(vec![]) };
        one(backups::check_age(&evidence(vec![step]), &limits()))
    };
    assert_eq!(check(days(7), None, None), Verdict::Unknown, "nothing to check");
    assert!(matches!(check(days(7), Some(20), None), Verdict::Fine { .. }));
    assert_eq!(is_bad(check(days(7), Some(22), None)).title, "the repository was never checked");
    assert!(matches!(check(days(7), Some(400), Some(21)), Verdict::Fine { .. }));
    assert!(is_bad(check(days(7), Some(400), Some(22))).title.contains("22 d ago"));
    assert!(matches!(check(days(30), Some(400), Some(59)), Verdict::Fine { .. }), "it is meant to be rare");
    assert!(matches!(check(None, Some(400), None), Verdict::Fine { .. }), "PostgreSQL's");
}

fn waiting() -> WalState {
    let place = "/var/spool/pgbackrest/main".into();
    let (safe, astray, hole, alone) = (None, None, None, None);
    WalState { oldest: None, files: 0, place, bytes: 0, free: None, safe, astray, hole, alone, archive_timeout: None }
}

fn minutes_ago(minutes: i64) -> Timestamp {
    NOW - SignedDuration::from_mins(minutes)
}

fn judged(rule: fn(&Evidence, &Alarms) -> Vec<Found>, wal: WalState) -> Verdict {
    let step = StepEvidence { postgres: true, wal: Some(wal), ..step(vec![]) };
    one(rule(&evidence(vec![step]), &limits()))
}

#[test]
fn a_disk_that_fills_with_wal_is_told_hours_before() {
    const GIB: u64 = 1 << 30;
    let room = |minutes: i64, bytes: u64, free: u64| {
        let oldest = Some(minutes_ago(minutes));
        judged(wal::room, WalState { oldest, bytes, free: Some(free), ..waiting() })
    };
    assert_eq!(room(4, GIB, 1), Verdict::Fine { as_of: None }, "too short a time to tell");
    assert_eq!(room(60, GIB, 24 * GIB), Verdict::Fine { as_of: None });
    assert_eq!(room(60, GIB, 13 * GIB), Verdict::Unknown);
    let bad = is_bad(room(60, GIB, 11 * GIB));
    assert_eq!((bad.tone, bad.title.as_str()), (Tone::Warning, "WAL fills the disk in 11 h"));
    assert_eq!(is_bad(room(60, GIB, 2 * GIB)).tone, Tone::Critical);
}

#[test]
fn changes_may_be_on_one_disk_alone_for_as_long_as_the_rpo() {
    let waits = |minutes: Option<i64>| {
        let files = minutes.map_or(0, |_| 3);
        judged(wal::age, WalState { oldest: minutes.map(minutes_ago), files, ..waiting() })
    };
    assert_eq!(waits(None), Verdict::Fine { as_of: None });
    assert_eq!(waits(Some(15)), Verdict::Fine { as_of: None });
    assert_eq!(waits(Some(30)), Verdict::Unknown, "neither raised nor over");
    let bad = is_bad(waits(Some(31)));
    assert_eq!((bad.tone, bad.title.as_str()), (Tone::Warning, "changes of the last 31 min are on this disk alone"));
    assert!(bad.text.contains("3 files of WAL wait in /var/spool/pgbackrest/main"), "{}", bad.text);
    assert_eq!(is_bad(waits(Some(91))).tone, Tone::Critical);
    assert_eq!(wal::age(&evidence(vec![step(vec![])]), &limits()), [], "a step without WAL");
}

#[test]
fn a_server_that_keeps_its_wal_is_not_taken_for_an_idle_one() {
    let idle = |safe: i64, timeout: u64| {
        let safe = Some(Mark { segment: "000000010000000000000007".into(), finished: minutes_ago(safe) });
        judged(wal::age, WalState { safe, archive_timeout: Some(Duration::from_secs(timeout)), ..waiting() })
    };
    assert_eq!(idle(600, 600), Verdict::Fine { as_of: None }, "it would have handed over what came since");
    assert_eq!(idle(600, 1800), Verdict::Fine { as_of: None }, "not kept from being over by its own setting");
    assert_eq!(idle(20, 0), Verdict::Unknown);
    let bad = is_bad(idle(600, 0));
    assert_eq!((bad.tone, bad.title.as_str()), (Tone::Warning, "changes of the last 10 h are on this disk alone"));
    assert!(bad.text.contains("archive_timeout is 0 s"), "{}", bad.text);
    assert!(is_bad(idle(600, 3600)).text.contains("archive_timeout is 3600 s"));
    let kept = |minutes| {
        let alone = Some(Alone { since: minutes_ago(minutes), astray: Vec::new() });
        judged(wal::age, WalState { alone, archive_timeout: Some(Duration::from_secs(600)), ..waiting() })
    };
    assert_eq!(kept(8), Verdict::Fine { as_of: None }, "it is on its way");
    let bad = is_bad(kept(40));
    assert_eq!((bad.tone, bad.title.as_str()), (Tone::Critical, "changes of the last 40 min are on this disk alone"));
    assert!(bad.text.contains("does not hand over what it writes"), "{}", bad.text);
}

#[test]
fn a_hole_in_the_wal_is_told_until_a_backup_has_closed_it() {
    let mark = |minutes| Mark { segment: "000000010000000000000009".into(), finished: minutes_ago(minutes) };
    let (after, before) = ("000000010000000000000004".into(), "000000010000000000000007".into());
    let hole = Hole { after, before, since: minutes_ago(90), found: minutes_ago(5), minimal: false };
    let state = WalState { hole: Some(hole), ..waiting() };
    assert_eq!(judged(wal::age, state.clone()), Verdict::Unknown, "told by the other alone");
    let bad = is_bad(judged(wal::hole, state));
    assert_eq!((bad.tone, bad.since), (Tone::Critical, Some(minutes_ago(90))));
    assert!(bad.title.contains("between 000000010000000000000004 and 000000010000000000000007"), "{}", bad.title);
    let astray = |minutes| judged(wal::hole, WalState { astray: Some(mark(minutes)), ..waiting() });
    assert_eq!(astray(3), Verdict::Unknown, "on its way");
    assert!(is_bad(astray(31)).text.starts_with("000000010000000000000009 is neither"));
    assert_eq!(judged(wal::hole, waiting()), Verdict::Fine { as_of: None });
}

fn volume(used: u64, read_only: bool) -> Volume {
    let room = Room { free: 1000 - used, total: 1000, free_files: Some(1000 - used), total_files: 1000, read_only };
    Volume { name: PathBuf::from("/mnt/usb"), holds: vec!["cache", "storage"], room }
}

#[test]
fn a_volume_is_full_before_nothing_fits() {
    let space = |volume| {
        let evidence = Evidence { volumes: vec![volume], ..evidence(vec![]) };
        let found = machine::disk_space(&evidence, &limits());
        assert_eq!(found[0].0.as_deref(), Some("/mnt/usb"));
        one(found)
    };
    assert_eq!(space(volume(880, false)), Verdict::Fine { as_of: None });
    assert_eq!(space(volume(890, false)), Verdict::Unknown, "so that it does not come and go");
    assert_eq!(space(volume(900, false)), Verdict::Unknown);
    let nearly = is_bad(space(volume(901, false)));
    assert_eq!((nearly.tone, nearly.title.as_str()), (Tone::Warning, "91 % in use"));
    assert!(nearly.text.contains("it holds cache, storage"), "{}", nearly.text);
    assert_eq!(is_bad(space(volume(970, false))).tone, Tone::Warning);
    assert_eq!(is_bad(space(volume(971, false))).tone, Tone::Critical);
    assert_eq!(is_bad(space(volume(10, true))).title, "mounted read-only");

    let files = |volume| one(machine::inodes(&Evidence { volumes: vec![volume], ..evidence(vec![]) }, &limits()));
    assert_eq!(files(volume(880, false)), Verdict::Fine { as_of: None });
    assert_eq!(is_bad(files(volume(950, false))).title, "95 % of its files in use");
    let mut btrfs = volume(999, false);
    (btrfs.room.free_files, btrfs.room.total_files) = (None, 0);
    assert_eq!(files(btrfs), Verdict::Fine { as_of: None });
}

#[test]
fn a_clock_is_doubted_aloud_but_not_while_the_machine_starts() {
    let clock = |clock| one(machine::clock(&Evidence { clock, ..evidence(vec![]) }, &limits()));
    assert_eq!(clock(Trust::Trusted), Verdict::Fine { as_of: None });
    assert_eq!(clock(Trust::Starting("no time yet".into())), Verdict::Unknown);
    assert!(is_bad(clock(Trust::Doubted("it was moved".into()))).text.starts_with("it was moved"));
}

#[test]
fn a_unit_is_bad_until_it_has_done_its_work() {
    let unit = |told, well| {
        let unit = Unit { name: "pi-agent-backup.service".into(), told, well };
        one(machine::unit(&Evidence { units: vec![unit], ..evidence(vec![]) }, &limits()))
    };
    let failed = is_bad(unit(Some(ago(1)), Some(false)));
    assert_eq!((failed.telling, failed.as_of), (Telling::Elsewhere, Some(ago(1))));
    assert!(matches!(unit(Some(ago(1)), Some(true)), Verdict::Over(_)));
    assert_eq!(unit(Some(ago(1)), None), Verdict::Unknown);
    assert_eq!(unit(None, Some(true)), Verdict::Fine { as_of: None });
}

#[test]
fn keys_that_cannot_be_used_or_lie_here_alone_are_told() {
    let secrets = |secrets| one(keys::secrets(&Evidence { secrets, ..evidence(vec![]) }, &limits()));
    assert_eq!(secrets(None), Verdict::Fine { as_of: None });
    let bad = is_bad(secrets(Some(problem("read secret restic.key: it does not exist", "put it there"))));
    assert_eq!((bad.tone, bad.hint.as_deref()), (Tone::Critical, Some("put it there")));

    let kit = |kit, backups| one(keys::recovery_kit(&Evidence { kit, ..evidence(vec![step(backups)]) }, &limits()));
    let made = || vec![backup(Succeeded, 1)];
    assert_eq!(kit(Some(Standing::Missing), vec![]), Verdict::Unknown, "nothing to open yet");
    assert_eq!(is_bad(kit(Some(Standing::Missing), made())).title, "no recovery kit was ever made");
    assert_eq!(is_bad(kit(Some(Standing::OtherKeys), made())).title, "no recovery kit was made since the keys changed");
    assert_eq!(kit(Some(Standing::OtherAccess), made()), Verdict::Fine { as_of: None });
    assert_eq!(kit(None, made()), Verdict::Unknown, "the secrets cannot be read");
}

#[test]
fn a_certificate_is_told_before_it_ends() {
    let certificate = |days: Option<i64>| {
        let certificate_end = days.map(|days| ago(-days * 24));
        one(keys::certificate(&Evidence { certificate_end, ..evidence(vec![]) }, &limits()))
    };
    assert_eq!(certificate(None), Verdict::Unknown, "a folder has none");
    assert_eq!(certificate(Some(14)), Verdict::Fine { as_of: None });
    assert_eq!(is_bad(certificate(Some(13))).tone, Tone::Warning);
    assert_eq!(is_bad(certificate(Some(2))).tone, Tone::Critical);
    assert_eq!(is_bad(certificate(Some(-2))).tone, Tone::Critical);
}

#[test]
fn while_history_cannot_be_read_only_that_is_known() {
    let step = StepEvidence {
        last_good: Some(ago(100)),
        first_good: Some(ago(1000)),
        check_every: Some(Duration::from_hours(1)),
        ..step(vec![backup(Failed, 1)])
    };
    let unreadable =
        Evidence { unreadable: Some(problem("open the state database", "")), cut_off: 3, ..evidence(vec![step]) };
    let limits = limits();
    for rule in [
        backups::outcome,
        backups::age,
        backups::size,
        backups::success_rate,
        backups::cut_off,
        backups::check_age,
        history::run,
    ] {
        assert_eq!(one(rule(&unreadable, &limits)), Verdict::Unknown);
    }
    assert_eq!(is_bad(one(history::readable(&unreadable, &limits))).text, "open the state database");
    assert_eq!(one(history::readable(&evidence(vec![]), &limits)), Verdict::Fine { as_of: None });
}

#[test]
fn problems_outside_the_steps_are_told() {
    let run = |problems: &[Problem]| {
        let run = Some(RunEnd { finished_at: ago(1), problems: problems.into() });
        one(history::run(&Evidence { run, ..evidence(vec![]) }, &limits()))
    };
    assert_eq!(run(&[]), Verdict::Fine { as_of: Some(ago(1)) });
    let bad = is_bad(run(&[problem("no room", "make some"), problem("no light", "")]));
    assert_eq!(
        (bad.text.as_str(), bad.hint.as_deref(), bad.as_of),
        ("no room; no light", Some("make some"), Some(ago(1)))
    );
    assert_eq!(one(history::run(&evidence(vec![]), &limits())), Verdict::Unknown);
}

#[test]
fn a_weak_supply_is_told_whenever_it_was_seen() {
    let look = |reading: Reading, machine: Vec<Trouble>| {
        let steps = vec![step(vec![Backup { machine, ..backup(Succeeded, 1) }, backup(Succeeded, 25)])];
        one(machine::power(&Evidence { reading, ..evidence(steps) }, &limits()))
    };
    let low = Trouble { what: What::UnderVoltage, from: ago(2), to: ago(1) };
    assert_eq!(look(Reading::default(), vec![]), Verdict::Fine { as_of: None }, "no Raspberry Pi");
    let now = is_bad(look(Reading { under_voltage: true, ..Reading::default() }, vec![low.clone()]));
    assert_eq!((now.tone, now.telling), (Tone::Critical, Telling::After(Duration::from_mins(20))));
    let during = is_bad(look(Reading::default(), vec![low]));
    assert_eq!((during.tone, during.as_of, during.telling), (Tone::Warning, Some(ago(1)), Telling::Now));
    assert!(during.text.starts_with("foundry: under-voltage "), "{}", during.text);
    let was = is_bad(look(Reading { was_under_voltage: true, ..Reading::default() }, vec![]));
    assert_eq!(was.tone, Tone::Warning);
    assert!(was.hint.unwrap().contains("official power supply"));
    let hot = Trouble { what: What::Heat { celsius: 90 }, from: ago(2), to: ago(1) };
    assert_eq!(look(Reading::default(), vec![hot]), Verdict::Fine { as_of: None });
}

#[test]
fn heat_is_over_only_five_degrees_below_its_limit() {
    let at = |celsius| {
        let reading = Reading { celsius: Some(celsius), ..Reading::default() };
        one(machine::temperature(&Evidence { reading, ..evidence(vec![]) }, &limits()))
    };
    assert_eq!([at(48), at(75)], [Verdict::Fine { as_of: None }, Verdict::Fine { as_of: None }]);
    assert_eq!([at(76), at(79)], [Verdict::Unknown, Verdict::Unknown]);
    assert_eq!([is_bad(at(80)).tone, is_bad(at(85)).tone], [Tone::Warning, Tone::Critical]);
}

#[test]
fn a_clock_that_storage_contradicts_is_told() {
    let contradicted = Some(("two hours ahead of the storage server's".to_owned(), ago(3)));
    let bad = is_bad(one(machine::clock(&Evidence { contradicted, ..evidence(vec![]) }, &limits())));
    assert_eq!((bad.tone, bad.since), (Tone::Warning, Some(ago(3))));
    assert!(bad.text.starts_with("two hours ahead") && bad.text.contains("Nothing was forgotten"));
}

#[test]
fn a_failure_tells_what_was_wrong_with_the_machine() {
    let machine = vec![Trouble { what: What::Heat { celsius: 83 }, from: ago(1), to: ago(1) }];
    let bad = is_bad(of_steps(backups::outcome, vec![Backup { machine, ..backup(Failed, 1) }]));
    assert!(bad.text.starts_with("disk on fire; the machine: 83 °C "), "{}", bad.text);
}

#[test]
fn restore_tests_that_fail_or_do_not_come_are_told() {
    let test = |outcome, hours| PastTest {
        started_at: ago(hours),
        finished_at: ago(hours),
        outcome,
        error: Some("tables: app.users is missing".into()),
        tested: None,
    };
    let of = |rule: fn(&Evidence, &Alarms) -> Vec<Found>, tests: Vec<PastTest>, first_good: Option<i64>| {
        let step = StepEvidence { tests, first_good: first_good.map(ago), ..step(vec![]) };
        one(rule(&evidence(vec![step]), &limits()))
    };
    assert_eq!(of(restores::outcome, vec![], Some(1)), Verdict::Unknown);
    assert_eq!(of(restores::outcome, vec![test(Degraded, 5)], None), Verdict::Fine { as_of: Some(ago(5)) });
    let failed = is_bad(of(restores::outcome, vec![test(Failed, 5), test(Failed, 50), test(Succeeded, 99)], None));
    assert_eq!((failed.tone, failed.since, failed.as_of), (Tone::Critical, Some(ago(50)), Some(ago(5))));
    assert_eq!(failed.text, "tables: app.users is missing");

    const DAY: i64 = 24;
    assert_eq!(of(restores::age, vec![], None), Verdict::Unknown, "there is nothing to restore");
    assert_eq!(of(restores::age, vec![], Some(44 * DAY)), Verdict::Fine { as_of: None });
    assert_eq!(is_bad(of(restores::age, vec![], Some(46 * DAY))).title, "no restore was ever tested");
    let tests = vec![test(Failed, DAY), test(Succeeded, 46 * DAY)];
    assert_eq!(is_bad(of(restores::age, tests, Some(400 * DAY))).since, Some(ago(DAY)));
}
