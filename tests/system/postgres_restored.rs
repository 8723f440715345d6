//! What runs on restored data: it touches nothing of the original's, and a restore test of it means what it says.

use std::fs;
use std::path::Path;
use std::process::Command;

use harness::cluster::give_to_postgres;
use harness::{Cluster, Config, Scratch, sh};

use crate::postgres::Host;

/// The line of a report that holds all of these.
#[track_caller]
fn line<'a>(report: &'a str, parts: &[&str]) -> &'a str {
    let holds = |line: &&str| parts.iter().all(|part| line.contains(part));
    report.lines().find(holds).unwrap_or_else(|| panic!("no line with {parts:?}: {report}"))
}

/// What a printed command prints when a person runs it.
fn run(command: &str) -> String {
    sh(Command::new("sh").arg("-ec").arg(command).current_dir("/")).trim().to_owned()
}

#[test]
fn a_copy_has_none_of_the_originals_settings_and_the_original_gets_them_back() {
    let host = Host::local();
    let original = host.cluster.data().display().to_string();
    let conf = host.cluster.data().join("postgresql.conf");
    let text = fs::read_to_string(&conf).unwrap() + &format!("data_directory = '{original}'\n");
    fs::write(&conf, text).unwrap();
    host.cluster.stop().start();
    host.insert("one");
    // Taken at the next start of the original, which has the memory and the library.
    for setting in [
        "shared_buffers = '4TB'",
        "huge_pages = 'on'",
        "shared_preload_libraries = 'of_another_machine'",
        "log_min_messages = 'panic'",
        "external_pid_file = '/of/another/machine'",
        "listen_addresses = '*'",
    ] {
        host.cluster.sql(&format!("alter system set {setting}"));
    }
    host.good_run();
    let settings = fs::read_to_string(host.cluster.data().join("postgresql.auto.conf")).unwrap();

    // The newest moment, and one behind the last commit, of which the log would say nothing.
    let to = host.scratch.join("my copy");
    let restored = host.agent.ok(["restore", "database", "--to", to.to_str().unwrap()]);
    host.cluster.finish_segment();
    host.agent.ok(["wal", "push"]);
    let (moment, behind) = (host.moment_alone(), host.scratch.join("behind"));
    let ran = host.agent.run(["restore", "database", "--to", behind.to_str().unwrap(), "--at", &moment]).expect(5);
    ran.says("the archive holds no transaction after the moment asked for");
    assert!(!ran.to_string().contains("hole"), "{ran}");

    // As printed, beside the original.
    let start = line(&restored.stdout, &["pg_ctl", " start"]);
    let psql = line(&restored.stdout, &[" psql "]);
    run(start);
    let ask = |sql: &str| run(&format!("{psql} -XAtc \"{sql}\""));
    assert_eq!(ask("show data_directory"), to.to_str().unwrap());
    for (setting, value) in [
        ("archive_mode", "off"),
        ("listen_addresses", ""),
        ("external_pid_file", ""),
        ("shared_preload_libraries", ""),
        ("max_logical_replication_workers", "0"),
    ] {
        assert_eq!(ask(&format!("show {setting}")), value, "{setting}");
    }
    assert_eq!(ask("select name from voters"), "one");
    let pid = fs::read_to_string(to.join("postmaster.pid")).unwrap();
    let network = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_ne!(network(pid.lines().next().unwrap()), network("self"));
    run(line(&restored.stdout, &["pg_ctl", " stop"]));
    run(line(&restored.stdout, &["mv "]));
    assert_eq!(fs::read_to_string(to.join("postgresql.auto.conf")).unwrap(), settings);

    // The original is what it was.
    host.cluster.stop();
    host.agent.ok(["restore", "database", "--in-place", "--yes"]);
    let data = host.cluster.data();
    assert_eq!(fs::read_to_string(data.join("postgresql.auto.conf")).unwrap().trim(), settings.trim());
    assert!(!data.join("postgresql.auto.conf.original").exists());
}

