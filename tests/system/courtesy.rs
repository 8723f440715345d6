//! Who comes first on this machine: not a backup.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use harness::processes::descendants_polled;
use harness::tap::{best, peak};
use harness::{Census, Config, Garage, Random, Running, Scratch, TlsProxy};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::postgres::Host;

const MIB: u64 = 1 << 20;

/// Incompressible files below `root`.
fn fill(root: &Path, bytes: usize) {
    for (number, part) in Random::new(3).bytes(bytes).chunks(bytes.div_ceil(6)).enumerate() {
        fs::write(root.join(number.to_string()), part).unwrap();
    }
}

/// What everything below the supervisor has read, each tenth of a second until it has ended.
fn read_each_tenth(running: &mut Running) -> Vec<u64> {
    let (mut seen, mut tenths) = (0, Vec::new());
    let mut next = Instant::now();
    let io = |pid: Pid| {
        let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
        io.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse::<u64>().ok()).unwrap_or_default()
    };
    while !running.has_ended() {
        // What has ended is counted by who waited for it, and for a moment by nobody.
        let below: u64 = descendants_polled(running.pid()).iter().map(|process| io(process.pid())).sum();
        let read = seen.max(below + io(running.pid()));
        let new = read - seen;
        seen = read;
        tenths.push(new);
        next += Duration::from_millis(100);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    tenths
}

#[test]
fn files_are_read_as_slowly_as_is_asked() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv");
    fill(&source, 40 << 20);
    let config = Config::local(scratch.path()).directory("files", &[&source], "");
    let agent = config.clone().table(&format!("[limits]\nread = {}", 4 * MIB)).write();
    let mut running = agent.start(["run", "files"]);
    let read = read_each_tenth(&mut running);
    let _ = running.wait().expect(0);
    // The program itself and its libraries are read, too.
    let rate = best(&read, 8) as f64 / (4 * MIB) as f64;
    assert!((0.9..1.1).contains(&rate), "{rate} of the rate: {read:?}");
    assert!(peak(&read) < 6 * MIB, "{read:?}");

    let again = source.join("again");
    fs::write(&again, Random::new(4).bytes(40 << 20)).unwrap();
    let ran = agent.ok(["--no-limits", "run", "files"]);
    assert!(ran.took < Duration::from_secs(9), "nothing holds it back: {ran}");
}

#[test]
fn pgbackrest_reads_as_slowly_as_is_asked() {
    let scratch = Scratch::new();
    let config = Config::local(scratch.path()).table(&format!("[limits]\nread = {}", 8 * MIB));
    let host = Host::with(scratch, &config, "monthly-dump = false");
    host.cluster.sql("create table noise as select gen_random_uuid() as a from generate_series(1, 800000)");
    let mut running = host.agent.start(["run", "database", "--json"]);
    let read = read_each_tenth(&mut running);
    let ran = running.wait().expect(0);
    assert_eq!(ran.step("database")["outcome"], "succeeded", "{ran}");
    // It is stopped after it has read: each burst is paid for before the next, and only the last is not.
    let burst = |tenth: &u64| *tenth > MIB;
    let first = read.iter().position(burst).expect("the server has more");
    let last = read.iter().rposition(burst).expect("the server has more");
    let paid: u64 = read[first..last].iter().sum();
    let rate = paid as f64 * 10.0 / (last - first) as f64 / (8 * MIB) as f64;
    assert!(last - first > 50, "{read:?}");
    assert!((0.3..1.2).contains(&rate), "{rate} of the rate: {read:?}");
}

/// As the kernel tells them: niceness, scheduling policy, the niceness of the session, the class of the disk.
fn priority(pid: Pid) -> Option<(i64, i64, String, String)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<_> = stat.rsplit_once(") ")?.1.split(' ').collect();
    // Where the kernel does not group by session there is nothing to tell.
    let session = fs::read_to_string(format!("/proc/{pid}/autogroup")).unwrap_or_default();
    let session = session.rsplit_once("nice ").map_or("none", |(_, nice)| nice.trim()).to_owned();
    let disk = Command::new("ionice").arg("-p").arg(pid.to_string()).output().expect("ionice runs");
    let disk = String::from_utf8_lossy(&disk.stdout).trim().to_owned();
    Some((fields.get(16)?.parse().ok()?, fields.get(38)?.parse().ok()?, session, disk))
}

