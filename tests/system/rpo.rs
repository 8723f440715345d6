//! How much would be lost with this disk: measured, shown, and told when it is more than was agreed.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use harness::{Config, Garage, Scratch, TlsProxy, Tmpfs, sh};
use pi_agent::lock::RunLock;
use serde_json::{Value, json};

use crate::postgres::{Host, archive_setting, spool_of};

const HOUR: Duration = Duration::from_hours(1);

/// Makes a file older than it is.
fn age(path: &Path, by: Duration) {
    let modified = path.metadata().unwrap().modified().unwrap();
    fs::File::open(path).unwrap().set_modified(modified - by).unwrap();
}

impl Host {
    /// The alarm of that name about the database.
    fn alarm(&self, name: &str) -> Option<Value> {
        let looked = self.agent.ok(["alarms", "--json"]).json();
        let mut alarms = looked["alarms"].as_array().unwrap().iter();
        alarms.find(|alarm| alarm["name"] == name && alarm["step"] == "database").cloned()
    }

    /// What `status` says of the database's WAL.
    fn wal(&self) -> Value {
        let status = self.agent.ok(["status", "--json"]).json();
        let mut steps = status["steps"].as_array().unwrap().iter();
        steps.find(|step| step["name"] == "database").expect("it is configured")["wal"].clone()
    }

    /// As if nothing had come since: the newest segment in the repository is that much older.
    fn idle_for(&self, time: Duration) {
        let path = self.spool().join(".reached.json");
        let mut note: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let then = jiff::Timestamp::try_from(SystemTime::now() - time).unwrap();
        note["whole"]["finished"] = json!(then);
        note["newest"]["finished"] = json!(then);
        fs::write(&path, note.to_string()).unwrap();
    }

    pub(crate) fn set(&self, setting: &str) {
        self.cluster.sql(&format!("alter system set {setting}"));
        self.cluster.sql("select pg_reload_conf()");
    }
}

/// The hour passes by making what waits older; the load, the server, the bucket and the way to it are real.
#[test]
fn an_hour_without_storage_under_load_is_told_and_loses_nothing() {
    let (garage, scratch) = (Garage::start(), Scratch::new());
    let proxy = TlsProxy::before(&garage);
    let url = format!("s3://{}/pi-hosting", Garage::BUCKET);
    let config = Config::s3(scratch.path(), &url, &proxy.endpoint(), proxy.ca_file(), (Garage::KEY_ID, Garage::KEY));
    let cluster = harness::Cluster::make(
        &scratch,
        "server",
        &format!("{}\narchive_timeout = 600\nfsync = off", archive_setting(&spool_of(&scratch))),
    );
    let host = Host::of(scratch, cluster, &config, "monthly-dump = false\n");
    sh(&mut host.cluster.pgbench(["--initialize", "--quiet", "--scale=5"]));
    host.good_run();
    assert_eq!(host.alarm("wal-age"), None);
    assert!(host.wal()["age_seconds"].as_u64().unwrap() <= 600, "{}", host.wal());

    proxy.set_down(true);
    let mut load = host.cluster.pgbench(["--client=4", "--time=12", "--no-vacuum"]);
    let mut load = load.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (mut kept, mut moment) = (String::new(), String::new());
    for minute in 0..6 {
        host.insert(&format!("minute {minute}"));
        if minute == 3 {
            kept = host.cluster.sql("select * from voters order by id");
            moment = host.moment_alone();
        }
        host.cluster.sql("select pg_switch_wal()");
        std::thread::sleep(Duration::from_secs(1));
    }
    assert!(load.wait().unwrap().success(), "PostgreSQL does not suffer");
    let last = host.cluster.finish_segment();
    // pgBackRest itself tries for a minute or two before it gives up.
    let push = host.agent.start(["wal", "push", "--retry-for", "1s"]);
    std::thread::sleep(Duration::from_secs(1));
    let waiting = pi_agent::wal::waiting(&host.spool()).unwrap();
    assert!(waiting.len() >= 6 && waiting.contains(&last), "the spool grows: {waiting:?}");

    waiting.iter().for_each(|name| age(&host.spool().join(name), HOUR));
    let alarm = host.alarm("wal-age").expect("it is older than the RPO");
    assert!(alarm["message"].as_str().unwrap().contains("files of WAL wait in"), "{alarm}");
    let wal = host.wal();
    assert!(wal["age_seconds"].as_u64().unwrap() >= 3600, "{wal}");
    assert_eq!(wal["waiting_files"].as_u64(), Some(waiting.len() as u64), "{wal}");

    proxy.set_down(false);
    let _ = push.wait();
    let started = std::time::Instant::now();
    host.agent.ok(["wal", "push"]);
    println!("{} segments, the rest of them in {:.1?}", waiting.len(), started.elapsed());
    assert!(pi_agent::wal::waiting(&host.spool()).unwrap().is_empty());
    assert_eq!(host.alarm("wal-age"), None, "it is over");
    let wal = host.wal();
    assert_eq!((wal["newest_segment"].as_str(), &wal["hole"]), (Some(&*last), &Value::Null), "{wal}");
    assert_eq!(host.cluster.sql("select failed_count from pg_stat_archiver where failed_count > 5"), "");

    let to = host.scratch.join("restored");
    host.agent.ok(["restore", "database", "--to", to.to_str().unwrap(), "--at", &moment]);
    let clone = harness::Cluster::existing(&host.scratch, &to);
    assert_eq!(clone.start().sql("select * from voters order by id"), kept, "a moment within that hour");
}

