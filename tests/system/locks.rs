//! A repository that somebody else works on, too: restic's locks are written, respected, and understood when nobody holds them any more.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use harness::{
    Agent, Config, Fault, Faults, Garage, Ran, Random, Running, Scratch, TlsProxy, Tree, descendants, privately, sh,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::health::with_clock;

/// Where it is kept, and what is done there.
struct Home {
    scratch: Scratch,
    source: PathBuf,
    config: Config,
    /// Of a bucket.
    server: Option<(TlsProxy, Garage)>,
}

impl Home {
    /// In a folder.
    fn local(more: &str) -> Self {
        let scratch = Scratch::new();
        let config = Config::local(scratch.path());
        Self::new(scratch, config, more, None)
    }

    /// In a bucket.
    fn s3(more: &str) -> Self {
        let (scratch, garage) = (Scratch::new(), Garage::start());
        let proxy = TlsProxy::before(&garage);
        let keys = (Garage::KEY_ID, Garage::KEY);
        let config = Config::s3(scratch.path(), "s3://backups/host", &proxy.endpoint(), proxy.ca_file(), keys);
        Self::new(scratch, config, more, Some((proxy, garage)))
    }

    fn new(scratch: Scratch, config: Config, more: &str, server: Option<(TlsProxy, Garage)>) -> Self {
        let source = scratch.directory("srv/data");
        fs::write(source.join("first"), Random::new(1).bytes(700_000)).unwrap();
        let config = config.directory("data", &[&source], more);
        Self { scratch, source, config, server }
    }

    fn restic(&self, arguments: &[&str]) -> Command {
        let mut restic = self.config.restic("data");
        restic.args(arguments);
        restic
    }

