//! Any moment means any: a busy database, restored to moments that nobody chose.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use harness::cluster::give_to_postgres;
use harness::{Cluster, Random, by_effort};
use jiff::Timestamp;

use crate::postgres::Host;

/// A commit gets its time a little before its place in the WAL: two sessions may change places by that.
const RACE: i64 = 20_000;

/// Microseconds since the epoch by the number of the row that was committed then.
type Commits = BTreeMap<u64, i64>;

#[test]
fn slow_random_moments_under_load_hold_what_was_committed_and_nothing_else() {
    let seed = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap();
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let host = Host::local();
    prepare(&host);

    // Backups before and in the midst of it, so that the moments do not all start from the same one.
    host.good_run();
    let from = micros(&host.cluster, "clock_timestamp()");
    let load = Load::start(&host);
    std::thread::sleep(Duration::from_secs(4));
    host.good_run();
    load.wait();
    host.cluster.finish_segment();
    host.agent.ok(["wal", "push"]);

    let commits = read(
        &host.cluster,
        "select n, (extract(epoch from pg_xact_commit_timestamp(xmin)) * 1000000)::bigint from commits",
    );
    let to = *commits.values().max().expect("the load committed something");
    assert!(commits.len() > 200, "{} commits are no load", commits.len());
    for number in 0..by_effort(2, 10) {
        let range = u64::try_from(from).unwrap()..u64::try_from(to).unwrap();
        assert_moment(&host, i64::try_from(random.within(range)).unwrap(), number, &commits);
    }
}

/// Restores to `moment` and looks at what is there.
fn assert_moment(host: &Host, moment: i64, number: usize, commits: &Commits) {
    let to = host.scratch.join(format!("moment-{number}"));
    let at = Timestamp::from_microsecond(moment).unwrap().to_string();
    host.agent.ok(["restore", "database", "--to", to.to_str().unwrap(), "--at", &at]);
    let clone = Cluster::existing(&host.scratch, &to);
    clone.start();

    let present = read(&clone, "select n, 0 from commits");
    let early = |(n, time): (&u64, &i64)| (*time < moment - RACE && !present.contains_key(n)).then_some(*n);
    let missing: Vec<u64> = commits.iter().filter_map(early).collect();
    let late: Vec<u64> = present.keys().filter(|n| commits.get(n).is_none_or(|time| *time > moment)).copied().collect();
    assert_eq!((missing, late), (vec![], vec![]), "lacking, and not yet committed at {at}");

    // Money moved between accounts, tellers and branches in one transaction each: none came back by halves.
    let sums = clone.sql(
        "select count(distinct s) from (select sum(abalance) from pgbench_accounts union all select sum(tbalance) from pgbench_tellers \
         union all select sum(bbalance) from pgbench_branches union all select coalesce(sum(delta), 0) from pgbench_history) as t(s)",
    );
    assert_eq!(sums, "1", "at {at}");
    drop(clone);
    fs::remove_dir_all(&to).unwrap();
}

fn prepare(host: &Host) {
    host.cluster.sql("alter system set track_commit_timestamp = on");
    host.cluster.stop();
    host.cluster.start();
    host.cluster.sql("create table commits (n bigserial primary key)");
    harness::sh(&mut host.cluster.pgbench(["--initialize", "--quiet", "--scale=1"]));
}

/// Two sessions that move money, two that add rows as fast as they are asked to.
struct Load(Vec<Child>);

impl Load {
    fn start(host: &Host) -> Self {
        let script: PathBuf = host.scratch.join("commit.sql");
        fs::write(&script, "insert into commits default values;\n").unwrap();
        give_to_postgres(&script);
        let file = format!("--file={}", script.display());
        let start = |what: &str, rate: &str| {
            let mut command = host.cluster.pgbench(["--no-vacuum", "--client=2", "--time=12", what, rate]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("pgbench can be started")
        };
        Self(vec![start("--builtin=tpcb-like", "--rate=100"), start(&file, "--rate=100")])
    }

    fn wait(self) {
        for mut child in self.0 {
            assert!(child.wait().unwrap().success(), "pgbench went through");
        }
    }
}

fn micros(cluster: &Cluster, time: &str) -> i64 {
    cluster.sql(&format!("select (extract(epoch from {time}) * 1000000)::bigint")).parse().expect("a number")
}

fn read(cluster: &Cluster, query: &str) -> Commits {
    let text = cluster.sql(query);
    let pair = |line: &str| {
        let (n, time) = line.split_once('|').expect("two columns");
        (n.parse().expect("a number"), time.parse().expect("a number"))
    };
    text.lines().map(pair).collect()
}

#[test]
fn a_storage_that_fails_is_not_the_end_of_all_wal() {
    let host = Host::local();
    host.good_run();
    for name in ["one", "two", "three"] {
        host.insert(name);
        host.cluster.finish_segment();
    }
    host.agent.ok(["wal", "push"]);
    let archive = host.scratch.join("storage/database/archive");
    let find = ["-name", "*.zst"];
    let listed = harness::sh(std::process::Command::new("find").arg(&archive).args(find));
    let mut segments: Vec<PathBuf> = listed.lines().map(PathBuf::from).collect();
    segments.sort();
    let middle = segments.swap_remove(segments.len() - 2);

    // PostgreSQL would go on without the rest of it, as if that had never been.
    let mode = |mode| fs::set_permissions(&middle, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o000);
    let to = host.scratch.join("restored");
    let restore = ["restore", "database", "--to", to.to_str().unwrap()];
    host.agent.run(restore).expect(1).says("Permission denied");
    assert!(to.join("recovery.signal").exists(), "its recovery did not end");

    // The same command goes on.
    mode(0o640);
    host.agent.ok(restore);
    let clone = Cluster::existing(&host.scratch, &to);
    clone.start();
    assert_eq!(clone.sql("select count(*) from voters where name in ('one', 'two', 'three')"), "3");
}
