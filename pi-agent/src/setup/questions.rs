//! The questions, in order. What a flag answered is not asked.

use std::path::{Path, PathBuf};

use super::answers::{Answers, Database, Folder, StorageAnswer};
use super::complete::{self, clusters_at, host_name, local, secrets_directory};
use super::detect::{self, Found};
use super::dialogue::Dialogue;
use super::flags::{self, Flags};
use crate::config::parse;
use crate::error::{Error, Result};
use crate::secrets::Secret;

/// Asks for everything that the configuration needs.
///
/// # Errors
/// The terminal is closed, or a flag is wrong.
pub fn ask(dialogue: &Dialogue, flags: &Flags, found: &Found, root: &Path, config: &Path) -> Result<Answers> {
    dialogue.say("An empty answer takes what stands in [brackets]. Nothing is changed before you say yes.\n")?;
    let mut answers = Answers {
        host: host_name(),
        storage: StorageAnswer { url: "file:///mnt/backup".into(), ..StorageAnswer::default() },
        secrets: secrets_directory(flags, config),
        local: local(flags),
        upload: flags.upload.clone(),
        databases: Vec::new(),
        folders: vec![Folder::new("configs", vec!["/etc/pi-agent".into()])],
    };
    answers.host = match &flags.name {
        Some(name) => name.clone(),
        None => {
            let accept = |name: &str| accepted(Answers { host: name.into(), ..answers.clone() }, |new| new.host);
            dialogue.ask("Name of this machine in snapshots and reports", &host_name(), accept)?
        }
    };
    answers.storage = storage(dialogue, flags, &answers)?;
    answers.databases = match flags.clusters()? {
        Some(given) => clusters_at(root, &given),
        None => databases(dialogue, found)?,
    };
    answers.folders = match flags.folders()? {
        Some(given) => given,
        None => folders(dialogue, found, &answers)?,
    };
    Ok(answers)
}

/// The part of an answer that was tried, when the agent takes the configuration that it makes.
fn accepted<T>(answers: Answers, part: impl Fn(Answers) -> T) -> Result<T, String> {
    match parse(&super::render(&answers), Path::new("/etc/pi-agent/config.toml")) {
        Ok(_) => Ok(part(answers)),
        Err(errors) => Err(complete::mistakes(&errors)),
    }
}

fn storage(dialogue: &Dialogue, flags: &Flags, answers: &Answers) -> Result<StorageAnswer> {
    let given = StorageAnswer {
        url: flags.storage.clone().unwrap_or_default(),
        region: flags.region.clone(),
        endpoint: flags.endpoint.clone(),
        path_style: flags.path_style,
        ca_file: flags.ca_file.clone(),
    };
    let with = |storage: StorageAnswer| accepted(Answers { storage, ..answers.clone() }, |new| new.storage);
    // What another question will give stands in for it, so that only this answer can be wrong.
    let mut storage = given.clone();
    if storage.url.is_empty() {
        let accept = |url: &str| {
            let region = url.starts_with("s3://").then(|| "us-east-1".to_owned());
            with(StorageAnswer { url: url.into(), region, ..StorageAnswer::default() }).map(|new| new.url).map_err(
                |_| "wanted s3://BUCKET/PREFIX or file:///ABSOLUTE/PATH, such as file:///mnt/usb/backup".into(),
            )
        };
        storage.url = dialogue.ask("Where do backups go (s3://BUCKET/PREFIX or file:///PATH)", "", accept)?;
    }
    if !storage.is_s3() {
        return Ok(storage);
    }
    let base = StorageAnswer { region: Some("us-east-1".into()), ca_file: None, path_style: None, ..storage.clone() };
    if storage.endpoint.is_none() && storage.region.is_none() {
        let accept = |endpoint: &str| match endpoint {
            "AWS" => Ok(None),
            _ => with(StorageAnswer { endpoint: Some(endpoint.into()), ..base.clone() }).map(|new| new.endpoint),
        };
        storage.endpoint = dialogue.ask("S3 server (https://HOST[:PORT], or AWS)", "AWS", accept)?;
    }
    if storage.region.is_none() {
        let default = if storage.endpoint.is_some() { "us-east-1" } else { "ap-southeast-2" };
        let accept =
            |region: &str| with(StorageAnswer { region: Some(region.into()), ..base.clone() }).map(|new| new.region);
        storage.region = dialogue.ask("The bucket's region", default, accept)?;
    }
    if storage.endpoint.is_some() && storage.ca_file.is_none() {
        let accept = |file: &str| match file {
            "none" => Ok(None),
            _ if Path::new(file).is_file() => {
                with(StorageAnswer { ca_file: Some(file.into()), ..base.clone() }).map(|new| new.ca_file)
            }
            _ => Err(format!("{file} is no file")),
        };
        storage.ca_file = dialogue.ask("File of the authority that signed its certificate (PEM)", "none", accept)?;
    }
    Ok(storage)
}

