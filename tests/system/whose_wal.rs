//! Whose place it is, for a database: what a clone of the card does between the nights, and what who only reads leaves as it is.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use harness::cluster::give_to_postgres;
use harness::{Agent, Cluster, Config, Ran, Scratch, Tmpfs, sh};

use crate::postgres::{Host, archive_setting};

impl Host {
    /// The same card once more, as it is now.
    fn clone_of_the_card(&self) -> Agent {
        let state = self.scratch.join("clone");
        sh(Command::new("cp").arg("--archive").arg(self.agent.state()).arg(&state));
        Agent::new(self.scratch.join("etc/config.toml"), &state)
    }

    fn waiting(&self) -> Vec<String> {
        pi_agent::wal::waiting(&self.spool()).unwrap()
    }
}

#[track_caller]
fn refused(ran: &Ran) {
    assert_eq!(ran.code(), Some(1), "{ran}");
    ran.says("push WAL: another machine or card also writes to").says("If this card is a clone");
}

#[test]
fn a_clone_of_the_card_pushes_no_wal() {
    let host = Host::local();
    host.good_run();
    let clone = host.clone_of_the_card();
    host.good_run();
    let segment = host.cluster.finish_segment();
    refused(&clone.run(["wal", "push"]));
    refused(&clone.run(["wal", "push", "--switch"]));
    let _ = clone.run(["adopt", "database"]).expect(1).says("another machine or card also writes to");
    assert!(host.waiting().contains(&segment), "everything stays in the spool");
    host.agent.ok(["wal", "push"]);
    assert_eq!(host.waiting(), [""; 0]);

    // Its hardware tells it, too, without any record; and another machine's id.
    host.cluster.finish_segment();
    let marker = host.scratch.join("storage/host.json");
    let kept = fs::read_to_string(&marker).unwrap();
    let mut record: serde_json::Value = serde_json::from_str(&kept).unwrap();
    record["machine_id"] = "0123456789abcdef0123456789abcdef".into();
    fs::write(&marker, record.to_string()).unwrap();
    let push = host.agent.run(["wal", "push"]).expect(1);
    push.says("belongs to the machine test-host (id 0123456789abcdef0123456789abcdef)");
    fs::write(&marker, kept).unwrap();
    host.agent.ok(["wal", "push"]);
    assert_eq!(host.restored("latest", "latest"), host.cluster.dump());
}

/// What systemd hands over to the service that pushes.
struct Service {
    program: PathBuf,
    credentials: PathBuf,
    runtime: PathBuf,
    config: PathBuf,
}

impl Service {
    fn of(host: &Host, config: &Config) -> Self {
        let (credentials, runtime) = (host.scratch.directory("credentials"), host.scratch.directory("runtime-wal"));
        give_to_postgres(&runtime);
        let program = host.scratch.join("pi-agent");
        fs::copy(Agent::binary(), &program).unwrap();
        let this = Self { program, credentials, runtime, config: config.file() };
        this.hand_over(&config.secrets().join("pgbackrest.key"));
        this
    }

    fn hand_over(&self, file: &Path) {
        let to = self.credentials.join(file.file_name().unwrap());
        fs::copy(file, &to).unwrap();
        give_to_postgres(&to);
    }

    fn push(&self) -> Output {
        let user = nix::unistd::User::from_name("postgres").unwrap().unwrap();
        let mut push = Command::new(&self.program);
        push.arg("--config").arg(&self.config).args(["wal", "push"]);
        push.env("CREDENTIALS_DIRECTORY", &self.credentials).env("RUNTIME_DIRECTORY", &self.runtime);
        push.uid(user.uid.as_raw()).gid(user.gid.as_raw()).current_dir("/").output().unwrap()
    }
}

