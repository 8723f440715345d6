//! Alarms: each thing that needs a person is told once, reminded of, and told again when it is over.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use harness::processes::{CALLS, kill_at};
use harness::{Agent, Config, Discord, Scratch, Tmpfs};
use serde_json::Value;

const MIB: u64 = 1 << 20;

struct Host {
    discord: Discord,
    scratch: Scratch,
    agent: Agent,
}

impl Host {
    /// One step, a Discord to tell, and a recovery kit, so that nothing is alarming.
    fn new() -> Self {
        Self::with(Scratch::new())
    }

    fn with(scratch: Scratch) -> Self {
        let source = scratch.directory("srv/foundry");
        fs::write(source.join("world.json"), "{}").unwrap();
        let discord = Discord::start();
        // One failure of few is told by itself here, not also as a rate.
        let config =
            Config::local(scratch.path()).directory("foundry", &[&source], "").table("[alarms]\nsuccess-rate = 1");
        let agent = config.write();
        config.secret("discord.env", &format!("DISCORD_WEBHOOK_URL={}", discord.url()));
        let host = Self { discord, scratch, agent };
        let kit = host.scratch.join("kit");
        host.agent.ok(["recovery-kit", "--to", kit.to_str().unwrap()]);
        host
    }

    /// The source is away: the backup fails.
    fn fail(&self) {
        self.take_away();
        let _ = self.agent.run(["run"]).expect(3);
    }

    fn take_away(&self) {
        fs::rename(self.scratch.join("srv/foundry"), self.scratch.join("srv/away")).unwrap();
    }

    fn repair(&self) {
        fs::rename(self.scratch.join("srv/away"), self.scratch.join("srv/foundry")).unwrap();
    }

    /// Looks; what Discord was told since the last time.
    fn told(&self) -> Vec<String> {
        self.agent.ok(["alarms"]);
        self.heard()
    }

    fn heard(&self) -> Vec<String> {
        let titles = self.discord.titles();
        self.discord.forget();
        titles
    }

    /// Names of the alarms that are raised.
    fn raised(&self) -> Vec<String> {
        let ran = self.agent.ok(["alarms", "--json"]);
        let alarms = ran.json()["alarms"].as_array().unwrap().clone();
        alarms.iter().map(|alarm| alarm["name"].as_str().unwrap().to_owned()).collect()
    }

    fn memory(&self) -> PathBuf {
        self.agent.state().join("incidents.json")
    }

    /// The same agent on a machine whose clock shows that much more or less; the time since its start stays what it is.
    fn with_clock(&self, skew: &str) -> Agent {
        let wrapper = self.scratch.join(format!("pi-agent{skew}"));
        let binary = Agent::binary();
        // What another process of the same number left there is in faketime's way.
        let script = format!(
            "#!/bin/sh\nrm -f /dev/shm/sem.faketime_sem_$$ /dev/shm/faketime_shm_$$\nNO_FAKE_STAT=1 exec faketime -m --exclude-monotonic -f '{skew}' {} \"$@\"\n",
            binary.display()
        );
        fs::write(&wrapper, script).unwrap();
        fs::set_permissions(&wrapper, Permissions::from_mode(0o755)).unwrap();
        self.agent.clone().program(wrapper)
    }
}

#[test]
fn a_failure_is_told_once_shown_and_told_again_when_it_is_over() {
    let host = Host::new();
    host.agent.ok(["alarms"]).says("foundry: there is no good backup yet");
    assert_eq!(host.heard(), [""; 0], "a machine that was set up today has until the next night");
    host.agent.ok(["run"]);
    assert_eq!(host.told(), [""; 0]);
    host.agent.ok(["alarms"]).says("no alarms");

    host.fail();
    let messages = host.discord.messages();
    assert_eq!(host.heard(), ["🔴 foundry: the backup failed"], "by the run itself");
    let embed = messages[0]["embeds"][0].to_string();
    assert!(embed.contains("still safe") && embed.contains("last good restore point of foundry"), "{embed}");
    assert_eq!(host.told(), [""; 0]);
    let status = host.agent.ok(["status", "--json"]).json();
    assert_eq!(status["healthy"], false);
    assert_eq!(status["alarms"][0]["name"], "backup", "{status}");
    assert_eq!(status["alarms"][0]["step"], "foundry", "{status}");
    let _ = host.agent.run(["run"]).expect(3);
    assert_eq!(host.told(), [""; 0], "one message for each incident");

    host.repair();
    host.agent.ok(["run"]);
    assert_eq!(host.heard(), ["✅ foundry: over: the backup failed"]);
    assert_eq!(host.raised(), [""; 0]);
    assert_eq!(host.agent.ok(["status", "--json"]).json()["healthy"], true);
}

