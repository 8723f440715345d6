//! A database that went back goes on, on another timeline. Every moment of each of them comes back as it was, and what is said
//! to be a moment is that moment.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::cluster::give_to_postgres;
use harness::{Cluster, Ran, sh};

use crate::postgres::Host;

/// The rows, in the order in which they came.
fn rows(cluster: &Cluster) -> String {
    cluster.sql("select coalesce(string_agg(name, ' ' order by at), '') from voters")
}

/// A restore beside the original: what was said, and the rows that came back.
fn restored(host: &Host, name: &str, arguments: &[&str]) -> (Ran, String) {
    let to = host.scratch.join(name);
    let ran = host.agent.run([&["restore", "database", "--to", to.to_str().unwrap()], arguments].concat()).expect(0);
    let clone = Cluster::existing(&host.scratch, &to);
    let found = rows(clone.start());
    clone.stop();
    (ran, found)
}

/// The original back to that moment, and at work again. Its history is in the repository by then.
fn go_back(host: &Host, at: &str) {
    host.cluster.stop();
    host.agent.ok(["restore", "database", "--in-place", "--yes", "--at", at]).says("is in its place");
    host.cluster.start();
}

/// The stopped server goes on along a new timeline, as the program advises.
pub(crate) fn begin_a_timeline(host: &Host) {
    promote(&host.cluster);
}

