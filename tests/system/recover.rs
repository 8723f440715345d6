//! The whole host back with nothing but the recovery kit and the storage: rows, files, owners, history, and what goes wrong.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use harness::{
    Agent, Cluster, Config, Garage, Household, Ran, Scratch, Size, TlsProxy, Tmpfs, Tree, by_effort, oddities, sh,
};
use nix::sys::signal::Signal;

use crate::in_place::kept;

/// A household with files, a log directory and a database, and its kit.
struct Home {
    /// Before its directory goes, it is stopped.
    cluster: Cluster,
    scratch: Scratch,
    agent: Agent,
    foundry: PathBuf,
    oddities: PathBuf,
}

impl Home {
    /// With `config`'s storage; backed up once, the kit made.
    fn backed_up(scratch: Scratch, config: Config) -> Self {
        let cluster = Cluster::make(&scratch, "server", "");
        let spool = scratch.join("spool/main");
        cluster.start();
        cluster.script(&format!(
            "alter system set archive_command = $${}$$;\nselect pg_reload_conf();\n\
             create table voters (id int primary key, name text);\n\
             insert into voters select i, md5(i::text) from generate_series(1, 5000) i;\n",
            pi_agent::wal::archive_command(&spool)
        ));
        let household = Household::make(scratch.directory("srv/house"), Size { bytes: 3_000_000, files: 60 }, 21);
        let foundry = household.foundry();
        let odd = scratch.directory("srv/odd/things");
        oddities(&odd, 50_000_000);
        let agent =
            config.step(&cluster.step("database", "main", "")).directory("foundry", &[&foundry, &odd], "").write();
        let home = Self { scratch, agent, cluster, foundry, oddities: odd };
        home.agent.ok(["run"]);
        home.make_kit("kit.txt");
        home
    }

    fn local() -> Self {
        let scratch = Scratch::new();
        let config = Config::local(scratch.path());
        Self::backed_up(scratch, config)
    }

    fn kit(&self) -> String {
        self.scratch.join("kit.txt").display().to_string()
    }

    fn make_kit(&self, name: &str) {
        self.agent.ok(["recovery-kit", "--to", self.scratch.join(name).to_str().unwrap()]);
    }

    fn dump(&self) -> String {
        self.cluster.dump()
    }

    /// The card is dead: nothing is left but the storage and the kit.
    fn lose_everything(&self) {
        if self.cluster.is_running() {
            self.cluster.stop();
        }
        for gone in ["etc", "state", "cache", "runtime", "spool", "srv", "server/data"] {
            fs::remove_dir_all(self.scratch.join(gone)).unwrap();
        }
    }

    fn recover(&self, more: &[&str]) -> Ran {
        self.agent.run([&["recover", "--kit", &self.kit()], more].concat())
    }

    fn trees(&self) -> [Tree; 2] {
        [&self.foundry, &self.oddities].map(Tree::read)
    }
}

/// What `recover --json` says of a part.
#[track_caller]
fn part(ran: &Ran, what: &str) -> serde_json::Value {
    let document = ran.json();
    let parts = document["parts"].as_array().unwrap().clone();
    parts.into_iter().find(|part| part["what"] == what).unwrap_or_else(|| panic!("no part {what}: {ran}"))
}

#[track_caller]
fn equal(before: &[Tree; 2], after: &[Tree; 2]) {
    for (before, after) in before.iter().zip(after) {
        assert_eq!(before.differences(after), Vec::<String>::new());
    }
}

/// Nothing of what is on its way is left.
#[track_caller]
fn nothing_is_left(home: &Home) {
    let found = sh(Command::new("find").arg(home.scratch.path()).args(["-name", "*.restoring*"]));
    assert_eq!(found, "");
}

