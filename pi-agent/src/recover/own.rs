//! What is on a machine because it is being recovered: the kit's files, this program's directories, and what other parts have
//! brought back. A path of a step may well hold some of it, as setup's `/etc/pi-agent` does. All that is in nobody's way and stays as it
//! is; the rest of such a path comes back around it.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::Options;
use super::note::Notebook;
use crate::config::{Location, StateDirectory, Step};
use crate::kit::{Found, KitFile};
use crate::restore::beside::Beside;
use crate::steps::postgres::container;

/// Where all that is.
pub struct Own<'a> {
    kit: &'a [KitFile],
    /// The kit's files and this program's directories, by each name that they have.
    ours: BTreeSet<PathBuf>,
    /// Where each database belongs. They come last.
    databases: Vec<PathBuf>,
}

impl<'a> Own<'a> {
    /// That of a recovery.
    pub fn of(options: &Options, kit: &'a Found, directory: &StateDirectory) -> Self {
        let (settings, local) = (&kit.settings, &kit.settings.local);
        let mut ours: BTreeSet<_> = kit.files.iter().map(|file| file.path.clone()).collect();
        ours.extend([
            options.kit.clone(),
            settings.secrets.join("master-keys"),
            directory.path().to_owned(),
            local.cache.clone(),
            local.spool.clone(),
            local.runtime.clone(),
            settings.restore_test.directory.clone(),
        ]);
        if let Location::File(storage) = &settings.storage.location {
            ours.insert(storage.clone());
        }
        let real: Vec<_> = ours.iter().filter_map(|path| real(path)).collect();
        ours.extend(real);

        let database = |step: &Step| {
            let here = container::data_on_this_machine(step.postgres()?);
            let told = || kit.clusters.iter().find(|cluster| cluster.step == step.name)?.data.clone();
            here.or_else(told)
        };
        let databases = settings.steps.iter().filter_map(database).collect();
        Self { kit: &kit.files, ours, databases }
    }

    /// What comes to that place, around all of this.
    pub fn around(&self, beside: Beside, notes: &Notebook<'_>) -> Beside {
        let stays: Vec<_> = self.below(&beside.place, notes).cloned().collect();
        beside.around(&stays)
    }

    /// Of all this, what is at that place or below; of other parts, what is below.
    fn below<'b>(&'b self, place: &'b Path, notes: &'b Notebook<'_>) -> impl Iterator<Item = &'b PathBuf> {
        let parts = self.databases.iter().chain(notes.places()).filter(move |part| *part != place);
        self.ours.iter().chain(parts).filter(move |path| path.starts_with(place))
    }

    /// What a restored path holds of all this, and did not bring back; with those of the kit's files that it holds otherwise.
    pub fn left_out(&self, beside: &Beside, notes: &Notebook<'_>) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let held = |path: &&PathBuf| fs::symlink_metadata(beside.restored(path)).is_ok();
        let left_out: BTreeSet<_> = self.below(&beside.place, notes).filter(held).cloned().collect();
        let of_kit = self.kit.iter().filter(|file| left_out.contains(&file.path));
        let others = of_kit.filter(|file| differs(&beside.restored(&file.path), file)).map(|file| file.path.clone());
        let others = others.collect();
        (left_out.into_iter().collect(), others)
    }
}

/// A restored file holds something else than the kit's.
fn differs(restored: &Path, file: &KitFile) -> bool {
    let kits = file.content.reveal().as_bytes();
    let mut found = Vec::new();
    // It comes from storage: a link leads anywhere, and a file is of any length.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(restored);
    let read = opened.and_then(|opened| opened.take(kits.len() as u64 + 1).read_to_end(&mut found));
    read.is_err() || found != kits
}

/// What a path is called when no link is left in it, when that is another name.
fn real(path: &Path) -> Option<PathBuf> {
    let above = path.ancestors().find(|above| above.exists())?;
    let real = above.canonicalize().ok()?.join(path.strip_prefix(above).ok()?);
    (real != path).then_some(real)
}
