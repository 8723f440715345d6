//! The first hour on real parts: setup with flags and on a terminal, what it leaves, and what the recovery kit is worth.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Agent, Cluster, Discord, Garage, Ran, Scratch, TlsProxy, Tree, TypedInto, sh};

/// A machine in a directory: nothing is configured yet.
struct Host {
    scratch: Scratch,
    agent: Agent,
}

impl Host {
    fn new() -> Self {
        let scratch = Scratch::new();
        let foundry = scratch.directory("srv/foundry");
        fs::write(foundry.join("world.json"), "{\"name\": \"saltmarsh\"}").unwrap();
        let agent = Agent::new(scratch.join("etc/config.toml"), scratch.join("state"));
        Self { scratch, agent }
    }

    fn path(&self, name: &str) -> String {
        self.scratch.join(name).display().to_string()
    }

    fn config(&self) -> PathBuf {
        self.scratch.join("etc/config.toml")
    }

    /// The flags that keep everything within the scratch directory.
    fn places(&self) -> Vec<String> {
        ["cache", "spool", "runtime"].iter().flat_map(|name| [format!("--{name}"), self.path(name)]).collect()
    }

    /// Everything but the database.
    fn flags(&self) -> Vec<String> {
        let mut flags = vec!["setup".to_owned(), "--unattended".into(), "--name".into(), "test-host".into()];
        flags.extend(["--storage".into(), format!("file://{}", self.path("storage"))]);
        flags.extend(["--directory".into(), format!("foundry={}", self.path("srv/foundry"))]);
        flags.extend(self.places());
        flags
    }

    fn setup(&self, more: &[&str]) -> Ran {
        let mut flags = self.flags();
        flags.extend(more.iter().map(|flag| (*flag).to_owned()));
        self.agent.run(flags)
    }