fn all_comes_back(home: &Home) {
    let (dump, trees) = (home.dump(), home.trees());
    home.lose_everything();

    let ran = home.recover(&["--json"]).expect(0);
    equal(&trees, &home.trees());
    let above = fs::metadata(home.scratch.join("srv/odd")).unwrap();
    assert_eq!((above.uid(), above.mode() & 0o7777), (0, 0o755), "others reach what is below");
    for (name, mode) in [("etc/config.toml", 0o600), ("etc/secrets", 0o700), ("etc/secrets/restic.key", 0o600)] {
        assert_eq!(fs::metadata(home.scratch.join(name)).unwrap().mode() & 0o7777, mode, "{name}");
    }
    home.cluster.start();
    assert_eq!(home.dump(), dump);
    nothing_is_left(home);
    assert!(ran.json()["left_to_do"].to_string().contains("start the server of"), "{ran}");
    // The timers of this machine are not a test's.
    assert_eq!(ran.json()["timers"], false);

    // It has its history, and is the one that backs up there; the database goes on archiving.
    assert_eq!(home.agent.ok(["status", "--json"]).step("foundry")["last_outcome"], "succeeded");
    home.cluster.sql("insert into voters values (0, 'after')");
    home.cluster.finish_segment();
    let night = home.agent.ok(["run", "--json"]);
    assert_eq!(night.step("database")["outcome"], "succeeded", "{night}");

    // A second time there is nothing to do.
    let again = home.recover(&["--json"]).expect(0);
    for what in ["database", home.foundry.to_str().unwrap(), home.oddities.to_str().unwrap()] {
        assert_eq!(part(&again, what)["outcome"], "was-there", "{again}");
    }
    assert_eq!(home.cluster.sql("select name from voters where id = 0"), "after");
    let doctor = home.agent.run(["doctor"]);
    assert!(!doctor.stdout.contains("recovery kit is"), "the kit is known to be saved: {doctor}");
}

#[test]
fn everything_comes_back_from_a_folder() {
    all_comes_back(&Home::local());
}

#[test]
fn everything_comes_back_from_a_bucket() {
    let scratch = Scratch::new();
    let garage = Garage::start();
    let proxy = TlsProxy::before(&garage);
    let ca = scratch.directory("keep").join("ca.pem");
    fs::copy(proxy.ca_file(), &ca).unwrap();
    let url = format!("s3://{}/pi-test", Garage::BUCKET);
    let config = Config::s3(scratch.path(), &url, &proxy.endpoint(), &ca, (Garage::KEY_ID, Garage::KEY));
    let home = Home::backed_up(scratch, config);
    // A private authority is in the kit, too.
    fs::remove_file(&ca).unwrap();
    all_comes_back(&home);
    assert!(ca.exists());
}

#[test]
fn a_moment_is_a_moment_of_everything() {
    let home = Home::local();
    let (dump, trees) = (home.dump(), home.trees());
    std::thread::sleep(Duration::from_millis(1500));
    let moment = jiff::Timestamp::now().to_string();
    std::thread::sleep(Duration::from_millis(1500));
    home.cluster.sql("delete from voters where id > 10");
    Household::existing(home.scratch.join("srv/house"), 1).change(0.5);
    assert_ne!(Tree::read(&home.foundry), trees[0]);
    home.cluster.finish_segment();
    home.agent.ok(["run"]);
    home.lose_everything();

    let _ = home.recover(&["--at", "1a2b3c4d"]).expect(2).says("a whole host goes back to a moment");
    let _ = home.recover(&["--at", "2099-01-01 00:00"]).expect(2).says("in the future");
    let before = home.recover(&["--at", "2020-01-01 00:00", "--json"]).expect(3);
    assert_eq!(part(&before, "database")["outcome"], "failed");
    assert!(part(&before, home.foundry.to_str().unwrap())["error"].to_string().contains("no snapshot at or before"));

    let _ = home.recover(&["--at", &moment]).expect(0);
    equal(&trees, &home.trees());
    home.cluster.start();
    assert_eq!(home.dump(), dump);
}

#[test]
fn what_was_configured_after_the_kit_comes_back_too() {
    let home = Home::local();
    let later = home.scratch.directory("srv/later");
    fs::write(later.join("file"), "later").unwrap();
    let config = home.scratch.join("etc/config.toml");
    let step = format!("[[step]]\nname = \"later\"\nkind = \"directory\"\npaths = [\"{}\"]\n", later.display());
    fs::write(&config, fs::read_to_string(&config).unwrap() + &step).unwrap();
    home.agent.ok(["run"]);
    let text = fs::read_to_string(&config).unwrap();
    home.lose_everything();
    let ran = home.recover(&[]).expect(0);
    ran.says("it was changed after the kit was made").says("make a kit of the newest configuration");
    assert_eq!(fs::read_to_string(later.join("file")).unwrap(), "later");
    assert_eq!(fs::read_to_string(&config).unwrap(), text);
    // The next time nothing differs from what is there.
    let _ = home.recover(&[]).expect(0).says("was back already");
}

