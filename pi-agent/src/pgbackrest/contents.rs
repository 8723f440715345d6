//! What a backup holds of a cluster outside of its data directory, as its manifest tells.
//!
//! The manifest is an INI file of pgBackRest's with JSON values, sections and keys in order. It names every file, so that of a large
//! cluster it has a few hundred megabytes: it is read line by line.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{PgBackRest, SHORT, View, version};
use crate::error::{Context, Result};

/// The longest line that is read: a path, and some two hundred bytes.
const LONGEST: u64 = 64 << 10;

/// A directory that the cluster reached by a link of its data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linked {
    /// The link's path below the data directory: `pg_wal`, or `pg_tblspc/OID`.
    pub link: PathBuf,
    /// Where it led, as the server saw it.
    pub led_to: PathBuf,
    /// Bytes of its files.
    pub bytes: u64,
}

impl PgBackRest {
    /// The tablespaces and the WAL directory that the cluster of a backup had outside of its data directory.
    ///
    /// # Errors
    /// pgBackRest's, or the manifest cannot be understood.
    pub fn linked(&self, label: &str) -> Result<Vec<Linked>> {
        let file = format!("backup/{}/{label}/backup.manifest", self.stanza);
        let program = self.program(View::Repository, "repo-get", &[&file], SHORT + self.slack)?;
        let piped = program.pipe(SHORT + self.slack).map_err(version::missing)?;
        linked(BufReader::new(piped)).context(|| format!("read {file}"))
    }
}

fn linked(mut manifest: impl BufRead) -> io::Result<Vec<Linked>> {
    #[derive(Deserialize)]
    struct Target {
        path: PathBuf,
        r#type: String,
        file: Option<IgnoredAny>,
    }
    #[derive(Deserialize)]
    struct File {
        size: Option<u64>,
    }
    let (mut found, mut section, mut line) = (Vec::<Linked>::new(), String::new(), Vec::new());
    loop {
        line.clear();
        (&mut manifest).take(LONGEST).read_until(b'\n', &mut line)?;
        let Some((b'\n', text)) = line.split_last() else {
            return if line.is_empty() { Ok(found) } else { Err(io::ErrorKind::InvalidData.into()) };
        };
        if text.starts_with(b"[") && text.ends_with(b"]") {
            section = String::from_utf8_lossy(text).into_owned();
            continue;
        }
        if !matches!(&*section, "[backup:target]" | "[target:file]") {
            continue;
        }
        let text = String::from_utf8_lossy(text);
        let Some((key, value)) = text.split_once("={") else { continue };
        let value = format!("{{{value}");
        if section == "[target:file]" {
            let holds =
                |linked: &&mut Linked| linked.link.starts_with("pg_tblspc") && Path::new(key).starts_with(&linked.link);
            if let Some(linked) = found.iter_mut().find(holds) {
                linked.bytes += serde_json::from_str::<File>(&value)?.size.unwrap_or(0);
            }
            continue;
        }
        let link = Path::new(key.strip_prefix("pg_data/").unwrap_or(key));
        let target: Target = serde_json::from_str(&value)?;
        if target.r#type == "link" && target.file.is_none() && is_ours(link) {
            found.push(Linked { link: link.into(), led_to: target.path, bytes: 0 });
        }
    }
}

/// It comes from storage, and becomes part of paths.
fn is_ours(link: &Path) -> bool {
    let oid = |name: &OsStr| {
        name.to_str().is_some_and(|name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()))
    };
    link == Path::new("pg_wal") || link.strip_prefix("pg_tblspc").is_ok_and(|name| oid(name.as_os_str()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn links_of_directories_and_the_bytes_of_tablespaces_are_told() {
        let manifest = r#"[backup]
backup-label="20261130-030000F"

[backup:target]
pg_data={"path":"/var/lib/postgresql/15/main","type":"path"}
pg_data/pg_wal={"path":"/nvme/wal","type":"link"}
pg_data/postgresql.auto.conf={"file":"auto.conf","path":"/etc","type":"link"}
pg_tblspc/16384={"path":"/ssd/one","tablespace-id":"16384","tablespace-name":"one","type":"link"}
pg_tblspc/163={"path":"/ssd/a={b","tablespace-id":"163","tablespace-name":"two","type":"link"}
pg_tblspc/../x={"path":"/etc","type":"link"}
pg_tblspc={"path":"/etc","type":"link"}

[target:file]
pg_data/PG_VERSION={"size":3,"timestamp":1}
pg_tblspc/16384/PG_15_202209061/5/1={"checksum":"ab","size":8192,"timestamp":1}
pg_tblspc/16384/PG_15_202209061/5/2={"size":100,"timestamp":1}
pg_tblspc/163/PG_15_202209061/5/2={"timestamp":1}

[target:link]
pg_data/pg_wal={"destination":"/nvme/wal"}
"#;
        let linked_to = |link: &str, led_to: &str, bytes| Linked { link: link.into(), led_to: led_to.into(), bytes };
        assert_eq!(
            linked(manifest.as_bytes()).unwrap(),
            [
                linked_to("pg_wal", "/nvme/wal", 0),
                linked_to("pg_tblspc/16384", "/ssd/one", 8292),
                linked_to("pg_tblspc/163", "/ssd/a={b", 0)
            ]
        );
        assert!(linked(&b"[backup:target]\nx={"[..]).is_err());
        assert!(linked(&b"[backup:target]\npg_tblspc/1={\"path\":1}\n"[..]).is_err());
    }
}
