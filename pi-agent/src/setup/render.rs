//! [`Answers`] -> the text of a commented configuration. Pure. `packaging/config.toml` is what comes out for the example
//! of the tests below, so that the shipped example and what setup writes are one.

use std::path::Path;

use super::answers::{Answers, Database, Folder, LivePart, LocalAnswer, StorageAnswer};
use crate::config::{KEYS, Missing};

/// How long a step may upload each night, from 03:00 on: until the household wants its line.
pub(super) const MAX_DURATION: &str = "6h";

/// The text.
pub fn render(answers: &Answers) -> String {
    let mut text = Text::default();
    text.lines(&[
        "# pi-agent's configuration: /etc/pi-agent/config.toml",
        "#",
        "# What stands here works once [host] name, [storage] and the steps are yours; lines with \"#\" show what else there is.",
        "# `pi-agent doctor` checks this file and everything it names, and changes nothing.",
        "# docs/configuration.md describes every key.",
        "",
        "[host]",
    ]);
    text.key(true, "name", &quoted(&answers.host), "labels snapshots and reports");
    text.lines(&["", "[storage]"]);
    storage(&mut text, &answers.storage);
    text.lines(&[
        "",
        "# Each secret is a file that only root can read (chmod 600) in a directory of root's (chmod 700):",
        "# restic.key      the password of the file repositories, one line",
        "# pgbackrest.key  the passphrase of the database backups, one line; only with a postgres step",
        "# aws.env         AWS_ACCESS_KEY_ID=… and AWS_SECRET_ACCESS_KEY=…; only with an s3:// url",
        "# Keep copies of the keys somewhere else: without them no backup can be read.",
        "[secrets]",
    ]);
    text.key(true, "directory", &quoted_path(&answers.secrets), "");
    text.lines(&[""]);
    local(&mut text, &answers.local);
    if let Some(upload) = &answers.upload {
        text.lines(&["", "[limits]"]);
        text.key(true, "upload", &quoted(upload), "per second");
    }
    alarms(&mut text);
    restore_test(&mut text);
    text.lines(&["# The steps run in the order of this file; one that fails stops no other."]);
    steps(&mut text, answers);
    text.0
}

/// All of them as comments: the defaults are right for most.
fn alarms(text: &mut Text) {
    text.lines(&["", "# [alarms]"]);
    for key in KEYS.iter().filter(|key| key.section == "[alarms]") {
        if let Missing::Is(default) = key.missing {
            text.lines(&[&format!("# {} = {default}", key.name)]);
        }
    }
    text.lines(&[""]);
}

fn restore_test(text: &mut Text) {
    text.lines(&["# Once a month everything is restored into a temporary place and looked at.", "# [restore-test]"]);
    text.key(false, "directory", "\"/var/cache/pi-agent\"", "or a disk with more room");
    text.lines(&["# budget = \"20GiB\"", "# months = 3", "# max-duration = \"12h\"", ""]);
}

fn storage(text: &mut Text, storage: &StorageAnswer) {
    let StorageAnswer { url, region, endpoint, path_style, ca_file } = storage;
    text.key(true, "url", &quoted(url), "each step gets a folder of its own in it");
    if !storage.is_s3() {
        let bucket = "or a bucket, with a prefix for this machine";
        text.key(false, "url", "\"s3://example-bucket/pi-hosting\"", bucket);
    }
    let given = |value: &Option<String>, example: &str| (value.is_some(), quoted(value.as_deref().unwrap_or(example)));
    let (live, value) = given(region, "ap-southeast-2");
    text.key(live, "region", &value, "");
    let (live, value) = given(endpoint, "https://garage.home:3900");
    text.key(live, "endpoint", &value, "a server other than AWS");
    text.key(path_style.is_some(), "path-style", &path_style.unwrap_or(true).to_string(), "");
    let (live, ca_file) = (ca_file.is_some(), ca_file.as_deref().unwrap_or(Path::new("/etc/pi-agent/ca.pem")));
    text.key(live, "ca-file", &quoted_path(ca_file), "who signed that server's certificate");
    text.lines(&["# timeout = \"30s\"", "# retry-for = \"2m\""]);
}

fn local(text: &mut Text, local: &LocalAnswer) {
    let LocalAnswer { cache, spool, runtime } = local;
    let keys = [
        ("cache", cache, "/var/cache/pi-agent"),
        ("spool", spool, "/var/spool/pgbackrest"),
        ("runtime", runtime, "/run/pi-agent"),
    ];
    let any = keys.iter().any(|(_, given, _)| given.is_some());
    text.lines(&[if any { "[local]" } else { "# [local]" }]);
    for (name, given, default) in keys {
        let value = quoted_path(given.as_deref().unwrap_or(Path::new(default)));
        text.key(given.is_some(), name, &value, "");
    }
}

