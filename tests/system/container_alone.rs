//! A machine whose only PostgreSQL is in Docker: its databases come back by the programs of the image.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::{DockerEngine, Random, by_effort, privately, sh};
use nix::sys::signal::Signal;

use crate::container_postgres::{Household, UID};

/// Where Debian has PostgreSQL's programs.
const HERE: &str = "/usr/lib/postgresql";

const NOW: &str = "select to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";

/// A database with a backup, two rows behind it, and a moment between them.
fn with_a_moment(home: &Household) -> String {
    home.sql("create table votes (id int primary key, what text)");
    let _ = home.run().expect(0);
    home.sql("insert into votes values (1, 'kept')");
    let moment = home.sql(NOW);
    home.sql("insert into votes values (2, 'too late')");
    home.finish_segment();
    home.agent.ok(["wal", "push"]);
    moment
}

/// Containers and the notes of them.
fn left(home: &Household) -> (String, Vec<String>) {
    let runtime = fs::read_dir(home.scratch.join("runtime")).unwrap();
    let names = runtime.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let all = home.engine.docker(["ps", "--all", "--format", "{{.Names}}"]);
    (all, names.filter(|name| name.starts_with("pi-agent-") || name.starts_with("recovery-")).collect())
}

#[test]
fn a_containers_database_comes_back_by_its_own_image() {
    let home = Household::new();
    home.start_db("data");
    home.sql(&format!("create tablespace one location '{}'", home.inside("space/one")));
    home.sql("create table moved (id int) tablespace one; insert into moved values (7)");
    let moment = with_a_moment(&home);
    let to = home.scratch.join("restored");
    let restore = ["restore", "database", "--to", to.to_str().unwrap(), "--at", &moment];
    privately(&[HERE], || home.agent.ok(restore)).says("docker start db");
    assert_eq!(to.join("global/pg_control").metadata().unwrap().uid(), UID);
    let settings = fs::read_to_string(to.join("postgresql.auto.conf")).unwrap();
    assert!(!settings.contains("restore_command") && !to.join("recovery.signal").exists(), "{settings}");
    assert_eq!(left(&home), ("db".into(), vec![]));

    // It is whole, up to that moment.
    let spaces = format!("{0}.tablespaces:{0}.tablespaces", to.display());
    home.start(
        "clone",
        &["--volume", &format!("{}:{}", to.display(), home.inside("data/pg")), "--volume", &spaces],
        &[],
    );
    let ask =
        |sql: &str| home.engine.docker(["exec", "clone", "psql", "-XAtqU", "keeper", "-d", "postgres", "-c", sql]);
    assert_eq!(ask("select id, what from votes"), "1|kept");
    assert_eq!(ask("select id from moved"), "7");
    home.engine.docker(["rm", "--force", "clone"]);

    // Without the container: the official image of that version does, and without that it is named.
    home.engine.docker(["rm", "--force", "db"]);
    let newest = home.scratch.join("newest");
    let restore = ["restore", "database", "--to", newest.to_str().unwrap()];
    let refused = privately(&[HERE], || home.agent.run(restore)).expect(1);
    refused.says("PostgreSQL 15 is not installed here").says("docker pull postgres:15, or: apt install postgresql-15");
    assert!(!newest.exists(), "nothing was begun");
    home.engine.docker(["tag", DockerEngine::IMAGE, "postgres:15"]);
    privately(&[HERE], || home.agent.ok(restore));
    assert_eq!(left(&home), (String::new(), vec![]));
}

#[test]
fn it_is_put_back_in_place_by_its_own_image() {
    let home = Household::new();
    home.start_db("data");
    let moment = with_a_moment(&home);
    privately(&[HERE], || home.agent.ok(["restore", "database", "--in-place", "--yes", "--at", &moment]));
    home.wait("db");
    assert_eq!(home.sql("select id, what from votes"), "1|kept");
    let _ = home.run().expect(0);
    home.sql("insert into votes values (3, 'the last of all')");
    privately(&[HERE], || home.agent.ok(["restore", "database", "--in-place", "--yes"]));
    home.wait("db");
    assert_eq!(home.sql("select id, what from votes order by id"), "1|kept\n3|the last of all");
    let _ = home.run().expect(0);
    assert_eq!(left(&home), ("db".into(), vec![]));
}

#[test]
fn slow_killed_it_leaves_no_container_behind_the_next_start() {
    let home = Household::new();
    home.start_db("data");
    with_a_moment(&home);
    let to = home.scratch.join("restored");
    let restore = ["restore", "database", "--to", to.to_str().unwrap()];
    let mut random = Random::new(5);
    privately(&[HERE], || {
        let began = Instant::now();
        home.agent.ok(restore);
        let whole = began.elapsed();
        for number in 0..by_effort(2, 8) {
            remove(&to);
            let running = home.agent.start(restore);
            match number {
                0 => until_there_is_a_second(&home),
                _ => std::thread::sleep(whole.mul_f64(random.fraction())),
            }
            running.signal(Signal::SIGKILL);
            if running.wait().code() == Some(0) {
                // It was faster than the first.
                continue;
            }
            home.agent.ok(restore);
            assert_eq!(at_work(&home), "", "what was left would write over what was recovered");
            let (containers, notes) = left(&home);
            assert_eq!((containers.as_str(), notes.iter().any(|note| note.starts_with("pi-agent"))), ("db", false));
        }
    });
}

/// pgBackRest's processes of this household.
fn at_work(home: &Household) -> String {
    let config = format!("^pgbackrest --config={}/", home.scratch.join("runtime").display());
    let found = Command::new("pgrep").args(["--list-full", "--full", &config]).output().unwrap();
    String::from_utf8(found.stdout).unwrap()
}

fn remove(to: &Path) {
    for suffix in ["", ".tablespaces", ".unfinished"] {
        let path = format!("{}{suffix}", to.display());
        sh(Command::new("rm").args(["-rf", &path]));
    }
}

fn until_there_is_a_second(home: &Household) {
    let began = Instant::now();
    while home.engine.docker(["ps", "--quiet"]).lines().count() < 2 {
        assert!(began.elapsed() < Duration::from_secs(60), "it starts no container");
        std::thread::sleep(Duration::from_millis(20));
    }
}
