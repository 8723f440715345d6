//! The limits of upload and download, counted on the wire. `bench/shaper.sh` measures how exact they are; here the bounds
//! are wide, because a machine that tests is busy.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use harness::cluster::give_to_postgres;
use harness::tap::{best, peak};
use harness::{Agent, Config, Fault, Faults, Garage, Random, Scratch, Tap, TlsProxy, Tree};

use crate::postgres::Host;

const KIB: u64 = 1 << 10;

struct Bucket {
    scratch: Scratch,
    garage: Garage,
    proxy: TlsProxy,
    tap: Tap,
}

impl Bucket {
    fn new() -> Self {
        let garage = Garage::start();
        let proxy = TlsProxy::before(&garage);
        let tap = Tap::on(proxy.port());
        Self { scratch: Scratch::new(), garage, proxy, tap }
    }

    /// With that text as `[limits]`.
    fn config(&self, limits: &str) -> Config {
        self.config_at(&format!("https://localhost:{}", self.tap.port()), limits)
    }

    fn config_at(&self, endpoint: &str, limits: &str) -> Config {
        let url = format!("s3://{}/pi-test", Garage::BUCKET);
        let keys = (Garage::KEY_ID, Garage::KEY);
        Config::s3(self.scratch.path(), &url, endpoint, self.proxy.ca_file(), keys)
            .table(&format!("[limits]\n{limits}"))
    }

    /// A directory of that many incompressible bytes, in some files.
    fn source(&self, bytes: usize) -> PathBuf {
        let source = self.scratch.directory("srv");
        for (number, part) in Random::new(7).bytes(bytes).chunks(bytes.div_ceil(8)).enumerate() {
            fs::write(source.join(number.to_string()), part).unwrap();
        }
        source
    }
}

/// No second far above the rate, and the best seconds near it.
#[track_caller]
fn keeps_to(rate: u64, tenths: &[u64], seconds: usize) {
    assert!(peak(tenths) <= rate * 3 / 2, "a second of {} at {rate}: {tenths:?}", peak(tenths));
    assert!(best(tenths, seconds) >= rate * 9 / 10, "{} a second at {rate}: {tenths:?}", best(tenths, seconds));
}

#[test]
fn a_directory_goes_up_and_comes_back_at_the_rates_and_one_flag_lifts_them() {
    let bucket = Bucket::new();
    let source = bucket.source(2_500_000);
    let config = bucket.config("upload = \"256KiB\"\ndownload = \"512KiB\"").directory("files", &[&source], "");
    let agent = config.write();
    agent.ok(["run", "files"]);
    let flow = bucket.tap.take();
    assert!(flow.sent() > 2_500_000, "{flow:?}");
    keeps_to(256 * KIB, &flow.up, 5);

    let to = bucket.scratch.join("slow");
    agent.ok(["restore", "files", "--to", to.to_str().unwrap()]);
    keeps_to(512 * KIB, &bucket.tap.take().down, 3);
    Tree::read(&source).assert_equals(to.join(source.strip_prefix("/").unwrap()));

    let to = bucket.scratch.join("fast");
    agent.ok(["--no-limits", "restore", "files", "--to", to.to_str().unwrap()]);
    assert!(peak(&bucket.tap.take().down) > 2_000_000, "nothing holds it back");
}

#[test]
fn a_server_without_tls_is_limited_too_and_one_that_is_away_is_told() {
    let bucket = Bucket::new();
    let source = bucket.source(1_500_000);
    let tap = Tap::on(bucket.garage.address().port());
    let endpoint = format!("http://127.0.0.1:{}", tap.port());
    let config = bucket.config_at(&endpoint, "upload = \"256KiB\"").directory("files", &[&source], "");
    config.write().ok(["run", "files"]);
    keeps_to(256 * KIB, &tap.take().up, 3);
    drop(tap);

    let config = config.storage("timeout = \"2s\"\nretry-for = \"3s\"");
    config.write().run(["run", "files"]).expect(3).says("refused").says("nothing listens there");
}

#[test]
fn the_rate_changes_with_the_time_of_day_in_mid_run() {
    let bucket = Bucket::new();
    let source = bucket.source(4_000_000);
    let limits = "upload = \"1MiB\"\nbetween = [{ from = \"00:00\", to = \"12:00\", upload = \"128KiB\" }]";
    // A time zone in which noon is twelve seconds away.
    let seconds = jiff::Timestamp::now().as_second().rem_euclid(86_400);
    let east = (12 * 3600 - 12 - seconds).rem_euclid(86_400);
    let (sign, offset) = if east <= 43_200 { ('-', east) } else { ('+', 86_400 - east) };
    let zone = format!("XXX{sign}{:02}:{:02}:{:02}", offset / 3600, offset / 60 % 60, offset % 60);
    let agent = bucket.config(limits).directory("files", &[&source], "").write().env("TZ", zone);
    bucket.tap.take();
    agent.ok(["run", "files"]);
    let flow = bucket.tap.take();
    let (before, after) = flow.up.split_at(100);
    keeps_to(128 * KIB, before, 5);
    keeps_to(1024 * KIB, after, 1);
}

#[test]
fn a_bad_line_at_a_low_rate_completes() {
    let bucket = Bucket::new();
    let source = bucket.source(3_000_000);
    bucket.proxy.set(Faults::some(3, 0.1, &Fault::QUICK));
    let agent = bucket.config("upload = \"256KiB\"").directory("files", &[&source], "").write();
    agent.ok(["run", "files"]);
    assert!(peak(&bucket.tap.take().up) <= 384 * KIB);
    bucket.proxy.set(Faults::none());
    agent.ok(["--no-limits", "check", "files"]);
}

