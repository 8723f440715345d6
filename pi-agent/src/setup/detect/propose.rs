//! From what was found to steps: database, foundry, logs, configs, in this order. Pure.

use super::{Cluster, Found};
use crate::setup::answers::{Database, Folder, LivePart};

/// Where Foundry keeps its databases, below its data.
const WORLDS: &str = "Data/worlds";

/// journald bounds and rotates these itself; their bytes change all the time and compress badly.
const JOURNAL: &str = "/var/log/journal";

/// A step for each cluster; the first is simply the database.
pub fn databases(clusters: &[Cluster]) -> Vec<Database> {
    let mut made: Vec<Database> = Vec::new();
    for cluster in clusters {
        let word = word(&cluster.name);
        let name = if made.is_empty() { "database".to_owned() } else { format!("database-{word}") };
        let name = unique(&[name], &made.iter().map(|known| known.name.as_str()).collect::<Vec<_>>());
        // A container's spool is named like its step, as in docs/docker.md.
        let stanzas = match &cluster.container {
            Some(_) => vec![name.clone()],
            None => vec![word.clone(), format!("{word}-{}", cluster.version)],
        };
        let stanza = unique(&stanzas, &made.iter().map(|known| known.stanza.as_str()).collect::<Vec<_>>());
        made.push(Database {
            name,
            stanza,
            container: cluster.container.clone(),
            data_directory: cluster.data_directory.clone(),
            socket_directory: cluster.socket_directory.clone(),
            port: cluster.port,
        });
    }
    made
}

/// The directory steps.
pub fn folders(found: &Found) -> Vec<Folder> {
    let exclude = match found.logs.iter().any(|path| path.as_os_str() == "/var/log") {
        true => vec![JOURNAL.to_owned()],
        false => Vec::new(),
    };
    let steps = [
        Folder { live: worlds(found), ..Folder::new("foundry", found.foundry.clone()) },
        Folder { exclude, ..Folder::new("logs", found.logs.clone()) },
        Folder::new("configs", found.configs.clone()),
    ];
    steps.into_iter().filter(|step| !step.paths.is_empty()).collect()
}

/// What Foundry's container writes to.
fn worlds(found: &Found) -> Option<LivePart> {
    let container = found.foundry_writer.clone()?;
    let paths = match &found.foundry[..] {
        [_] => vec![WORLDS.into()],
        several => several.iter().map(|data| data.join(WORLDS)).collect(),
    };
    Some(LivePart { paths, container })
}

/// What names of steps and stanzas may consist of.
fn word(name: &str) -> String {
    let word: String = name.to_lowercase().chars().filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).collect();
    let word = word.trim_start_matches(['-', '_']);
    if word.is_empty() { "main".into() } else { word.into() }
}

/// The first of the wishes that is free, else the last with a number.
fn unique(wishes: &[String], taken: &[&str]) -> String {
    if let Some(wish) = wishes.iter().find(|wish| !taken.contains(&wish.as_str())) {
        return wish.clone();
    }
    format!("{}-{}", wishes.last().map_or("main", String::as_str), taken.len() + 1)
}
