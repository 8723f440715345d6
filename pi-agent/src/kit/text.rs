//! The kit as text: 80 columns wide, so that it can be printed, and exact, so that every file in it can be taken out again.
//!
//! A file stands between `----- BEGIN NAME -----` and `----- END NAME -----`. A line of it begins with `| `; what is too
//! long goes on in lines that begin with `+ `. `, no line end` on the END line says that the file ends without one.

use std::path::Path;

use super::{Cluster, Kit};
use crate::config::{Location, S3Location, Source, Step};
use crate::report::words;
use crate::secrets::Secret;
use crate::steps::postgres::container;

/// Every kit begins so.
pub const TITLE: &str = "pi-agent recovery kit";
const WIDTH: usize = 80;

/// The whole text. It holds every secret.
pub fn text(kit: &Kit) -> Secret {
    let mut text = head(kit);
    text.push_str(&by_hand(kit));
    text.push_str(&without_the_agent(kit));
    text.push_str(&heading("What it needs"));
    text.push_str("Between the markers; each line without the \"| \" before it, \"+ \" goes on with it.\n\n");
    text.push_str(&block("facts.toml", &facts(kit)));
    for file in &kit.files {
        text.push_str(&block(file.name, file.content.reveal()));
    }
    Secret::new(text)
}

fn heading(title: &str) -> String {
    format!("\n{title}\n{}\n\n", "-".repeat(title.chars().count()))
}

fn head(kit: &Kit) -> String {
    let versions = versions(kit);
    format!(
        "\
{TITLE}
{}

Host       {}, machine {}
Made       {}
Backups    {}
Keys       {}
Word       {}      `pi-agent setup` asks for it
Versions   {versions}

WHO HOLDS THIS TEXT CAN READ EVERY BACKUP; WHO LOSES IT, AND THE MACHINE, CAN
READ NONE. Keep it away from the machine: print it, or put it into a password
manager or on a stick in a drawer.
",
        "=".repeat(TITLE.len()),
        kit.settings.host,
        kit.machine_id.as_deref().unwrap_or("without an id"),
        words::time(kit.made_at),
        kit.settings.storage.location,
        kit.marks.keys,
        kit.marks.word(),
    )
}

fn versions(kit: &Kit) -> String {
    let mut parts = vec![concat!("pi-agent ", env!("CARGO_PKG_VERSION")).to_owned()];
    parts.extend(kit.pgbackrest.iter().map(|version| format!("pgBackRest {version}")));
    parts.extend(majors(kit).iter().map(|major| format!("PostgreSQL {major}")));
    // rustic makes repositories of this version, which restic knows since 0.14.
    parts.push("restic format 2".into());
    parts.join(", ")
}

fn majors(kit: &Kit) -> Vec<&str> {
    let mut majors: Vec<_> = kit.postgres.iter().map(|cluster| cluster.major.as_str()).collect();
    majors.sort_unstable();
    majors.dedup();
    majors
}

fn by_hand(kit: &Kit) -> String {
    let mut text = heading("Everything back onto a blank machine");
    let packages: Vec<_> = majors(kit).iter().map(|major| format!(" postgresql-{major}")).collect();
    text.push_str("1. Put Raspberry Pi OS or Debian on it, become root (sudo -i), and install:\n\n");
    text.push_str("   apt install ./pi-agent_*.deb\n");
    if has_databases(kit) {
        text.push_str(&format!("   apt install pgbackrest{}\n", packages.concat()));
    }
    text.push('\n');
    if let Location::File(path) = &kit.settings.storage.location {
        text.push_str(&format!("   Connect the disk with the backups, so that they are in\n   {}\n\n", path.display()));
    }
    text.push_str(
        "2. Copy this text to /root/kit.txt (from paper, type what stands between the\n   \
         BEGIN and END lines, and these lines). This brings everything back, goes on\n   \
         where it was interrupted, and says what is left to do. `--at TIME` goes back\n   \
         further:\n\n   pi-agent recover --kit /root/kit.txt --start-timers\n",
    );
    text.push_str(&heading("The same by hand"));
    text.push_str(
        "1. With the packages installed, put what this text holds in place. Paste:\n\n\
         \x20  take() { awk -v name=\"$1\" '\n\
         \x20    index($0, \"----- BEGIN \" name \" -----\") == 1 { on = 1; next }\n\
         \x20    on && /^-----/ { exit }\n\
         \x20    on && /^[|]/ { printf \"%s%s\", end, substr($0, 3); end = \"\\n\" }\n\
         \x20    on && /^[+]/ { printf \"%s\", substr($0, 3) }\n\
         \x20    END { printf \"%s\", end }' /root/kit.txt; }\n\
         \x20  umask 077\n",
    );
    let mut directories: Vec<_> = kit.files.iter().filter_map(|file| file.path.parent()).collect();
    directories.sort_unstable();
    directories.dedup();
    for directory in directories {
        text.push_str(&format!("   install -d -m 700 {}\n", word(directory)));
    }
    for file in &kit.files {
        text.push_str(&format!("   take {} > {}\n", file.name, word(&file.path)));
    }
    text.push_str("\n   From paper: type each file as it stands below, chmod 600.\n\n");
    text.push_str("2. This machine takes the place of the old one. What can be had back?\n\n");
    text.push_str("   pi-agent adopt\n   pi-agent points\n\n3. Get it back. `--at TIME` goes back further:\n\n");
    for step in &kit.settings.steps {
        text.push_str(&restore(step));
    }
    text.push_str(
        "4. When all runs again: a backup, a new kit, and the timers.\n\n\
         \x20  pi-agent doctor\n   pi-agent run\n   pi-agent setup\n",
    );
    text
}

