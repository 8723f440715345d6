//! Whose place it is: a cloned card, an old image of a card, a new name; and no false alarm.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Agent, Config, Ran, Scratch, Tree, sh};

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