    fn restic_says(&self, arguments: &[&str]) -> (bool, String) {
        let Output { status, stdout, stderr } = self.restic(arguments).output().unwrap();
        (status.success(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
    }

    fn locks(&self) -> Vec<String> {
        let (listed, text) = self.restic_says(&["list", "locks", "--no-lock", "--quiet"]);
        assert!(listed, "{text}");
        text.lines().filter(|line| line.len() == 64).map(str::to_owned).collect()
    }

    /// Without asking restic, which would see it later.
    fn wait_for_a_lock(&self) {
        wait_for(|| match &self.server {
            Some((proxy, _)) => {
                proxy.traffic().asked.iter().any(|asked| asked.starts_with("PUT") && asked.contains("/locks/"))
            }
            None => self.has_lock_file(),
        });
    }

    /// A whole one: what is still being written has another kind of name.
    fn has_lock_file(&self) -> bool {
        let locks = self.config.storage_folder().join("data/locks");
        fs::read_dir(locks).is_ok_and(|found| found.flatten().any(|lock| lock.file_name().len() == 64))
    }

    /// restic that holds a lock beside others until it is let go.
    fn shared(&self, wrapper: &[&str]) -> Holder {
        let before = self.locks().len();
        let restic = self.restic(&["backup", "--stdin", "--quiet", "--host", "elsewhere"]);
        let holder = Holder::start(wrapper, &restic);
        wait_for(|| self.locks().len() > before);
        holder
    }

    /// restic that holds an exclusive lock, and stands still.
    fn exclusive(&self) -> Holder {
        let restic = self.restic(&["prune", "--quiet"]);
        let holder = Holder::start(&[], &restic);
        let began = Instant::now();
        while !self.has_lock_file() {
            assert!(began.elapsed() < Duration::from_secs(60), "it takes no lock");
        }
        kill(holder.pid(), Signal::SIGSTOP).unwrap();
        assert!(self.has_lock_file(), "it stands still before it has let go");
        holder
    }

    fn restored_by(&self, agent: &Agent) -> PathBuf {
        let to = self.scratch.join("back");
        let _ = fs::remove_dir_all(&to);
        agent.ok(["restore", "data", "--to", to.to_str().unwrap()]);
        to
    }

    fn points(&self, agent: &Agent) -> usize {
        agent.ok(["points", "data", "--json"]).json()["points"].as_array().unwrap().len()
    }

    fn comes_back(&self, agent: &Agent) {
        let to = self.restored_by(agent);
        Tree::read(&self.source).assert_equals(to.join(self.source.strip_prefix("/").unwrap()));
    }
}

/// A restic that holds a lock.
struct Holder(Child);

impl Holder {
    fn start(wrapper: &[&str], restic: &Command) -> Self {
        let mut words = wrapper.iter().map(Into::into).chain([restic.get_program().to_owned()]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(restic.get_args());
        command.envs(restic.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Self(command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.0.id()).unwrap())
    }

    fn end(mut self) {
        // Which of them there is depends on what it waits for.
        self.0.stdin.take().unwrap().write_all(b"content").unwrap();
        kill(self.pid(), Signal::SIGCONT).unwrap();
        assert!(self.0.wait().unwrap().success());
    }

    /// Without a chance to remove its lock.
    fn killed(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for(mut it: impl FnMut() -> bool) {
    let started = Instant::now();
    while !it() {
        assert!(started.elapsed() < Duration::from_secs(60), "it does not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The process of the step, which holds the lock.
pub(crate) fn step(run: &Running) -> Pid {
    let is_step = |words: &[String]| words.iter().any(|word| word == "step");
    descendants(run.pid()).into_iter().find(|process| is_step(&process.arguments())).unwrap().pid()
}

fn problems(ran: &Ran) -> String {
    ran.step("data")["problems"].to_string()
}

/// While we write: nobody deletes, others may write too, and restic sees that we live.
fn others_keep_away(home: &Home) {
    let (quick, config) = (home.config.write(), home.config.clone());
    quick.ok(["run"]);
    fs::write(home.source.join("new"), Random::new(2).bytes(20_000_000)).unwrap();
    let agent = config.table("[limits]\nread = \"1MiB\"").write();
    if let Some((proxy, _)) = &home.server {
        proxy.take_traffic();
    }
    let mut run = agent.start(["run", "data", "--json"]);
    home.wait_for_a_lock();
    // Whoever holds a lock is sent SIGHUP by restic, to see whether he lives.
    sh(&mut home.restic(&["unlock"]));
    assert!(!home.locks().is_empty(), "its holder lives");
    let (pruned, told) = home.restic_says(&["prune"]);
    assert!(!pruned && told.contains("repository is already locked"), "{told}");
    assert!(told.contains(&format!("PID {}", step(&run))), "{told}");
    sh(home.restic(&["backup", "--quiet", "--host", "elsewhere"]).arg(home.source.join("first")));
    assert!(!run.has_ended());
    let _ = run.wait().expect(0);
    assert_eq!(home.locks(), [""; 0]);
    sh(&mut home.restic(&["prune", "--quiet"]));
    sh(&mut home.restic(&["check", "--read-data", "--quiet"]));
    home.comes_back(&quick);
}

#[test]
fn nobody_prunes_while_a_backup_is_made() {
    others_keep_away(&Home::local(""));
}

#[test]
fn nobody_prunes_while_a_backup_is_made_to_a_bucket() {
    others_keep_away(&Home::s3(""));
}

#[test]
fn a_backup_waits_for_another_program_and_says_for_whom_in_the_end() {
    let home = Home::local("max-duration = \"12s\"");
    let agent = home.config.write();
    agent.ok(["run"]);

    let prune = home.exclusive();
    let failed = agent.run(["run", "data", "--json"]).expect(3);
    let error = failed.step("data")["error"].clone();
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("is locked exclusively by restic of \"root\" on "), "{error}");
    assert!(message.contains(&format!("(pid {}, last renewed ", prune.pid())), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("unlock"), "{error}");
    assert!(failed.took > Duration::from_secs(10), "it waited: {failed}");
    // Getting something back waits for nobody.
    home.comes_back(&agent);

    let mut run = agent.start(["run", "data", "--json"]);
    std::thread::sleep(Duration::from_secs(2));
    assert!(!run.has_ended());
    prune.end();
    let _ = run.wait().expect(0);
    assert_eq!(home.locks(), [""; 0]);
}

#[test]
fn nothing_is_deleted_beside_another_program() {
    let home = Home::local("keep = { last = 1 }\nprune-every = \"1d\"");
    let agent = home.config.write();
    for skew in ["-20d", "-15d"] {
        with_clock(&home.scratch, &agent, skew).ok(["run", "data"]);
    }
    let backup = home.shared(&[]);
    let before = home.points(&agent);
    let night = agent.ok(["run", "data", "--json"]);
    assert_eq!(home.points(&agent), before + 1);
    let told = problems(&night);
    assert!(told.contains("nothing is forgotten or pruned this time") && told.contains("by restic of"), "{night}");
    assert!(!night.stdout.contains("\"what\": \"prune\""), "{night}");
    agent.run(["prune", "data"]).expect(3).says("is locked by restic of");
    // Only who deletes is kept away.
    agent.ok(["check", "data"]);
    backup.end();
    agent.ok(["run", "data"]);
    assert_eq!(home.points(&agent), 3, "those of the last two days, and restic's");
    agent.ok(["prune", "data"]);
    assert_eq!(home.locks(), [""; 0]);
}

#[test]
fn locks_of_a_backup_that_was_ended_or_killed_are_in_nobodys_way() {
    let home = Home::local("");
    home.config.write().ok(["run"]);
    let mut random = Random::new(2);
    let mut begun = || {
        // Half a minute: on a busy machine seconds pass until its lock is seen.
        fs::write(home.source.join("new"), random.bytes(30_000_000)).unwrap();
        let slow = home.config.clone().table("[limits]\nread = \"1MiB\"").write();
        let run = slow.start(["run", "data", "--json"]);
        home.wait_for_a_lock();
        run
    };
    let run = begun();
    run.signal(Signal::SIGTERM);
    let _ = run.wait().expect(3);
    assert_eq!(home.locks(), [""; 0], "it was removed on the way out");

    let run = begun();
    kill(step(&run), Signal::SIGKILL).unwrap();
    let _ = run.wait().expect(3);
    assert_eq!(home.locks().len(), 1);
    let agent = home.config.write();
    agent.ok(["run"]);
    assert_eq!(home.locks(), [""; 0], "the next run knows its own");

    let run = begun();
    kill(step(&run), Signal::SIGKILL).unwrap();
    let _ = run.wait().expect(3);
    sh(&mut home.restic(&["unlock"]));
    assert_eq!(home.locks(), [""; 0], "and so does restic");
    let agent = home.config.write();
    agent.ok(["run"]);
    home.comes_back(&agent);
}

/// As on another machine, or after another start of this one.
fn after_another_start<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    privately(&[], || {
        let scratch = Scratch::new();
        let boot = scratch.join("boot_id");
        fs::write(&boot, "00000000-0000-4000-8000-000000000000\n").unwrap();
        sh(Command::new("mount").arg("--bind").arg(&boot).arg("/proc/sys/kernel/random/boot_id"));
        work()
    })
}

#[test]
fn a_clone_of_the_card_leaves_the_lock_of_a_backup_alone() {
    let home = Home::local("");
    let agent = home.config.write();
    agent.ok(["run"]);
    let state = home.scratch.join("clone");
    sh(Command::new("cp").arg("--archive").arg(agent.state()).arg(&state));
    let clone = Agent::new(home.config.file(), &state);

    fs::write(home.source.join("new"), Random::new(2).bytes(60_000_000)).unwrap();
    let slow = home.config.clone().table("[limits]\nread = \"1MiB\"").write();
    let run = slow.start(["run", "data", "--json"]);
    home.wait_for_a_lock();
    let lock = home.locks();
    home.config.write();
    after_another_start(|| {
        home.restored_by(&clone);
        clone.ok(["check", "data"]);
    });
    assert_eq!(home.locks(), lock, "its holder lives, on another machine");

    // What is left by a machine that lost its power is known by the record, whatever its pid is now.
    kill(step(&run), Signal::SIGKILL).unwrap();
    let _ = run.wait().expect(3);
    after_another_start(|| clone.ok(["check", "data"]));
    assert_eq!(home.locks(), lock, "there it may still be at work");
    after_another_start(|| agent.ok(["run", "data"]));
    assert_eq!(home.locks(), [""; 0]);
}

#[test]
fn a_restore_that_is_ended_lets_go_and_one_that_is_asked_whether_it_lives_goes_on() {
    let home = Home::s3("");
    let (proxy, _) = home.server.as_ref().unwrap();
    fs::write(home.source.join("film"), Random::new(3).bytes(30_000_000)).unwrap();
    let agent = home.config.write();
    agent.ok(["run"]);
    let slow = home.config.clone().table("[limits]\ndownload = \"3MiB\"").write();
    let to = home.scratch.join("to");
    proxy.take_traffic();
    let restore = slow.start(["restore", "data", "--to", to.to_str().unwrap()]);
    home.wait_for_a_lock();
    sh(&mut home.restic(&["unlock"]));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(home.locks().len(), 1);
    restore.signal(Signal::SIGTERM);
    assert_eq!(restore.wait().code(), Some(128 + 15));
    assert_eq!(home.locks(), [""; 0]);
}

#[test]
fn a_stale_lock_of_another_machine_is_understood_and_told() {
    let home = Home::local("keep = { last = 1 }");
    let agent = home.config.write();
    agent.ok(["run"]);
    // Of a machine of which nothing can be known here.
    let on_a_laptop = ["unshare", "--uts", "sh", "-c", "hostname laptop; exec \"$@\"", "sh"];
    home.shared(&on_a_laptop).killed();
    agent.run(["prune", "data"]).expect(3).says("on \"laptop\"");
    sh(&mut home.restic(&["unlock", "--remove-all"]));

    home.shared(&on_a_laptop).killed();
    let later = with_clock(&home.scratch, &agent, "+1h");
    later.ok(["prune", "data"]).says("is stale: it was held by restic of \"root\" on \"laptop\"");
    let night = later.ok(["run", "data", "--json"]);
    assert!(problems(&night).contains("is stale"), "{night}");
    assert_eq!(home.locks().len(), 1, "it is its owner's to remove");
    // One that cannot be read is none.
    fs::write(home.config.storage_folder().join("data/locks").join("0".repeat(64)), "").unwrap();
    later.ok(["prune", "data"]).says("cannot be read, and is taken for none");
}

#[test]
fn what_can_only_be_read_is_read_without_a_lock() {
    let home = Home::local("");
    let agent = home.config.write();
    agent.ok(["run"]);
    let storage = home.config.storage_folder();
    privately(&[], || {
        sh(Command::new("mount").args(["--bind"]).args([&storage, &storage]));
        sh(Command::new("mount").args(["-o", "remount,bind,ro"]).arg(&storage));
        assert!(fs::write(storage.join("x"), "").is_err());
        home.comes_back(&agent);
        agent.ok(["check", "data"]);
        agent.ok(["restore-test", "data"]);
    });
}

#[test]
fn keys_that_may_not_delete_leave_one_lock_and_no_red_night() {
    let home = Home::s3("keep = \"forever\"");
    let agent = home.config.write();
    let (proxy, _) = home.server.as_ref().unwrap();
    proxy.set(Faults { only: "DELETE /", ..Faults::some(1, 1.0, &[Fault::Denied]) });
    let first = agent.ok(["run", "data", "--json"]);
    assert!(problems(&first).contains("cannot be removed"), "{first}");
    assert_eq!(home.locks().len(), 1);
    for _ in 0..2 {
        fs::write(home.source.join("first"), Random::new(4).bytes(10)).unwrap();
        let night = agent.ok(["run", "data", "--json"]);
        assert!(!problems(&night).contains("lock"), "it was told: {night}");
        assert_eq!(home.locks().len(), 1, "no other is left there");
    }
    proxy.set(Faults::none());
    agent.ok(["run", "data"]);
    assert_eq!(home.locks(), [""; 0]);
}

#[test]
fn repair_puts_packs_that_a_killed_backup_left_in_a_bucket_into_the_index() {
    let home = Home::s3("");
    home.config.write().ok(["run"]);
    fs::write(home.source.join("new"), Random::new(5).bytes(14_000_000)).unwrap();
    let slow = home.config.clone().table("[limits]\nread = \"3MiB\"").write();
    let (proxy, _) = home.server.as_ref().unwrap();
    proxy.take_traffic();
    let run = slow.start(["run", "data", "--json"]);
    let is_pack = |asked: &&String| asked.starts_with("PUT") && asked.contains("/data/data/");
    wait_for(|| proxy.traffic().asked.iter().filter(is_pack).count() > 2);
    kill(step(&run), Signal::SIGKILL).unwrap();
    let _ = run.wait().expect(3);

    let agent = home.config.write();
    agent.run(["repair", "data"]).expect(2).says("is in no index: it is put into it").says("nothing was changed");
    agent.ok(["repair", "data", "--yes"]).says("mended");
    assert_eq!(home.locks(), [""; 0]);
    agent.ok(["repair", "data", "--yes", "--read-data"]).says("there is nothing to mend");
    let night = agent.ok(["run", "data", "--json"]);
    assert!(night.step("data")["bytes_added"].as_u64().unwrap() < 11_000_000, "what was there is used: {night}");
    sh(&mut home.restic(&["check", "--read-data", "--quiet"]));
    home.comes_back(&agent);
}

/// Files below a directory, largest first.
fn largest(directory: &Path) -> Vec<PathBuf> {
    let listed = sh(Command::new("find").arg(directory).args(["-type", "f", "-printf", "%s %p\\n"]));
    let mut files: Vec<(u64, PathBuf)> = listed
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(size, path)| (size.parse().unwrap(), path.into()))
        .collect();
    files.sort_by(|one, other| other.cmp(one));
    files.into_iter().map(|(_, path)| path).collect()
}

#[test]
fn what_somebody_removed_from_the_packs_is_told_and_stored_again() {
    for damage in ["gone", "not whole"] {
        let home = Home::local("");
        let agent = home.config.write();
        agent.ok(["run"]);
        let pack = largest(&home.config.storage_folder().join("data/data")).remove(0);
        match damage {
            "gone" => fs::remove_file(&pack).unwrap(),
            _ => fs::File::options().write(true).open(&pack).unwrap().set_len(1000).unwrap(),
        }
        for _ in 0..2 {
            let night = agent.run(["run", "data", "--json"]).expect(5);
            let error = night.step("data")["error"].clone();
            let message = error["message"].as_str().unwrap();
            assert!(
                message.contains("1 packs that the index of") && message.contains(&format!("is {damage}")),
                "{error}"
            );
            assert!(message.contains("nothing is forgotten or pruned"), "{error}");
        }
        let to = home.scratch.join("to");
        // By which of two packs a piece is fetched is chance.
        let restored = agent.run(["restore", "data", "--to", to.to_str().unwrap()]);
        assert!(restored.code() == Some(0) || restored.stdout.contains("packs that the index of"), "{restored}");
        Tree::read(&home.source).assert_equals(to.join(home.source.strip_prefix("/").unwrap()));
        // Nothing relies on what is not there.
        let _ = fs::remove_file(&pack);
        sh(&mut home.restic(&["rebuild-index", "--quiet"]));
        sh(&mut home.restic(&["check", "--read-data", "--quiet"]));
        agent.ok(["run", "data"]);
        home.comes_back(&agent);
    }
}

#[test]
fn what_somebody_removed_from_the_index_comes_back_from_the_cache() {
    for damage in ["gone", "cut"] {
        let home = Home::local("");
        let agent = home.config.write();
        agent.ok(["run"]);
        let index = largest(&home.config.storage_folder().join("data/index")).remove(0);
        match damage {
            "gone" => fs::remove_file(&index).unwrap(),
            _ => fs::write(&index, "").unwrap(),
        }
        let (whole, told) = home.restic_says(&["check"]);
        assert!(!whole, "{told}");
        let night = agent.run(["run", "data", "--json"]).expect(5);
        assert!(problems(&night).contains("written again, from this machine's copy"), "{night}");
        assert!(night.step("data")["bytes_added"].as_u64().unwrap() < 100_000, "nothing is stored twice: {night}");
        sh(&mut home.restic(&["check", "--read-data", "--quiet"]));
        agent.ok(["run", "data"]);
        agent.ok(["check", "data"]);
        home.comes_back(&agent);
    }
}