fn restore(step: &Step) -> String {
    let name = &step.name;
    match &step.source {
        Source::Postgres(postgres) => {
            let data = container::data_on_this_machine(postgres);
            let data = word(data.as_deref().unwrap_or(Path::new("VOLUME")));
            if let Some(container) = &postgres.container {
                return format!(
                    "   # {data} is where docker inspect {container} says that PGDATA lies.\n   docker compose up -d {container}\n   \
                     docker stop {container}\n   mv {data} \\\n      {data}.empty\n   \
                     pi-agent restore {name} \\\n      --to {data}\n   docker start {container}\n\n"
                );
            }
            format!(
                "   systemctl stop postgresql\n   mv {data} \\\n      {data}.empty\n   \
                 pi-agent restore {name} \\\n      --to {data}\n   systemctl start postgresql\n\n"
            )
        }
        Source::Directory(directory) => {
            let paths: Vec<_> = directory.paths.iter().map(|path| format!("   # {}\n", path.display())).collect();
            format!(
                "   pi-agent restore {name} --to /srv/restored-{name}\n   # then move it from there into place:\n{}\n",
                paths.concat()
            )
        }
        Source::Agent(_) => String::new(),
    }
}

fn without_the_agent(kit: &Kit) -> String {
    let mut text = heading("Without pi-agent");
    text.push_str("Directories are restic repositories (restic 0.14 or newer):\n\n");
    let secrets = word(&kit.settings.secrets);
    let (place, more) = match &kit.settings.storage.location {
        Location::File(path) => (path.display().to_string(), String::new()),
        Location::S3(s3) => {
            text.push_str(&format!("   set -a; . {secrets}/aws.env\n   AWS_DEFAULT_REGION={}\n", s3.region));
            let server = s3.endpoint.clone().unwrap_or_else(|| format!("https://s3.{}.amazonaws.com", s3.region));
            let prefix = if s3.prefix.is_empty() { String::new() } else { format!("/{}", s3.prefix) };
            let ca = s3.ca_file.as_deref().map(|ca| format!(" \\\n      --cacert {}", word(ca)));
            (format!("s3:{server}/{}{prefix}", s3.bucket), ca.unwrap_or_default())
        }
    };
    text.push_str(&format!("   place={}\n   key={secrets}/restic.key\n", word(Path::new(&place))));
    for step in &kit.settings.steps {
        // Of a database only its dumps lie in such a repository.
        let name = match step.postgres() {
            None => step.name.clone(),
            Some(postgres) if postgres.monthly_dump => format!("{}/dumps", step.name),
            Some(_) => continue,
        };
        text.push_str(&format!(
            "   restic -r \"$place/{name}\" --password-file \"$key\"{more} \\\n      restore latest --target /srv/restored-{}\n",
            name.replace('/', "-")
        ));
    }
    if has_databases(kit) {
        text.push_str("\nDatabases are pgBackRest repositories. In /etc/pgbackrest.conf, 0600, for each:\n\n");
    }
    for step in &kit.settings.steps {
        if let Some(postgres) = step.postgres() {
            let data = container::data_on_this_machine(postgres).unwrap_or_else(|| "VOLUME".into());
            text.push_str(&pgbackrest(kit, step, &postgres.stanza, &data));
        }
    }
    text
}

