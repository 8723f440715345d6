//! The whole host back with nothing but the recovery kit and the storage: rows, files, owners, history, and what goes wrong.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use harness::{
    Agent, Cluster, Config, Discord, Garage, Household, Ran, Scratch, Size, TlsProxy, Tmpfs, Tree, by_effort, oddities,
    sh,
};
use nix::sys::signal::Signal;

use crate::in_place::kept;

/// A household with files, a part of them live, a log directory, a database and, as `setup` proposes it, the directory of the
/// configuration; and its kit.
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
        let live = format!(
            "live = {{ paths = [\"{}\"], quiet = [\"/usr/bin/true\"], resume = [\"/usr/bin/true\"] }}",
            foundry.join("Data/worlds").display()
        );
        let etc = scratch.directory("etc");
        let agent = config
            .step(&cluster.step("database", "main", ""))
            .directory("foundry", &[&foundry, &odd], &live)
            .directory("configs", &[&etc], "")
            .write();
        fs::create_dir(etc.join("hooks")).unwrap();
        fs::write(etc.join("hooks/before"), "#!/bin/sh\n").unwrap();
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

    /// A recovery that is killed.
    fn cut_off_after(&self, time: Duration) -> Ran {
        let running = self.agent.start(["recover", "--kit", &self.kit()]);
        std::thread::sleep(time);
        running.signal(Signal::SIGKILL);
        running.wait()
    }

    /// The one after it. Programs of the killed one end with it, but not in the same moment.
    fn recover_once_all_has_ended(&self) -> Ran {
        let started = Instant::now();
        loop {
            let ran = self.recover(&["--json"]);
            if ran.code() != Some(4) || started.elapsed() > Duration::from_secs(60) {
                return ran.expect(0);
            }
        }
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
    let (dump, trees, hooks) = (home.dump(), home.trees(), home.scratch.join("etc/hooks"));
    let before = Tree::read(&hooks);
    home.lose_everything();

    let ran = home.recover(&["--json"]).expect(0);
    equal(&trees, &home.trees());
    let above = fs::metadata(home.scratch.join("srv/odd")).unwrap();
    assert_eq!((above.uid(), above.mode() & 0o7777), (0, 0o755), "others reach what is below");
    for (name, mode) in [("etc/config.toml", 0o600), ("etc/secrets", 0o700), ("etc/secrets/restic.key", 0o600)] {
        assert_eq!(fs::metadata(home.scratch.join(name)).unwrap().mode() & 0o7777, mode, "{name}");
    }
    assert_eq!(before.differences(&Tree::read(&hooks)), Vec::<String>::new());
    assert_eq!(kept(&home.scratch.join("etc")), Vec::<PathBuf>::new(), "the kit's files are no one's to look at");
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
    let etc = home.scratch.join("etc");
    for what in ["database", home.foundry.to_str().unwrap(), home.oddities.to_str().unwrap(), etc.to_str().unwrap()] {
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
fn the_kits_files_win_over_older_ones_and_others_stay() {
    let home = Home::local();
    let etc = home.scratch.join("etc");
    let webhook = etc.join("secrets/discord.env");
    let discord = Discord::start();
    let address = |name: &str| format!("DISCORD_WEBHOOK_URL={}\n", discord.other(&format!("/{name}")));
    let write_private = |path: &Path, text: &str| {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    };
    write_private(&webhook, &address("old"));
    write_private(&etc.join("secrets/ntfy.env"), "NTFY_TOKEN=tk_of_the_backup\n");
    fs::set_permissions(etc.join("hooks/before"), Permissions::from_mode(0o750)).unwrap();
    chown(etc.join("hooks/before"), Some(1234), Some(1235)).unwrap();
    home.agent.ok(["run", "configs"]);
    // The kit is of after the last backup of the configuration.
    let config = fs::read_to_string(etc.join("config.toml")).unwrap() + "\n# of the kit\n";
    fs::write(etc.join("config.toml"), &config).unwrap();
    write_private(&webhook, &address("new"));
    home.make_kit("kit.txt");
    home.lose_everything();

    // As the package makes them; and what somebody has begun there.
    fs::create_dir_all(etc.join("secrets")).unwrap();
    fs::set_permissions(etc.join("secrets"), Permissions::from_mode(0o700)).unwrap();
    let mine = etc.join("mine");
    fs::write(&mine, "mine").unwrap();
    let ran = home.recover(&["--json"]).expect(3);
    assert!(part(&ran, etc.to_str().unwrap())["error"].to_string().contains("something is there already"), "{ran}");
    assert!(etc.join("config.toml").exists() && !etc.join("hooks").exists());
    fs::remove_file(&mine).unwrap();

    let ran = home.recover(&["--json"]).expect(0);
    let back = part(&ran, etc.to_str().unwrap());
    assert_eq!(back["outcome"], "back");
    assert_eq!(fs::read_to_string(etc.join("config.toml")).unwrap(), config);
    assert_eq!(fs::read_to_string(&webhook).unwrap(), address("new"));
    assert_eq!(fs::read_to_string(etc.join("secrets/ntfy.env")).unwrap(), "NTFY_TOKEN=tk_of_the_backup\n");
    let look = |name: &str| {
        let found = fs::metadata(etc.join(name)).unwrap();
        (found.uid(), found.gid(), found.mode() & 0o7777)
    };
    assert_eq!(look("hooks/before"), (1234, 1235, 0o750));
    for (name, mode) in [
        ("", 0o755),
        ("config.toml", 0o600),
        ("secrets", 0o700),
        ("secrets/restic.key", 0o600),
        ("secrets/discord.env", 0o600),
        ("secrets/ntfy.env", 0o600),
    ] {
        assert_eq!(look(name), (0, 0, mode), "{name}");
    }
    assert!(kept(&etc).is_empty() && kept(&etc.join("config.toml")).is_empty(), "{ran}");
    nothing_is_left(&home);
    // A person is told what the backup holds otherwise, and of what is the same, nothing.
    let stays = back["stays"].to_string();
    assert!(stays.contains("/etc/config.toml") && stays.contains("/etc/secrets/restic.key"), "{ran}");
    let left = ran.json()["left_to_do"].to_string();
    assert!(left.contains("discord.env is the kit's, and the backup of"), "{ran}");
    assert!(!left.contains("restic.key is the kit's"), "{ran}");
    let again = home.recover(&["--json"]).expect(0);
    assert_eq!(part(&again, etc.to_str().unwrap())["outcome"], "was-there");
    assert_eq!(fs::read_to_string(&webhook).unwrap(), address("new"));
}

#[test]
fn slow_a_path_that_holds_everything_comes_back_around_it() {
    // Configuration, keys, state, cache, spool, storage, kit and another step: all in one path.
    let scratch = Scratch::new();
    let all = scratch.path().to_owned();
    let leave_out = format!("exclude = [\"{0}/storage\", \"{0}/server\"]", all.display());
    let config = Config::local(&all).directory("everything", &[&all], &leave_out);
    let home = Home::backed_up(scratch, config);
    fs::write(home.scratch.join("srv/file"), "file").unwrap();
    home.cluster.finish_segment();
    // The history that is saved is open meanwhile.
    assert!(matches!(home.agent.run(["run"]).code(), Some(0 | 5)));
    let trees = home.trees();
    let dump = home.dump();
    let socket = all.join("server/socket");
    let lose = || {
        home.lose_everything();
        fs::remove_dir_all(all.join("server")).unwrap();
    };
    lose();
    let whole = home.recover(&["--json"]).expect(0);
    let back = |ran: &Ran| {
        equal(&trees, &home.trees());
        assert_eq!(fs::read_to_string(home.scratch.join("srv/file")).unwrap(), "file", "{ran}");
        assert!(kept(&all).is_empty() && home.scratch.join("kit.txt").exists(), "{ran}");
        assert_eq!(part(ran, "database")["kept"], serde_json::Value::Null, "{ran}");
        sh(Command::new("install").args(["-d", "-o", "postgres"]).arg(&socket));
        home.cluster.start();
        assert_eq!(home.dump(), dump, "{ran}");
        home.cluster.stop();
        let stage = format!("{}.restoring", all.display());
        for left in [stage.clone(), stage + ".unfinished"] {
            assert!(!Path::new(&left).exists(), "{left}: {ran}");
        }
        nothing_is_left(&home);
        let again = home.recover(&["--json"]).expect(0);
        assert_eq!(part(&again, all.to_str().unwrap())["outcome"], "was-there");
        assert_eq!(home.agent.ok(["status", "--json"]).step("foundry")["last_outcome"], "succeeded");
    };
    back(&whole);
    for &eighth in by_effort(&[6][..], &[2, 4, 5, 6, 7]) {
        lose();
        home.cut_off_after(whole.took * eighth / 8);
        back(&home.recover_once_all_has_ended());
    }
}

#[test]
fn repositories_that_lost_their_config_come_back() {
    let scratch = Scratch::new();
    let source = scratch.directory("srv/data");
    fs::write(source.join("file"), "good").unwrap();
    let agent = Config::local(scratch.path()).directory("data", &[&source], "").write();
    agent.ok(["run"]);
    let kit = scratch.join("kit.txt").display().to_string();
    agent.ok(["recovery-kit", "--to", &kit]);
    fs::write(scratch.join("storage/agent/config"), "").unwrap();
    fs::remove_file(scratch.join("storage/data/config")).unwrap();
    for gone in ["etc", "state", "cache", "runtime", "spool", "srv"] {
        fs::remove_dir_all(scratch.join(gone)).unwrap();
    }
    let ran = agent.run(["recover", "--kit", &kit, "--json"]).expect(5);
    assert_eq!(fs::read_to_string(source.join("file")).unwrap(), "good");
    let back = part(&ran, source.to_str().unwrap());
    assert!(back["problems"].to_string().contains("the config of"), "{ran}");
}

#[test]
fn paths_that_lie_in_each_other_come_back() {
    let scratch = Scratch::new();
    let outer = scratch.directory("srv/app");
    let write = |path: &Path, text: &str| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write(&outer.join("data/file"), "data");
    write(&outer.join("logs/today"), "log");
    write(&outer.join("logs/debug"), "debug");
    let (logs, data) = (outer.join("logs"), outer.join("data"));
    // The inner one first, as it may stand in a configuration; the outer one leaves out some of it.
    let config = Config::local(scratch.path()).directory("logs", &[&logs], "").directory(
        "app",
        &[&data, &outer],
        "exclude = [\"debug\"]",
    );
    let agent = config.write();
    agent.ok(["run"]);
    let kit = scratch.join("kit.txt").display().to_string();
    agent.ok(["recovery-kit", "--to", &kit]);
    for gone in ["etc", "state", "cache", "runtime", "spool", "srv"] {
        fs::remove_dir_all(scratch.join(gone)).unwrap();
    }
    let ran = agent.run(["recover", "--kit", &kit, "--json"]).expect(0);
    for path in [&outer, &logs, &data] {
        assert_eq!(part(&ran, path.to_str().unwrap())["outcome"], "back");
    }
    assert_eq!(fs::read_to_string(logs.join("debug")).unwrap(), "debug", "of the step that has it");
    assert_eq!(fs::read_to_string(logs.join("today")).unwrap(), "log");
    assert_eq!(fs::read_to_string(data.join("file")).unwrap(), "data");
    for path in [&outer, &logs, &data] {
        assert!(kept(path).is_empty(), "{ran}");
    }
    let again = agent.run(["recover", "--kit", &kit, "--json"]).expect(0);
    assert_eq!(part(&again, logs.to_str().unwrap())["outcome"], "was-there");
}

/// A card: a machine's own places, which programs see at the usual paths.
struct Card {
    scratch: Scratch,
    agent: Agent,
}

impl Card {
    const PLACES: [&str; 7] = ["etc", "home", "opt", "root", "run", "srv", "var"];

    fn new() -> Self {
        let scratch = Scratch::new();
        let binds: String = Self::PLACES
            .iter()
            .map(|place| format!("mount --bind {}/{place} /{place}\n", scratch.join("card").display()))
            .collect();
        let program = Agent::binary().display().to_string();
        let script =
            format!("#!/bin/sh\nexec unshare --mount sh -euc '{binds}exec \"$@\"' pi-agent {program} \"$@\"\n");
        fs::write(scratch.join("pi-agent"), script).unwrap();
        fs::set_permissions(scratch.join("pi-agent"), Permissions::from_mode(0o755)).unwrap();
        let agent = Agent::new("/etc/pi-agent/config.toml", "/var/lib/pi-agent").program(scratch.join("pi-agent"));
        let card = Self { scratch, agent };
        card.blank();
        card
    }

    /// As after a package was installed.
    fn blank(&self) {
        let card = self.scratch.join("card");
        let _ = fs::remove_dir_all(&card);
        for place in Self::PLACES {
            self.scratch.directory(format!("card/{place}"));
        }
        for name in ["passwd", "group", "nsswitch.conf", "hosts", "localtime"] {
            let _ = fs::copy(Path::new("/etc").join(name), card.join("etc").join(name));
        }
        fs::write(card.join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n").unwrap();
        for (directory, mode) in
            [("etc/pi-agent", 0o755), ("etc/pi-agent/secrets", 0o700), ("var/lib", 0o755), ("var/log", 0o755)]
        {
            let directory = self.scratch.directory(Path::new("card").join(directory));
            fs::set_permissions(directory, Permissions::from_mode(mode)).unwrap();
        }
        fs::write(card.join("var/log/syslog"), "it began\n").unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.join("card").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

#[test]
fn what_setup_proposes_comes_back() {
    let card = Card::new();
    card.scratch.directory("storage");
    for name in [
        "srv/foundry/Data/worlds/saltmarsh/world.json",
        "srv/foundry/Config/options.json",
        "srv/foundry/logs/debug.log",
        "srv/logs/web.log",
        "srv/secrets/token",
        "srv/web/compose.yaml",
        "srv/web/.env",
        "etc/pi-agent/hooks/before",
    ] {
        card.write(name, name);
    }
    symlink("/srv/secrets/token", card.path("etc/pi-agent/token")).unwrap();
    let (kit, url) = (card.scratch.join("kit.txt"), format!("file://{}", card.scratch.join("storage").display()));
    let kit = kit.to_str().unwrap();
    let setup =
        card.agent.run(["setup", "--unattended", "--name", "pi", "--storage", &url, "--kit", kit, "--kit-saved"]);
    assert!(matches!(setup.code(), Some(0 | 5)), "{setup}");
    let config = fs::read_to_string(card.path("etc/pi-agent/config.toml")).unwrap();
    for proposed in ["/etc/pi-agent", "/var/log", "/srv/foundry/logs", "/srv/web/.env", "name = \"foundry\""] {
        assert!(config.contains(proposed), "{proposed} is not proposed: {config}");
    }
    // Opened keys change with each run, and so does the time of their directory.
    let _ = card.agent.run(["run"]).expect(0);
    let trees = || {
        ["srv/foundry", "srv/logs", "srv/secrets", "srv/web/.env", "etc/pi-agent"]
            .map(|name| Tree::read(card.path(name)))
    };
    let before = trees();
    card.blank();

    let ran = card.agent.run(["recover", "--kit", kit, "--json"]).expect(0);
    for (before, after) in before.iter().zip(&trees()) {
        // What stays is of now, and so are the directories around it.
        let now = ["master-keys", ": mtime"];
        let differences: Vec<_> =
            before.differences(after).into_iter().filter(|line| !now.iter().any(|now| line.contains(now))).collect();
        assert_eq!(differences, Vec::<String>::new(), "{ran}");
    }
    let log = card.path("var/lib/pi-agent/recovered/logs/var/log/syslog");
    assert_eq!(fs::read_to_string(log).unwrap(), "it began\n", "the system's own is put aside: {ran}");
    let again = card.agent.run(["recover", "--kit", kit, "--json"]).expect(0);
    assert_eq!(part(&again, "/etc/pi-agent")["outcome"], "was-there");
    let _ = card.agent.run(["run"]).expect(0);
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
    // The same command without it is another recovery, and says so instead of advising to overwrite what was chosen.
    home.recover(&[]).expect(1).says("was recovered with --at").says("repeat it with --at");
    equal(&trees, &home.trees());
    let _ = home.recover(&["--at", &moment]).expect(0);
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
        let cut = home.cut_off_after(took * eighth / 8);
        let ran = home.recover_once_all_has_ended();
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
