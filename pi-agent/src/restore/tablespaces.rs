//! Tablespaces of a database that took its place: they come back beside the data, in `DATA.tablespaces`.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::beside::Beside;
use super::{beside, is_empty};
use crate::docker::Docker;
use crate::durable::make_durable;
use crate::error::{Context, Error, Result};

pub(super) const SUFFIX: &str = ".tablespaces";

/// Where the server sees a path of this machine that need not be there yet.
///
/// # Errors
/// Docker does not answer, there is no such container, or it does not see it.
pub fn seen(container: Option<&String>, path: &Path) -> Result<PathBuf> {
    let Some(name) = container else { return Ok(path.into()) };
    let seen = path.parent().zip(path.file_name()).zip(Some(Docker::open()?.container(name)?));
    let seen = seen.and_then(|((above, last), container)| Some(container.sees(above)?.join(last)));
    seen.ok_or_else(|| {
        Error::usage(format!("the container {name} does not see {}, where its tablespaces come", path.display())).hint(
            "have a volume hold the directory above the data, too; or restore with --to DIR: it says how to bring them into their places",
        )
    })
}

/// Where those of this cluster come.
pub fn place(beside_it: &Beside) -> PathBuf {
    beside(beside_it.base(), SUFFIX)
}

/// From beside the stage to beside the data; those of the old that were there go with it. The same again is fine. What of the
/// old is kept besides its directory.
///
/// # Errors
/// They cannot be renamed, or the server does not see them.
pub fn settle(beside_it: &Beside, kept: Option<&Path>, container: Option<&String>) -> Result<Option<PathBuf>> {
    let (staged, settled) = (beside(&beside_it.stage, SUFFIX), place(beside_it));
    let doing = || format!("put the tablespaces in {}", settled.display());
    let mut old = None;
    if !is_empty(&staged)? {
        if let (Some(kept), false) = (kept, is_empty(&settled)?) {
            let aside = beside(kept, SUFFIX);
            fs::rename(&settled, &aside).context(doing)?;
            let links = (seen(container, &settled)?, seen(container, &aside)?);
            lead(beside_it, kept, &links.0, &links.1).context(doing)?;
            old = Some(aside);
        }
        fs::rename(&staged, &settled).context(doing)?;
    }
    if !is_empty(&settled)? {
        let there = seen(container, &settled);
        lead(beside_it, &beside_it.place, &staged, there.as_ref().unwrap_or(&settled)).context(doing)?;
        // A recovery notes that the database is in its place.
        make_durable(&settled)?;
        there.map_err(|error| {
            Error::new(format!("the server may not see its tablespaces in {}", settled.display()))
                .hint(format!(
                    "move them into volumes, and lead the links in {}/pg_tblspc to their paths in the container",
                    beside_it.place.display()
                ))
                .caused_by(error)
        })?;
    }
    Ok(old)
}

/// The links of that cluster, to below `to` instead of below `from`.
fn lead(beside_it: &Beside, data: &Path, from: &Path, to: &Path) -> io::Result<()> {
    // In one moment: without its link a tablespace would be forgotten.
    let new = beside(&beside_it.stage, ".link");
    for link in fs::read_dir(data.join("pg_tblspc"))? {
        let link = link?.path();
        if let Ok(rest) = fs::read_link(&link).unwrap_or_default().strip_prefix(from) {
            let _ = fs::remove_file(&new);
            symlink(to.join(rest), &new)?;
            fs::rename(&new, link)?;
        }
    }
    Ok(())
}