fn pgbackrest(kit: &Kit, step: &Step, stanza: &str, data: &Path) -> String {
    let place = match kit.settings.storage.location.join(&step.name) {
        Location::File(path) => format!("   repo1-type=posix\n   repo1-path={}\n", path.display()),
        Location::S3(s3) => s3_options(&s3),
    };
    format!(
        "   [global]\n{place}   repo1-cipher-type=aes-256-cbc\n   repo1-cipher-pass=     (the line of pgbackrest.key)\n   \
         [{stanza}]\n   pg1-path={}\n\n   pgbackrest --stanza={stanza} restore      (as the user postgres)\n\n",
        data.display()
    )
}

fn s3_options(s3: &S3Location) -> String {
    let aws = format!("s3.{}.amazonaws.com", s3.region);
    let server = s3.endpoint.as_deref().map_or(aws.as_str(), |url| url.trim_start_matches("https://"));
    let (server, port) = match server.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, format!("   repo1-storage-port={port}\n")),
        _ => (server, String::new()),
    };
    let ca = s3.ca_file.as_ref().map(|ca| format!("   repo1-storage-ca-file={}\n", ca.display()));
    format!(
        "   repo1-type=s3\n   repo1-path=/{}\n   repo1-s3-bucket={}\n   repo1-s3-region={}\n   repo1-s3-endpoint={server}\n\
         {port}   repo1-s3-uri-style={}\n{}   repo1-s3-key=          (AWS_ACCESS_KEY_ID of aws.env)\n   \
         repo1-s3-key-secret=   (AWS_SECRET_ACCESS_KEY of aws.env)\n",
        s3.prefix,
        s3.bucket,
        s3.region,
        if s3.path_style { "path" } else { "host" },
        ca.unwrap_or_default(),
    )
}

fn has_databases(kit: &Kit) -> bool {
    kit.settings.steps.iter().any(|step| step.postgres().is_some())
}

/// For programs: what the text says in sentences.
fn facts(kit: &Kit) -> String {
    let mut table = toml::Table::new();
    let mut set = |key: &str, value: &str| table.insert(key.into(), value.into());
    set("host", &kit.settings.host);
    set("machine-id", kit.machine_id.as_deref().unwrap_or_default());
    set("made-at", &words::stamp(kit.made_at));
    set("keys", &kit.marks.keys);
    set("access", &kit.marks.access);
    set("storage", &kit.settings.storage.location.to_string());
    set("pi-agent", env!("CARGO_PKG_VERSION"));
    set("pgbackrest", kit.pgbackrest.as_deref().unwrap_or_default());
    table.insert("kit-format".into(), 1.into());
    let mut by_step = |key: &str, value: &dyn Fn(&Cluster) -> Option<String>| {
        let values = kit.postgres.iter().filter_map(|one| Some((one.step.clone(), value(one)?.into())));
        table.insert(key.into(), toml::Value::Table(values.collect()));
    };
    by_step("postgres", &|one| Some(one.major.clone()));
    by_step("data", &|one| Some(one.data.as_ref()?.display().to_string()));
    by_step("owner", &|one| one.owner.map(|(uid, gid)| format!("{uid}:{gid}")));
    let files = kit.files.iter().map(|file| (file.name.to_owned(), file.path.display().to_string().into()));
    table.insert("files".into(), toml::Value::Table(files.collect()));
    table.to_string()
}

fn block(name: &str, content: &str) -> String {
    let mut text = format!("----- BEGIN {name} -----\n");
    let whole = content.strip_suffix('\n');
    for line in whole.unwrap_or(content).split('\n') {
        for (index, piece) in pieces(line).iter().enumerate() {
            let mark = if index == 0 { '|' } else { '+' };
            text.push(mark);
            if !piece.is_empty() {
                text.push(' ');
                text.push_str(piece);
            }
            text.push('\n');
        }
    }
    let end = if whole.is_some() { "" } else { ", no line end" };
    text.push_str(&format!("----- END {name} -----{end}\n\n"));
    text
}

/// A line in pieces that fit. Blanks stay away from their ends, where paper and mail lose them.
fn pieces(line: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut rest: Vec<char> = line.chars().collect();
    while rest.len() > WIDTH - 2 {
        let filled = |end: &usize| !rest[end - 1].is_whitespace();
        let end = (1..=WIDTH - 2).rev().find(filled).unwrap_or(WIDTH - 2);
        pieces.push(rest.drain(..end).collect());
    }
    pieces.push(rest.into_iter().collect());
    pieces
}