#[test]
fn a_run_that_holds_its_lock_for_hours_does_not_delay_wal() {
    let host = Host::local();
    host.good_run();
    let held = RunLock::take(&host.agent.state().join("run.lock"), "test").expect("nobody runs");
    let _ = host.run().expect(4);
    host.insert("while it runs");
    let segment = host.cluster.finish_segment();
    host.agent.ok(["wal", "push"]);
    assert_eq!(host.wal()["newest_segment"], json!(segment));
    let doctor = host.agent.run(["doctor"]);
    doctor.says("ok       step database: a segment of WAL was in the repository after");
    drop(held);
    assert!(host.wal()["newest_segment"].as_str() > Some(&*segment), "the doctor switched one");
    assert_eq!(host.restored("latest", "latest"), host.cluster.dump());
}

#[test]
fn a_hole_is_named_between_the_nights_and_closed_by_a_backup() {
    let host = Host::local();
    host.good_run();
    let before = host.cluster.finish_segment();
    host.agent.ok(["wal", "push"]);
    host.insert("lost");
    let lost = host.cluster.finish_segment();
    fs::remove_file(host.spool().join(&lost)).unwrap();
    let after = host.cluster.finish_segment();
    let told = format!("the archived WAL has a hole between {before} and {after}");
    host.agent.ok(["wal", "push"]).says(&told);
    let alarm = host.alarm("wal-hole").expect("it is told");
    assert_eq!(
        (alarm["tone"].as_str(), alarm["message"].as_str().map(|text| text.starts_with(&told))),
        (Some("critical"), Some(true)),
        "{alarm}"
    );
    let wal = host.wal();
    assert_eq!((&wal["hole"]["after"], &wal["hole"]["before"]), (&json!(before), &json!(after)), "{wal}");

    let ran = host.run().expect(5);
    assert!(
        ran.step("database")["error"]["message"].as_str().unwrap().starts_with("the archived WAL has a hole"),
        "{ran}"
    );
    assert_eq!((host.alarm("wal-hole"), &host.wal()["hole"]), (None, &Value::Null), "the backup is behind it");
    assert_eq!(host.restored("latest", "latest"), host.cluster.dump());

    // An archive_command that says yes and does nothing leaves nothing to push, and no gap to see.
    host.set("archive_command = 'true # pgbackrest'");
    let astray = host.cluster.finish_segment();
    assert_eq!(host.alarm("wal-hole"), None, "it may be on its way");
    age(&host.cluster.data().join(format!("pg_wal/archive_status/{astray}.done")), HOUR);
    let alarm = host.alarm("wal-hole").expect("it is told");
    assert!(alarm["message"].as_str().unwrap().contains(&astray), "{alarm}");
    host.set("archive_command to default");
    let _ = host.run().expect(5);
    assert_eq!(host.alarm("wal-hole"), None);
}