/// The stopped server recovers what it has, and goes on along a new timeline.
fn promote(cluster: &Cluster) {
    let signal = cluster.data().join("recovery.signal");
    fs::write(&signal, "").unwrap();
    give_to_postgres(&signal);
    let settings = cluster.data().join("postgresql.auto.conf");
    let mut settings = fs::File::options().append(true).open(settings).unwrap();
    settings.write_all(b"restore_command = '/bin/false'\nrecovery_target_timeline = 'current'\n").unwrap();
    cluster.start();
    while cluster.sql("select pg_is_in_recovery()") == "t" {
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn copy(from: &Path, to: &Path) {
    sh(Command::new("cp").arg("-a").arg(from).arg(to));
}

#[test]
fn slow_each_moment_comes_back_from_the_timeline_that_it_is_on() {
    let host = Host::local();
    let insert = |name: &str| {
        host.insert(name);
        // pgBackRest tells the time of files and backups in whole seconds.
        std::thread::sleep(Duration::from_millis(1100));
        host.moment_alone()
    };
    host.good_run();
    let one = insert("one");
    let two = insert("two");
    host.good_run();
    let three = insert("three");
    host.insert("lost");
    host.agent.ok(["wal", "push", "database", "--switch"]);

    // Back to before the second backup; on from there; and back once more, to what had been left.
    go_back(&host, &one);
    let four = insert("four");
    host.good_run();
    let five = insert("five");
    host.insert("lost, too");
    go_back(&host, &three);
    let six = insert("six");
    host.agent.ok(["wal", "push", "database", "--switch"]);

    let wanted = [
        (&one, "one"),
        (&two, "one two"),
        (&three, "one two three"),
        (&four, "one four"),
        (&five, "one four five"),
        (&six, "one two three six"),
    ];
    // The last has nothing behind it.
    host.insert("end");
    host.agent.ok(["wal", "push", "database", "--switch"]);
    for (number, (moment, found)) in wanted.iter().enumerate() {
        let (ran, rows) = restored(&host, &format!("moment-{number}"), &["--at", moment]);
        assert_eq!(rows, *found, "at {moment}: {ran}");
    }

    // Another timeline's moment is had by its number, and so is its end.
    let end = |number: &str| restored(&host, &format!("end-{number}"), &["--timeline", number]).1;
    assert_eq!([end("1"), end("2")], ["one two three lost", "one four five lost, too"]);
    let (_, rows) = restored(&host, "newest", &[]);
    assert_eq!(rows, "one two three six end");
    let to = host.scratch.join("none");
    let to = to.to_str().unwrap();
    host.agent
        .run(["restore", "database", "--to", to, "--timeline", "9"])
        .expect(1)
        .says("has no timeline 9")
        .says("it has: 1, 2, 3");
    host.agent
        .run(["restore", "database", "--to", to, "--at", &host.labels()[0], "--timeline", "1"])
        .expect(2)
        .says("goes with a moment");

    // They are told.
    let points = host.agent.ok(["points", "database", "--json"]).json();
    let told = points["windows"][0]["timelines"].as_array().unwrap().iter().map(|one| one["timeline"].as_u64());
    assert_eq!(told.collect::<Vec<_>>(), [Some(2), Some(3)], "{points}");
    host.agent.ok(["points", "database"]).says("timeline 3 since ");
}

/// What `restore --to` gives, a person puts into the place of the original.
#[test]
fn a_copy_that_becomes_the_original_has_a_timeline_that_leads_to_its_moments() {
    let host = Host::local();
    host.good_run();
    host.insert("one");
    std::thread::sleep(Duration::from_millis(1100));
    let moment = host.moment_alone();
    host.insert("lost");
    host.agent.ok(["wal", "push", "--switch"]);
    let (copy, data) = (host.scratch.join("copy"), host.cluster.data());
    host.agent.ok(["restore", "database", "--to", copy.to_str().unwrap(), "--at", &moment]);
    host.cluster.stop();
    fs::rename(data, host.scratch.join("before")).unwrap();
    fs::rename(copy, data).unwrap();
    fs::rename(data.join("postgresql.auto.conf.original"), data.join("postgresql.auto.conf")).unwrap();
    host.cluster.start();

    // Without it, a backup of before does not lead there.
    host.good_run();
    let archives = fs::read_dir(host.scratch.join("storage/database/archive/main")).unwrap();
    let mut histories = archives.map(|archive| archive.unwrap().path().join("00000002.history"));
    assert!(histories.any(|history| history.exists()), "nobody knows where the timeline comes from");
    host.insert("two");
    std::thread::sleep(Duration::from_millis(1100));
    let moment = host.moment_alone();
    host.insert("lost, too");
    host.agent.ok(["wal", "push", "--switch"]);
    assert_eq!(restored(&host, "again", &["--at", &moment]).1, "one two");
}

/// A restore in place that somebody takes back leaves a history, and the cluster goes on as if it had not been.
#[test]
fn a_return_that_was_taken_back_leads_nobody_astray() {
    let host = Host::local();
    host.good_run();
    host.insert("one");
    std::thread::sleep(Duration::from_millis(1100));
    let one = host.moment_alone();
    host.insert("two");
    go_back(&host, &one);
    host.insert("not wanted");
    let meanwhile = host.moment_alone();
    host.insert("not wanted either");
    host.agent.ok(["wal", "push", "database", "--switch"]);
    host.cluster.stop();
    let data = host.cluster.data();
    let old = crate::in_place::kept(data).remove(0);
    fs::rename(data, host.scratch.join("not-wanted")).unwrap();
    fs::rename(old, data).unwrap();
    host.cluster.start();
    std::thread::sleep(Duration::from_millis(1100));
    host.insert("three");
    host.agent.ok(["wal", "push", "database", "--switch"]);
    let (ran, rows) = restored(&host, "newest", &[]);
    assert_eq!(rows, "one two three", "{ran}");
    let (ran, rows) = restored(&host, "meanwhile", &["--at", &meanwhile]);
    assert_eq!(rows, "one not wanted", "{ran}");
    host.good_run();
}

/// A standby that is promoted for a try archives as its primary does: also the beginning of the segment that the primary fills later.
#[test]
fn a_clone_that_is_promoted_for_a_try_is_not_taken_for_the_original() {
    let host = Host::local();
    host.good_run();
    host.insert("one");
    host.cluster.stop();
    let data = host.scratch.join("clone");
    copy(host.cluster.data(), &data);
    let clone = Cluster::existing(&host.scratch, &data);
    promote(&clone);
    clone.sql("insert into voters values (99, 'of the clone')");
    clone.finish_segment();
    clone.stop();
    host.cluster.start();
    host.insert("two");
    std::thread::sleep(Duration::from_millis(1100));
    let two = host.moment_alone();
    host.insert("three");
    host.agent.ok(["wal", "push", "database", "--switch"]);
    let both = |name: &str| name.contains(".partial-");
    let names = fs::read_dir(host.archive().join("0000000100000000")).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let partial = names.iter().find(|name| both(name)).expect("the clone left its beginning");
    assert!(names.iter().any(|name| name.starts_with(&format!("{}-", &partial[..24]))), "and it is there, whole");

    let (ran, rows) = restored(&host, "newest", &[]);
    assert_eq!(rows, "one two three", "{ran}");
    ran.says("along several timelines at once").says("this is timeline 1").says("--timeline 2");
    let (ran, rows) = restored(&host, "two", &["--at", &two]);
    assert_eq!(rows, "one two", "{ran}");
    assert_eq!(restored(&host, "clone-again", &["--timeline", "2"]).1, "one of the clone");
}

/// The timeline that was left has segments of the same places.
#[test]
fn what_another_timeline_has_does_not_hide_a_hole() {
    let host = Host::local();
    host.good_run();
    host.insert("one");
    std::thread::sleep(Duration::from_millis(1100));
    let one = host.moment_alone();
    let write = |names: &[&str]| {
        for name in names {
            host.insert(name);
            host.cluster.finish_segment();
        }
        host.agent.ok(["wal", "push", "database"]);
    };
    write(&["left", "left", "left", "left"]);
    go_back(&host, &one);
    write(&["two", "three"]);
    host.agent.ok(["check", "database"]);
    let segments = fs::read_dir(host.archive().join("0000000200000000")).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<_> = segments.collect();
    segments.sort();
    let [.., gone, _] = &segments[..] else { panic!("there are two") };
    fs::remove_file(gone).unwrap();
    let hole = "the archived WAL has a hole between";
    host.agent.run(["check", "database"]).expect(3).says(hole);
    host.agent.run(["restore-test", "database"]).expect(3).says("repository: FAILED").says(hole);
    let ran = host.run().expect(5);
    assert!(ran.step("database")["error"]["message"].as_str().unwrap().contains(hole), "{ran}");
}

/// The storage was away as the database went on along another timeline: its history says nothing of when that was.
#[test]
fn a_history_that_arrives_late_changes_no_moment() {
    let host = Host::local();
    host.good_run();
    host.insert("one");
    host.cluster.stop();
    begin_a_timeline(&host);
    host.insert("two");
    let two = host.moment_alone();
    host.insert("three");
    std::thread::sleep(Duration::from_millis(1100));
    host.agent.ok(["wal", "push", "database", "--switch"]);
    let (ran, rows) = restored(&host, "two", &["--at", &two]);
    assert_eq!(rows, "one two", "{ran}");
}

/// PostgreSQL takes the segment of the timeline before for one that is missing, and all that happened there with it.
#[test]
fn what_a_timeline_did_after_it_was_left_is_not_taken_for_what_the_next_one_lost() {
    let host = Host::local();
    host.good_run();
    host.insert("one");
    std::thread::sleep(Duration::from_millis(1100));
    let one = host.moment_alone();
    host.insert("gone");
    host.agent.ok(["wal", "push", "database", "--switch"]);
    go_back(&host, &one);
    host.insert("two");
    host.agent.ok(["wal", "push", "database", "--switch"]);
    // Its first segment.
    let segments = fs::read_dir(host.archive().join("0000000200000000")).unwrap().map(|entry| entry.unwrap().path());
    fs::remove_file(segments.min().unwrap()).unwrap();
    let to = host.scratch.join("newest");
    host.agent.run(["restore", "database", "--to", to.to_str().unwrap()]).expect(5).says("the WAL has a hole before");
    assert_eq!(rows(Cluster::existing(&host.scratch, &to).start()), "one");
    // Whoever goes back to there is not told to remove the rest.
    host.cluster.stop();
    let ran = host.agent.run(["restore", "database", "--in-place", "--yes"]).expect(5);
    assert!(!ran.says("holds changes that are nowhere else").stdout.contains("rm -rf"), "{ran}");
}

/// Where the archive ends before the moment, what came back is not called by that moment.
#[test]
fn a_moment_behind_the_end_is_not_said_to_be_reached() {
    let host = Host::local();
    host.insert("one");
    host.good_run();
    host.insert("two");
    host.agent.ok(["wal", "push", "database", "--switch"]);
    let last = host.cluster.sql("select to_char(max(at), 'YYYY-MM-DD HH24:MI:SS') from voters");
    std::thread::sleep(Duration::from_secs(3));
    let behind = host.moment_alone();
    let to = host.scratch.join("behind");
    let ran = host.agent.run(["restore", "database", "--to", to.to_str().unwrap(), "--at", &behind]).expect(5);
    ran.says("the archive holds no transaction after the moment asked for").says(&format!("database of {last}"));
}

/// A server that was started with `wal_level = minimal` for once leaves no gap in the names of its segments.
#[test]
fn wal_that_lacks_changes_is_a_hole() {
    let host = Host::local();
    host.insert("one");
    host.good_run();
    host.insert("two");
    let two = host.moment_alone();
    let settings = host.cluster.data().join("postgresql.conf");
    let before = fs::read_to_string(&settings).unwrap();
    host.cluster.stop();
    fs::write(&settings, format!("{before}\nwal_level = minimal\nmax_wal_senders = 0\narchive_mode = off\n")).unwrap();
    host.cluster.start();
    host.cluster.sql("create table bulk as select * from generate_series(1, 1000)");
    host.cluster.stop();
    fs::write(&settings, before).unwrap();
    host.cluster.start();
    host.insert("three");
    let three = host.moment_alone();
    host.insert("four");

    let minimal = "wal_level = minimal";
    host.agent.run(["wal", "push", "database", "--switch"]).expect(1).says(minimal).says("pi-agent run database");
    host.agent.run(["status"]).says(minimal);
    let up_to_it = |name: &str, at: &str| {
        let to = host.scratch.join(name);
        let ran = host.agent.run(["restore", "database", "--to", to.to_str().unwrap(), "--at", at]).expect(5);
        ran.says(minimal).says("pi-agent run");
        assert_eq!(rows(Cluster::existing(&host.scratch, &to).start()), "one two", "{ran}");
    };
    up_to_it("before-the-night", "latest");
    let ran = host.run().expect(5);
    assert!(ran.step("database")["error"]["message"].as_str().unwrap().contains(minimal), "{ran}");

    host.agent.ok(["points", "database"]).says("but none from ");
    host.agent.run(["check", "database"]).expect(3).says("no moment between");
    host.agent.run(["restore-test", "database"]).expect(3).says("older WAL: FAILED").says(minimal);
    up_to_it("in-it", &three);
    up_to_it("right-before-it", &two);
    assert_eq!(restored(&host, "newest", &[]).1, "one two three four");
    host.good_run();
}

/// Nothing was committed after the moment: a later backup, or what else the server wrote, tells that it was as it is then.
#[test]
fn a_moment_of_an_idle_database_is_reached() {
    let host = Host::local();
    host.insert("one");
    host.good_run();
    let idle = || {
        std::thread::sleep(Duration::from_millis(1100));
        let moment = host.moment_alone();
        std::thread::sleep(Duration::from_millis(1100));
        moment
    };
    let before_a_backup = idle();
    host.good_run();
    let before_a_segment = idle();
    host.agent.ok(["wal", "push", "database", "--switch"]);
    for (name, moment) in [("backup", before_a_backup), ("segment", before_a_segment)] {
        let (ran, rows) = restored(&host, name, &["--at", &moment]);
        assert_eq!(rows, "one", "{ran}");
        ran.says(&format!("database of {}", moment[..19].replace('T', " ")));
    }
}

#[test]
fn a_cluster_without_the_database_postgres_is_backed_up_and_restored_like_any_other() {
    let host = Host::local();
    host.cluster.sql("create database app");
    host.good_run();
    host.cluster.sql_in("app", "create table t (i int)");
    host.cluster.sql_in("template1", "alter database postgres rename to other");
    host.cluster.sql_in("app", "insert into t values (1)");
    host.good_run();
    host.cluster.sql_in("app", "insert into t values (2)");
    host.agent.ok(["wal", "push", "database", "--switch"]);
    let to = host.scratch.join("newest");
    host.agent.ok(["restore", "database", "--to", to.to_str().unwrap()]);
    let clone = Cluster::existing(&host.scratch, &to);
    assert_eq!(clone.start().sql_in("app", "select sum(i) from t"), "3");
    host.agent.ok(["restore-test", "database"]);
}

/// Labels are dated by local time, and pgBackRest refuses one that is not later than the last.
#[test]
fn a_journey_to_the_west_stops_no_backup() {
    let Host { scratch: _scratch, cluster, agent } = Host::local();
    let agent = agent.env("TZ", "Pacific/Auckland");
    for _ in 0..2 {
        cluster.sql("insert into voters select count(*), 'in the east' from voters");
        agent.ok(["run", "database"]);
    }
    let agent = agent.env("TZ", "America/Los_Angeles");
    cluster.sql("insert into voters select count(*), 'in the west' from voters");
    let ran = agent.ok(["run", "database", "--json"]);
    let label = ran.step("database")["restore_point"].as_str().unwrap().to_owned();
    let utc = cluster.sql("select to_char(now() at time zone 'UTC', 'YYYYMMDD-HH24MISS')");
    assert!(label.rsplit('_').next().unwrap()[..15] <= *utc, "{label} is dated later than {utc}");
}

/// An old image of the card is written back: the same cluster on the same timeline, some nights earlier.
#[test]
fn a_cluster_that_went_back_is_told_so_and_stays_as_it_is_where_nobody_can_restart_it() {
    let host = Host::local();
    let (data, image) = (host.cluster.data(), host.scratch.join("image"));
    host.good_run();
    host.cluster.stop();
    copy(data, &image);
    host.cluster.start();
    host.insert("lost");
    host.good_run();
    host.cluster.stop();
    fs::remove_dir_all(data).unwrap();
    copy(&image, data);
    host.cluster.start();
    host.insert("after it was put back");
    let (message, hint) = host.failed_run();
    assert!(message.contains("went back to an earlier state"), "{message}");
    assert!(hint.contains("pi-agent adopt database") && hint.contains("--in-place"), "{hint}");
    // The harness started it by hand.
    host.agent.run(["adopt", "database"]).expect(1).says("no unit of systemd is its");
    assert!(!data.join("recovery.signal").exists());
    host.insert("and it goes on");
}
