//! The newest moment includes what the server did not hand over: a restore in place and `wal push` take it from its `pg_wal`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use harness::Cluster;
use jiff::Timestamp;

use crate::in_place::kept;
use crate::postgres::Host;
use crate::timelines::begin_a_timeline;

/// Nobody archives from now on, and three segments are finished meanwhile.
fn fall_behind(host: &Host) -> PathBuf {
    let away = host.scratch.join("away");
    fs::rename(host.spool(), &away).unwrap();
    for name in ["two", "three", "four"] {
        host.insert(name);
        host.cluster.sql("select pg_switch_wal()");
    }
    away
}

fn rows(cluster: &Cluster) -> String {
    cluster.sql("select string_agg(name, ' ' order by at) from voters")
}

fn marks(host: &Host, kind: &str) -> Vec<PathBuf> {
    let marks = fs::read_dir(host.cluster.data().join("pg_wal/archive_status")).unwrap();
    let mut marks: Vec<_> = marks.map(|mark| mark.unwrap().path()).collect();
    marks.retain(|mark| mark.extension().is_some_and(|ending| ending == kind));
    marks.sort();
    marks
}

fn make_old(file: &Path) {
    let old = SystemTime::now() - Duration::from_mins(5);
    fs::File::options().append(true).open(file).unwrap().set_modified(old).unwrap();
}

#[test]
fn a_dead_server_loses_nothing_that_it_had_written() {
    let host = Host::local();
    host.insert("one");
    host.good_run();
    std::thread::sleep(Duration::from_millis(1100));
    let first = host.moment_alone();
    let away = fall_behind(&host);
    // While it runs it is said that they wait, and nothing is taken from it.
    make_old(&marks(&host, "ready")[0]);
    host.agent.run(["wal", "push"]).expect(1).says("files of WAL wait in the server itself, the oldest for 5 minutes");
    host.insert("five");
    host.cluster.crash();
    fs::rename(away, host.spool()).unwrap();

    // Back to before all of that: it is in the repository all the same.
    host.agent.ok(["restore", "database", "--in-place", "--yes", "--at", &first]).says("rm -rf");
    assert_eq!(rows(host.cluster.start()), "one");
    host.insert("on another timeline");
    let to = host.scratch.join("first");
    host.agent.ok(["restore", "database", "--to", to.to_str().unwrap(), "--timeline", "1"]);
    let clone = Cluster::existing(&host.scratch, &to);
    assert_eq!(rows(clone.start()), "one two three four five");
    clone.stop();

    // And the newest moment of a server that died.
    host.cluster.crash();
    host.agent.ok(["wal", "push"]);
    assert_eq!(marks(&host, "ready"), Vec::<PathBuf>::new(), "they are handed over");
    host.agent.ok(["wal", "push"]);
    // Of a moment behind its end there is no more than the beginning of the last segment.
    let (to, behind) = (host.scratch.join("behind"), Timestamp::now().to_string());
    let ran = host.agent.run(["restore", "database", "--to", to.to_str().unwrap(), "--at", &behind]).expect(5);
    ran.says("the archive holds no transaction after the moment asked for");
    let clone = Cluster::existing(&host.scratch, &to);
    assert_eq!(rows(clone.start()), "one on another timeline");
    clone.stop();
    host.agent.ok(["restore", "database", "--in-place", "--yes"]);
    assert_eq!(rows(host.cluster.start()), "one on another timeline");
    host.good_run();
}

#[test]
fn a_server_that_was_stopped_hands_over_what_it_had_finished_and_goes_on() {
    let host = Host::local();
    host.insert("one");
    host.good_run();
    let away = fall_behind(&host);
    host.cluster.stop();
    fs::rename(away, host.spool()).unwrap();
    host.agent.ok(["wal", "push"]);
    let to = host.scratch.join("newest");
    host.agent.ok(["restore", "database", "--to", to.to_str().unwrap()]);
    assert_eq!(rows(Cluster::existing(&host.scratch, &to).start()), "one two three four");
    // It goes on in the same segment.
    host.cluster.start();
    host.insert("five");
    host.good_run();
}