#[test]
fn an_idle_server_is_told_from_one_that_keeps_its_wal() {
    let host = Host::local();
    host.good_run();
    assert_eq!(host.wal()["archive_timeout_seconds"], 0);
    host.idle_for(HOUR * 10);
    let alarm = host.alarm("wal-age").expect("ten hours of changes may be in the server");
    assert!(alarm["message"].as_str().unwrap().contains("archive_timeout is 0 s"), "{alarm}");
    host.agent.run(["status"]).says("every change is safe until");

    host.set("archive_timeout = 600");
    host.good_run();
    assert_eq!(host.alarm("wal-age"), None);
    host.idle_for(HOUR * 10);
    assert_eq!(host.alarm("wal-age"), None, "what came since would have been handed over");
    let seconds = host.wal()["age_seconds"].as_u64().unwrap();
    assert!((600..660).contains(&seconds), "{seconds}");
    let page = host.scratch.join("status.html");
    host.agent.ok(["status", "--html", page.to_str().unwrap()]);
    assert!(fs::read_to_string(page).unwrap().contains("<dt>safe until</dt>"));
}

#[test]
fn a_server_that_archives_nothing_is_not_taken_for_an_idle_one() {
    let host = Host::local();
    host.set("archive_timeout = 1");
    host.good_run();
    host.set("archive_mode = off");
    host.cluster.stop();
    host.cluster.start();
    host.agent.ok(["wal", "push"]);
    host.insert("alone");
    let written = std::time::Instant::now();
    std::thread::sleep(Duration::from_secs(4));
    let seconds = host.wal()["age_seconds"].as_u64().unwrap();
    assert!(seconds + 1 >= written.elapsed().as_secs(), "{seconds} s");
    // A finished segment that nobody marked shows it at once, also to who pushes.
    let finished = host.cluster.sql("select pg_walfile_name(pg_current_wal_lsn())");
    host.cluster.sql("select pg_switch_wal()");
    host.insert("alone, too");
    age(&host.cluster.data().join("pg_wal").join(&finished), HOUR);
    host.agent.run(["status"]).says("does not hand over what it writes");
    host.agent.run(["wal", "push"]).expect(1).says("the server does not hand its WAL over").says(&finished);
    host.agent.run(["doctor"]).says("archive_mode is off");
}

#[test]
fn a_spool_that_is_full_empties_itself() {
    let scratch = Scratch::new();
    let disk = Tmpfs::mount(scratch.join("spool"), 41 << 20);
    let config = Config::local(scratch.path());
    let host = Host::with(scratch, &config, "monthly-dump = false\n");
    host.good_run();
    host.insert("on a full disk");
    host.cluster.finish_segment();
    let last = host.cluster.finish_segment();
    let rest = disk.path().join("rest");
    assert!(fs::write(&rest, vec![1; 41 << 20]).is_err(), "nothing more goes there");
    assert!(fs::write(host.spool().join("probe"), "1").is_err());
    let _ = fs::remove_file(host.spool().join("probe"));
    host.agent.ok(["wal", "push"]).says("2 WAL files pushed");
    let wal = host.wal();
    assert_eq!((&wal["newest_segment"], &wal["hole"]), (&json!(last), &Value::Null), "{wal}");
    fs::remove_file(rest).unwrap();
    host.good_run();
    assert_eq!(host.restored("latest", "latest"), host.cluster.dump());
}
