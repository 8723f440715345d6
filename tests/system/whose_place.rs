//! Whose place it is: a cloned card, an old image of a card, a new name; and no false alarm.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use harness::{Agent, Config, Fault, Faults, Garage, Ran, Random, Scratch, TlsProxy, Tmpfs, Tree, sh};
use nix::sys::signal::{Signal, kill};

use crate::locks::step as step_of;

/// Cards of one machine, or of what once was one: each with its configuration, state and data; and one storage.
struct Cards {
    scratch: Scratch,
    config: Config,
    agent: Agent,
}

impl Cards {
    fn new(more: &str) -> Self {
        let scratch = Scratch::new();
        let data = scratch.directory("card/data");
        fs::write(data.join("file"), "one").unwrap();
        let storage = scratch.directory("storage");
        let config = Config::local(scratch.join("card")).directory("files", &[&data], more);
        let agent = config.write();
        let cards = Self { scratch, config, agent };
        cards.rewrite(&cards.config.storage_folder().display().to_string(), &storage.display().to_string());
        cards
    }

    fn storage(&self) -> PathBuf {
        self.scratch.join("storage")
    }

    /// Changes the configuration.
    fn rewrite(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.config.file()).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(self.config.file(), text.replace(from, to)).unwrap();
    }

    /// Puts another card into the machine, or into one like it: all of what is on `from`, at the same paths.
    fn copy(&self, from: &str, to: &str) {
        let to = self.scratch.join(to);
        if to.exists() {
            fs::remove_dir_all(&to).unwrap();
        }
        sh(Command::new("cp").arg("--archive").arg(self.scratch.join(from)).arg(to));
    }

    /// A night of the card of that name, which comes back to where it was.
    fn night_of(&self, card: &str, arguments: &[&str]) -> Ran {
        self.copy(card, "card");
        let ran = self.agent.run(arguments);
        self.copy("card", card);
        ran
    }

    fn points(&self) -> Vec<String> {
        let points = self.agent.ok(["points", "files", "--json"]).json();
        let points = points["points"].as_array().unwrap();
        points.iter().map(|point| point["id"].as_str().unwrap().to_owned()).collect()
    }
}

#[test]
fn two_machines_with_one_card_do_not_go_on_in_silence() {
    let cards = Cards::new("keep = { last = 1 }");
    cards.agent.ok(["run"]);
    for card in ["first", "second"] {
        cards.copy("card", card);
    }
    fs::write(cards.scratch.join("second/data/file"), "two").unwrap();
    // One of them is the first to go on, and nobody can tell.
    let _ = cards.night_of("second", &["run"]).expect(0);
    let before = Tree::read(cards.storage());
    for _ in 0..2 {
        let ran = cards.night_of("first", &["run", "--json"]).expect(3);
        for step in ["files", "agent"] {
            let error = ran.step(step)["error"].to_string();
            assert!(error.contains("another machine or card also writes to") && error.contains("test-host"), "{error}");
            assert!(error.contains("If this card is a clone") && error.contains("pi-agent adopt"), "{error}");
        }
        let _ = cards.night_of("first", &["prune", "files"]).expect(3);
        assert_eq!(before.differences(&Tree::read(cards.storage())), Vec::<String>::new());
    }
    let doctor = cards.night_of("first", &["doctor"]);
    doctor.says("also writes to");
    let _ = cards.night_of("second", &["run"]).expect(0);

    // A person says who it is; then the other one hears of it.
    let _ = cards.night_of("first", &["adopt"]).expect(0);
    let _ = cards.night_of("first", &["run"]).expect(0);
    let _ = cards.night_of("second", &["run"]).expect(3).says("also writes to");
    let _ = cards.night_of("first", &["run"]).expect(0);
}