#[test]
fn the_servers_user_knows_a_clone_by_the_record_that_is_handed_over() {
    let scratch = Scratch::new();
    let config = Config::local(scratch.path());
    let host = Host::with(scratch, &config, "");
    host.good_run();
    let (service, record) = (Service::of(&host, &config), host.agent.state().join("place.json"));

    // 1. Nothing was handed over, as before the first night.
    host.cluster.finish_segment();
    assert!(service.push().status.success());
    assert_eq!(host.waiting(), [""; 0]);

    // 2. A night has begun since it was: the next push has the new record.
    service.hand_over(&record);
    host.good_run();
    host.cluster.finish_segment();
    let output = service.push();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert!(!host.waiting().is_empty(), "it stays in the spool");
    let behind = fs::read(service.credentials.join("place.json")).unwrap();
    service.hand_over(&record);
    assert!(service.push().status.success());
    assert_eq!(host.waiting(), [""; 0]);

    // 3. The same record that was handed over after somebody else has written: a clone's.
    fs::write(service.credentials.join("place.json"), behind).unwrap();
    host.cluster.finish_segment();
    let output = service.push();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && told.contains("another machine or card also writes to"), "{output:?}");
    assert!(!host.waiting().is_empty(), "it stays in the spool");
}

#[test]
fn who_only_reads_makes_nothing_in_a_new_place() {
    let host = Host::local();
    let storage = host.scratch.join("storage");
    fs::create_dir_all(&storage).unwrap();
    host.agent.run(["check", "database"]).expect(3).says("says nothing of whose it is");
    host.agent.run(["prune", "database"]).expect(3).says("says nothing of whose it is");
    host.agent.ok(["points", "database"]);
    let _ = host.agent.run(["restore", "database", "--to", host.scratch.join("to").to_str().unwrap()]);
    let made: Vec<_> = fs::read_dir(&storage).unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(made.is_empty(), "{made:?}");
    host.good_run();
}

#[test]
fn what_can_only_be_read_is_checked() {
    let scratch = Scratch::new();
    let disk = Tmpfs::mount(scratch.join("storage"), 256 << 20);
    let config = Config::local(scratch.path());
    let host = Host::with(scratch, &config, "keep = { daily = 30, monthly = 12 }");
    host.good_run();
    sh(Command::new("mount").args(["-o", "remount,ro"]).arg(disk.path()));
    assert!(fs::write(disk.path().join("x"), "").is_err());
    host.agent.ok(["check", "database"]);
    host.agent.ok(["points", "database"]);
    assert_eq!(host.restored("latest", "latest"), host.cluster.dump());
}

/// WAL of a cluster waits in the spool, and beside it that of a fresh one at its place. A moment before the last row of the first.
fn fresh_at_the_place_of_another(host: &Host) -> String {
    host.insert("one");
    host.good_run();
    host.insert("two");
    let moment = host.moment_alone();
    host.insert("three");
    host.cluster.finish_segment();
    host.cluster.stop();
    host.cluster.initialise(&archive_setting(&host.spool()));
    host.cluster.start();
    host.cluster.finish_segment();
    moment
}

fn rows(cluster: &Cluster) -> String {
    cluster.sql("select string_agg(name, ' ' order by at) from voters")
}

#[test]
fn the_wal_of_a_fresh_cluster_is_in_nobodys_way() {
    let host = Host::local();
    fresh_at_the_place_of_another(&host);
    let both = host.waiting();
    let (_, hint) = host.failed_run();
    assert!(hint.contains("then restore"), "{hint}");
    host.agent.run(["wal", "push"]).expect(1).says("WAL of another cluster").says("restore database --in-place");
    assert_eq!(host.waiting(), both[..1], "the other one's is pushed, its own waits");
    host.cluster.stop();

    let restored = host.agent.ok(["restore", "database", "--in-place", "--yes"]);
    restored.says("What was there before: the cluster in").says("is another one (system id");
    assert!(!restored.stdout.contains("rm -rf"), "it is in no backup: {restored}");
    assert_eq!(rows(host.cluster.start()), "one two three");
    assert_eq!(host.waiting(), [""; 0], "it is set aside");
    host.good_run();
}

#[test]
fn the_last_wal_of_a_cluster_goes_into_the_repository_before_another_is_adopted() {
    let host = Host::local();
    let moment = fresh_at_the_place_of_another(&host);
    let fresh = host.waiting().remove(0);
    host.agent.ok(["adopt", "database"]);
    assert_eq!(host.waiting(), [fresh]);
    host.good_run();
    let to = host.scratch.join("old");
    host.agent.ok(["restore", "database", "--to", to.to_str().unwrap(), "--at", &moment]);
    assert_eq!(rows(Cluster::existing(&host.scratch, &to).start()), "one two");
}