fn databases(dialogue: &Dialogue, found: &Found) -> Result<Vec<Database>> {
    let mut wanted = Vec::new();
    for cluster in &found.clusters {
        let place = match &cluster.container {
            Some(container) => format!("the container {container}"),
            None => cluster.data_directory.display().to_string(),
        };
        let question = format!("Back up PostgreSQL {} in {place}", cluster.version);
        if dialogue.yes(&question, true)? {
            wanted.push(cluster.clone());
        }
    }
    Ok(detect::databases(&wanted))
}

fn folders(dialogue: &Dialogue, found: &Found, answers: &Answers) -> Result<Vec<Folder>> {
    let mut wanted: Vec<Folder> = Vec::new();
    let names = [("foundry", "Foundry's data"), ("logs", "Logs, kept for good"), ("configs", "Secrets and settings")];
    let proposed = detect::folders(found);
    for (name, what) in names {
        let proposed = proposed.iter().find(|folder| folder.name == name);
        let default = proposed.map_or_else(|| flags::NONE.to_owned(), |folder| listed(&folder.paths));
        let accept = |text: &str| folder(name, text, proposed, answers);
        let asked = dialogue.ask(&format!("{what} (paths with commas between, or none)"), &default, accept)?;
        wanted.extend(asked);
    }
    loop {
        let taken: Vec<_> = wanted.iter().map(|folder| folder.name.clone()).collect();
        let accept = |text: &str| match text.is_empty() {
            true => Ok(None),
            false => {
                let folder = flags::folder(text).map_err(|_| "wanted NAME=PATH[,PATH], or nothing".to_owned())?;
                if taken.contains(&folder.name) {
                    return Err(format!("there is a step {} already", folder.name));
                }
                accepted(Answers { folders: vec![folder], ..answers.clone() }, |new| new.folders.into_iter().next())
            }
        };
        match dialogue.ask("Something else (NAME=PATH[,PATH]; empty: no)", "", accept)? {
            Some(folder) => wanted.push(folder),
            None => return Ok(wanted),
        }
    }
}

fn folder(name: &str, text: &str, proposed: Option<&Folder>, answers: &Answers) -> Result<Option<Folder>, String> {
    if text == flags::NONE {
        return Ok(None);
    }
    let paths: Vec<PathBuf> = text.split(',').map(|path| PathBuf::from(path.trim())).collect();
    // Our own directory is proposed before it exists.
    let known = |path: &PathBuf| path.exists() || proposed.is_some_and(|folder| folder.paths.contains(path));
    if let Some(missing) = paths.iter().find(|path| !known(path)) {
        return Err(format!("{} does not exist", missing.display()));
    }
    let exclude = proposed.map(|folder| folder.exclude.clone()).unwrap_or_default();
    let live = proposed.filter(|folder| folder.paths == paths).and_then(|folder| folder.live.clone());
    let folder = Folder { exclude, live, ..Folder::new(name, paths) };
    accepted(Answers { folders: vec![folder], ..answers.clone() }, |new| new.folders.into_iter().next())
}

fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// The storage keys as the text of an `aws.env`.
///
/// # Errors
/// The terminal is closed.
pub fn aws_env(dialogue: &Dialogue) -> Result<Secret> {
    let filled = |text: &str| if text.is_empty() { Err("wanted a key".to_owned()) } else { Ok(text.to_owned()) };
    let id = dialogue.ask("Access key id of the storage (AWS_ACCESS_KEY_ID)", "", filled)?;
    let key = dialogue.secret("Its secret key (AWS_SECRET_ACCESS_KEY)")?;
    if key.reveal().is_empty() {
        return Err(
            Error::usage("no secret key was typed").hint("start `pi-agent setup` again, or give --aws-env FILE")
        );
    }
    Ok(Secret::new(format!("AWS_ACCESS_KEY_ID={id}\nAWS_SECRET_ACCESS_KEY={}\n", key.reveal())))
}

/// The webhook as the text of a `discord.env`; `None`: no notices to Discord.
///
/// # Errors
/// The terminal is closed.
pub fn discord_env(dialogue: &Dialogue) -> Result<Option<Secret>> {
    let url = dialogue.secret("Discord webhook for failures; empty: none")?;
    let text = || Secret::new(format!("DISCORD_WEBHOOK_URL={}\n", url.reveal()));
    Ok((!url.reveal().is_empty()).then(text))
}