#[test]
fn an_old_image_of_a_card_removes_nothing() {
    let cards = Cards::new("keep = { last = 2 }");
    cards.agent.ok(["run"]);
    cards.copy("card", "image");
    for _ in 0..2 {
        cards.agent.ok(["run"]);
    }
    let points = cards.points();
    cards.copy("image", "card");
    cards.agent.run(["run"]).expect(3).says("an older image of the card that was put back").says("pi-agent adopt");
    assert_eq!(cards.points(), points);
    cards.agent.ok(["adopt"]);
    cards.agent.ok(["doctor"]);
    cards.agent.ok(["run"]);
}

#[test]
fn a_new_name_is_told_once_and_nothing_of_the_old_one_is_forgotten() {
    let cards = Cards::new("keep = { last = 1 }");
    cards.agent.ok(["run"]);
    let old = cards.points();
    cards.rewrite("test-host", "new-host");
    cards.agent.run(["doctor"]).says("was written by the machine test-host until now");
    let told = cards.agent.run(["run"]).expect(5);
    told.says("was written by the machine test-host until now").says("if this card is a clone");
    for _ in 0..2 {
        cards.agent.ok(["run"]);
    }
    let now = cards.points();
    assert!(now.contains(&old[0]), "{now:?}");

    // A clone that has a name of its own, on the same storage: the first one hears of it.
    cards.copy("card", "first");
    cards.rewrite("new-host", "clone");
    cards.copy("card", "clone");
    let _ = cards.night_of("clone", &["run"]).expect(5).says("was written by the machine new-host until now");
    let ran = cards.night_of("first", &["run"]).expect(3);
    ran.says("another machine or card also writes to").says("clone did on").says("new-host, did not");
    assert!(now.iter().all(|point| cards.points().contains(point)));
}

#[test]
fn whatever_ends_a_night_is_no_other_machine() {
    let cards = Cards::new("keep = \"forever\"");
    let marker = cards.storage().join("host.json");
    let mut before = Vec::new();
    let mut token = String::new();
    // 1. Each night has its own; the plug was pulled before it was in storage, for a week.
    for _ in 0..3 {
        cards.agent.ok(["run"]);
        let now: serde_json::Value = serde_json::from_slice(&fs::read(&marker).unwrap()).unwrap();
        assert_ne!(now["token"], token.as_str());
        token = now["token"].as_str().unwrap().to_owned();
        before.push(fs::read(&marker).unwrap());
    }
    for earlier in &before {
        fs::write(&marker, earlier).unwrap();
        cards.agent.ok(["run"]);
    }
    // 2. The storage was away.
    let away = cards.scratch.join("away");
    fs::rename(cards.storage(), &away).unwrap();
    let _ = cards.agent.run(["run"]).expect(3);
    fs::rename(&away, cards.storage()).unwrap();
    cards.agent.ok(["run"]);
    // 3. The state directory was lost, or is damaged.
    let state = cards.agent.state();
    fs::remove_dir_all(state).unwrap();
    cards.agent.ok(["run"]);
    fs::write(state.join("place.json"), "{").unwrap();
    cards.agent.ok(["run"]);
    // 4. A storage of before there were tokens.
    let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&marker).unwrap()).unwrap();
    for new in ["token", "written", "serial"] {
        record.as_object_mut().unwrap().remove(new);
    }
    fs::write(&marker, record.to_string()).unwrap();
    cards.agent.ok(["run"]);
    assert!(fs::read_to_string(&marker).unwrap().contains("\"token\""));
    // 5. A storage that was replaced by an empty one is told as such.
    fs::remove_dir_all(cards.storage()).unwrap();
    fs::create_dir(cards.storage()).unwrap();
    let _ = cards.agent.run(["run"]).expect(3).says("does not even say whose it is");
    cards.agent.ok(["adopt"]);
    let _ = cards.agent.run(["run"]).expect(5).says("holds none now");
    cards.agent.ok(["run"]);
    // 6. Another place has another history.
    let other = cards.scratch.directory("other");
    let (from, to): (&Path, &Path) = (&cards.storage(), &other);
    cards.rewrite(&from.display().to_string(), &to.display().to_string());
    let _ = cards.agent.run(["run"]).expect(5).says("is a new place, and the restore points until now are in");
    cards.agent.ok(["run"]);
    cards.rewrite(&to.display().to_string(), &from.display().to_string());
    cards.agent.ok(["run"]);
    // 7. A recovery takes the place over.
    let kit = cards.scratch.join("kit.txt").display().to_string();
    cards.agent.ok(["recovery-kit", "--to", &kit]);
    cards.copy("card", "dead");
    fs::remove_dir_all(cards.scratch.join("card")).unwrap();
    let _ = cards.agent.run(["recover", "--kit", &kit]).expect(0);
    cards.agent.ok(["run"]);
    let _ = cards.night_of("dead", &["run"]).expect(3).says("also writes to");
}

