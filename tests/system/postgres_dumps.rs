//! Logical dumps: once a month, whole or not at all, back into a server that never knew the old one.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use harness::{Cluster, Config, Ran, Scratch, sh};

use super::postgres::{Host, on_a_machine_where};

/// Restores a dump and runs the commands that this prints on `server`, instead of the original.
pub(crate) fn into(server: &Cluster, host: &Host, dump: &str, name: &str) {
    let to = host.scratch.join(name);
    let ran = host.agent.ok(["restore", "database", "--to", to.to_str().unwrap(), "--at", dump]);
    let commands: Vec<_> = ran.stdout.lines().filter(|line| line.trim_start().starts_with("runuser")).collect();
    assert!(commands.len() >= 2 && commands[0].contains("globals.sql"), "{ran}");
    for command in commands {
        let [ours, theirs] = [&host.cluster, server].map(|cluster| cluster.socket().display().to_string());
        assert!(command.contains(&ours), "{command}");
        sh(Command::new("sh").args(["-ec", &command.replace(&ours, &theirs)]).current_dir("/"));
    }
}

fn holds(folder: &Path, text: &str) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        match path.symlink_metadata().unwrap() {
            kind if kind.is_dir() => holds(&path, text),
            kind if kind.is_file() => {
                fs::read(&path).unwrap().windows(text.len()).any(|found| found == text.as_bytes())
            }
            _ => false,
        }
    })
}

fn restic(host: &Host, arguments: &[&str]) -> String {
    let password = host.scratch.join("etc/secrets/restic.key");
    let repository = host.scratch.join("storage/database/dumps");
    let mut command = Command::new("restic");
    command.args(["--no-cache", "--repo", repository.to_str().unwrap(), "--password-file", password.to_str().unwrap()]);
    sh(command.args(arguments))
}

#[test]
fn a_month_has_one_dump_and_it_goes_into_a_fresh_server() {
    let host = Host::local();
    host.insert("in the database postgres");
    host.cluster.script(
        "create role keeper login password 'geheim';\n\
         create database shop owner keeper;\n\
         create database \"a 'name' like/no=other\";\n\
         create database closed allow_connections false;\n\
         \\c shop\n\
         create table things as select i, md5(i::text) as what from generate_series(1, 50000) i;\n\
         alter table things owner to keeper;\n\
         select lo_from_bytea(0, '\\x00ff'::bytea);\n",
    );
    let before = host.cluster.dump();
    host.good_run();
    let dumps = host.dumps();
    assert_eq!(dumps.len(), 1);

    // Once a month: known from history, and without it from the dumps themselves.
    host.insert("after it");
    host.good_run();
    host.agent.ok(["adopt", "database"]);
    host.good_run();
    assert_eq!(host.dumps(), dumps);

    // Everything is there, and only for its owner.
    let to = host.scratch.join("files");
    host.agent.ok(["restore", "database", "--to", to.to_str().unwrap(), "--at", &dumps[0][..8]]);
    let mut names: Vec<_> = fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let other = "a%20%27name%27%20like%2Fno%3Dother.dump";
    assert_eq!(names, [other, "globals.sql", "postgres.dump", "shop.dump"]);
    assert!(names.iter().all(|name| to.join(name).metadata().unwrap().mode() & 0o7777 == 0o600));
    assert!(holds(&to, "SCRAM-SHA-256$"), "the password's hash is among the globals");
    for place in ["storage", "cache", "state", "runtime"] {
        assert!(!holds(&host.scratch.join(place), "SCRAM-SHA-256$"), "{place}");
    }

    // restic reads it, too.
    assert!(restic(&host, &["check", "--read-data"]).contains("no errors were found"));
    let theirs = host.scratch.directory("restic");
    restic(&host, &["restore", &dumps[0], "--target", theirs.to_str().unwrap()]);
    for name in &names {
        assert_eq!(fs::read(to.join(name)).unwrap(), fs::read(theirs.join(name)).unwrap(), "{name:?}");
    }

    // Over what is there, empty files included.
    fs::write(to.join("shop.dump"), "").unwrap();
    fs::write(to.join("postgres.dump"), "something else").unwrap();
    host.agent.ok(["restore", "database", "--to", to.to_str().unwrap(), "--at", &dumps[0], "--overwrite"]);
    for name in &names {
        assert_eq!(fs::read(to.join(name)).unwrap(), fs::read(theirs.join(name)).unwrap(), "{name:?}");
    }

    // What is damaged beside it hides no dump and refuses none.
    let bad = host.scratch.join("storage/database/dumps/snapshots").join("00".repeat(32));
    fs::write(&bad, "").unwrap();
    let points = host.agent.run(["points", "database", "--json"]);
    assert!(points.json()["points"].to_string().contains(&dumps[0]), "{points}");
    assert!(points.json()["failures"].to_string().contains("is damaged and left out"), "{points}");
    let told = host.agent.run(["restore", "database", "--to", to.to_str().unwrap(), "--at", &dumps[0], "--overwrite"]);
    let _ = told.expect(5).says("is damaged and left out");
    fs::remove_file(bad).unwrap();

    let fresh = Cluster::make(&host.scratch, "fresh", "archive_mode = off");
    into(fresh.start(), &host, &dumps[0], "dump");
    // A database that lets nobody in cannot be dumped.
    let known: Vec<_> = before.lines().filter(|line| !line.contains("closed")).collect();
    let now = fresh.dump();
    assert_eq!(now.lines().filter(|line| !line.contains("closed")).collect::<Vec<_>>(), known);

    host.agent.ok(["prune", "database"]);
    let checked = host.agent.ok(["check", "database", "--json"]).step("database");
    let done: Vec<_> = checked["maintenance"].as_array().unwrap().iter().map(|done| &done["what"]).collect();
    assert_eq!(done, ["verify", "dump-check-data:1/1"]);
    assert_eq!(host.dumps(), dumps);
}

