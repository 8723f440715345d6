//! Storage keys that pgBackRest alone is given: they open the database's backups and nothing else.

use std::fs;
use std::path::Path;

use harness::{Config, Garage, Scratch, TlsProxy};
use serde_json::Value;

use crate::postgres::{Host, archive_setting, spool_of};

const OWN_ID: &str = "GKfedcba9876543210fedcba98";
const OWN_KEY: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";

/// What a person is told of the database's keys: severities and messages.
fn told(host: &Host) -> Vec<(String, String)> {
    let findings = host.agent.run(["doctor", "--json"]).json()["findings"].as_array().unwrap().clone();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let of_keys = findings.iter().filter(|finding| text(finding, "message").contains("storage keys"));
    of_keys.map(|finding| (text(finding, "severity"), text(finding, "message"))).collect()
}

/// All that lies below a directory, as one text.
fn all_below(directory: &Path) -> String {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let of = |entry: fs::DirEntry| match entry.path() {
        directory if directory.is_dir() => all_below(&directory),
        file => fs::read_to_string(file).unwrap_or_default(),
    };
    entries.map(of).collect()
}

/// The policy that setup prints, as Garage's TLS proxy knows it.
fn policy(bucket: &str) -> Vec<String> {
    let place = format!("/{bucket}/pi/database");
    let mut allowed: Vec<_> =
        ["GET", "HEAD", "PUT", "DELETE", "POST", "LIST"].map(|method| format!("{method} {place}/")).into();
    allowed.push(format!("GET /{bucket}/pi/host.json"));
    // Several objects at once: each is judged by its name, which is in the body.
    allowed.push(format!("POST /{bucket}/"));
    allowed
}

#[test]
fn a_database_has_keys_of_its_own_and_they_open_nothing_else() {
    let (garage, scratch) = (Garage::start(), Scratch::new());
    garage.add_key(OWN_ID, OWN_KEY);
    let proxy = TlsProxy::before(&garage);
    proxy.allow_only(OWN_ID, policy(Garage::BUCKET));
    let (url, keys) = (format!("s3://{}/pi", Garage::BUCKET), (Garage::KEY_ID, Garage::KEY));
    let config = Config::s3(scratch.path(), &url, &proxy.endpoint(), proxy.ca_file(), keys);
    let runtime = scratch.join("runtime");
    let cluster = harness::Cluster::make(&scratch, "server", &archive_setting(&spool_of(&scratch)));
    let host = Host::of(scratch, cluster, &config, "keep = { last = 1 }\n");
    host.good_run();
    let [(severity, message)] = &told(&host)[..] else { panic!("{:?}", told(&host)) };
    assert!(severity == "note" && message.contains("can read them"), "{message}");

    let own = |id: &str| {
        config.secret("aws-database.env", &format!("AWS_ACCESS_KEY_ID={id}\nAWS_SECRET_ACCESS_KEY={OWN_KEY}"));
    };
    own(OWN_ID);
    assert_eq!(told(&host), [], "all is as it should be");
    // Backups, what becomes of old ones, WAL, and a restore to a moment.
    host.insert("with its own keys");
    let _ = proxy.take_traffic();
    for _ in 0..3 {
        host.good_run();
    }
    host.insert("afterwards");
    host.cluster.finish_segment();
    host.agent.ok(["wal", "push"]);
    assert!(!all_below(&runtime).contains(Garage::KEY_ID), "a superuser reads the keys of all steps");
    let to = host.scratch.join("to");
    host.agent.ok(["restore", "database", "--to", to.to_str().unwrap()]);
    host.agent.ok(["points", "database"]);

    // Keys that open all are told, and a night with keys that open nothing fails and says so.
    proxy.allow_only(OWN_ID, vec![String::new()]);
    let [(severity, message)] = &told(&host)[..] else { panic!("{:?}", told(&host)) };
    assert!(severity == "warning" && message.contains("reach what other steps store"), "{message}");
    proxy.allow_only(OWN_ID, Vec::new());
    let night = host.agent.run(["run", "--json"]).expect(3);
    assert_eq!(
        (night.step("database")["outcome"].as_str(), night.step("agent")["outcome"].as_str()),
        (Some("failed"), Some("succeeded")),
        "{night}"
    );
}
