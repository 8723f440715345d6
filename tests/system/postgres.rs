//! PostgreSQL and pgBackRest for real: backups, WAL, moments in time, and everything that is wrong with a server.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use harness::cluster::give_to_postgres;
use harness::{Agent, Cluster, Config, Garage, Ran, Scratch, TlsProxy};
use serde_json::Value;

use crate::health::with_network_time;

pub(crate) const STANZA: &str = "main";

/// A running server that archives into the spool, and an agent that backs it up.
pub(crate) struct Host {
    pub(crate) scratch: Scratch,
    pub(crate) cluster: Cluster,
    pub(crate) agent: Agent,
}

impl Host {
    pub(crate) fn local() -> Self {
        let scratch = Scratch::new();
        let config = Config::local(scratch.path());
        Self::with(scratch, &config, "")
    }

    pub(crate) fn with(scratch: Scratch, config: &Config, more: &str) -> Self {
        let cluster = Cluster::make(&scratch, "server", &archive_setting(&spool_of(&scratch)));
        Self::of(scratch, cluster, config, more)
    }

    pub(crate) fn of(scratch: Scratch, cluster: Cluster, config: &Config, more: &str) -> Self {
        let agent = config.clone().step(&cluster.step("database", STANZA, more)).write();
        // The spool is made by the first run; until then archive_command fails and PostgreSQL tries again.
        cluster.start();
        cluster.sql("create table voters (id int primary key, name text, at timestamptz default clock_timestamp())");
        Self { scratch, cluster, agent }
    }

    pub(crate) fn spool(&self) -> PathBuf {
        spool_of(&self.scratch)
    }

    /// The WAL of the one cluster that storage holds.
    pub(crate) fn archive(&self) -> PathBuf {
        let stanza = fs::read_dir(self.scratch.join("storage/database/archive").join(STANZA)).unwrap();
        stanza.map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap()
    }

    pub(crate) fn run(&self) -> Ran {
        self.agent.run(["run", "database", "--json"])
    }

    /// A good run; the label of the new backup.
    #[track_caller]
    pub(crate) fn good_run(&self) -> String {
        let ran = self.run().expect(0);
        let step = ran.step("database");
        assert_eq!(step["outcome"], "succeeded", "{ran}");
        assert!(step["bytes_stored"].as_u64().unwrap() > 100_000, "{ran}");
        step["restore_point"].as_str().expect("a label").to_owned()
    }

    /// A failed run; its message and hint.
    #[track_caller]
    pub(crate) fn failed_run(&self) -> (String, String) {
        let ran = self.run().expect(3);
        let step = ran.step("database");
        assert_eq!(step["outcome"], "failed", "{ran}");
        let text = |key: &str| step["error"][key].as_str().unwrap_or_default().to_owned();
        (text("message"), text("hint"))
    }