#[test]
fn what_could_not_be_put_into_the_outbox_is_told_later_under_the_same_key() {
    let host = Host::new();
    host.agent.ok(["run"]);
    let outbox = host.agent.state().join("outbox");
    let _ = fs::remove_dir_all(&outbox);
    fs::write(&outbox, "in the way").unwrap();
    host.take_away();
    host.agent.run(["run"]).expect(1).says("outbox");
    let key = |file: &Path| {
        let memory: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        memory["untold"].as_array().unwrap().iter().map(|it| it["key"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let before = key(&host.memory());
    assert_eq!(before.len(), 2, "the failure, and that it could not be told: {before:?}");
    assert!(before[0].starts_with("foundry-backup-") && before[0].ends_with(".raised"), "{before:?}");
    let _ = host.agent.run(["alarms"]).expect(1);
    assert_eq!(key(&host.memory()), before);

    fs::remove_file(&outbox).unwrap();
    let outside = "🟠 test-host: the last run had a problem outside its steps";
    assert_eq!(host.told(), ["🔴 foundry: the backup failed", outside]);
    assert_eq!(key(&host.memory()), [""; 0]);
    let sent = fs::read_to_string(outbox.join("discord/sent.jsonl")).unwrap();
    assert!(before.iter().all(|key| sent.contains(key)), "{sent}");
    assert_eq!(host.told(), [""; 0]);
}

#[test]
fn a_disk_that_runs_full_is_told_before_the_backup_fails_and_when_there_is_room() {
    let scratch = Scratch::new();
    let disk = Tmpfs::mount(scratch.join("storage"), 24 * MIB);
    let host = Host::with(scratch);
    host.agent.ok(["run"]);
    disk.fill();
    let place = disk.path().display();
    assert_eq!(host.told(), [format!("🔴 {place}: 100 % in use")]);
    assert_eq!(host.raised(), ["disk-space"]);
    disk.make_room();
    assert_eq!(host.told(), [format!("✅ {place}: over: 100 % in use")]);
}

#[test]
fn a_full_state_disk_is_an_error_until_it_can_be_told() {
    let scratch = Scratch::new();
    let disk = Tmpfs::mount(scratch.join("state"), 4 * MIB);
    let host = Host::with(scratch);
    host.agent.ok(["run"]);
    disk.fill();
    host.agent.run(["alarms"]).expect(1).says("No space left on device");
    disk.make_room();
    assert_eq!(host.told(), [""; 0], "the disk has room again");
    assert_eq!(host.raised(), [""; 0]);
}

#[test]
fn history_that_cannot_be_read_is_told_and_ends_nothing() {
    let host = Host::new();
    host.agent.ok(["run"]);
    host.fail();
    host.heard();
    let database = host.agent.state().join("state.db");
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{suffix}", database.display()));
    }
    let length = usize::try_from(fs::metadata(&database).unwrap().len()).unwrap();
    fs::write(&database, vec![0x5a; length]).unwrap();
    assert_eq!(host.told(), ["🟠 test-host: the history cannot be read"]);
    assert_eq!(host.raised(), ["backup", "history"]);

    host.repair();
    let _ = host.agent.run(["run"]).expect(5);
    let mut heard = host.heard();
    heard.sort();
    assert_eq!(
        heard,
        [
            "✅ foundry: over: the backup failed",
            "✅ test-host: over: the history cannot be read",
            "🟠 test-host: the last run had a problem outside its steps",
        ]
    );
    host.agent.ok(["run"]);
    assert_eq!(host.heard(), ["✅ test-host: over: the last run had a problem outside its steps"]);
}

#[test]
fn a_damaged_memory_is_set_aside_and_what_is_wrong_is_told_again() {
    let host = Host::new();
    host.agent.ok(["run"]);
    host.fail();
    host.heard();
    fs::write(host.memory(), "{\"schema\": 1, \"inc").unwrap();
    host.agent.ok(["status"]).says("the backup failed");
    host.agent.ok(["alarms"]).says("set aside as");
    assert_eq!(host.heard(), ["🔴 foundry: the backup failed"]);
    let names =
        fs::read_dir(host.agent.state()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.starts_with("incidents.json.damaged-")).count(), 1);
    assert_eq!(fs::metadata(host.memory()).unwrap().permissions().mode() & 0o7777, 0o600);
}

#[test]
fn a_key_that_others_can_read_and_a_kit_of_other_keys_are_told() {
    let host = Host::new();
    host.agent.ok(["run"]);
    let key = host.scratch.join("etc/secrets/restic.key");
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    assert_eq!(host.told(), ["🔴 test-host: the secrets cannot be used"]);
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    assert_eq!(host.told(), ["✅ test-host: over: the secrets cannot be used"]);
    fs::write(host.scratch.join("etc/secrets/pgbackrest.key"), "another\n").unwrap();
    assert_eq!(host.told(), ["🟠 test-host: no recovery kit was made since the keys changed"]);
    host.agent.ok(["recovery-kit", "--to", host.scratch.join("new-kit").to_str().unwrap()]);
    assert_eq!(host.told(), ["✅ test-host: over: no recovery kit was made since the keys changed"]);
}

#[test]
fn a_look_that_is_killed_anywhere_loses_nothing() {
    let host = Host::new();
    host.agent.ok(["run"]);
    let key = host.scratch.join("etc/secrets/restic.key");
    let titles = ["🔴 test-host: the secrets cannot be used", "✅ test-host: over: the secrets cannot be used"];
    let mut changes = [0o644, 0o600].into_iter().zip(titles).cycle();
    let mut killed = 0;
    for calls in CALLS {
        for time in 1..=25 {
            let (mode, title) = changes.next().unwrap();
            fs::set_permissions(&key, Permissions::from_mode(mode)).unwrap();
            host.discord.forget();
            let status = kill_at(&host.agent.command(["alarms"]), calls, time);
            host.agent.ok(["alarms"]);
            let mut messages: Vec<_> = host.discord.messages();
            let sent = messages.len();
            messages.dedup_by_key(|message| (Discord::incident(message), message["embeds"][0]["title"].clone()));
            let heard: Vec<_> = messages.iter().map(|message| &message["embeds"][0]["title"]).collect();
            assert_eq!(heard, [title], "{calls} {time}");
            assert!(sent <= 2, "{calls} {time}: more than one repetition");
            if status.code() == Some(0) {
                break;
            }
            killed += 1;
        }
    }
    // A look makes 17 of these calls: each line that it logs is one of them.
    assert!(killed > 15, "killed only {killed} times");
}

/// By a day and by a year, both ways, while something is wrong: the clock is told, and nothing else changes.
#[test]
fn a_clock_that_is_moved_ends_nothing_and_makes_no_storm() {
    let host = Host::new();
    host.agent.ok(["run"]);
    host.fail();
    assert_eq!(host.heard(), ["🔴 foundry: the backup failed"]);
    for skew in ["+1d", "-1d", "+365d", "-365d"] {
        let moved = host.with_clock(skew);
        for _ in 0..3 {
            moved.ok(["alarms"]).says("the clock was moved");
        }
        assert_eq!(host.heard(), ["🟠 test-host: the clock is not trusted"], "{skew}");
        assert_eq!(host.raised(), ["backup"], "{skew}: the clock is right again");
        assert_eq!(host.heard(), ["✅ test-host: over: the clock is not trusted"], "{skew}");
    }
    // A person says that it is right: the backup of today is then a year old.
    let later = host.with_clock("+365d");
    later.ok(["alarms", "--trust-clock"]).says("the last good backup is 36");
    let heard = host.heard();
    assert!(heard.contains(&"🔴 foundry: the last good backup is 365 d old".to_owned()), "{heard:?}");
    assert!(!heard.iter().any(|title| title.contains("✅") || title.contains("still")), "{heard:?}");
}

#[test]
fn a_run_while_the_clock_is_wrong_neither_ends_an_incident_nor_keeps_it_from_ending() {
    let host = Host::new();
    host.agent.ok(["run"]);
    host.fail();
    host.heard();
    host.repair();
    // The night succeeds while the clock shows last year: whether that was before or after the failure, nobody can tell.
    let _ = host.with_clock("-365d").run(["run"]);
    assert_eq!(host.heard(), ["🟠 test-host: the clock is not trusted"]);
    let _ = host.with_clock("+365d").run(["run"]);
    let heard = host.heard();
    assert_eq!(heard, ["✅ foundry: over: the backup failed"], "it is newer than the failure on any clock");
    assert_eq!(host.told(), ["✅ test-host: over: the clock is not trusted"]);
    host.agent.ok(["run"]);
    // There is a restore point of next year now, and who deletes by dates would delete the wrong ones.
    assert_eq!(host.raised(), ["clock"]);
    assert_eq!(host.heard(), ["🟠 test-host: the clock is not trusted"]);
}