/// As one word of a shell.
fn word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-:".contains(c));
    if plain { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;

    use super::*;
    use crate::kit::{KitFile, Marks};

    const CONFIG: &str = r#"
[host]
name = "pi-hosting"
[storage]
url = "s3://example-bucket/pi-hosting"
region = "garage"
endpoint = "https://garage.home:3900"
ca-file = "/etc/pi-agent/ca.pem"
[[step]]
name = "database"
kind = "postgres"
data-directory = "/var/lib/postgresql/15/main"
[[step]]
name = "foundry"
kind = "directory"
paths = ["/srv/foundry/data"]
"#;

    /// A file takes out of the text what it put in, however odd.
    fn kit(files: &[(&'static str, &str)]) -> Kit {
        let settings = crate::config::parse(CONFIG, Path::new("/etc/pi-agent/config.toml")).unwrap();
        let file = |(name, content): &(&'static str, &str)| KitFile {
            name,
            path: Path::new("/etc/pi-agent/secrets").join(name),
            content: Secret::new(*content),
        };
        Kit {
            settings,
            machine_id: Some("0123456789abcdef0123456789abcdef".into()),
            made_at: "2026-11-21T03:00:00Z".parse::<Timestamp>().unwrap(),
            marks: Marks { keys: "1a2b-3c4d".into(), access: "5e6f-7a8b".into() },
            pgbackrest: Some("2.45".into()),
            postgres: vec![Cluster {
                step: "database".into(),
                major: "15".into(),
                data: Some("/var/lib/postgresql/15/main".into()),
                owner: Some((110, 115)),
            }],
            files: files.iter().map(file).collect(),
        }
    }

    /// What a program reads out of a kit.
    fn read(text: &str) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        let mut open: Option<(String, String)> = None;
        for line in text.lines() {
            if let Some((name, content)) = &mut open {
                if let Some(rest) = line.strip_prefix(&format!("----- END {name} -----")) {
                    assert!(content.pop() == Some('\n'));
                    let end = if rest.is_empty() { "\n" } else { "" };
                    files.insert(name.clone(), format!("{content}{end}"));
                    open = None;
                } else if let Some(rest) = line.strip_prefix('|') {
                    *content += &format!("{}\n", rest.strip_prefix(' ').unwrap_or(rest));
                } else {
                    content.pop();
                    *content += &format!("{}\n", line.strip_prefix("+ ").expect("goes on"));
                }
            } else if let Some(name) = line.strip_prefix("----- BEGIN ").and_then(|rest| rest.strip_suffix(" -----")) {
                open = Some((name.into(), String::new()));
            }
        }
        assert!(open.is_none());
        files
    }

    #[test]
    fn every_file_can_be_taken_out_exactly() {
        let long = "x".repeat(79) + &"é".repeat(200) + "\n\n short\t\\ \n";
        let files = [
            ("restic.key", "3f2a\n"),
            ("pgbackrest.key", "no line end"),
            ("aws.env", long.as_str()),
            ("discord.env", "| odd\n----- END discord.env -----\n+ \n\n"),
            ("ca.pem", ""),
            ("config.toml", CONFIG),
        ];
        let text = text(&kit(&files));
        let found = read(text.reveal());
        for (name, content) in files {
            assert_eq!(found[name], content, "{name}");
        }
        let facts: toml::Table = found["facts.toml"].parse().unwrap();
        assert_eq!((facts["host"].as_str(), facts["keys"].as_str()), (Some("pi-hosting"), Some("1a2b-3c4d")));
        assert_eq!(facts["files"]["aws.env"].as_str(), Some("/etc/pi-agent/secrets/aws.env"));
        assert_eq!(facts["postgres"]["database"].as_str(), Some("15"));
    }

    #[test]
    fn it_can_be_printed_and_says_what_to_do() {
        let kit = kit(&[("restic.key", "3f2a\n"), ("config.toml", CONFIG)]);
        let text = text(&kit);
        let text = text.reveal();
        let wide: Vec<_> = text.lines().filter(|line| line.chars().count() > WIDTH).collect();
        assert!(wide.is_empty(), "{wide:#?}");
        for part in [
            "apt install pgbackrest postgresql-15\n",
            "   pi-agent recover --kit /root/kit.txt --start-timers\n",
            "   take restic.key > /etc/pi-agent/secrets/restic.key\n",
            "   pi-agent adopt\n   pi-agent points\n",
            "   pi-agent restore foundry --to /srv/restored-foundry\n",
            "s3:https://garage.home:3900/example-bucket/pi-hosting\n",
            "--cacert /etc/pi-agent/ca.pem",
            "repo1-path=/pi-hosting/database\n",
            "restic -r \"$place/database/dumps\" ",
            "repo1-s3-endpoint=garage.home\n   repo1-storage-port=3900\n",
            &format!("Word       {} ", kit.marks.word()),
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
        assert!(text.starts_with(TITLE));
    }
}
