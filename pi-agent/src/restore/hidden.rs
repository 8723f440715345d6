//! What WAL would lead a copy into: replaying `CREATE TABLESPACE` makes a link to the directory that the statement named, which is the
//! original's and holds what that has now. While a copy recovers, it finds a directory of its own in the place of each of those, and
//! afterwards its links lead there.

use std::fs;
use std::path::{Path, PathBuf};

use super::outside::relink;
use crate::error::{Context, Error, Result};
use crate::process::User;
use crate::shown;
use crate::steps::postgres::links::{WAL, links};
use crate::theirs::{self, Theirs};

/// Pairs of directories: the copy's, and the original's that it stands for.
pub(super) struct Hidden(Vec<(PathBuf, PathBuf)>);

impl Hidden {
    /// For a copy in `data`, whose tablespaces come to `tablespaces` unless its links lead elsewhere already.
    ///
    /// # Errors
    /// A directory cannot be made, or we are not root: nobody else can hide the original's.
    pub fn of(original: Option<&Path>, data: &Path, tablespaces: &Path, user: &User) -> Result<Self> {
        let original = original.filter(|original| original.canonicalize().ok() != data.canonicalize().ok());
        let own = links(data);
        let mut pairs = Vec::new();
        for (link, led_to) in original.map(links).unwrap_or_default() {
            let name = link.file_name().and_then(|name| name.to_str()).filter(|name| name.parse::<u32>().is_ok());
            let Some(name) = name.filter(|_| link != Path::new(WAL) && led_to.is_absolute()) else { continue };
            match own.iter().find(|(known, _)| *known == link) {
                // What lies in there would be hidden, too. It is all that the copy may write to.
                Some((_, own)) if own.starts_with(&led_to) => continue,
                Some((_, own)) => pairs.push((own.clone(), led_to)),
                None => {
                    let own = tablespaces.join(name);
                    theirs::make(&own, user, 0o700)?;
                    pairs.push((own, led_to));
                }
            }
        }
        match pairs.first() {
            Some((_, theirs)) if !nix::unistd::Uid::effective().is_root() => Err(Error::usage(format!(
                "restore beside tablespaces such as {}: only root can keep a copy out of them",
                shown(theirs)
            ))
            .hint("run pi-agent as root")),
            _ => Ok(Self(pairs)),
        }
    }

    /// What the copy finds instead of what.
    pub fn instead(&self) -> Vec<(PathBuf, PathBuf)> {
        self.0.clone()
    }

    /// Leads the copy's links to what it has found there, and removes what it did not need.
    ///
    /// # Errors
    /// A link cannot be changed.
    pub fn lead_back(&self, data: &Path, user: &User) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let there = Theirs::open(data, user)?;
        for (link, led_to) in links(data) {
            if let Some((own, _)) = self.0.iter().find(|(_, theirs)| *theirs == led_to) {
                let doing = || format!("lead {} to {}", shown(&data.join(&link)), shown(own));
                there.act(|| relink(&there, &link, own).context(doing))?;
            }
        }
        for (own, _) in &self.0 {
            let _ = fs::remove_dir(own);
        }
        Ok(())
    }
}