/// A place in a bucket, on the way to which something may go wrong.
fn in_a_bucket(scratch: &Scratch, proxy: &TlsProxy, data: &Path) -> (Config, Agent) {
    let keys = (Garage::KEY_ID, Garage::KEY);
    let config = Config::s3(scratch.path(), "s3://backups/host", &proxy.endpoint(), proxy.ca_file(), keys);
    let config = config.directory("files", &[data], "");
    let agent = config.write();
    (config, agent)
}

fn name_it(config: &Config, from: &str, to: &str) {
    let text = fs::read_to_string(config.file()).unwrap();
    fs::write(config.file(), text.replace(&format!("name = \"{from}\""), &format!("name = \"{to}\""))).unwrap();
}

#[test]
fn a_new_name_is_told_whatever_ends_the_step() {
    let (scratch, garage) = (Scratch::new(), Garage::start());
    let proxy = TlsProxy::before(&garage);
    let data = scratch.directory("srv/data");
    fs::write(data.join("file"), "one").unwrap();
    let (config, agent) = in_a_bucket(&scratch, &proxy, &data);
    agent.ok(["run"]);

    // 1. It fails when it has written down that it writes.
    name_it(&config, "test-host", "second");
    fs::write(data.join("file"), Random::new(1).bytes(100_000)).unwrap();
    proxy.set(Faults { only: "PUT /backups/host/files/data/", ..Faults::some(1, 1.0, &[Fault::Denied]) });
    let ran = agent.run(["run", "--json"]).expect(3);
    let told = ran.step("files")["problems"].to_string();
    assert!(told.contains("was written by the machine test-host until now, and this one is second"), "{ran}");
    proxy.set(Faults::none());
    agent.ok(["run"]);

    // 2. It is killed, and says nothing any more.
    name_it(&config, "second", "third");
    fs::write(data.join("more"), Random::new(2).bytes(30_000_000)).unwrap();
    let slow = config.clone().table("[limits]\nread = \"1MiB\"").write();
    name_it(&config, "test-host", "third");
    proxy.take_traffic();
    let run = slow.start(["run", "files"]);
    let began = Instant::now();
    while !proxy.traffic().asked.contains(&"PUT /backups/host/host.json".to_owned()) {
        assert!(began.elapsed() < Duration::from_secs(60), "it does not write down that it writes");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(500));
    kill(step_of(&run), Signal::SIGKILL).unwrap();
    // The next one tells it, in this run.
    let told = run.wait().expect(3);
    told.says("was killed").says("was written by the machine second until now, and this one is third");
    config.write();
    name_it(&config, "test-host", "third");
    agent.ok(["run"]);
}

#[test]
fn another_hosts_points_are_neither_counted_nor_missed() {
    let cards = Cards::new("keep = { last = 3 }");
    cards.agent.ok(["run"]);
    let old = cards.points().remove(0);
    cards.rewrite("test-host", "new-host");
    let _ = cards.agent.run(["run"]).expect(5);
    cards.agent.ok(["run"]);
    let status = cards.agent.ok(["status", "--json"]).json();
    assert_eq!(status["steps"][0]["restore_points"], 2, "{status}");
    assert_eq!(status["steps"][0]["points_of_others"]["test-host"], 1, "{status}");
    cards.agent.ok(["status"]).says("files: 1 point of test-host, kept until you remove them");
    let points = cards.agent.ok(["points", "files"]);
    points.says("snapshot of test-host").says("files: 1 point of test-host, kept until you remove them");
    let page = cards.scratch.join("page.html");
    cards.agent.ok(["status", "--html", page.to_str().unwrap()]);
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("1 point of test-host") && !page.contains(&old[..8]), "the calendar has its own points");

    // Removed by a person, they are not missed.
    let repository = cards.storage().join("files");
    let mut restic = Command::new("restic");
    restic.args(["--no-cache", "forget", &old, "--quiet"]).env("RESTIC_PASSWORD", Config::PASSWORD);
    sh(restic.env("RESTIC_REPOSITORY", repository));
    cards.agent.ok(["check", "files"]);
}