#[test]
fn slow_a_restore_test_of_a_subscriber_takes_nothing_from_its_publisher() {
    let scratch = Scratch::new();
    let publisher = Cluster::make(&scratch, "publisher", "wal_level = logical\narchive_mode = off");
    publisher.start();
    publisher.sql("create table kept (id int primary key)");
    publisher.sql("create publication all_of_it for table kept");
    let local = Config::local(scratch.path());
    let host = Host::with(scratch, &local, "");
    host.cluster.sql("create table kept (id int primary key)");
    host.cluster.sql(&format!(
        "create subscription taken connection 'host={} port={} dbname=postgres user=postgres' publication all_of_it",
        publisher.socket().display(),
        Cluster::PORT
    ));
    publisher.sql("insert into kept values (1)");
    let arrives = |rows: &str| {
        for _ in 0..100 {
            if host.cluster.sql("select string_agg(id::text, ' ' order by id) from kept") == rows {
                return true;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        false
    };
    assert!(arrives("1"));
    host.good_run();
    // A row waits for the original while its server is down and its backup is tested.
    host.cluster.stop();
    publisher.sql("insert into kept values (2)");
    host.agent.ok(["restore-test", "database"]);
    publisher.sql("insert into kept values (3)");
    host.cluster.start();
    assert!(arrives("1 2 3"), "{}", host.cluster.sql("select string_agg(id::text, ' ') from kept"));
    publisher.stop();
}

/// A C function of a library that is there only as long as the original is looked at.
fn library(host: &Host) -> std::path::PathBuf {
    let folder = host.cluster.sql("select setting from pg_config where name = 'PKGLIBDIR'");
    let library = host.scratch.join("of_another_machine.so");
    fs::copy(Path::new(&folder).join("citext.so"), &library).unwrap();
    give_to_postgres(&library);
    library
}

#[test]
fn slow_a_test_names_what_it_cannot_test_and_tests_the_rest() {
    let host = Host::local();
    let library = library(&host);
    for database in ["geo", "map", "\"a=b\"", "\"it's 100% host=/nowhere\"", "quiet", "closed"] {
        host.cluster.sql(&format!("create database {database}"));
    }
    // psql takes each for its own database: what is there is made by a script.
    host.cluster.script(&format!(
        r#"\c "dbname='a=b' host={} port={}"
create table rows (i int); insert into rows select generate_series(1, 5000); analyze rows;
\c geo
create function inner_one(t text) returns text language sql immutable as $$ select upper(t) $$;
create function plain(t text) returns text language plpgsql immutable as $$ begin return public.inner_one(t); end $$;
create table names (n text); insert into names select 'n' || i from generate_series(1, 200) i;
create index by_plain on names (plain(n));
create or replace function plain(t text) returns text language plpgsql immutable as $$ begin return inner_one(t); end $$;
\c map
create function hashed(text) returns int language c immutable strict as '{}', 'citext_hash';
create table places (n text); insert into places values ('here');
create index by_hash on places (hashed(n));
\c quiet
alter database quiet set default_transaction_read_only = on;
\c closed
create function refuse() returns event_trigger language plpgsql as $$ begin raise exception 'nothing is made here'; end $$;
create event trigger refused on ddl_command_start execute function refuse();
alter event trigger refused enable always;
"#,
        host.cluster.socket().display(),
        Cluster::PORT,
        library.display()
    ));
    host.good_run();
    // From 17 on the restored server can do without event triggers, and they keep nothing from being tested.
    let version: u32 = host.cluster.sql("show server_version_num").parse().unwrap();
    fs::remove_file(&library).unwrap();
    let ran = host.agent.run(["restore-test", "database"]).expect(5);
    assert!(!ran.stdout.contains("FAILED"), "{ran}");
    ran.says("databases: good: all 8 open").says("tables: good: all 4 in").says("moment: good");
    ran.says("pg_checksums: good");
    let structure = line(&ran.stdout, &["pg_amcheck: not tested, because"]);
    assert!(structure.contains("geo.public.by_plain") && structure.contains("inner_one(text) does not exist"), "{ran}");
    for words in ["database closed", "ERROR:  nothing is made here"] {
        assert_eq!(structure.contains(words), version < 170_000, "{words}: {ran}");
    }
    assert!(structure.contains("map.public.by_hash"), "{ran}");
    line(&ran.stdout, &["samples: not tested, because", "public.places", "database map", "could not access file"]);
    line(&ran.stdout, &["dump: not tested, because geo", "inner_one(text) does not exist"]);
}

#[test]
fn slow_a_database_that_does_not_open_is_a_failure_and_named() {
    let scratch = Scratch::new();
    let local = Config::local(scratch.path());
    let host = Host::with(scratch, &local, "monthly-dump = false");
    host.cluster.sql("create database broken");
    let oid = host.cluster.sql("select oid from pg_database where datname = 'broken'");
    fs::remove_file(host.cluster.data().join(format!("base/{oid}/PG_VERSION"))).unwrap();
    host.agent.ok(["run"]).says("the database broken could not be opened");
    let ran = host.agent.run(["restore-test", "database"]).expect(3);
    line(&ran.stdout, &["databases: FAILED: broken could not be opened", "FATAL:"]);
    // The others are tested all the same.
    ran.says("pg_checksums: good").says("pg_amcheck: good").says("moment: good");
}

/// Code of any role's runs while its table is loaded; who loads it may do nothing.
#[test]
fn a_dump_is_loaded_by_a_role_without_rights() {
    let host = Host::local();
    host.cluster.sql("create role web login");
    host.cluster.sql("create database shop owner web");
    let ran = host.cluster.socket().join("ran");
    host.cluster.sql_in(
        "shop",
        &format!(
            "create extension pg_trgm; create schema tools; create extension citext schema tools; grant usage on schema tools to web;
             set role web;
             create table people (name text, nick tools.citext);
             create index by_name on people using gin (name gin_trgm_ops);
             create function checked(i int) returns bool language plpgsql as $$ begin
                 if current_setting('is_superuser') = 'on' then execute $q$copy (select 1) to program 'touch {}'$q$; end if;
                 return true; end $$;
             create table orders (i int check (checked(i)));
             insert into orders values (1)",
            ran.display()
        ),
    );
    host.good_run();
    let report = host.agent.ok(["restore-test", "database"]);
    line(&report.stdout, &["dump: good", "2 databases"]);
    assert!(!ran.exists(), "{report}");
}