/// A night without a dump, whose backup is good: what was said.
#[track_caller]
fn without_a_dump(host: &Host, ran: Ran) -> String {
    let ran = ran.expect(5);
    let step = ran.step("database");
    assert_eq!(step["outcome"], "degraded", "{ran}");
    assert!(host.labels().contains(&step["restore_point"].as_str().unwrap().to_owned()), "{ran}");
    assert_eq!(host.dumps(), Vec::<String>::new());
    assert_eq!(restic(host, &["snapshots", "--json"]).trim(), "[]");
    step["error"]["message"].as_str().unwrap().to_owned()
}

#[test]
fn half_a_dump_is_none_and_the_next_night_tries_again() {
    let host = Host::local();
    host.cluster.sql("create table things as select i, md5(i::text) as what from generate_series(1, 50000) i");
    let broken = |ending: &str| {
        format!(
            "bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1) && cp $bin/pg_dump /mnt/bin/real && \
             printf '#!/bin/sh\\n[ $1 = -V ] && exec /mnt/bin/real -V\\n/mnt/bin/real \"$@\" | head -c 1000000\\n{ending}\\n' >/mnt/bin/half && \
             chmod a+rx /mnt /mnt/bin /mnt/bin/* && mount --bind /mnt/bin/half $bin/pg_dump"
        )
    };
    let message = without_a_dump(&host, on_a_machine_where(&broken("echo the disk fell off >&2; exit 1"), &host));
    assert!(message.starts_with("make this month's logical dump: dump database postgres: "), "{message}");
    assert!(message.ends_with("pg_dump ended with exit status: 1: the disk fell off"), "{message}");
    let message = without_a_dump(&host, on_a_machine_where(&broken("kill -9 $$"), &host));
    assert!(message.contains("signal: 9"), "{message}");

    host.good_run();
    assert_eq!(host.dumps().len(), 1);
}

#[test]
fn a_database_that_cannot_be_read_is_named() {
    let host = Host::local();
    host.cluster.sql("create database shop");
    host.cluster.script("\\c shop\ncreate table lost as select generate_series(1, 1000) as n;\n");
    let file = host.cluster.sql("select setting from pg_settings where name = 'data_directory'");
    let sql = "select oid from pg_database where datname = 'shop'";
    let folder = Path::new(&file).join("base").join(host.cluster.sql(sql));
    host.cluster.script("\\c shop\nselect pg_relation_filenode('lost') as node \\gset\n\\c postgres\ncreate table found as select :node as node;\n");
    let node = host.cluster.sql("select node from found");
    host.cluster.stop();
    fs::remove_file(folder.join(node)).unwrap();
    host.cluster.start();
    let message = without_a_dump(&host, host.run());
    assert!(message.starts_with("make this month's logical dump: dump database shop: "), "{message}");
    assert!(message.contains("could not open file"), "{message}");

    host.cluster.sql("drop database shop");
    host.good_run();
    assert_eq!(host.dumps().len(), 1);
}

#[test]
fn where_no_months_are_kept_or_no_dumps_wanted_none_is_made() {
    for more in ["keep = { daily = 3 }", "monthly-dump = false"] {
        let scratch = Scratch::new();
        let config = Config::local(scratch.path());
        let host = Host::with(scratch, &config, more);
        host.good_run();
        assert_eq!(host.dumps(), Vec::<String>::new());
        assert!(!host.scratch.join("storage/database/dumps").exists(), "{more}");
        host.agent.ok(["prune", "database"]);
        host.agent.ok(["check", "database"]);
    }
}