fn steps(text: &mut Text, answers: &Answers) {
    let example = Database {
        name: "database".into(),
        stanza: "main".into(),
        container: None,
        data_directory: "/var/lib/postgresql/15/main".into(),
        socket_directory: None,
        port: None,
    };
    for database in &answers.databases {
        text.lines(&["", "[[step]]"]);
        postgres(text, true, database);
    }
    if answers.databases.is_empty() {
        text.lines(&["", "# [[step]]"]);
        postgres(text, false, &example);
    }
    // The one step whose block shows every key; in an example when there is none.
    let showing = answers.folders.iter().position(|folder| folder.name == "foundry");
    if showing.is_none() {
        text.lines(&["", "# [[step]]"]);
        let example =
            Folder { exclude: vec!["**/*.tmp".into()], ..Folder::new("foundry", vec!["/srv/foundry/data".into()]) };
        directory(text, false, &example, true, true);
    }
    for (index, folder) in answers.folders.iter().enumerate() {
        text.lines(&["", "[[step]]"]);
        directory(text, true, folder, answers.storage.is_s3(), showing == Some(index));
    }
}

fn postgres(text: &mut Text, live: bool, database: &Database) {
    let Database { name, stanza, container, data_directory, socket_directory, port } = database;
    text.key(live, "name", &quoted(name), "");
    text.key(live, "kind", "\"postgres\"", "");
    match container {
        Some(container) => text.key(live, "container", &quoted(container), "its directories are found"),
        None => text.key(live, "data-directory", &quoted_path(data_directory), ""),
    }
    text.key(live, "stanza", &quoted(stanza), "");
    if container.is_none() {
        let socket = socket_directory.as_deref().unwrap_or(Path::new("/var/run/postgresql"));
        text.key(live && socket_directory.is_some(), "socket-directory", &quoted_path(socket), "");
    }
    text.key(live && port.is_some(), "port", &port.unwrap_or(5432).to_string(), "");
    text.key(false, "user", "\"postgres\"", "");
    text.key(false, "full-every", "\"7d\"", "the nights between are incremental");
    text.key(false, "monthly-dump", "true", "what outlives this version of PostgreSQL");
    text.key(false, "restore-test", "{ count = [\"app.public.users\"] }", "");
    text.key(live, "keep", KEEP, "");
}

const KEEP: &str = "{ daily = 30, monthly = \"forever\" }";

