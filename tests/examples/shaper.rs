//! How exact the limits are, for `bench/shaper.sh`: `shaper directory|postgres|restore BYTES-PER-SECOND SECONDS`.
//! A real server, TLS, and a counter on the wire in front of it; for PostgreSQL two workers of pgBackRest at a time.

use std::fs;

use harness::cluster::Cluster;
use harness::tap::{best, peak};
use harness::{Config, Garage, Random, Scratch, Tap, TlsProxy};

const USAGE: &str = "usage: shaper directory|postgres|restore BYTES-PER-SECOND SECONDS";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [kind, rate, seconds] = words[..] else { panic!("{USAGE}") };
    let (rate, seconds): (u64, usize) = (rate.parse().expect(USAGE), seconds.parse().expect(USAGE));
    let flow = match kind {
        "directory" => directory(rate, seconds, false),
        "restore" => directory(rate, seconds, true),
        "postgres" => postgres(rate, seconds),
        _ => panic!("{USAGE}"),
    };
    // What comes before and after the transfer itself is none of it.
    let percent = |bytes: u64| bytes as f64 * 100.0 / rate as f64;
    println!(
        "{kind:>9} {rate:>9} B/s: {:6.1} % over {seconds} s, {:6.1} % in the highest second",
        percent(best(&flow, seconds)),
        percent(peak(&flow)),
    );
    if std::env::var_os("SHAPER_SECONDS_SHOWN").is_some() {
        let each = flow.chunks(10).map(|second| format!("{:.0}", percent(second.iter().sum()))).collect::<Vec<_>>();
        println!("  in percent, each second: {}", each.join(" "));
    }
}

/// Enough for the window, and what comes before and after it.
fn bytes(rate: u64, seconds: usize) -> usize {
    usize::try_from(rate).expect("a rate") * (seconds + 5)
}

fn server(scratch: &Scratch, rate: u64) -> (Config, Tap, (TlsProxy, Garage)) {
    let garage = Garage::start();
    let proxy = TlsProxy::before(&garage);
    let tap = Tap::on(proxy.port());
    let url = format!("s3://{}/bench", Garage::BUCKET);
    let endpoint = format!("https://localhost:{}", tap.port());
    let keys = (Garage::KEY_ID, Garage::KEY);
    let config = Config::s3(scratch.path(), &url, &endpoint, proxy.ca_file(), keys);
    (config.table(&format!("[limits]\nupload = {rate}\ndownload = {rate}")), tap, (proxy, garage))
}

fn directory(rate: u64, seconds: usize, back: bool) -> Vec<u64> {
    let scratch = Scratch::new();
    let (config, tap, _server) = server(&scratch, rate);
    let source = scratch.directory("srv");
    let mut random = Random::new(1);
    let mut left = bytes(rate, seconds);
    while left > 0 {
        let size = left.min(16 << 20);
        left -= size;
        fs::write(source.join(left.to_string()), random.bytes(size)).expect("our own directory");
    }
    let agent = config.directory("files", &[&source], "").write();
    if !back {
        agent.ok(["run", "files"]);
        return tap.take().up;
    }
    agent.ok(["--no-limits", "run", "files"]);
    tap.take();
    agent.ok(["restore", "files", "--to", scratch.join("restored").to_str().expect("our own name")]);
    tap.take().down
}

fn postgres(rate: u64, seconds: usize) -> Vec<u64> {
    let scratch = Scratch::new();
    let (config, tap, _server) = server(&scratch, rate);
    let spool = scratch.join("spool/main");
    let archive = pi_agent::wal::archive_command(&spool).replace('\'', "''");
    let cluster = Cluster::make(&scratch, "server", "wal_level = minimal\nmax_wal_senders = 0\narchive_mode = off");
    cluster.start();
    cluster.sql("create extension pgcrypto");
    // Made before there is an archive, so that the backup is what is measured and not its WAL.
    let rows = bytes(rate, seconds) / 1000;
    cluster.sql(&format!("create table noise as select gen_random_bytes(1000) from generate_series(1, {rows})"));
    for setting in ["wal_level = 'replica'", "archive_mode = 'on'"] {
        cluster.sql(&format!("alter system set {setting}"));
    }
    cluster.sql(&format!("alter system set archive_command = '{archive}'"));
    cluster.stop().start();
    config.step(&cluster.step("database", "main", "monthly-dump = false")).write().ok(["run", "database"]);
    tap.take().up
}
