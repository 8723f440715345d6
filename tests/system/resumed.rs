//! A restore that is killed goes on where it was, by the same command; and a terminal asks for what is not said.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::{Agent, Cluster, Config, Random, Scratch, Tree, TypedInto, sh};
use nix::sys::signal::Signal;

use crate::postgres::Host;

/// Starts it and kills it as soon as `begun`; false when it was over before.
fn killed(agent: &Agent, arguments: &[&str], begun: impl Fn() -> bool) -> bool {
    let mut running = agent.start(arguments);
    let started = Instant::now();
    while !begun() {
        if running.has_ended() {
            return false;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "it does not begin");
        std::thread::sleep(Duration::from_millis(1));
    }
    running.signal(Signal::SIGKILL);
    running.wait().code().is_none()
}

/// Something that takes a moment.
fn large(scratch: &Scratch) -> (std::path::PathBuf, Agent) {
    let source = scratch.directory("srv/data");
    let mut random = Random::new(3);
    for name in 0..40 {
        fs::write(source.join(name.to_string()), random.bytes(3 << 20)).unwrap();
    }
    let agent = Config::local(scratch.path()).directory("data", &[&source], "").write();
    agent.ok(["run"]);
    (source, agent)
}

fn holds_a_file(folder: &Path) -> bool {
    fs::read_dir(folder)
        .is_ok_and(|mut entries| entries.any(|entry| entry.unwrap().metadata().is_ok_and(|meta| meta.len() > 0)))
}

#[test]
fn a_killed_restore_of_files_goes_on() {
    let scratch = Scratch::new();
    let (source, agent) = large(&scratch);
    let before = Tree::read(&source);
    let to = scratch.join("to");
    let arguments = ["restore", "data", "--to", to.to_str().unwrap()];
    let there = to.join(source.strip_prefix("/").unwrap());
    for _ in 0..3 {
        assert!(killed(&agent, &arguments, || holds_a_file(&there)), "it was over too soon");
    }
    assert!(scratch.join("to.unfinished").exists());
    // Something else is not mixed in.
    let id = agent.ok(["points", "data", "--json"]).json()["points"][0]["id"].as_str().unwrap().to_owned();
    agent
        .run(["restore", "data", "--to", to.to_str().unwrap(), "--path", "/srv"])
        .expect(2)
        .says("an unfinished restore of data");
    // A night later the same command still means what it meant.
    fs::write(source.join("new"), "new").unwrap();
    agent.ok(["run"]);
    agent.ok(arguments).says(&id[..8]);
    before.assert_equals(&there);
    assert!(!scratch.join("to.unfinished").exists());
    agent.run(arguments).expect(2).says("it is not empty");

    // In place: until it is all there, the original is untouched.
    fs::remove_file(source.join("new")).unwrap();
    fs::write(source.join("7"), "spoiled").unwrap();
    let spoiled = Tree::read(&source);
    let place = ["restore", "data", "--in-place", "--yes", "--at", &id[..8]];
    let staging = scratch.join("srv/data.restoring").join(source.strip_prefix("/").unwrap());
    assert!(killed(&agent, &place, || holds_a_file(&staging)), "it was over too soon");
    spoiled.assert_equals(&source);
    agent.ok(place);
    before.assert_equals(&source);
    assert!(!scratch.join("srv/data.restoring").exists() && !scratch.join("srv/data.restoring.unfinished").exists());
}

#[test]
fn a_killed_restore_of_a_database_goes_on() {
    let host = Host::local();
    host.cluster.sql("create table much as select n, repeat(md5(n::text), 20) as t from generate_series(1, 60000) n");
    host.good_run();
    host.cluster.finish_segment();
    host.agent.ok(["wal", "push"]);
    let to = host.scratch.join("to");
    let arguments = ["restore", "database", "--to", to.to_str().unwrap()];
    assert!(killed(&host.agent, &arguments, || to.join("base").exists()), "it was over too soon");
    // In the recovery, too.
    killed(&host.agent, &arguments, || to.join("postmaster.pid").exists());
    host.agent.ok(arguments);
    assert_eq!(Cluster::existing(&host.scratch, &to).start().dump(), host.cluster.dump());
    assert!(!host.scratch.join("to.unfinished").exists());
}

#[test]
fn a_terminal_asks_what_when_and_where() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv/data");
    fs::write(source.join("file"), "first").unwrap();
    let agent = Config::local(scratch.path()).directory("data", &[&source], "").write();
    agent.ok(["run"]);
    fs::write(source.join("file"), "second").unwrap();
    fs::write(source.join("other"), "other").unwrap();
    agent.ok(["run"]);
    agent.ok(["run"]);

    // The versions of a file.
    let file = source.join("file");
    let versions = agent.ok(["points", "data", "--path", file.to_str().unwrap()]);
    assert_eq!(versions.stdout.lines().filter(|line| line.contains("snapshot")).count(), 2, "{versions}");
    versions.says("the same in 1 later").says("6 B");

    let mut terminal = TypedInto::start(&agent.command(["restore"]));
    terminal.sees("What is to come back?").sees("1  data: ").sees("Number or name").types("9");
    terminal.sees("wanted a number").types("data");
    terminal.sees("new in it").sees("When: a number").types("1");
    let to = scratch.join("to");
    terminal
        .sees("Where to: a new directory")
        .types("to")
        .sees("a path that begins with /")
        .types(to.to_str().unwrap());
    let line = format!("cp -a --remove-destination {0}{1}/. {1}/", to.display(), source.display());
    terminal.sees("are needed").sees("are free").sees("Go on [y/N]").types("y").sees("is in").sees(&line);
    assert!(terminal.wait().success());
    let there = to.join(file.strip_prefix("/").unwrap());
    assert_eq!(fs::read_to_string(there).unwrap(), "first");
    // As told: into what is there, whose other names keep what they have.
    fs::hard_link(&file, scratch.join("other-name")).unwrap();
    sh(Command::new("sh").args(["-ec", &line]));
    let now = [file.clone(), scratch.join("other-name")].map(|name| fs::read_to_string(name).unwrap());
    assert_eq!(now, ["first", "second"]);
    fs::write(&file, "second").unwrap();

    // How long it takes is a guess, until it was measured.
    let mut terminal = TypedInto::start(&agent.command(["restore", "data"]));
    terminal.sees("When:").types("").sees("Where to").types("in place").sees("is replaced");
    terminal.sees("a guess: no restore test").sees("Go on").types("");
    terminal.sees("nothing was changed");
    assert!(terminal.wait().success());
    agent.ok(["restore-test", "data"]);
    let mut terminal = TypedInto::start(&agent.command(["restore", "data", "--in-place"]));
    terminal.sees("as the last restore test measured").sees("Go on").types("");
    assert!(terminal.wait().success());
    let mut terminal = TypedInto::start(&agent.command(["restore", "data", "--in-place", "--at", "latest"]));
    terminal.sees("is replaced; what is there now stays as").sees("Go on").types("yes").sees("rm -rf");
    assert!(terminal.wait().success());
    assert_eq!(fs::read_to_string(&file).unwrap(), "second");
}