#[test]
fn slow_what_is_cut_off_goes_on() {
    let home = Home::local();
    let (dump, trees) = (home.dump(), home.trees());
    home.lose_everything();
    let whole = home.recover(&["--json"]).expect(0);
    let took = whole.took;
    // At moments all over it, each time a blank machine.
    for &eighth in by_effort(&[3, 6][..], &[1, 3, 4, 5, 6, 7]) {
        home.lose_everything();
        let running = home.agent.start(["recover", "--kit", &home.kit()]);
        std::thread::sleep(took * eighth / 8);
        running.signal(Signal::SIGKILL);
        let cut = running.wait();
        // Its programs end with it, but not in the same moment.
        let started = Instant::now();
        let ran = loop {
            let ran = home.recover(&["--json"]);
            if ran.code() != Some(4) || started.elapsed() > Duration::from_secs(60) {
                break ran;
            }
        };
        let ran = ran.expect(0);
        equal(&trees, &home.trees());
        home.cluster.start();
        assert_eq!(home.dump(), dump, "cut off at {eighth}/8: {cut}\nthen {ran}");
        home.cluster.stop();
        nothing_is_left(&home);
    }
}

#[test]
fn nothing_that_is_there_is_lost() {
    let home = Home::local();
    let trees = home.trees();
    home.lose_everything();
    // Somebody began by hand: another configuration, another Foundry, another database with something in it.
    let write = |path: &Path, text: &str| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let config = home.scratch.join("etc/config.toml");
    write(&config, "# mine\n");
    let refused = home.recover(&[]).expect(2);
    refused.says("other files than the kit").says("config.toml").says("--overwrite");
    assert!(!home.scratch.join("etc/secrets").exists() && !home.foundry.exists(), "nothing was changed");
    fs::remove_file(&config).unwrap();

    write(&home.foundry.join("new"), "a new world");
    home.cluster.initialise("");
    home.cluster.start();
    home.cluster.sql("create database mine");
    let ran = home.recover(&["--json"]).expect(3);
    let foundry = home.foundry.display().to_string();
    assert!(part(&ran, &foundry)["error"].to_string().contains("something is there already"), "{ran}");
    assert!(part(&ran, "database")["error"].to_string().contains("something is there already"), "{ran}");
    assert_eq!(part(&ran, home.oddities.to_str().unwrap())["outcome"], "back");

    // Asked to, it replaces them and keeps them; a server that nobody knows to stop is not touched.
    let ran = home.recover(&["--json", "--overwrite"]).expect(3);
    assert!(part(&ran, "database")["error"].to_string().contains("nobody knows how it is stopped"), "{ran}");
    home.cluster.stop();
    let ran = home.recover(&["--json", "--overwrite"]).expect(0);
    assert_eq!(part(&ran, &foundry)["outcome"], "was-there", "{ran}");
    equal(&trees, &home.trees());
    let [world, cluster] = [&home.foundry, home.cluster.data()].map(|place| kept(place).remove(0));
    assert_eq!(fs::read_to_string(world.join("new")).unwrap(), "a new world");
    assert!(cluster.join("PG_VERSION").exists());
    assert!(ran.json()["left_to_do"].to_string().contains(cluster.to_str().unwrap()), "{ran}");
    home.cluster.start();
    assert_eq!(home.cluster.sql("select count(*) from voters"), "5000");
}

#[test]
fn a_disk_that_is_too_small_is_told_before_anything_is_changed() {
    let home = Home::local();
    let trees = home.trees();
    home.lose_everything();
    {
        let _small = Tmpfs::mount(home.scratch.join("srv"), 2 << 20);
        let refused = home.recover(&[]).expect(1);
        refused.says("are needed").says("are free there").says("nothing was changed");
        assert!(!home.scratch.join("etc").exists() && !home.scratch.join("state").exists(), "{refused}");
    }
    {
        // The database has a disk of its own.
        let _small = Tmpfs::mount(home.scratch.join("server"), 8 << 20);
        let _ = home.recover(&[]).expect(1).says("server/data: ").says("nothing was changed");
    }
    let _ = home.recover(&[]).expect(0);
    equal(&trees, &home.trees());
}

