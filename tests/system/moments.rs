//! Any moment under load: a table of commit times tells whether all before it is there, and nothing after.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use harness::{Cluster, Random};

use crate::postgres::Host;

const MOMENTS: usize = 10;

#[test]
fn slow_ten_random_moments_under_load_are_exact() {
    let host = Host::local();
    host.cluster.sql("create table commits (id bigserial, t timestamptz not null default clock_timestamp())");
    host.cluster.sql("create table load (id int, filler text)");
    host.good_run();

    // Small transactions, each with the moment before its commit; and others beside them.
    let stop = AtomicBool::new(false);
    let moments: Vec<String> = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                host.cluster.script(&"insert into commits default values;\n".repeat(200));
            }
        });
        let load = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                host.cluster.sql("insert into load select n, repeat('x', 300) from generate_series(1, 2000) n");
            }
        });
        let (mut random, begun) = (Random::new(41), Instant::now());
        let mut moments = Vec::new();
        while moments.len() < MOMENTS {
            std::thread::sleep(Duration::from_millis(100 + random.within(0..900)));
            moments.push(host.moment_alone());
        }
        assert!(begun.elapsed() < Duration::from_secs(60));
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        load.join().unwrap();
        moments
    });
    host.cluster.sql("insert into commits default values");
    host.cluster.finish_segment();
    host.agent.ok(["wal", "push"]);

    for (number, moment) in moments.iter().enumerate() {
        let to = host.scratch.join(&format!("moment-{number}"));
        host.agent.ok(["restore", "database", "--to", to.to_str().unwrap(), "--at", moment]);
        let clone = Cluster::existing(&host.scratch, &to);
        clone.start();
        let newest = clone.sql(&format!("select max(t) <= '{moment}' from commits"));
        assert_eq!(newest, "t", "nothing is later than {moment}");
        let count = clone.sql("select count(*) from commits");
        // A row's time is before its commit, so the last before the moment may have been committed after it.
        let wanted = host.cluster.sql(&format!("select count(*) from commits where t <= '{moment}'"));
        let (count, wanted): (u64, u64) = (count.parse().unwrap(), wanted.parse().unwrap());
        assert!(count == wanted || count + 1 == wanted, "{count} of {wanted} rows before {moment}");
        let whole = clone.sql("select count(*) = max(id) from commits");
        assert_eq!(whole, "t", "none is missing in between");
        eprintln!("{moment}: {count} rows");
        clone.stop();
        std::fs::remove_dir_all(&to).unwrap();
    }
}
