//! Tablespaces of a database that took its place: they come back beside the data, in `DATA.tablespaces`.

use std::fs;
use std::path::{Path, PathBuf};

use super::beside::Beside;
use super::outside::relink;
use super::rename::rename_held;
use super::{beside, is_empty};
use crate::docker::Docker;
use crate::durable::make_durable;
use crate::error::{Context, Error, Result};
use crate::process::User;
use crate::theirs::Theirs;

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
            rename_held(&settled, &aside).context(doing)?;
            let links = (seen(container, &settled)?, seen(container, &aside)?);
            lead(kept, &links.0, &links.1)?;
            old = Some(aside);
        }
        rename_held(&staged, &settled).context(doing)?;
    }
    if !is_empty(&settled)? {
        let there = seen(container, &settled);
        lead(&beside_it.place, &staged, there.as_ref().unwrap_or(&settled))?;
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
fn lead(data: &Path, from: &Path, to: &Path) -> Result<()> {
    let doing = || format!("lead the tablespaces of {} to {}", data.display(), to.display());
    let user = User::in_container_owning(data)?;
    let there = Theirs::open(data, &user)?;
    there.act(|| {
        for link in fs::read_dir(there.inside("pg_tblspc")).context(doing)? {
            let link = Path::new("pg_tblspc").join(link.context(doing)?.file_name());
            let led_to = fs::read_link(there.inside(&link)).unwrap_or_default();
            if let Ok(rest) = led_to.strip_prefix(from) {
                relink(&there, &link, &to.join(rest)).context(doing)?;
            }
        }
        Ok(())
    })
}
