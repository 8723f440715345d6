//! What systemd is told: which spools to watch, which timers to start.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::config::{Settings, Step};
use crate::error::{Context, Error, Result};
use crate::process::Program;
use crate::secrets::Secrets;
use crate::steps::postgres::container;
use crate::wal;

/// Watched directories depend on the configuration, so the packaged unit has none of its own.
const SPOOLS: &str = "etc/systemd/system/pi-agent-wal.path.d/spool.conf";
const USER: &str = "etc/systemd/system/pi-agent-wal.service.d/user.conf";
const KEYS: &str = "etc/systemd/system/pi-agent-wal.service.d/keys.conf";
const TIMERS: [&str; 4] =
    ["pi-agent-backup.timer", "pi-agent-alarms.timer", "pi-agent-heartbeat.timer", "pi-agent-restore-test.timer"];
const AT_BOOT: &str = "pi-agent-boot.service";
const WAL: [&str; 2] = ["pi-agent-wal.path", "pi-agent-wal.timer"];

/// Writes which spools start a push, as whom it is done and with which keys; `true` when that changed.
///
/// # Errors
/// A file cannot be written.
pub fn write_drop_ins(root: &Path, settings: &Settings) -> Result<bool> {
    let spools = put(&root.join(SPOOLS), spools(settings).as_deref())?;
    let user = put(&root.join(USER), user(settings).as_deref())?;
    let keys = put(&root.join(KEYS), keys(settings).as_deref())?;
    Ok(spools || user || keys)
}

/// The packaged unit hands over `aws.env`. Where every database has keys of its own, nothing is left of that: a file that is missing is an
/// empty one there.
fn keys(settings: &Settings) -> Option<String> {
    let secrets = Secrets::new(&settings.secrets);
    let databases = || settings.steps.iter().filter(|step| step.postgres().is_some());
    let own = |step: &&Step| secrets.clone().for_the_user_of(&step.name).own_aws(&step.name);
    let mut files: Vec<_> =
        databases().map(|step| own(&step)).filter_map(|(file, exists)| exists.then_some(file)).collect();
    if files.is_empty() {
        return None;
    }
    let is_all = files.len() == databases().count();
    files.sort();
    let line = |id: &str, file: &Path| format!("LoadCredential={id}:{}\n", file.display()).replace('%', "%%");
    let mut text = String::from("# Written by pi-agent setup: storage keys of the databases' own.\n[Service]\n");
    for file in &files {
        text.push_str(&line(&file.file_name().unwrap_or_default().to_string_lossy(), file));
    }
    if is_all {
        text.push_str(&line("aws.env", &settings.secrets.join("none")));
    }
    Some(text)
}

/// Makes a file hold that, or not exist; `true` when that changed something.
fn put(file: &Path, wanted: Option<&str>) -> Result<bool> {
    let doing = || format!("write {}", file.display());
    let found = match fs::read_to_string(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        read => Some(read.context(doing)?),
    };
    if found.as_deref() == wanted {
        return Ok(false);
    }
    match wanted {
        Some(text) => {
            fs::create_dir_all(file.parent().unwrap_or(Path::new("/"))).context(doing)?;
            fs::write(file, text).context(doing)?;
        }
        None => fs::remove_file(file).context(doing)?,
    }
    Ok(true)
}

/// The packaged unit pushes as `postgres`. One unit has one user, so this is for servers that have one and the same.
fn user(settings: &Settings) -> Option<String> {
    let of_step = |step: &Step| container::user(settings, step, step.postgres()?).ok();
    // systemd runs nothing for a number without a name: the doctor says what to do.
    let of_step = |step: &Step| of_step(step).filter(|user| !user.is_nameless()).map(|user| user.name);
    let users: BTreeSet<String> = settings.steps.iter().filter_map(of_step).collect();
    let only = users.first().filter(|name| users.len() == 1 && *name != "postgres")?;
    Some(format!("# Written by pi-agent setup: the server's user.\n[Service]\nUser={only}\n"))
}

