//! Flags and what was found -> [`Answers`], and whether the configuration they make is a good one. Nothing is asked here.

use std::path::{Path, PathBuf};

use super::answers::{Answers, Database, LocalAnswer, StorageAnswer};
use super::detect::{self, Found};
use super::flags::Flags;
use super::render::render;
use crate::config::{self, Settings};
use crate::error::{Error, Result};

/// The answers that follow from the flags alone and from the machine below `root`.
///
/// # Errors
/// A required flag is missing.
pub fn complete(flags: &Flags, found: &Found, root: &Path, config: &Path) -> Result<Answers> {
    let url = flags.storage.clone().ok_or_else(|| {
        Error::usage("--storage is missing: where do backups go?")
            .hint("--storage s3://BUCKET/PREFIX or --storage file:///ABSOLUTE/PATH; or answer questions on a terminal")
    })?;
    Ok(Answers {
        host: flags.name.clone().unwrap_or_else(host_name),
        storage: StorageAnswer {
            url,
            region: flags.region.clone(),
            endpoint: flags.endpoint.clone(),
            path_style: flags.path_style,
            ca_file: flags.ca_file.clone(),
        },
        secrets: secrets_directory(flags, config),
        local: local(flags),
        upload: flags.upload.clone(),
        databases: match flags.clusters()? {
            Some(given) => clusters_at(root, &given),
            None => detect::databases(&found.clusters),
        },
        folders: flags.folders()?.unwrap_or_else(|| detect::folders(found)),
    })
}

/// `secrets` beside the configuration, unless said otherwise.
pub fn secrets_directory(flags: &Flags, config: &Path) -> PathBuf {
    flags.secrets.clone().unwrap_or_else(|| config.with_file_name("secrets"))
}

/// `[local]`: nothing asks for it.
pub fn local(flags: &Flags) -> LocalAnswer {
    LocalAnswer { cache: flags.cache.clone(), spool: flags.spool.clone(), runtime: flags.runtime.clone() }
}

/// Steps for the clusters in these directories.
pub fn clusters_at(root: &Path, directories: &[PathBuf]) -> Vec<Database> {
    let clusters: Vec<_> = directories.iter().map(|data| detect::cluster_at(root, data)).collect();
    detect::databases(&clusters)
}

/// This machine's name, as far as `[host] name` allows.
pub fn host_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect();
    let name = name.trim_start_matches(['-', '_', '.']);
    if name.is_empty() { "pi".into() } else { name.chars().take(63).collect() }
}

/// The text of the configuration and what it means. It is read as any other, so that setup can write none that the agent
/// refuses.
///
/// # Errors
/// What the agent would say of it, without lines of a file that does not exist yet.
pub fn validated(answers: &Answers, config: &Path) -> Result<(String, Settings)> {
    let text = render(answers);
    match config::parse(&text, config) {
        Ok(settings) => Ok((text, settings)),
        Err(errors) => Err(Error::usage(mistakes(&errors)).hint("`pi-agent setup --help` shows every flag")),
    }
}

/// What is wrong, one to a line.
pub fn mistakes(errors: &config::ConfigErrors) -> String {
    let mistakes: Vec<_> = errors.mistakes.iter().map(|mistake| mistake.text.as_str()).collect();
    mistakes.join("\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::error::Kind;

    const CONFIG: &str = "/etc/pi-agent/config.toml";

    fn found() -> Found {
        Found { logs: vec!["/var/log".into()], ..Found::default() }
    }

    fn completed(flags: &Flags) -> Result<Answers> {
        complete(flags, &found(), Path::new("/nonexistent"), Path::new(CONFIG))
    }

    #[test]
    fn a_missing_answer_names_its_flag() {
        let error = completed(&Flags::default()).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.to_string().starts_with("--storage is missing"));
    }

    #[test]
    fn what_is_not_said_is_what_was_found() {
        let flags = Flags { storage: Some("file:///mnt/usb/pi".into()), ..Flags::default() };
        let answers = completed(&flags).unwrap();
        assert_eq!((answers.databases.len(), &*answers.folders[0].name), (0, "logs"));
        assert_eq!(answers.secrets, Path::new("/etc/pi-agent/secrets"));
        let none = Flags { directory: vec!["none".into()], postgres: vec!["/srv/pg".into()], ..flags };
        let answers = completed(&none).unwrap();
        assert_eq!((answers.databases[0].stanza.as_str(), answers.folders.len()), ("main", 0));
        validated(&answers, Path::new(CONFIG)).unwrap();
    }

    #[test]
    fn an_answer_the_agent_would_refuse_is_refused_in_its_words() {
        let flags = Flags { storage: Some("s3://example-bucket/pi".into()), ..Flags::default() };
        let error = validated(&completed(&flags).unwrap(), Path::new(CONFIG)).unwrap_err();
        assert!(error.to_string().contains("region is missing"), "{error}");
        let flags = Flags { storage: Some("ftp://x".into()), name: Some("a b".into()), ..flags };
        let error = validated(&completed(&flags).unwrap(), Path::new(CONFIG)).unwrap_err();
        assert!(error.to_string().contains("a b") && error.to_string().contains("ftp://x"), "{error}");
    }
}
