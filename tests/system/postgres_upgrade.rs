//! A real pg_upgrade, with the agent before and after it. It needs two major versions in one system, which only the
//! Debian 13 of `tests/elsewhere.sh trixie` has: .config/nextest.toml leaves it out elsewhere.

use std::fs;

use harness::{Cluster, Config, Scratch};

use super::postgres::{Host, STANZA, archive_setting, spool_of};
use super::postgres_dumps::into;

#[test]
fn backups_go_on_after_pg_upgrade_and_what_was_before_it_comes_back() {
    // 15, a night, and a moment after it.
    let scratch = Scratch::new();
    let config = Config::local(scratch.path());
    let setting = archive_setting(&spool_of(&scratch));
    let old = Cluster::make_version(15, &scratch, "old", &setting);
    let mut host = Host::of(scratch, old, &config, "");
    host.cluster.sql("create role keeper login password 'geheim'");
    host.cluster.sql("create database shop owner keeper");
    host.insert("with 15");
    let at_dump = host.cluster.dump();
    let first = host.good_run();
    let dump_of_15 = host.dumps();
    assert_eq!(dump_of_15.len(), 1);
    host.insert("still with 15");
    let (moment, at_moment) = host.moment();
    host.insert("after the moment");
    host.cluster.finish_segment();
    host.agent.ok(["wal", "push"]);
    let last_of_15 = host.cluster.dump();

    // The upgrade, as a person does it: the same settings for the new one, whose place is then configured.
    host.cluster.stop();
    let new = Cluster::make_version(17, &host.scratch, "new", &setting);
    host.cluster.upgrade_to(&new);
    host.agent = config.step(&new.step("database", STANZA, "")).write();
    let _old = std::mem::replace(&mut host.cluster, new);
    host.cluster.start();
    assert_eq!(host.cluster.dump(), last_of_15);

    // The next night is a full, and a dump of its own.
    host.insert("with 17");
    let second = host.good_run();
    assert!(second.ends_with('F'), "{second}");
    assert_eq!(host.labels(), [first.clone(), second.clone()]);
    let points = host.agent.ok(["points", "database", "--json"]).json();
    let majors: Vec<_> = points["points"].as_array().unwrap().iter().map(|point| &point["postgresql"]).collect();
    assert_eq!(majors, [15, 15, 17, 17]);
    host.insert("a day later");
    let third = host.good_run();
    assert!(third.starts_with(&second) && third.ends_with('I'), "{third}");
    assert_eq!(host.dumps().len(), 2);

    // Everything comes back: the newest, 15 by its label and to a moment, and the dump of 15 into 17.
    assert_eq!(host.restored("latest", "latest"), host.cluster.dump());
    assert_eq!(host.restored("label", &first), at_dump);
    assert_eq!(host.restored("moment", &moment), at_moment);
    assert_eq!(fs::read_to_string(host.scratch.join("moment/PG_VERSION")).unwrap().trim(), "15");
    let fresh = Cluster::make_version(17, &host.scratch, "fresh", "archive_mode = off");
    into(fresh.start(), &host, &dump_of_15[0], "dump");
    assert_eq!(fresh.dump(), at_dump);
    host.agent.ok(["check", "database"]);
    host.agent.ok(["prune", "database"]);
    assert_eq!(host.labels(), [first, second, third]);
}