    /// The ids of the points of that kind, or of all others.
    fn ids(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let points = self.agent.ok(["points", "database", "--json"]).json();
        let points = points["points"].as_array().unwrap().iter();
        let wanted = points.filter(|point| wanted(point["kind"].as_str().unwrap()));
        wanted.map(|point| point["id"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) fn labels(&self) -> Vec<String> {
        self.ids(|kind| kind != "dump")
    }

    pub(crate) fn dumps(&self) -> Vec<String> {
        self.ids(|kind| kind == "dump")
    }

    /// Restores, starts the result and returns everything in it.
    #[track_caller]
    pub(crate) fn restored(&self, name: &str, at: &str) -> String {
        let to = self.scratch.join(name);
        self.agent.ok(["restore", "database", "--to", to.to_str().unwrap(), "--at", at]);
        let clone = Cluster::existing(&self.scratch, &to);
        clone.start();
        assert_eq!(clone.sql("select pg_is_in_recovery()"), "f");
        assert_eq!(clone.sql("show archive_mode"), "off", "a copy must not archive into the original's repository");
        clone.dump()
    }

    pub(crate) fn insert(&self, name: &str) {
        self.cluster.sql(&format!("insert into voters select count(*), '{name}' from voters"));
    }

    /// A moment between what was and what comes.
    pub(crate) fn moment_alone(&self) -> String {
        let pause = || std::thread::sleep(std::time::Duration::from_millis(20));
        pause();
        let moment = self.cluster.sql("select to_char(clock_timestamp(), 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
        pause();
        moment
    }

    /// The same, and all that is in the database at it.
    pub(crate) fn moment(&self) -> (String, String) {
        (self.moment_alone(), self.cluster.dump())
    }
}

pub(crate) fn spool_of(scratch: &Scratch) -> PathBuf {
    scratch.join("spool").join(STANZA)
}

pub(crate) fn archive_setting(spool: &Path) -> String {
    format!("archive_command = '{}'", pi_agent::wal::archive_command(spool).replace('\'', "''"))
}

#[test]
fn full_incremental_wal_and_any_moment_come_back() {
    let host = Host::local();
    host.insert("before the first night");
    let first = host.good_run();
    assert!(first.ends_with('F'), "the first is full: {first}");
    let at_first = host.cluster.dump();

    host.insert("before the second night");
    let second = host.good_run();
    assert!(second.starts_with(&first) && second.ends_with('I'), "{second}");

    host.insert("a session was played");
    let (moment, at_moment) = host.moment();
    host.cluster.sql("delete from voters");
    host.cluster.finish_segment();
    host.agent.ok(["wal", "push"]);
    assert!(pi_agent::wal::waiting(&host.spool()).unwrap().is_empty(), "all is in the repository");

    assert_eq!(host.labels(), [first.clone(), second]);
    let window = host.agent.ok(["points", "database", "--json"]).json()["windows"][0].clone();
    assert!(window["from"].as_str() < Some(&moment) && window["to"].is_string(), "{window}");

    assert_eq!(host.restored("moment", &moment), at_moment);
    assert_eq!(host.restored("latest", "latest"), host.cluster.dump());
    assert_eq!(host.restored("label", &first), at_first);

    // The folder of a step is the server's; the secrets are in no argument, log or message, and closed in the file.
    let folder = host.scratch.join("storage/database").metadata().unwrap();
    assert_eq!(folder.uid(), host.cluster.data().metadata().unwrap().uid());
    let generated = host.scratch.join("runtime/pgbackrest").join(STANZA).join("server.conf");
    assert_eq!(generated.metadata().unwrap().mode() & 0o777, 0o600);
}

#[test]
fn a_moment_after_the_last_transaction_is_its_end_and_said_so() {
    let host = Host::local();
    host.good_run();
    host.insert("the last there ever was");
    host.cluster.finish_segment();
    host.agent.ok(["wal", "push"]);
    let (moment, at_moment) = host.moment();
    let to = host.scratch.join("end");
    let ran = host.agent.run(["restore", "database", "--to", to.to_str().unwrap(), "--at", &moment]).expect(5);
    assert!(ran.stdout.contains("no transaction after the moment asked for"), "{ran}");
    assert_eq!(Cluster::existing(&host.scratch, &to).start().dump(), at_moment);
}

#[test]
fn the_printed_commands_start_what_was_restored() {
    let host = Host::local();
    host.insert("one");
    host.good_run();
    // As on Debian: the configuration is not in the data directory.
    let conf = host.cluster.data().join("postgresql.conf");
    fs::rename(&conf, host.scratch.join("kept.conf")).unwrap();
    fs::remove_file(host.cluster.data().join("pg_hba.conf")).unwrap();
    host.good_run();
    let to = host.scratch.join("restored");
    let ran = host.agent.ok(["restore", "database", "--to", to.to_str().unwrap()]);
    let commands: Vec<_> = ran.stdout.lines().filter(|line| line.contains("runuser -u")).collect();
    assert_eq!(commands.len(), 3, "start, look, stop: {ran}");
    let shell = |command: &str| harness::sh(std::process::Command::new("sh").args(["-ec", command]).current_dir("/"));
    shell(commands[0]);
    let rows = shell(&format!("{} -XAtqc 'select name from voters'", commands[1]));
    shell(commands[2]);
    assert_eq!(rows.trim(), "one");
}

#[test]
fn the_original_comes_back_in_its_place_and_goes_on() {
    let host = Host::local();
    host.insert("before");
    host.good_run();
    let (moment, at_moment) = host.moment();
    host.cluster.sql("delete from voters");
    host.cluster.finish_segment();
    host.agent.ok(["wal", "push"]);
    host.cluster.stop();
    fs::remove_dir_all(host.cluster.data()).unwrap();

    let to = host.cluster.data().to_str().unwrap();
    host.agent.ok(["restore", "database", "--to", to, "--at", &moment]);
    host.cluster.start();
    assert_eq!(host.cluster.dump(), at_moment);
    assert_eq!(host.cluster.sql("show archive_mode"), "on");
    // It is the same cluster on a new timeline: backups and WAL go on without a word.
    host.insert("after the disaster");
    assert!(host.good_run().ends_with('I'));
    host.insert("and on");
    host.cluster.finish_segment();
    host.agent.ok(["wal", "push"]);
    assert_eq!(host.restored("latest", "latest"), host.cluster.dump());
    // And once more, over what is there.
    host.cluster.stop();
    let refused = host.agent.run(["restore", "database", "--to", to]);
    assert_eq!(refused.code(), Some(2), "{refused}");
    host.agent.ok(["restore", "database", "--to", to, "--at", &moment, "--overwrite"]);
    assert_eq!(host.cluster.start().dump(), at_moment);
}

#[test]
fn wal_that_went_missing_is_told_once() {
    let host = Host::local();
    host.good_run();
    host.cluster.sql("alter system set archive_command = 'true # pgbackrest'");
    host.cluster.sql("select pg_reload_conf()");
    host.insert("lost between the backups");
    let lost = host.cluster.finish_segment();
    host.cluster.sql("alter system reset archive_command");
    host.cluster.sql("select pg_reload_conf()");
    let ran = host.run().expect(5);
    let step = ran.step("database");
    assert_eq!(step["outcome"], "degraded", "{ran}");
    assert!(step["error"]["message"].as_str().unwrap().contains("has a hole between"), "{ran} {lost}");
    host.good_run();
    assert_eq!(host.restored("latest", "latest"), host.cluster.dump());
}

#[test]
fn tablespaces_come_back_beside_the_data_and_not_at_their_old_place() {
    let host = Host::local();
    let space = host.scratch.directory("space");
    give_to_postgres(&space);
    host.cluster.sql(&format!("create tablespace fast location '{}'", space.display()));
    host.cluster.sql("create table elsewhere tablespace fast as select generate_series(1, 1000) as n");
    host.good_run();
    let before = harness::Tree::read(&space);
    let to = host.scratch.join("restored");
    // Of a person, and not of an earlier restore.
    let theirs = host.scratch.directory("restored.tablespaces").join("theirs");
    fs::write(&theirs, "theirs").unwrap();
    host.agent.run(["restore", "database", "--to", to.to_str().unwrap()]).expect(2).says("something is in there");
    fs::remove_dir_all(theirs.parent().unwrap()).unwrap();
    host.agent.ok(["restore", "database", "--to", to.to_str().unwrap()]);
    let clone = Cluster::existing(&host.scratch, &to);
    assert_eq!(clone.start().sql("select sum(n) from elsewhere"), "500500");
    let place = clone.sql("select pg_tablespace_location(oid) from pg_tablespace where spcname = 'fast'");
    assert!(place.starts_with(&format!("{}.tablespaces/", to.display())), "{place}");
    assert_eq!(before.differences(&harness::Tree::read(&space)), Vec::<String>::new());
}

/// Replaying `CREATE TABLESPACE` leads whoever replays it to the directory that the statement named, and there the original is at work.
#[test]
fn a_tablespace_that_came_after_the_backup_stays_the_originals() {
    let host = Host::local();
    host.good_run();
    let space = host.scratch.directory("space");
    give_to_postgres(&space);
    host.cluster.sql(&format!("create tablespace later location '{}'", space.display()));
    host.cluster.sql("create table votes tablespace later as select 'before' as what");
    let moment = host.moment_alone();
    host.cluster.sql("update votes set what = 'after'");
    host.cluster.sql("vacuum full votes");
    host.cluster.finish_segment();
    host.agent.ok(["wal", "push"]);
    host.cluster.sql("checkpoint");
    let original = harness::Tree::read(&space);
    let is_untouched = || assert_eq!(original.differences(&harness::Tree::read(&space)), Vec::<String>::new());

    let to = host.scratch.join("copy");
    host.agent.ok(["restore", "database", "--to", to.to_str().unwrap(), "--at", &moment]);
    is_untouched();
    let copy = Cluster::existing(&host.scratch, &to);
    assert_eq!(copy.start().sql("select what from votes"), "before");
    copy.sql("drop table votes");
    copy.stop();
    is_untouched();
    host.agent.run(["restore-test", "database"]);
    is_untouched();

    host.cluster.stop();
    let done = host.agent.ok(["restore", "database", "--in-place", "--yes", "--at", &moment]);
    assert_eq!(host.cluster.start().sql("select what from votes"), "before", "{done}");
    host.cluster.stop();
    // What is kept has what it had, and where it had it.
    let data = host.cluster.data();
    let kept = fs::read_dir(data.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let kept = kept.filter(|path| path.join("PG_VERSION").exists()).find(|path| path != data).unwrap();
    fs::rename(data, host.scratch.join("away")).unwrap();
    fs::rename(kept, data).unwrap();
    assert_eq!(host.cluster.start().sql("select what from votes"), "after");
}

/// So that whatever is made belongs to one role.
#[test]
fn a_role_that_a_database_sets_is_not_ours() {
    let host = Host::local();
    host.cluster.sql("create role web");
    host.cluster.sql("create schema private; create table private.votes (id int)");
    host.cluster.sql("alter database postgres set role = 'web'");
    host.good_run();
    assert!(!host.dumps().is_empty());
}

#[test]
fn an_archive_command_that_already_runs_pgbackrest_is_accepted() {
    let scratch = Scratch::new();
    let lock = scratch.directory("own-lock");
    give_to_postgres(&lock);
    let own = scratch.join("own.conf");
    let text = format!(
        "[global]\nrepo1-path={}\nrepo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass={}\ncompress-type=zst\n\
         log-level-file=off\nlock-path={}\n",
        scratch.join("storage/database").display(),
        Config::CIPHER,
        lock.display()
    );
    fs::write(&own, text).unwrap();
    give_to_postgres(&own);
    let command = format!("pgbackrest --config={} --stanza={STANZA} archive-push %p", own.display());
    let setting = format!("archive_command = '{command} --pg1-path={}/server/data'", scratch.path().display());
    let cluster = Cluster::make(&scratch, "server", &setting);
    let agent = Config::local(scratch.path()).step(&cluster.step("database", STANZA, "")).write();
    cluster.start();
    cluster.sql("create table voters (id int primary key, name text, at timestamptz default now())");
    let host = Host { scratch, cluster, agent };
    host.insert("one");
    host.good_run();
    host.insert("two");
    host.cluster.finish_segment();
    assert_eq!(host.restored("latest", "latest"), host.cluster.dump());
}

#[test]
fn a_wrong_archive_command_is_refused_with_the_sql_that_cures_it() {
    let host = Host::local();
    host.cluster.sql("alter system set archive_command = 'cp %p /elsewhere/%f'");
    host.cluster.sql("select pg_reload_conf()");
    let (message, hint) = host.failed_run();
    assert!(message.contains("pgbackrest") && message.contains("cp %p /elsewhere/%f"), "{message}");
    let sql = hint.strip_prefix("in psql as a superuser: ").expect("SQL to run");
    host.cluster.script(sql);
    host.insert("cured");
    host.good_run();
}

#[test]
fn archiving_that_fails_is_noticed_before_a_backup_is_made() {
    let host = Host::local();
    host.good_run();
    // The right command, which cannot write.
    let spool = host.spool();
    fs::rename(&spool, host.scratch.join("spool/moved")).unwrap();
    fs::create_dir(&spool).unwrap();
    give_to_postgres(&spool);
    fs::create_dir(spool.join("blocker")).unwrap();
    let command = pi_agent::wal::archive_command(&spool).replace("cp ", "false && cp ");
    host.cluster.sql(&format!("alter system set archive_command = '{}'", command.replace('\'', "''")));
    host.cluster.sql("select pg_reload_conf()");
    let (message, hint) = host.failed_run();
    assert!(message.contains("archive_command fails"), "{message}");
    assert!(hint.contains("PostgreSQL's log says why"), "{hint}");
    assert_eq!(host.labels().len(), 1, "no backup was made that cannot be recovered");
}

#[test]
fn archive_mode_off_needs_a_restart_and_the_hint_says_so() {
    let host = Host::local();
    host.cluster.stop();
    let conf = host.cluster.data().join("postgresql.conf");
    let text = fs::read_to_string(&conf).unwrap();
    fs::write(&conf, text.replace("archive_mode = on", "archive_mode = off")).unwrap();
    host.cluster.start();
    let (message, hint) = host.failed_run();
    assert_eq!(message, "archive_mode is off");
    assert!(
        hint.contains("ALTER SYSTEM SET archive_mode = 'on'") && hint.ends_with("then restart PostgreSQL"),
        "{hint}"
    );
}

#[test]
fn a_stopped_server_is_a_clear_failure() {
    let host = Host::local();
    host.good_run();
    host.cluster.stop();
    let (message, hint) = host.failed_run();
    assert!(message.contains("PostgreSQL does not answer on"), "{message}");
    assert!(hint.contains("start it"), "{hint}");
    // What there is can be listed and restored all the same.
    assert_eq!(host.labels().len(), 1);
    assert!(host.restored("latest", "latest").contains("voters"));
}

#[test]
fn a_cluster_made_anew_is_refused_until_adopted_and_the_old_stays() {
    let host = Host::local();
    host.insert("the good old days");
    let old = host.good_run();
    let before = host.cluster.dump();
    host.cluster.stop();
    host.cluster.initialise(&archive_setting(&host.spool()));
    host.cluster.start();
    host.cluster.sql("create table voters (id int primary key, name text, at timestamptz default now())");

    let (message, hint) = host.failed_run();
    assert!(message.contains("another cluster than before") && message.contains("nothing was expired"), "{message}");
    assert!(hint.contains("pi-agent adopt database"), "{hint}");
    assert_eq!(host.labels(), std::slice::from_ref(&old));
    // Its WAL is held back, not lost and not mixed with the old one's.
    host.cluster.finish_segment();
    let push = host.agent.run(["wal", "push"]);
    assert_ne!(push.code(), Some(0), "{push}");
    assert!(!pi_agent::wal::waiting(&host.spool()).unwrap().is_empty());

    host.agent.ok(["adopt", "database"]);
    host.insert("the new days");
    let new = host.good_run();
    assert!(new.ends_with('F'), "a new cluster begins with a full: {new}");
    assert_eq!(host.labels(), [old.clone(), new.clone()]);
    assert_eq!(host.restored("new", "latest"), host.cluster.dump());
    assert_eq!(host.restored("old", &old), before);
}

#[test]
fn left_over_wal_of_another_cluster_is_set_aside() {
    let host = Host::local();
    host.good_run();
    let segment = host.cluster.finish_segment();
    let left_over = fs::read(host.spool().join(&segment)).unwrap();
    host.agent.ok(["wal", "push"]);
    host.cluster.stop();
    host.cluster.initialise(&archive_setting(&host.spool()));
    host.cluster.start();
    host.agent.ok(["adopt", "database"]);
    let place = host.spool().join("0000000100000000000000AA");
    fs::write(&place, &left_over).unwrap();
    give_to_postgres(&place);
    let push = host.agent.run(["wal", "push"]);
    assert_ne!(push.code(), Some(0), "{push}");
    push.says("WAL of another cluster was set aside");
    assert!(!place.exists());
    let aside: Vec<_> = fs::read_dir(host.spool())
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("set-aside-"))
        .collect();
    assert_eq!(aside.len(), 1);
    assert_eq!(fs::read(host.spool().join(&aside[0]).join("0000000100000000000000AA")).unwrap(), left_over);
    host.agent.ok(["wal", "push"]);
}

#[test]
fn a_truncated_segment_is_never_pushed() {
    let host = Host::local();
    host.good_run();
    // A whole segment waits, and beside it the first half of the next.
    let segment = host.cluster.finish_segment();
    let whole = fs::read(host.spool().join(&segment)).unwrap();
    let next = host.cluster.sql("select pg_walfile_name(pg_create_restore_point('in the next'))");
    let place = host.spool().join(&next);
    fs::write(&place, &whole[..whole.len() / 2]).unwrap();
    give_to_postgres(&place);

    let push = host.agent.run(["wal", "push"]);
    assert_ne!(push.code(), Some(0), "{push}");
    push.says("is truncated: 8388608 of 16777216 bytes");
    assert_eq!(pi_agent::wal::waiting(&host.spool()).unwrap(), std::slice::from_ref(&next), "the whole one is pushed");

    // Removed, as the hint says, PostgreSQL delivers the good one, and everything is recoverable.
    fs::remove_file(&place).unwrap();
    host.insert("after it");
    host.cluster.finish_segment();
    host.agent.ok(["wal", "push"]);
    assert_eq!(host.restored("latest", "latest"), host.cluster.dump());
}

#[test]
fn a_wrong_passphrase_is_said_to_be_one() {
    let host = Host::local();
    host.good_run();
    fs::write(host.scratch.join("etc/secrets/pgbackrest.key"), "another one\n").unwrap();
    let (message, hint) = host.failed_run();
    assert!(hint.contains("pgbackrest.key"), "{message} / {hint}");
    assert!(!message.contains("another one") && !message.contains(Config::CIPHER), "{message}");
}

/// The program in a mount namespace of its own, in which `change` was made to the machine.
pub(crate) fn on_a_machine_where(change: &str, host: &Host) -> Ran {
    there(change, host, &["run", "database", "--json"])
}

/// The same with another command.
fn there(change: &str, host: &Host, arguments: &[&str]) -> Ran {
    let command = host.agent.command(arguments);
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    let script =
        format!("mount -t tmpfs none /mnt && mkdir /mnt/bin /mnt/up /mnt/work && {change} && exec {}", words.join(" "));
    let output = std::process::Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-ec", &script])
        .output()
        .unwrap();
    Ran {
        command: script,
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: std::time::Duration::ZERO,
    }
}

#[test]
fn pgbackrest_missing_or_too_old_is_a_failure_with_a_cure() {
    let host = Host::local();
    let missing = on_a_machine_where(
        "mount -t overlay none -o lowerdir=/usr/bin,upperdir=/mnt/up,workdir=/mnt/work /usr/bin && rm /usr/bin/pgbackrest",
        &host,
    );
    let error = missing.expect(3).step("database")["error"].clone();
    assert_eq!(error["message"], "pgbackrest is not installed");
    assert_eq!(error["hint"], "apt install pgbackrest");

    let old = on_a_machine_where(
        "printf '#!/bin/sh\\necho pgBackRest 2.30\\n' >/mnt/bin/old && chmod +x /mnt/bin/old && mount --bind /mnt/bin/old /usr/bin/pgbackrest",
        &host,
    );
    let error = old.expect(3).step("database")["error"].clone();
    assert_eq!(error["message"], "pgbackrest 2.30 is too old, 2.45 is wanted");
}

#[test]
fn pgbackrest_is_never_started_as_root() {
    // Since 2.59 it refuses that, except for restore, help and version.
    let host = Host::local();
    let started = host.scratch.join("started");
    fs::write(&started, "").unwrap();
    give_to_postgres(&started);
    let change = format!(
        "cp /usr/bin/pgbackrest /mnt/bin/pgbackrest && \
         printf '#!/bin/sh\\necho $(id -u) $1 >>{}\\nexec /mnt/bin/pgbackrest \"$@\"\\n' >/mnt/bin/noted && \
         chmod 755 /mnt/bin/noted && mount --bind /mnt/bin/noted /usr/bin/pgbackrest",
        started.display()
    );
    let done = |arguments: &[&str]| drop(there(&change, &host, arguments).expect(0));
    host.insert("one");
    done(&["run", "database"]);
    host.insert("two");
    host.cluster.finish_segment();
    done(&["wal", "push"]);
    done(&["points", "database"]);
    done(&["check", "database"]);
    let to = host.scratch.join("restored");
    done(&["restore", "database", "--to", to.to_str().unwrap()]);

    let postgres = host.cluster.data().metadata().unwrap().uid().to_string();
    let started = fs::read_to_string(started).unwrap();
    let mut commands = std::collections::BTreeSet::new();
    for line in started.lines() {
        let (uid, command) = line.split_once(' ').unwrap();
        // Only this one reads and writes nothing.
        assert!(command == "version" || uid == postgres, "{line}");
        commands.insert(command);
    }
    let expected = [
        "archive-get",
        "archive-push",
        "backup",
        "expire",
        "info",
        "repo-ls",
        "restore",
        "stanza-create",
        "verify",
        "version",
    ];
    assert_eq!(commands.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn a_damaged_page_is_told_and_all_else_comes_back() {
    let scratch = Scratch::new();
    let config = Config::local(scratch.path());
    // Without the monthly dump, which no damaged table lets pass.
    let host = Host::with(scratch, &config, "keep = { daily = 30 }");
    host.insert("whole");
    host.cluster.sql("create table damaged as select generate_series(1, 10000) as n");
    host.cluster.sql("checkpoint");
    let file = host.cluster.data().join(host.cluster.sql("select pg_relation_filepath('damaged')"));
    host.cluster.stop();
    let mut bytes = fs::read(&file).unwrap();
    bytes[3 * 8192 + 5000] ^= 1;
    fs::write(&file, bytes).unwrap();
    host.cluster.start();

    let ran = host.run().expect(5);
    let step = ran.step("database");
    assert_eq!(step["outcome"], "degraded", "{ran}");
    let label = step["restore_point"].as_str().expect("a label");
    let told = format!("backup {label} holds pages with wrong checksums");
    assert_eq!(step["error"]["message"], *told, "{ran}");

    let to = host.scratch.join("restored");
    let ran = host.agent.run(["restore", "database", "--to", to.to_str().unwrap()]).expect(5);
    assert!(ran.stdout.contains(&told), "{ran}");
    let clone = Cluster::existing(&host.scratch, &to);
    assert_eq!(clone.start().sql("select name from voters"), "whole");
}

#[test]
fn a_bucket_over_verified_tls_holds_it_all() {
    let garage = Garage::start();
    let proxy = TlsProxy::before(&garage);
    let scratch = Scratch::new();
    let url = format!("s3://{}/pi-hosting", Garage::BUCKET);
    let keys = (Garage::KEY_ID, Garage::KEY);
    let config = Config::s3(scratch.path(), &url, &proxy.endpoint(), proxy.ca_file(), keys);
    let host = Host::with(scratch, &config, "");
    host.insert("in the cloud");
    let first = host.good_run();
    host.insert("still there");
    let (moment, at_moment) = host.moment();
    host.insert("too much");
    host.cluster.finish_segment();
    host.agent.ok(["wal", "push"]);
    assert!(host.good_run().starts_with(&first));
    assert_eq!(host.restored("moment", &moment), at_moment);
    let to = host.scratch.join("dump");
    host.agent.ok(["restore", "database", "--to", to.to_str().unwrap(), "--at", &host.dumps()[0]]);
    assert!(fs::read(to.join("postgres.dump")).unwrap().windows(12).any(|bytes| bytes == b"in the cloud"));
    host.agent.ok(["check", "database"]);
    host.agent.ok(["prune", "database"]);

    // Nobody vouches for it: it is not trusted.
    let system_ca = Path::new("/etc/ssl/certs/ca-certificates.crt");
    let config = Config::s3(host.scratch.path(), &url, &proxy.endpoint(), system_ca, keys);
    config.step(&host.cluster.step("database", STANZA, "")).write();
    let (message, _) = host.failed_run();
    assert!(message.to_lowercase().contains("certificate"), "{message}");
}

/// Three months of nights: pgBackRest dates backups by the server's clock, which is made to lie.
#[test]
fn old_backups_and_their_wal_really_go() {
    let scratch = Scratch::new();
    let config = Config::local(scratch.path());
    let mut host = Host::with(scratch, &config, "");
    let mut made: Vec<(String, String)> = Vec::new();
    for (night, kind) in [
        ("2024-01-10 03:00:00", 'F'),
        ("2024-01-11 03:00:00", 'I'),
        ("2024-02-10 03:00:00", 'F'),
        ("2024-03-01 03:00:00", 'F'),
        ("2024-03-02 03:00:00", 'I'),
        ("2024-03-09 03:00:00", 'F'),
        ("2024-03-10 02:00:00", 'I'),
        ("2024-03-11 03:00:00", 'I'),
        ("2024-03-12 03:00:00", 'I'),
    ] {
        // The agent's own clock cannot be moved: whether a full is due is told it by the configuration.
        let full_every = if kind == 'F' { "1s" } else { "7d" };
        let more = format!("full-every = \"{full_every}\"\nkeep = {{ daily = 2, monthly = \"forever\" }}");
        host.agent = config.clone().step(&host.cluster.step("database", STANZA, &more)).write().env("TZ", "UTC");
        host.cluster.pretend(night);
        host.insert(night);
        let dump = host.cluster.dump();
        let label = host.good_run();
        assert!(label.ends_with(kind) && label.contains(&night[..10].replace('-', "")), "{night}: {label}");
        made.push((label, dump));
    }
    let labels: Vec<_> = made.iter().map(|(label, _)| label.clone()).collect();
    // The newest full of January, of February and of March; the last two days; what reaches the start of the window, and its full.
    let kept: Vec<_> = [0, 2, 5, 6, 7, 8].map(|night| labels[night].clone()).into();
    assert_eq!(host.labels(), kept);

    // A kept month stands without WAL; the window is whole; what lies between them is gone, and that is said.
    assert_eq!(host.restored("january", &labels[0]), made[0].1);
    assert_eq!(host.restored("window", "2024-03-10T12:00:00Z"), made[6].1);
    let to = host.scratch.join("between");
    let gone = host.agent.run(["restore", "database", "--to", to.to_str().unwrap(), "--at", "2024-02-20T00:00:00Z"]);
    assert_eq!(gone.code(), Some(1), "{gone}");
    gone.says("no WAL for").says(&format!("--at {}", labels[2]));
}

#[test]
fn a_backup_of_the_future_stops_expire() {
    let scratch = Scratch::new();
    let config = Config::local(scratch.path());
    let host = Host::with(scratch, &config, "");
    host.cluster.pretend("2099-01-10 03:00:00");
    host.good_run();
    let refused = host.agent.run(["prune", "database"]).expect(3);
    refused.says("nothing is removed: the clock shows").says("the newest restore point is of 2099-01-10");
    assert_eq!(host.labels().len(), 1);
}

#[test]
fn beside_a_backup_of_the_future_the_nights_go_on() {
    let scratch = Scratch::new();
    let config = Config::local(scratch.path());
    let host = Host::with(scratch, &config, "");
    host.cluster.pretend("2099-01-10 03:00:00");
    let future = host.good_run();
    host.cluster.script("alter role postgres reset test.shift");
    host.insert("the clock is right again");
    // Nobody says so: the backup is made all the same.
    let night = host.run().expect(0);
    let step = night.step("database");
    assert_eq!((step["outcome"].as_str(), host.labels().len()), (Some("succeeded"), 2), "{night}");
    assert!(step["machine"].to_string().contains("the newest restore point is of 2099-01-10"), "{night}");
    with_network_time(|| {
        let night = host.run().expect(5);
        let step = night.step("database");
        assert_eq!((step["outcome"].as_str(), host.labels().len()), (Some("degraded"), 3), "{night}");
        let error = step["error"].to_string();
        assert!(
            error.contains("a clock that was wrong made it") && error.contains(&format!("--set={future}")),
            "{error}"
        );
        assert_eq!(step["machine"].to_string(), "[]", "{night}");
        host.agent.run(["prune", "database"]).expect(5).says("a clock that was wrong made it");
        let window = host.agent.ok(["points", "database", "--json"]).json()["windows"].to_string();
        assert!(!window.contains("\"to\":\"2099"), "{window}");
        assert_eq!(host.restored("latest", "latest"), host.cluster.dump());
        // A full one is due, and no label of today is later than that: an incremental one is better than none.
        let text = fs::read_to_string(host.scratch.join("etc/config.toml")).unwrap();
        let weekly = text.replace("kind = \"postgres\"", "kind = \"postgres\"\nfull-every = \"1s\"");
        fs::write(host.scratch.join("etc/config.toml"), weekly).unwrap();
        let night = host.run().expect(5);
        let made = night.step("database")["restore_point"].as_str().unwrap().to_owned();
        assert!(made.starts_with(&future) && made.ends_with('I'), "{night}");
    });
}

#[test]
fn json_of_points_names_kinds() {
    let host = Host::local();
    host.good_run();
    let points: Value = host.agent.ok(["points", "--json"]).json();
    let point = &points["points"][0];
    assert_eq!((point["step"].as_str(), point["kind"].as_str()), (Some("database"), Some("full")));
    assert!(point["bytes"].as_u64().unwrap() > 10_000_000);
}

#[test]
fn a_check_reads_everything_and_a_prune_removes_nothing_that_is_kept() {
    let host = Host::local();
    let label = host.good_run();
    host.agent.ok(["check", "database"]);
    host.agent.ok(["prune", "database"]);
    assert_eq!(host.labels(), std::slice::from_ref(&label));

    let bundle = host.scratch.join("storage/database/backup").join(STANZA).join(&label).join("bundle/1");
    let mut bytes = fs::read(&bundle).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].fill(0x5a);
    fs::write(&bundle, bytes).unwrap();
    let ran = host.agent.run(["check", "database", "--json"]).expect(3);
    assert_eq!(ran.step("database")["outcome"], "failed", "{ran}");
}

#[test]
fn out_of_time_is_unfinished_and_the_next_night_is_whole() {
    let scratch = Scratch::new();
    let config = Config::local(scratch.path());
    let host = Host::with(scratch, &config, "max-duration = \"1s\"");
    let ran = host.run().expect(5);
    assert_eq!(ran.step("database")["outcome"], "unfinished", "{ran}");
    let text = fs::read_to_string(host.scratch.join("etc/config.toml")).unwrap();
    fs::write(host.scratch.join("etc/config.toml"), text.replace("max-duration = \"1s\"", "")).unwrap();
    host.good_run();
}
