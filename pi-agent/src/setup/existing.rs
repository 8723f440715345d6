//! A configuration that exists is kept. A flag that says something else is an error, never a silent change.

use std::path::Path;

use super::complete::secrets_directory;
use super::estimate::upload_limit;
use super::flags::Flags;
use crate::config::{self, Location, Settings, Source};
use crate::error::{Error, Kind, Result};

/// Makes sure that no flag contradicts the configuration.
///
/// # Errors
/// The first flag that does, with what the configuration says.
pub fn agree(flags: &Flags, settings: &Settings) -> Result<()> {
    let file = settings.file.display();
    let check = |flag: &str, given: Option<String>, has: String| match given {
        Some(given) if given != has => {
            let has = if has.is_empty() { "nothing of the kind".to_owned() } else { has };
            Err(Error::usage(format!("{flag} {given} contradicts {file}, which says {has}")).hint(
                "leave the flag out, edit the file, or add --overwrite: the old file then stays beside the new one",
            ))
        }
        _ => Ok(()),
    };
    let shown = |path: &Path| path.display().to_string();
    check("--name", flags.name.clone(), settings.host.clone())?;
    let url = flags.storage.as_ref().map(|url| url.trim_end_matches('/').to_owned());
    check("--storage", url, settings.storage.location.to_string())?;
    let s3 = match &settings.storage.location {
        Location::S3(s3) => Some(s3),
        Location::File(_) => None,
    };
    check("--region", flags.region.clone(), s3.map(|s3| s3.region.clone()).unwrap_or_default())?;
    let endpoint = flags.endpoint.as_ref().map(|url| url.trim_end_matches('/').to_owned());
    check("--endpoint", endpoint, s3.and_then(|s3| s3.endpoint.clone()).unwrap_or_default())?;
    let path_style = flags.path_style.map(|flag| flag.to_string());
    check("--path-style", path_style, s3.map(|s3| s3.path_style.to_string()).unwrap_or_default())?;
    let ca_file = s3.and_then(|s3| s3.ca_file.as_deref()).map(shown).unwrap_or_default();
    check("--ca-file", flags.ca_file.as_deref().map(shown), ca_file)?;
    let secrets = flags.secrets.is_some().then(|| shown(&secrets_directory(flags, &settings.file)));
    check("--secrets", secrets, shown(&settings.secrets))?;
    check("--cache", flags.cache.as_deref().map(shown), shown(&settings.local.cache))?;
    check("--spool", flags.spool.as_deref().map(shown), shown(&settings.local.spool))?;
    check("--runtime", flags.runtime.as_deref().map(shown), shown(&settings.local.runtime))?;
    let upload = flags
        .upload
        .as_deref()
        .map(|text| config::size(text).map_or_else(|| text.to_owned(), |bytes| format!("{bytes} bytes per second")));
    let limit = upload_limit(&settings.file).map(|bytes| format!("{bytes} bytes per second"));
    check("--upload", upload, limit.unwrap_or_default())?;
    steps(flags, settings)
}

/// Each step asked for must be there as asked, and `none` means none.
fn steps(flags: &Flags, settings: &Settings) -> Result<()> {
    let file = settings.file.display();
    let wrong = |what: String| {
        let hint = "edit the file (`pi-agent doctor` checks it), or add --overwrite";
        Err(Error::usage(format!("{what} {file}")).hint(hint))
    };
    if let Some(clusters) = flags.clusters()? {
        let known: Vec<_> = settings.steps.iter().filter_map(|step| step.postgres()).collect();
        if clusters.is_empty() && !known.is_empty() {
            return wrong("--postgres none contradicts the postgres step in".into());
        }
        if let Some(missing) = clusters.iter().find(|data| known.iter().all(|one| one.data_directory != **data)) {
            return wrong(format!("--postgres {} is not in", missing.display()));
        }
    }
    if let Some(folders) = flags.folders()? {
        let directories: Vec<_> = settings
            .steps
            .iter()
            .filter_map(|step| match &step.source {
                Source::Directory(directory) => Some((&step.name, directory)),
                _ => None,
            })
            .collect();
        if folders.is_empty() && !directories.is_empty() {
            return wrong("--directory none contradicts the directory steps in".into());
        }
        for folder in folders {
            let same = directories.iter().any(|(name, known)| **name == folder.name && known.paths == folder.paths);
            if !same {
                return wrong(format!("--directory {}=… is not so in", folder.name));
            }
        }
    }
    Ok(())
}

/// The configuration that exists; `None` when there is none.
///
/// # Errors
/// It is wrong.
pub fn load(file: &Path) -> Result<Option<Settings>> {
    match file.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        _ => config::load(file).map(Some).map_err(|errors| {
            let error = Error::from(errors).kind_of(Kind::Usage);
            error.hint("correct the file, or replace it with --overwrite: it then stays beside the new one")
        }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::setup::complete::{complete, validated};
    use crate::setup::detect::Found;

    fn flags() -> Flags {
        Flags {
            name: Some("pi".into()),
            storage: Some("s3://example-bucket/pi/".into()),
            endpoint: Some("https://garage.home:3900/".into()),
            postgres: vec!["/srv/pg".into()],
            directory: vec!["logs=/srv/logs,/var/log".into()],
            spool: Some("/srv/spool".into()),
            ..Flags::default()
        }
    }

    #[test]
    fn the_same_flags_agree_and_others_are_named() {
        let config = Path::new("/etc/pi-agent/config.toml");
        let answers = complete(&flags(), &Found::default(), Path::new("/nonexistent"), config).unwrap();
        let (_, settings) = validated(&answers, config).unwrap();
        agree(&flags(), &settings).unwrap();
        agree(&Flags::default(), &settings).unwrap();
        let refused = |flags: Flags, what: &str| {
            let error = agree(&flags, &settings).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage);
            assert!(error.to_string().contains(what) && error.advice().unwrap().contains("--overwrite"), "{error}");
        };
        let none = vec!["none".into()];
        refused(Flags { name: Some("other".into()), ..Flags::default() }, "--name other contradicts");
        refused(Flags { storage: Some("file:///mnt".into()), ..Flags::default() }, "says s3://example-bucket/pi");
        refused(Flags { ca_file: Some("/ca".into()), ..Flags::default() }, "says nothing of the kind");
        refused(Flags { path_style: Some(false), ..Flags::default() }, "--path-style false");
        refused(Flags { postgres: none.iter().map(|text: &String| text.into()).collect(), ..Flags::default() }, "none");
        refused(Flags { postgres: vec!["/srv/other".into()], ..Flags::default() }, "/srv/other is not in");
        refused(Flags { directory: none, ..Flags::default() }, "--directory none");
        refused(Flags { directory: vec!["logs=/srv/logs".into()], ..Flags::default() }, "--directory logs=");
    }
}