/// Names and priorities of all processes that ever worked below the supervisor of a run.
fn priorities(host: &Host, arguments: &[&str]) -> BTreeSet<(String, i64, i64, String, String)> {
    let mut running = host.agent.start(arguments);
    let (mut seen, mut looks) = (BTreeSet::new(), BTreeMap::new());
    while !running.has_ended() {
        for process in descendants_polled(running.pid()) {
            // Between fork and exec it still has its parent's name and priority.
            let told = process.arguments().first().cloned().unwrap_or_default();
            if told.ends_with("/pi-agent") && !process.arguments().iter().any(|word| word == "step") {
                continue;
            }
            // Each look at a process's disk class starts a program. What a process has after three looks it keeps.
            let looked: &mut u32 = looks.entry(process.clone()).or_default();
            *looked += 1;
            if *looked > 3 {
                continue;
            }
            // Of one that has ended meanwhile the kernel knows no more than half.
            if let Some((nice, policy, session, disk)) = priority(process.pid()).filter(|_| process.is_alive()) {
                seen.insert((process.name, nice, policy, session, disk));
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = running.wait().expect(0);
    seen
}

#[test]
fn a_step_and_all_it_starts_come_last_unless_a_person_waits() {
    const BATCH: i64 = 3;
    let scratch = Scratch::new();
    let config = Config::local(scratch.path()).giving_way();
    let host = Host::with(scratch, &config, "monthly-dump = false");
    let seen = priorities(&host, &["run", "database"]);
    let names: BTreeSet<_> = seen.iter().map(|(name, ..)| name.as_str()).collect();
    assert!(["pi-agent", "exe", "pgbackrest"].iter().filter(|name| names.contains(*name)).count() >= 2, "{seen:?}");
    for (name, nice, policy, session, disk) in &seen {
        assert_eq!((*nice, *policy, disk.as_str()), (19, BATCH, "idle"), "{name}: {seen:?}");
        // One that was just born, still by its parent's name, has a session before it says how nice that is.
        assert!(name == "exe" || ["13", "none"].contains(&session.as_str()), "{name}: {seen:?}");
    }
    let seen = priorities(&host, &["--no-limits", "run", "database"]);
    assert!(seen.iter().any(|(name, ..)| name == "pgbackrest"), "{seen:?}");
    assert!(seen.iter().all(|(_, nice, policy, _, disk)| (*nice, *policy) == (0, 0) && disk != "idle"), "{seen:?}");
}

/// Others wait for the disk: small writes, each made durable.
struct Neighbours {
    over: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Neighbours {
    fn at(folder: &Path) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let write = |number: i32| {
            let (over, path) = (over.clone(), folder.join(format!("neighbour-{number}")));
            std::thread::spawn(move || {
                let mut file = File::create(path).unwrap();
                while !over.load(Ordering::Relaxed) {
                    file.write_all(&[7; 4096]).and_then(|()| file.sync_all()).unwrap();
                }
            })
        };
        let threads = (0..4).map(write).collect();
        Self { over, threads }
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

fn stands(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

#[test]
fn a_step_stands_still_while_others_wait_and_is_never_left_so() {
    let garage = Garage::start();
    let proxy = TlsProxy::before(&garage);
    let scratch = Scratch::new();
    let source = scratch.directory("srv");
    fill(&source, 3 << 20);
    let keys = (Garage::KEY_ID, Garage::KEY);
    let config = Config::s3(scratch.path(), "s3://backups/host", &proxy.endpoint(), proxy.ca_file(), keys)
        .table(&format!("[limits]\nupload = {}", MIB / 4))
        .directory("files", &[&source], "")
        .giving_way();
    let agent = config.write();
    let neighbours = Neighbours::at(scratch.path());

    // Seen to stand still; its supervisor is killed in such a moment.
    let mut running = agent.start(["run", "files"]);
    let census = Census::of(running.pid());
    let started = Instant::now();
    let arguments = loop {
        assert!(started.elapsed() < Duration::from_secs(20), "it never stood still");
        assert!(!running.has_ended(), "it ended before it stood still");
        match descendants_polled(running.pid()).into_iter().find(|process| stands(process.pid())) {
            Some(step) => break step.arguments(),
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    running.signal(Signal::SIGKILL);
    let _ = running.wait();
    assert!(arguments.iter().any(|word| word == "step"), "{arguments:?}");
    census.assert_all_gone(Duration::from_secs(5));

    drop(neighbours);
    agent.ok(["run", "files"]);
}
