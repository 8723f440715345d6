//! What a restore into a directory leaves alone, though it lies where it would write: the storage, original places that are
//! seen below the target, and links on the way to what is restored. It is refused before anything is written.

use std::fs;
use std::path::{Path, PathBuf};

use crate::config::{Location, Settings};
use crate::error::{Error, Result};
use crate::health::MountTable;
use crate::shown::{shown, typed};

/// Refuses a target that is in any of it.
///
/// # Errors
/// It is.
pub(super) fn check(settings: &Settings, to: &Path) -> Result<()> {
    Mounts::seen().outside_of_storage(settings, to)
}

/// Refuses a target that a person named and that is in a directory of our own: what lies there is removed in time, or taken for ours.
///
/// # Errors
/// It is.
pub fn check_named(settings: &Settings, to: &Path) -> Result<()> {
    let mounts = Mounts::seen();
    let own = [&settings.secrets, &settings.local.cache, &settings.local.runtime, &settings.local.spool];
    match own.into_iter().find(|own| mounts.lies_in(to, own)) {
        Some(own) => {
            Err(Error::usage(format!("restore into {}: {} is a directory of pi-agent's own", shown(to), shown(own)))
                .hint("choose a directory outside of it"))
        }
        None => Ok(()),
    }
}

/// Refuses a restore of these paths into a target that would write over any of it.
///
/// # Errors
/// It would.
pub(super) fn check_paths(settings: &Settings, to: &Path, paths: &[PathBuf]) -> Result<()> {
    let mounts = Mounts::seen();
    paths.iter().try_for_each(|path| mounts.outside_of_storage(settings, &below(to, path)))?;
    mounts.no_original_below(to, paths)?;
    paths.iter().try_for_each(|path| no_link_above(to, path))
}

fn below(to: &Path, path: &Path) -> PathBuf {
    to.join(path.strip_prefix("/").unwrap_or(path))
}

/// Nobody asked to lose what is above the paths: a link to another disk there would become a directory, and what it leads to be
/// out of sight and as spoilt as before.
fn no_link_above(to: &Path, path: &Path) -> Result<()> {
    let above: Vec<_> = path.ancestors().skip(1).collect();
    // From the outside.
    for above in above.into_iter().rev().map(|above| below(to, above)).filter(|above| above != to) {
        match fs::symlink_metadata(&above) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => {
                return Err(Error::usage(format!(
                    "restore {} into {}: {} is a link or a file, and would become a directory",
                    shown(path),
                    shown(to),
                    shown(&above)
                ))
                .hint("restore into a new directory and copy it from there, or with --in-place, which goes where a link leads; or move that away"));
            }
            Err(_) => break,
        }
    }
    Ok(())
}

/// What is mounted, and so at which other paths a directory is seen.
struct Mounts(MountTable);

impl Mounts {
    /// A rescue system without `/proc` may restore, too: then paths are compared as they are.
    fn seen() -> Self {
        Self(MountTable::read(Path::new("/")).unwrap_or_default())
    }

    fn outside_of_storage(&self, settings: &Settings, path: &Path) -> Result<()> {
        match &settings.storage.location {
            Location::File(storage) if self.lies_in(path, storage) => Err(Error::usage(format!(
                "restore into {}: it is in the storage {}, in which a restore changes nothing",
                shown(path),
                shown(storage)
            ))
            .hint("choose a directory outside of it")),
            _ => Ok(()),
        }
    }

    /// Whether a path is a directory, or is in it or would be, whatever mounts and links lead there.
    fn lies_in(&self, path: &Path, directory: &Path) -> bool {
        let (path, directory) = (real(path), real(directory));
        match (self.0.location(&path), self.0.location(&directory)) {
            (Some((one, path)), Some((other, directory))) => one == other && path.starts_with(directory),
            _ => path.starts_with(directory),
        }
    }

    /// An original directory may be mounted below the target once more, as volumes of containers are.
    fn no_original_below(&self, to: &Path, paths: &[PathBuf]) -> Result<()> {
        let to = real(to);
        for mount in self.0.below(&to) {
            let Ok(inside) = mount.at.strip_prefix(&to) else { continue };
            let restored = Path::new("/").join(inside);
            // Into `/`, or into another path of all of it, it is restored where it was, and that is told.
            let comes_there = |path: &&PathBuf| {
                (restored.starts_with(path) || path.starts_with(&restored)) && real(&below(&to, path)) != real(path)
            };
            let mut originals = paths.iter().filter(comes_there).flat_map(|path| self.places(path));
            if let Some(original) = originals.find(|original| self.overlap(original, &mount.at)) {
                return Err(Error::usage(format!(
                    "restore into {}: {} is seen at {}, too, and would be overwritten",
                    shown(&to),
                    shown(&original),
                    shown(&mount.at)
                ))
                .hint(format!("choose another directory, or: umount {}", typed(&mount.at))));
            }
        }
        Ok(())
    }

    /// A path and the disks below it.
    fn places(&self, path: &Path) -> Vec<PathBuf> {
        let path = real(path);
        let below = self.0.below(&path).map(|mount| mount.at.clone()).collect::<Vec<_>>();
        [path].into_iter().chain(below).collect()
    }

    fn overlap(&self, one: &Path, other: &Path) -> bool {
        self.lies_in(one, other) || self.lies_in(other, one)
    }
}

/// A path without links as far as it exists.
fn real(path: &Path) -> PathBuf {
    let found = path.ancestors().find_map(|above| Some((above.canonicalize().ok()?, path.strip_prefix(above).ok()?)));
    found.map_or_else(
        || path.to_owned(),
        |(above, rest)| if rest.as_os_str().is_empty() { above } else { above.join(rest) },
    )
}