    /// The files of the configuration's directory: names, contents and modes.
    fn written(&self) -> Tree {
        Tree::read(self.scratch.join("etc"))
    }
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_machine_is_set_up_backed_up_and_given_back() {
    let host = Host::new();
    let cluster = Cluster::make(&host.scratch, "server", "");
    cluster.start();
    cluster.sql("create table voters (id int primary key, name text)");
    let data = cluster.data().display().to_string();
    let kit = host.path("kit.txt");
    let first = host.setup(&["--postgres", &data, "--kit", &kit, "--kit-saved"]).expect(5);
    first.says("all of it; later ones what changed").says("It is saved somewhere else");
    assert!(!first.stdout.contains("s3:") && !first.stdout.contains("put-bucket"), "{first}");

    // What it says to paste is what the server needs.
    let statements: Vec<_> = first.stdout.lines().filter(|line| line.trim().starts_with("ALTER SYSTEM")).collect();
    assert_eq!(statements.len(), 2, "{first}");
    cluster.script(&format!("{}\nselect pg_reload_conf();\n", statements.join("\n")));

    for (path, wanted) in [
        ("etc", 0o700),
        ("etc/config.toml", 0o600),
        ("etc/secrets", 0o700),
        ("etc/secrets/restic.key", 0o600),
        ("etc/secrets/pgbackrest.key", 0o600),
        ("kit.txt", 0o600),
        ("state/recovery-kit.json", 0o600),
        ("spool/main", 0o750),
    ] {
        assert_eq!(mode(host.path(path)), wanted, "{path}");
    }

    // A second time changes nothing, and now nothing is left to do.
    let before = host.written();
    host.setup(&["--postgres", &data]).expect(0).says("archives its WAL already").says("kept ");
    host.agent.ok(["setup", "--unattended", "--kit-saved"]);
    assert_eq!(before.differences(&host.written()), Vec::<String>::new());
    let doctor = host.agent.ok(["doctor", "--json"]).json();
    let bad: Vec<_> =
        doctor["findings"].as_array().unwrap().iter().filter(|finding| finding["severity"] == "warning").collect();
    assert!(doctor["healthy"] == true && bad.is_empty(), "{bad:?}");

    cluster.sql("insert into voters values (1, 'mira')");
    host.agent.ok(["run"]);
    let to = host.path("restored");
    host.agent.ok(["restore", "foundry", "--to", &to]);
    let back = host.scratch.join("restored").join(host.scratch.join("srv/foundry").strip_prefix("/").unwrap());
    let source = Tree::read(host.scratch.join("srv/foundry"));
    assert_eq!(source.differences(&Tree::read(&back)), Vec::<String>::new());
    let clone = host.scratch.join("clone");
    host.agent.ok(["restore", "database", "--to", clone.to_str().unwrap()]);
    let clone = Cluster::existing(&host.scratch, &clone);
    clone.start();
    assert_eq!(clone.dump(), cluster.dump());
}

#[test]
fn the_kit_alone_brings_a_lost_machine_back() {
    let host = Host::new();
    let kit = host.path("kit.txt");
    fs::write(host.scratch.join("hook"), "DISCORD_WEBHOOK_URL=https://127.0.0.1:1/hook-secret\n").unwrap();
    let hook = host.path("hook");
    let _ = host
        .setup(&["--postgres", "none", "--discord-env", &hook, "--kit", &kit, "--kit-saved", "--first-run"])
        .expect(0);
    let piped = host.agent.ok(["recovery-kit"]);
    let key = fs::read_to_string(host.scratch.join("etc/secrets/restic.key")).unwrap();
    assert!(piped.stdout.contains(key.trim()) && !piped.stderr.contains(key.trim()));
    let lost = host.written();

    // Only storage and kit survive. The shell lines that the kit itself gives put everything back.
    for gone in ["etc", "state", "cache", "srv"] {
        fs::remove_dir_all(host.scratch.join(gone)).unwrap();
    }
    let text = fs::read_to_string(&kit).unwrap();
    let begin = text.find("   take() {").unwrap();
    let script = &text[begin..begin + text[begin..].find("\n\n").unwrap()];
    sh(Command::new("sh").args(["-euc", &script.replace("/root/kit.txt", &kit)]));
    let differences: Vec<_> = lost
        .differences(&host.written())
        .into_iter()
        .filter(|line| !line.contains("time") && !line.contains("master-keys"))
        .collect();
    assert_eq!(differences, Vec::<String>::new());

    host.agent.ok(["adopt"]);
    host.agent.ok(["points"]).says("foundry");
    host.agent.ok(["restore", "foundry", "--to", &host.path("restored")]);
    let restored =
        host.scratch.join("restored").join(host.scratch.join("srv/foundry/world.json").strip_prefix("/").unwrap());
    assert_eq!(fs::read_to_string(restored).unwrap(), "{\"name\": \"saltmarsh\"}");
}

#[test]
fn wrong_and_missing_answers_change_nothing() {
    let host = Host::new();
    let refused = |flags: &[&str], what: &str| {
        let ran = host.agent.run([&["setup", "--unattended"][..], flags].concat()).expect(2);
        assert!(ran.stderr.contains(what), "{what}: {ran}");
        assert!(!host.scratch.join("etc").exists() && !host.scratch.join("state").exists(), "{ran}");
    };
    refused(&[], "--storage is missing");
    let s3 = ["--storage", "s3://example-bucket/pi"];
    refused(&s3, "region is missing");
    refused(&[&s3[..], &["--region", "garage"]].concat(), "--aws-env is missing");
    refused(&["--storage", "/mnt/usb"], "file:///absolute/path");
    refused(&["--storage", "file:///mnt/usb", "--directory", "Logs=/var/log"], "Logs");
    refused(&["--storage", "file:///mnt/usb", "--directory", "logs"], "wanted NAME=PATH");
    refused(&["--storage", "file:///mnt/usb", "--kit-saved"], "no recovery kit was made");
    let empty = host.path("empty.env");
    fs::write(&empty, "AWS_ACCESS_KEY_ID=\n").unwrap();
    refused(&[&s3[..], &["--region", "garage", "--aws-env", &empty]].concat(), "no AWS_ACCESS_KEY_ID");
}

#[test]
fn a_configuration_is_replaced_only_when_asked() {
    let host = Host::new();
    host.setup(&["--postgres", "none"]).expect(0).says("NOT SAVED YET").says("setup --kit-saved");
    let before = host.written();
    let other = host.path("other");
    let storage = format!("file://{other}");
    let refused = host.agent.run(["setup", "--unattended", "--storage", &storage]).expect(2);
    assert!(refused.stderr.contains("contradicts") && refused.stderr.contains("--overwrite"), "{refused}");
    assert_eq!(before.differences(&host.written()), Vec::<String>::new());

    let key = fs::read(host.scratch.join("etc/secrets/restic.key")).unwrap();
    let old = fs::read(host.config()).unwrap();
    let mut flags = host.flags();
    flags.extend(["--overwrite".into(), "--postgres".into(), "none".into()]);
    let place = flags.iter().position(|flag| flag.starts_with("file://")).unwrap();
    flags[place].clone_from(&storage);
    host.agent.run(flags).expect(0).says("kept the old configuration as");
    assert!(fs::read_to_string(host.config()).unwrap().contains(&storage));
    assert_eq!(fs::read(host.scratch.join("etc/secrets/restic.key")).unwrap(), key, "a key is never replaced");
    let kept: Vec<_> = fs::read_dir(host.scratch.join("etc"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.display().to_string().contains("config.toml.old-"))
        .collect();
    assert_eq!((kept.len(), fs::read(&kept[0]).unwrap(), mode(&kept[0])), (1, old, 0o600));
}

#[test]
fn the_doctor_knows_how_the_kit_stands() {
    let host = Host::new();
    let says = |text: &str| {
        let ran = host.agent.ok(["doctor"]);
        assert!(ran.stdout.contains(text), "{text}: {ran}");
    };
    let _ = host.setup(&["--postgres", "none"]).expect(0);
    says("recovery kit: none was made");
    let kit = host.path("kit.txt");
    host.agent.ok(["recovery-kit", "--to", &kit]);
    says("not known to be saved");
    host.agent.ok(["setup", "--unattended", "--kit-saved"]);
    says("recovery kit: saved somewhere else");

    // Another key: the kit that is saved does not open what comes.
    let key = host.scratch.join("etc/secrets/restic.key");
    fs::write(&key, "another\n").unwrap();
    says("WARNING  recovery kit: it holds other keys");
    fs::write(host.scratch.join("mine.txt"), "my own").unwrap();
    let _ = host.agent.run(["recovery-kit", "--to", &host.path("mine.txt")]).expect(2).says("another file is there");
    let _ = host.agent.run(["recovery-kit", "--to", &host.path("not/mounted.txt")]).expect(2);
    host.agent.ok(["recovery-kit", "--to", &kit]);
    says("not known to be saved");
}

#[test]
fn a_person_is_asked_and_secrets_are_not_shown() {
    let host = Host::new();
    let mut flags = vec!["setup".to_owned(), "--postgres".into(), "none".into()];
    flags.extend(host.places());
    let mut terminal = TypedInto::start(&host.agent.command(flags));
    let storage = format!("file://{}", host.path("storage"));
    let discord = Discord::start();
    let webhook = discord.url();
    let secret = webhook.rsplit('/').next().unwrap();
    terminal.sees("Name of this machine").types("a b").sees("wanted letters").sees("Name of").types("test-host");
    terminal.sees("Where do backups go").types("/mnt/usb").sees("wanted s3://").sees("Where do").types(&storage);
    terminal.sees("Foundry's data").types("/no/such/place").sees("does not exist");
    terminal.sees("Foundry's data").types(&host.path("srv/foundry"));
    terminal.sees("Logs, kept for good").types("none");
    terminal.sees("Secrets and settings").types(&host.path("etc"));
    terminal.sees("Something else").types("").sees("Discord webhook").types_unseen(&webhook);
    terminal.sees("Write this to").types("").sees("wrote ").sees("Where to write it").types(&host.path("kit.txt"));
    terminal.sees("type the word").types("guess").sees("that is not the word").sees("type the word");
    let kit = fs::read_to_string(host.scratch.join("kit.txt")).unwrap();
    let word = kit.lines().find_map(|line| line.strip_prefix("Word ")).unwrap().split_whitespace().next().unwrap();
    terminal.types(word).sees("It is saved somewhere else").sees("all is well");
    terminal.sees("Make the first backup now").types("y").sees("foundry");
    assert!(terminal.wait().success(), "{}", terminal.screen());
    assert!(!terminal.screen().contains(secret), "{}", terminal.screen());
    let hook = fs::read_to_string(host.scratch.join("etc/secrets/discord.env")).unwrap();
    assert_eq!(hook, format!("DISCORD_WEBHOOK_URL={webhook}\n"));
    host.agent.ok(["points", "foundry"]).says("foundry");

    // They come back: what is there is kept.
    let before = host.written();
    let mut again = TypedInto::start(&host.agent.command(["setup"]));
    again.sees("exists. Replace it").types("").sees("kept ").sees("Make the first backup now").types("n");
    assert!(again.wait().success(), "{}", again.screen());
    assert_eq!(before.differences(&host.written()), Vec::<String>::new());
}

#[test]
fn a_bucket_is_set_up_with_the_least_rights() {
    let garage = Garage::start();
    let proxy = TlsProxy::before(&garage);
    let host = Host::new();
    let aws = host.path("given.env");
    fs::write(&aws, format!("AWS_ACCESS_KEY_ID={}\nAWS_SECRET_ACCESS_KEY={}\n", Garage::KEY_ID, Garage::KEY)).unwrap();
    let mut flags = host.flags();
    let place = flags.iter().position(|flag| flag.starts_with("file://")).unwrap();
    flags[place] = format!("s3://{}/pi-hosting", Garage::BUCKET);
    let (endpoint, ca) = (proxy.endpoint(), proxy.ca_file().display().to_string());
    flags.extend(["--region", "garage", "--endpoint", &endpoint, "--ca-file", &ca].map(String::from));
    flags.extend(
        ["--aws-env", &aws, "--postgres", "none", "--kit", &host.path("kit.txt"), "--kit-saved"].map(String::from),
    );
    let ran = host.agent.run(&flags).expect(0);
    ran.says("put-bucket-versioning").says("\"NoncurrentDays\":30").says("RestrictPublicBuckets=true");
    ran.says("pi-hosting/*").says("at 1.0 MiB/s (assumed)");
    assert!(!ran.stdout.contains("DeleteObjectVersion") && !ran.stdout.contains(Garage::KEY), "{ran}");
    assert_eq!(mode(host.path("etc/secrets/aws.env")), 0o600);
    let kit = fs::read_to_string(host.scratch.join("kit.txt")).unwrap();
    // The key is longer than a line.
    assert!(kit.replace("\n+ ", "").contains(Garage::KEY) && kit.contains("BEGIN CERTIFICATE"));
    host.agent.run(&flags).expect(0).says("kept ");
    host.agent.ok(["run"]);

    // Other credentials are not put in their place in silence.
    fs::write(&aws, "AWS_ACCESS_KEY_ID=other\nAWS_SECRET_ACCESS_KEY=other-secret\n").unwrap();
    let refused = host.agent.run(&flags).expect(2);
    assert!(refused.stderr.contains("install -m 600") && !refused.stderr.contains("other-secret"), "{refused}");
}
