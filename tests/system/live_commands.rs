//! Live paths whose writer is quieted by commands; limits of room and time.

use std::fs;
use std::path::PathBuf;

use harness::{Agent, Config, Household, Scratch, Size, Tmpfs, Tree};

struct Host {
    scratch: Scratch,
    household: Household,
}

impl Host {
    fn new() -> Self {
        let scratch = Scratch::new();
        let household = Household::make(scratch.join("srv"), Size { bytes: 4_000_000, files: 50 }, 3);
        Self { scratch, household }
    }

    /// What the commands did, in order.
    fn log(&self) -> PathBuf {
        self.scratch.join("log")
    }

    fn said(&self) -> String {
        let said = fs::read_to_string(self.log()).unwrap_or_default();
        let _ = fs::remove_file(self.log());
        said
    }

    /// Each command is a script of one line.
    fn agent(&self, quiet: &str, more: &str) -> Agent {
        let command = |script: &str| serde_json::json!(["/bin/sh", "-c", script, "live", self.log()]).to_string();
        let (quiet, resume) = (command(quiet), command("echo resumed >> $1"));
        let live = format!("live = {{ paths = [\"Data\"], quiet = {quiet}, resume = {resume}, {more} }}");
        let config = Config::local(self.scratch.path()).directory("foundry", &[&self.household.foundry()], &live);
        config.directory("logs", &[&self.household.logs()], "").write()
    }
}

#[test]
fn commands_quiet_and_resume() {
    let host = Host::new();
    // A run that was killed left copies.
    let left = host.scratch.join("cache/staging/gone");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("7"), "old").unwrap();

    let agent = host.agent("echo quiet >> $1", "");
    let ran = agent.ok(["run", "--json"]);
    assert_eq!(host.said(), "quiet\nresumed\n");
    assert!(ran.step("foundry")["quiet_milliseconds"].as_u64().unwrap() < 30_000, "{ran}");
    assert!(ran.step("logs")["quiet_milliseconds"].is_null(), "{ran}");
    assert!(!left.exists());
    let to = host.scratch.join("restored");
    agent.ok(["restore", "foundry", "--to", to.to_str().unwrap()]);
    Tree::read(host.household.foundry()).assert_equals(to.join(host.household.foundry().strip_prefix("/").unwrap()));

    // What takes longer than it may: told, and all the same a restore point.
    let ran = host.agent("sleep 2; echo quiet >> $1", "at-most = \"1s\"").run(["run", "--json"]);
    let step = ran.step("foundry");
    assert_eq!((host.said().as_str(), &step["outcome"]), ("resumed\n", &"degraded".into()), "{ran}");
    assert!(!step["restore_point"].is_null(), "{ran}");
    ran.says("not copied within the time its writer may be quiet (1 s)");

    // What cannot be quieted is let go on all the same, and fails its own step only.
    let ran = host.agent("echo broken >&2; exit 3", "").run(["run", "--json"]).expect(3);
    assert_eq!(host.said(), "resumed\n");
    ran.says("exit status: 3: broken");
    assert_eq!(ran.step("logs")["outcome"], "succeeded", "{ran}");
    assert!(!host.scratch.join("state/quiet/foundry.json").exists());
}

#[test]
fn without_room_for_copies_nothing_is_paused() {
    let host = Host::new();
    let agent = host.agent("echo quiet >> $1", "");
    let _small = Tmpfs::mount(host.scratch.join("cache"), 128 << 20);
    let ran = agent.run(["run", "--json"]).expect(5);
    let step = ran.step("foundry");
    assert_eq!((host.said().as_str(), &step["outcome"]), ("", &"degraded".into()), "{ran}");
    assert!(!step["restore_point"].is_null(), "{ran}");
    ran.says("no room to copy the live part").says("[local] cache");
}