#[test]
fn what_breaks_off_on_a_slow_line_is_not_given_up_for_the_time_that_it_took() {
    let bucket = Bucket::new();
    let source = bucket.source(2_500_000);
    let config =
        bucket.config("download = \"512KiB\"").storage("retry-for = \"2s\"").directory("files", &[&source], "");
    let agent = config.write();
    agent.ok(["run", "files"]);

    // Half of the pack takes longer than that; the pauses between the tries do not.
    bucket.proxy.set(Faults { only: "/data/", ..Faults::some(1, 1.0, &[Fault::Truncate]) });
    let to = bucket.scratch.join("restored");
    let mut restore = agent.start(["restore", "files", "--to", to.to_str().unwrap()]);
    while bucket.proxy.traffic().faulty() < 2 {
        assert!(!restore.has_ended(), "{}", restore.wait());
        std::thread::sleep(Duration::from_millis(50));
    }
    bucket.proxy.set(Faults::none());
    let _ = restore.wait().expect(0);
    Tree::read(&source).assert_equals(to.join(source.strip_prefix("/").unwrap()));
}

#[test]
fn the_plan_says_when_the_line_is_too_slow_for_the_night_and_pruning_waits() {
    let bucket = Bucket::new();
    let source = bucket.source(600_000);
    let step = "prune-every = \"1s\"\nmax-duration = \"10s\"";
    let good = bucket.config("").directory("files", &[&source], step).write();
    good.ok(["run", "files"]);
    let plan = |agent: &Agent| agent.ok(["run", "--dry-run", "files"]).stdout;
    // What a night stores is known from the second on.
    fs::write(source.join("more"), Random::new(9).bytes(300_000)).unwrap();
    good.ok(["run", "files"]);
    // It is due again.
    std::thread::sleep(Duration::from_millis(1100));
    let slow = bucket.config("upload = \"16KiB\"").directory("files", &[&source], step).write();
    let told = plan(&slow);
    assert!(told.contains("at the limits; max-duration is 10 s, so it will go on the next nights"), "{told}");
    assert!(told.contains("prune waits for a shorter night") && !told.contains("prune: due"), "{told}");
    assert!(
        plan(&bucket.config("upload = \"1MiB\"").directory("files", &[&source], step).write()).contains("prune: due")
    );

    // Before the first backup it is what lies there; a person in a hurry is not held up.
    let step = "max-duration = \"10s\"";
    let slow = bucket.config("upload = \"16KiB\"").directory("others", &[&source], step).write();
    let told = slow.ok(["run", "--dry-run"]).stdout;
    assert!(told.contains("upload: about 87"), "{told}");
    assert!(!slow.ok(["--no-limits", "run", "--dry-run"]).stdout.contains("upload:"));
}

#[test]
fn pgbackrest_and_its_wal_keep_to_the_limit_as_root_and_as_the_servers_user() {
    let bucket = Bucket::new();
    let config = bucket.config("upload = \"512KiB\"\ndownload = \"1MiB\"");
    let Bucket { scratch, garage: _garage, proxy: _proxy, tap } = bucket;
    let host = Host::with(scratch, &config, "monthly-dump = false");
    host.insert("slowly");
    tap.take();
    host.good_run();
    let flow = tap.take();
    assert!(flow.sent() > 2_000_000, "{flow:?}");
    keeps_to(512 * KIB, &flow.up, 3);

    // Between the nights, without root: six megabytes that cannot be compressed.
    host.cluster.sql(
        "create table noise as select gen_random_uuid() as a, gen_random_uuid() as b from generate_series(1, 60000)",
    );
    host.cluster.finish_segment();
    let credentials = host.scratch.directory("credentials");
    let runtime = host.scratch.directory("runtime-wal");
    give_to_postgres(&runtime);
    for name in ["pgbackrest.key", "aws.env"] {
        fs::copy(config.secrets().join(name), credentials.join(name)).unwrap();
        give_to_postgres(&credentials.join(name));
    }
    let program = host.scratch.join("pi-agent");
    fs::copy(Agent::binary(), &program).unwrap();
    let user = nix::unistd::User::from_name("postgres").unwrap().unwrap();
    let mut push = Command::new(program);
    push.arg("--config").arg(config.file()).args(["wal", "push"]);
    push.env("CREDENTIALS_DIRECTORY", &credentials).env("RUNTIME_DIRECTORY", &runtime);
    push.uid(user.uid.as_raw()).gid(user.gid.as_raw()).current_dir("/");
    tap.take();
    let output = push.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let flow = tap.take();
    assert!(!String::from_utf8_lossy(&output.stderr).contains("not limited"), "{output:?}");
    assert!(pi_agent::wal::waiting(&host.spool()).unwrap().is_empty(), "all is in the repository");
    assert!(flow.sent() > 2_000_000, "{flow:?}");
    keeps_to(512 * KIB, &flow.up, 3);

    // And back, with the WAL that PostgreSQL asks for itself.
    let dump = host.cluster.dump();
    std::thread::sleep(Duration::from_millis(100));
    tap.take();
    assert_eq!(host.restored("slow", "latest"), dump);
    let flow = tap.take();
    assert!(flow.received() > 4_000_000, "{flow:?}");
    keeps_to(1024 * KIB, &flow.down, 3);
}
