//! The command line of `pi-agent setup`: every question has a flag.

use std::path::{Path, PathBuf};

use clap::Args;

use super::answers::Folder;
use crate::error::{Context, Error, Result};

/// What to give to say "none of these".
pub const NONE: &str = "none";

/// The flags, as given.
#[derive(Clone, Debug, Default, Args)]
pub struct Flags {
    /// Ask nothing: flags and what is found on the machine are the answers (also when there is no terminal)
    #[arg(long)]
    pub unattended: bool,
    /// What this machine is called in snapshots and reports [default: its host name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Where backups go: s3://BUCKET/PREFIX or file:///ABSOLUTE/PATH
    #[arg(long, value_name = "URL")]
    pub storage: Option<String>,
    /// The bucket's region
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,
    /// An S3 server other than AWS: https://HOST[:PORT]
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// Ask for ENDPOINT/BUCKET (true) or BUCKET.ENDPOINT (false) [default: true with --endpoint or a dot in BUCKET]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub path_style: Option<bool>,
    /// The authority (PEM) that signed the endpoint's certificate
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Copy the storage keys from FILE: AWS_ACCESS_KEY_ID=… and AWS_SECRET_ACCESS_KEY=…
    #[arg(long, value_name = "FILE")]
    pub aws_env: Option<PathBuf>,
    /// Copy the webhook from FILE: DISCORD_WEBHOOK_URL=…
    #[arg(long, value_name = "FILE")]
    pub discord_env: Option<PathBuf>,
    /// Back up the PostgreSQL cluster in DIR; may be repeated; `none` [default: the clusters found]
    #[arg(long, value_name = "DIR")]
    pub postgres: Vec<PathBuf>,
    /// Back up these paths as the step NAME; may be repeated; `none` [default: what is found]
    #[arg(long, value_name = "NAME=PATH[,PATH]")]
    pub directory: Vec<String>,
    /// What uploads may take, per second, such as 2MiB
    #[arg(long, value_name = "RATE")]
    pub upload: Option<String>,
    /// Where the secrets are kept [default: `secrets` beside the configuration]
    #[arg(long, value_name = "DIR")]
    pub secrets: Option<PathBuf>,
    /// Where the cache is kept [default: /var/cache/pi-agent]
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Where servers leave their WAL, in DIR/STANZA [default: /var/spool/pgbackrest]
    #[arg(long, value_name = "DIR")]
    pub spool: Option<PathBuf>,
    /// Where locks are kept [default: /run/pi-agent]
    #[arg(long, value_name = "DIR")]
    pub runtime: Option<PathBuf>,
    /// Replace the configuration there is; the old one stays beside it
    #[arg(long)]
    pub overwrite: bool,
    /// Write the recovery kit to FILE
    #[arg(long, value_name = "FILE")]
    pub kit: Option<PathBuf>,
    /// Confirm that the recovery kit is saved somewhere else: enables the timers
    #[arg(long)]
    pub kit_saved: bool,
    /// Make the first backup now
    #[arg(long)]
    pub first_run: bool,
    /// Do not enable the timers
    #[arg(long)]
    pub no_enable: bool,
}

impl Flags {
    /// With every path absolute, and none that cannot be written into the configuration.
    ///
    /// # Errors
    /// A path is not UTF-8.
    pub fn absolute(mut self) -> Result<Self> {
        let files = [&mut self.ca_file, &mut self.aws_env, &mut self.discord_env, &mut self.kit];
        let directories = [&mut self.secrets, &mut self.cache, &mut self.spool, &mut self.runtime];
        for path in files.into_iter().chain(directories).flatten() {
            *path = absolute(path)?;
        }
        for path in self.postgres.iter_mut().filter(|path| path.as_os_str() != NONE) {
            *path = absolute(path)?;
        }
        Ok(self)
    }

    /// The clusters asked for: `None` is not said, an empty list is `none`.
    ///
    /// # Errors
    /// `none` and a directory.
    pub fn clusters(&self) -> Result<Option<Vec<PathBuf>>> {
        let given = without_none("--postgres", &self.postgres, |path| path.as_os_str() == NONE)?;
        Ok(given.map(<[PathBuf]>::to_vec))
    }

    /// The directory steps asked for: `None` is not said, an empty list is `none`.
    ///
    /// # Errors
    /// One is not of the form `NAME=PATH[,PATH]`.
    pub fn folders(&self) -> Result<Option<Vec<Folder>>> {
        let given = without_none("--directory", &self.directory, |text| text == NONE)?;
        given.map(|texts| texts.iter().map(|text| folder(text)).collect()).transpose()
    }
}

/// `NAME=PATH[,PATH]`.
///
/// # Errors
/// It is not.
pub fn folder(text: &str) -> Result<Folder> {
    let wrong = || {
        Error::usage(format!("--directory {text}: wanted NAME=PATH[,PATH], with absolute paths"))
            .hint("for example --directory foundry=/srv/foundry/data")
    };
    let (name, paths) = text.split_once('=').ok_or_else(wrong)?;
    let paths: Vec<PathBuf> = paths.split(',').map(|path| PathBuf::from(path.trim())).collect();
    let good = !name.is_empty() && paths.iter().all(|path| path.is_absolute());
    if good { Ok(Folder::new(name.trim(), paths)) } else { Err(wrong()) }
}

fn without_none<'a, T>(flag: &str, given: &'a [T], is_none: impl Fn(&T) -> bool) -> Result<Option<&'a [T]>> {
    match given {
        [] => Ok(None),
        [one] if is_none(one) => Ok(Some(&[])),
        _ if given.iter().any(is_none) => Err(Error::usage(format!("{flag} none stands alone"))),
        _ => Ok(Some(given)),
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    let shown = path.display();
    if path.to_str().is_none() {
        return Err(Error::usage(format!("the path {shown} is not UTF-8: wanted a plain name")));
    }
    std::path::absolute(path).context(|| format!("understand {shown}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_given_found_or_none() {
        let flags = |texts: &[&str]| Flags {
            directory: texts.iter().map(|text| (*text).into()).collect(),
            postgres: texts.iter().map(PathBuf::from).collect(),
            ..Flags::default()
        };
        assert!(flags(&[]).folders().unwrap().is_none());
        assert_eq!(flags(&["none"]).folders().unwrap().unwrap(), []);
        assert!(flags(&["none"]).clusters().unwrap().unwrap().is_empty());
        let folders = flags(&["logs=/srv/logs,/var/log", "x=/y"]).folders().unwrap().unwrap();
        assert_eq!(folders[0].paths, [Path::new("/srv/logs"), Path::new("/var/log")]);
        for wrong in [&["none", "x=/y"][..], &["/srv"], &["=/srv"], &["x="], &["x=srv"], &["x=/a,,/b"]] {
            let error = flags(wrong).folders().unwrap_err();
            assert!(error.to_string().contains("--directory"), "{error}");
        }
        assert!(flags(&["none", "/data"]).clusters().is_err());
    }
}