/// `None`: there is nothing to watch.
fn spools(settings: &Settings) -> Option<String> {
    let spools: Vec<PathBuf> = settings
        .steps
        .iter()
        .filter_map(|step| step.postgres())
        .map(|one| wal::spool_directory(settings, one))
        .collect();
    // A percent sign would be one of systemd's specifiers.
    let lines = spools.iter().map(|spool| format!("PathChanged={}\n", spool.display().to_string().replace('%', "%%")));
    let text =
        format!("# Written by pi-agent setup: one line for each postgres step.\n[Path]\n{}", lines.collect::<String>());
    (!spools.is_empty()).then_some(text)
}

/// The commands that make the machine back up by itself; `watched` when the watched spools changed.
pub fn commands(settings: &Settings, watched: bool) -> Vec<Vec<&'static str>> {
    let databases = settings.steps.iter().any(|step| step.postgres().is_some());
    let mut commands = vec![vec!["daemon-reload"]];
    let mut now = vec!["enable", "--now"];
    now.extend(TIMERS);
    if databases {
        now.extend(WAL);
    }
    commands.push(now);
    commands.push(vec!["enable", AT_BOOT]);
    if databases && watched {
        // A path unit that is active already would go on watching what it did.
        commands.push(vec!["try-restart", WAL[0]]);
    }
    commands
}

/// Runs one of them.
///
/// # Errors
/// systemctl refuses.
pub fn systemctl(arguments: &[&str]) -> Result<()> {
    let output = Program::new("systemctl", arguments.iter().copied()).run(&mut |_, _| ())?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::new(format!("systemctl {}: {}", arguments.join(" "), output.stderr.trim()))
        .hint("are pi-agent's units installed? they come with its package"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn settings(steps: &str) -> Settings {
        let text = format!(
            "[host]\nname = \"pi\"\n[storage]\nurl = \"file:///mnt/usb\"\n{steps}\
             [[step]]\nname = \"logs\"\nkind = \"directory\"\npaths = [\"/var/log\"]\n"
        );
        crate::config::parse(&text, Path::new("/etc/pi-agent/config.toml")).unwrap()
    }

    #[test]
    fn each_spool_is_watched_and_none_without_a_database() {
        let root = tempfile::tempdir().unwrap();
        let step = |name: &str| {
            format!("[[step]]\nname = \"{name}\"\nkind = \"postgres\"\ndata-directory = \"/srv/{name}\"\n")
        };
        let two = settings(&(step("one") + &step("two")));
        assert!(write_drop_ins(root.path(), &two).unwrap());
        assert!(!write_drop_ins(root.path(), &two).unwrap());
        let text = fs::read_to_string(root.path().join(SPOOLS)).unwrap();
        assert!(
            text.ends_with("[Path]\nPathChanged=/var/spool/pgbackrest/one\nPathChanged=/var/spool/pgbackrest/two\n")
        );
        assert!(commands(&two, true).concat().contains(&"pi-agent-wal.path"));
        let none = settings("");
        assert!(write_drop_ins(root.path(), &none).unwrap());
        assert!(!root.path().join(SPOOLS).exists() && !write_drop_ins(root.path(), &none).unwrap());
        assert!(!commands(&none, true).concat().contains(&"pi-agent-wal.path"));
    }
    #[test]
    fn another_user_than_postgres_pushes_its_own_wal() {
        let data = tempfile::tempdir().unwrap();
        let step =
            format!("[[step]]\nname = \"one\"\nkind = \"postgres\"\ndata-directory = \"{}\"\n", data.path().display());
        let us = nix::unistd::geteuid();
        let name = match us.is_root() {
            true => {
                std::os::unix::fs::chown(data.path(), Some(2), None).unwrap();
                "bin".to_owned()
            }
            false => nix::unistd::User::from_uid(us).unwrap().unwrap().name,
        };
        assert!(user(&settings(&step)).unwrap().ends_with(&format!("[Service]\nUser={name}\n")));
        assert_eq!(user(&settings("")), None);
    }
}