#[test]
fn a_place_that_is_known_is_not_begun_anew_by_a_step_that_does_not_know_it() {
    let empty = |cards: &Cards| {
        fs::remove_dir_all(cards.storage()).unwrap();
        fs::create_dir(cards.storage()).unwrap();
    };
    // 1. A step whose source was accepted anew.
    let cards = Cards::new("keep = \"forever\"");
    cards.agent.ok(["run"]);
    empty(&cards);
    cards.agent.ok(["adopt", "files"]);
    let ran = cards.agent.run(["run", "--json"]).expect(3);
    for step in ["files", "agent"] {
        assert!(ran.step(step)["error"].to_string().contains("does not even say whose it is"), "{ran}");
    }
    assert_eq!(fs::read_dir(cards.storage()).unwrap().count(), 0, "nothing was begun there");
    // 2. A new step, in the place of one that is gone.
    cards.rewrite("name = \"files\"", "name = \"new\"");
    let _ = cards.agent.run(["run", "new"]).expect(3).says("does not even say whose it is");
    cards.agent.ok(["adopt"]);
    cards.rewrite("name = \"new\"", "name = \"files\"");
    // Which points there were is known, too.
    let _ = cards.agent.run(["run", "files"]).expect(5).says("held restore points before and holds none now");
}

#[test]
fn a_place_of_before_there_were_tokens_is_not_written_to_with_other_keys() {
    let cards = Cards::new("keep = \"forever\"");
    cards.agent.ok(["run"]);
    let marker = cards.storage().join("host.json");
    let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&marker).unwrap()).unwrap();
    for new in ["token", "written", "serial"] {
        record.as_object_mut().unwrap().remove(new);
    }
    fs::write(&marker, record.to_string()).unwrap();
    let before = Tree::read(cards.storage());
    fs::remove_dir_all(cards.config.secrets().join("master-keys")).unwrap();
    fs::write(cards.config.secrets().join("restic.key"), "another password").unwrap();
    let _ = cards.agent.run(["run"]).expect(3).says("is not this repository's");
    assert_eq!(before.differences(&Tree::read(cards.storage())), Vec::<String>::new());
}

#[test]
fn the_status_is_not_written_to_a_disk_that_was_pulled() {
    let scratch = Scratch::new();
    let disk = Tmpfs::mount(scratch.join("storage"), 64 << 20);
    let data = [scratch.directory("srv/small"), scratch.directory("srv/large")];
    fs::write(data[0].join("file"), "one").unwrap();
    fs::write(data[1].join("file"), Random::new(1).bytes(30_000_000)).unwrap();
    let config = Config::local(scratch.path()).directory("small", &[&data[0]], "").directory("large", &[&data[1]], "");
    config.write().ok(["run", "small"]);
    let agent = config.table("[limits]\nread = \"1MiB\"").write();
    let run = agent.start(["run", "--json"]);
    let began = Instant::now();
    while !disk.path().join("large/config").exists() {
        assert!(began.elapsed() < Duration::from_secs(60), "the second step does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    sh(Command::new("umount").arg("--lazy").arg(disk.path()));
    let ran = run.wait().expect(3);
    assert_eq!(ran.step("small")["outcome"], "succeeded", "{ran}");
    assert!(ran.step("agent")["error"].to_string().contains("nothing is written"), "{ran}");
    assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 0, "the mount point is the card's");
}