#[test]
fn what_cannot_be_taken_is_told_and_nobody_is_told_to_remove_it() {
    let host = Host::local();
    host.insert("one");
    host.good_run();
    let away = fall_behind(&host);
    host.cluster.crash();
    fs::rename(away, host.spool()).unwrap();
    // A bad place on the disk.
    let broken = marks(&host, "ready")[1].file_stem().unwrap().to_owned();
    let broken = host.cluster.data().join("pg_wal").join(broken);
    fs::File::options().write(true).open(broken).unwrap().set_len(5 << 20).unwrap();
    let ran = host.agent.run(["restore", "database", "--in-place", "--yes"]).expect(5);
    ran.says("minutes of changes").says("is truncated").says("holds changes that are nowhere else");
    assert!(!ran.stdout.contains("rm -rf"), "{ran}");
    assert!(kept(host.cluster.data())[0].join("pg_wal").exists());
    assert_eq!(rows(host.cluster.start()), "one two");
}

/// A server died, was started again, and died once more in the same segment; then somebody began a timeline by hand.
#[test]
fn no_timeline_gets_the_number_of_one_that_waited_to_be_archived() {
    let host = Host::local();
    host.insert("one");
    host.good_run();
    std::thread::sleep(Duration::from_millis(1100));
    let first = host.moment_alone();
    host.insert("two");
    host.cluster.crash();
    host.agent.ok(["wal", "push"]);
    host.cluster.start();
    host.insert("three");
    host.cluster.crash();
    // It hands over another beginning of that segment, and the history of its timeline.
    begin_a_timeline(&host);
    host.insert("four");
    host.cluster.finish_segment();
    host.cluster.stop();

    host.agent.ok(["restore", "database", "--in-place", "--yes", "--at", &first]).says("already exists");
    assert_eq!(rows(host.cluster.start()), "one");
    let segment = host.cluster.sql("select pg_walfile_name(pg_current_wal_lsn())");
    assert!(segment.starts_with("00000003"), "{segment}");
    host.insert("five");
    host.good_run();
    // Both are whole.
    for (timeline, wanted) in [("2", "one two three four"), ("3", "one five")] {
        let to = host.scratch.join(timeline);
        host.agent.ok(["restore", "database", "--to", to.to_str().unwrap(), "--timeline", timeline]);
        let clone = Cluster::existing(&host.scratch, &to);
        assert_eq!(rows(clone.start()), wanted, "timeline {timeline}");
        clone.stop();
    }
}

/// The usual way to switch archiving off for an afternoon: PostgreSQL counts each segment as archived.
#[test]
fn what_the_server_counts_as_archived_is_taken_where_it_is_not() {
    let host = Host::local();
    host.insert("one");
    host.good_run();
    host.set("archive_command = '/bin/true # pgbackrest'");
    host.set("wal_keep_size = '1GB'");
    host.insert("two");
    host.cluster.finish_segment();
    let push = host.agent.run(["wal", "push"]).expect(1);
    push.says("the server does not hand its WAL over").says("in 1 finished segments from");
    host.insert("three");
    host.cluster.stop();

    host.agent.ok(["restore", "database", "--in-place", "--yes"]).says("rm -rf");
    assert_eq!(rows(host.cluster.start()), "one two three");
}

#[test]
fn a_server_that_archived_nothing_when_it_stopped_has_changes_in_its_last_segment() {
    let host = Host::local();
    host.insert("one");
    host.good_run();
    host.set("wal_keep_size = '1GB'");
    host.cluster.stop();
    let settings = host.cluster.data().join("postgresql.conf");
    let archiving = fs::read_to_string(&settings).unwrap();
    fs::write(&settings, format!("{archiving}archive_mode = off\n")).unwrap();
    host.cluster.start();
    host.insert("two");
    host.cluster.sql("select pg_switch_wal()");
    host.insert("three");
    host.cluster.stop();

    host.agent.ok(["wal", "push"]);
    host.agent.ok(["restore", "database", "--in-place", "--yes"]).says("rm -rf");
    fs::write(&settings, archiving).unwrap();
    assert_eq!(rows(host.cluster.start()), "one two three");
    host.good_run();
}

#[test]
fn nobody_is_told_to_remove_changes_whose_wal_was_used_again() {
    let host = Host::local();
    host.insert("one");
    host.good_run();
    host.set("archive_command = '/bin/true # pgbackrest'");
    host.insert("two");
    for _ in 0..3 {
        host.cluster.finish_segment();
    }
    host.cluster.sql("checkpoint");
    host.cluster.stop();
    let ran = host.agent.run(["restore", "database", "--in-place", "--yes"]).expect(5);
    ran.says("has used segments behind it again").says("holds changes that are nowhere else");
    assert!(!ran.stdout.contains("rm -rf"), "{ran}");
    assert_eq!(rows(host.cluster.start()), "one");
    let old = kept(host.cluster.data()).remove(0);
    host.cluster.stop();
    assert_eq!(rows(Cluster::existing(&host.scratch, &old).start()), "one two", "it is whole in there");
}