#[test]
fn disks_of_their_own_get_what_was_on_them() {
    let home = Home::local();
    let (dump, trees) = (home.dump(), home.trees());
    home.lose_everything();
    let files = Tmpfs::mount(&home.foundry, 32 << 20);
    let data = Tmpfs::mount(home.cluster.data(), 256 << 20);
    fs::create_dir(files.path().join("lost+found")).unwrap();
    fs::create_dir(data.path().join("lost+found")).unwrap();
    let _ = home.recover(&[]).expect(0);
    for disk in [&files, &data] {
        fs::remove_dir(disk.path().join("lost+found")).unwrap();
    }
    nothing_is_left(&home);
    // Its root has changed with the names in it.
    let same = || {
        let differences = trees[0].differences(&Tree::read(&home.foundry));
        assert!(differences.iter().all(|one| one.starts_with(".: mtime")), "{differences:#?}");
    };
    same();
    home.cluster.start();
    assert_eq!(home.dump(), dump);
    home.cluster.stop();

    // Something else is on them.
    fs::remove_file(home.scratch.join("state/recovery.json")).unwrap();
    fs::write(home.foundry.join("new"), "a new world").unwrap();
    let ran = home.recover(&["--json"]).expect(3);
    assert!(part(&ran, home.foundry.to_str().unwrap())["error"].to_string().contains("something is there"), "{ran}");
    let ran = home.recover(&["--json", "--overwrite"]).expect(3);
    assert!(part(&ran, "database")["error"].to_string().contains("a disk of its own, with something on it"), "{ran}");
    let old = PathBuf::from(part(&ran, home.foundry.to_str().unwrap())["kept"].as_str().unwrap());
    assert!(old.starts_with(&home.foundry), "{ran}");
    assert_eq!(fs::read_to_string(old.join("new")).unwrap(), "a new world");
    fs::remove_dir_all(old).unwrap();
    same();
}

#[test]
fn a_new_cluster_of_the_package_is_no_obstacle() {
    let home = Home::local();
    let dump = home.dump();
    home.lose_everything();
    home.cluster.initialise("");
    let ran = home.recover(&["--json"]).expect(0);
    assert!(part(&ran, "database")["kept"].as_str().unwrap().contains("/data.before-restore-"), "{ran}");
    home.cluster.start();
    assert_eq!(home.dump(), dump);
}

#[test]
fn what_a_kit_lacks_is_told_and_nothing_is_changed() {
    let home = Home::local();
    let text = fs::read_to_string(home.kit()).unwrap();
    let bad = home.scratch.join("bad.txt").display().to_string();
    let refused = |text: &str, code: i32| {
        fs::write(&bad, text).unwrap();
        let ran = home.agent.run(["recover", "--kit", &bad]).expect(code);
        assert!(!home.scratch.join("etc").exists() && !home.scratch.join("state").exists(), "{ran}");
        assert!(!ran.stderr.contains(Config::PASSWORD) && !ran.stderr.contains(Config::CIPHER), "{ran}");
        ran
    };
    let owner = fs::read_to_string(home.scratch.join("storage/host.json")).unwrap();
    home.lose_everything();

    // A typing error, a page that is missing, another text.
    let line = 1 + text.lines().position(|line| line == format!("| {}", Config::PASSWORD)).unwrap();
    refused(&text.replace(&format!("| {}", Config::PASSWORD), Config::PASSWORD), 2)
        .says(&format!("bad.txt:{line}: wanted | or +"));
    refused(&text.replace("horse", "house"), 2).says("a character differs");
    refused(&text[..text.find("----- BEGIN config.toml").unwrap()], 2).says("holds no config.toml");
    refused("Dear diary\n", 2).says("is no recovery kit");

    // Keys that were changed after the kit was made.
    let other = text.replace("correct horse", "another horse");
    let facts = without_facts(&other);
    refused(&facts, 2).says("do not open").says("look for a kit that was made later");
    refused(&older(&facts), 2).says("the keys there were made on").says("this kit is of 2020-01-01");

    // A disk that is not there.
    let (storage, away) = (home.scratch.join("storage"), home.scratch.join("away"));
    fs::rename(&storage, &away).unwrap();
    refused(&text, 1).says("storage");
    fs::create_dir(&storage).unwrap();
    refused(&text, 1).says("holds no backups").says("is the disk mounted");
    fs::remove_dir(&storage).unwrap();
    fs::rename(&away, &storage).unwrap();
    assert_eq!(fs::read_to_string(home.scratch.join("storage/host.json")).unwrap(), owner, "nobody took it over");
    let _ = home.recover(&[]).expect(0);
}

/// The kit as one types it: without `facts.toml`, which tells typing errors from other keys.
fn without_facts(text: &str) -> String {
    let (begin, end) = (text.find("----- BEGIN facts.toml").unwrap(), "----- END facts.toml -----\n");
    let rest = text.find(end).unwrap() + end.len();
    format!("{}{}", &text[..begin], &text[rest..])
}

/// The same, as made long ago.
fn older(text: &str) -> String {
    format!("----- BEGIN facts.toml -----\n| made-at = \"2020-01-01T00:00:00Z\"\n----- END facts.toml -----\n{text}")
}