/// `whole` shows what else there is.
fn directory(text: &mut Text, live: bool, folder: &Folder, limited: bool, whole: bool) {
    let paths: Vec<_> = folder.paths.iter().map(|path| quoted_path(path)).collect();
    let exclude: Vec<_> = folder.exclude.iter().map(|glob| quoted(glob)).collect();
    text.key(live, "name", &quoted(&folder.name), "");
    text.key(live, "kind", "\"directory\"", "");
    text.key(live, "paths", &format!("[{}]", paths.join(", ")), "");
    match (exclude.is_empty(), whole) {
        (false, _) => text.key(live, "exclude", &format!("[{}]", exclude.join(", ")), ""),
        (true, true) => text.key(false, "exclude", "[\"**/*.tmp\"]", ""),
        (true, false) => {}
    }
    if let Some(LivePart { paths, container }) = &folder.live {
        let paths: Vec<_> = paths.iter().map(|path| quoted_path(path)).collect();
        let pause = quoted(&format!("docker:{container}"));
        text.key(live, "live", &format!("{{ paths = [{}], pause = {pause} }}", paths.join(", ")), "");
    } else if whole {
        text.key(false, "live", "{ paths = [\"Data/worlds\"], pause = \"docker:foundry\" }", "");
    }
    if (live && limited) || whole {
        let why = "a first upload may take nights; each goes on where the last one stopped";
        text.key(live && limited, "max-duration", &quoted(MAX_DURATION), if whole { why } else { "" });
    }
    if whole {
        text.key(false, "stall", "\"15m\"", "");
        text.key(false, "one-file-system", "true", "");
        text.key(false, "prune-every", "\"30d\"", "");
        text.key(false, "check-every", "\"7d\"", "");
        text.key(false, "read-all-months", "3", "");
        text.key(false, "restore-test", "{ critical = [\"Data/worlds/*/world.json\"] }", "");
    }
    if live {
        text.key(true, "keep", if folder.keeps_everything() { "\"forever\"" } else { KEEP }, "");
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Paths that are not UTF-8 were refused before: see `flags`.
fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// Lines of the file.
#[derive(Default)]
struct Text(String);

impl Text {
    fn lines(&mut self, lines: &[&str]) {
        for line in lines {
            self.0.push_str(line);
            self.0.push('\n');
        }
    }

    /// `key = value`, as a comment when not `live`; `why` stands in the column where the others stand.
    fn key(&mut self, live: bool, key: &str, value: &str, why: &str) {
        let line = format!("{}{key} = {value}", if live { "" } else { "# " });
        match why {
            "" => self.lines(&[&line]),
            _ => self.lines(&[&format!("{line:<42} # {why}")]),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::{self, Keep, Source, Writer};

    fn example() -> Answers {
        Answers {
            host: "pi-hosting".into(),
            storage: StorageAnswer { url: "file:///mnt/usb/pi-hosting".into(), ..StorageAnswer::default() },
            secrets: "/etc/pi-agent/secrets".into(),
            local: LocalAnswer::default(),
            upload: None,
            databases: vec![],
            folders: vec![Folder::new("logs", vec!["/var/log".into()]), Folder::new("configs", vec!["/etc".into()])],
        }
    }

    fn household() -> Answers {
        Answers {
            host: "pi-hosting".into(),
            storage: StorageAnswer {
                url: "s3://example-bucket/pi-hosting".into(),
                region: Some("garage".into()),
                endpoint: Some("https://garage.home:3900".into()),
                path_style: Some(true),
                ca_file: Some("/etc/pi-agent/ca.pem".into()),
            },
            local: LocalAnswer { spool: Some("/mnt/disk/spool".into()), ..LocalAnswer::default() },
            upload: Some("2MiB".into()),
            databases: vec![
                Database {
                    name: "database".into(),
                    stanza: "main".into(),
                    container: None,
                    data_directory: "/var/lib/postgresql/15/main".into(),
                    socket_directory: None,
                    port: Some(5433),
                },
                Database {
                    name: "database-db".into(),
                    stanza: "database-db".into(),
                    container: Some("db".into()),
                    data_directory: "/var/lib/docker/volumes/db/_data".into(),
                    socket_directory: None,
                    port: None,
                },
            ],
            folders: vec![
                Folder {
                    live: Some(LivePart { paths: vec!["Data/worlds".into()], container: "foundry".into() }),
                    ..Folder::new("foundry", vec!["/srv/foundry/data".into()])
                },
                Folder {
                    exclude: vec!["/var/log/journal".into()],
                    ..Folder::new("logs", vec!["/srv/logs".into(), "/var/log".into()])
                },
                Folder::new("configs", vec!["/srv/a \"b\"\\c".into(), "/etc/pi-agent".into()]),
            ],
            ..example()
        }
    }

    fn golden(name: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    #[test]
    fn the_shipped_example_is_what_setup_writes() {
        assert_eq!(render(&example()), golden("../packaging/config.toml"));
    }

    #[test]
    fn a_household_is_written_as_its_golden_file() {
        assert_eq!(render(&household()), golden("tests/golden/setup/household.toml"));
    }

    #[test]
    fn what_is_written_means_what_was_answered() {
        let settings = config::parse(&render(&household()), Path::new("/etc/pi-agent/config.toml")).unwrap();
        assert_eq!(settings.host, "pi-hosting");
        assert_eq!(settings.storage.location.to_string(), "s3://example-bucket/pi-hosting");
        assert_eq!(settings.local.spool, Path::new("/mnt/disk/spool"));
        let names: Vec<_> = settings.steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(names, ["database", "database-db", "foundry", "logs", "configs", "agent"]);
        assert!(matches!(&settings.steps[0].source, Source::Postgres(postgres) if postgres.port == 5433));
        assert!(matches!(&settings.steps[1].source, Source::Postgres(postgres)
            if postgres.container.as_deref() == Some("db") && postgres.port == 5432));
        assert!(matches!(&settings.steps[2].source, Source::Directory(directory)
            if directory.live.as_ref().is_some_and(|live| live.writer == Writer::Pause("foundry".into()))));
        assert!(matches!(&settings.steps[4].source, Source::Directory(directory)
            if directory.paths[0] == Path::new("/srv/a \"b\"\\c")));
        assert_eq!((settings.steps[3].keep, settings.steps[4].keep), (Keep::Forever, Keep::DEFAULT));
    }
}
