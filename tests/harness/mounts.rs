//! Mounts that only this test sees.

use std::cell::Cell;
use std::path::Path;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::sh;

thread_local! {
    static OURS: Cell<bool> = const { Cell::new(false) };
}

/// From here on, what this thread and all that it starts mount is seen by nobody else. Without this, a test beside it that
/// makes a mount namespace (a booted machine, say) takes a copy of the mount along, and what was unmounted here is not:
/// XFS then refuses the same disk under another number, and a device stays busy. Whatever happens, no mount stays behind.
/// Needs root.
pub fn mounts_of_our_own() {
    if OURS.replace(true) {
        return;
    }
    unshare(CloneFlags::CLONE_NEWNS).expect("root may");
    let everything = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&Path>, "/", None::<&str>, everything, None::<&str>).expect("root may");
}

/// A number that the kernel gives to an image, as it does to disks in the order in which it finds them; kept until dropped.
#[derive(Debug)]
pub struct LoopDevice(String);

impl LoopDevice {
    /// Gives one to the image.
    pub fn of(image: &Path) -> Self {
        mounts_of_our_own();
        Self(sh(Command::new("losetup").args(["--find", "--show"]).arg(image)).trim().to_owned())
    }

    /// `/dev/loopN`.
    pub fn path(&self) -> &str {
        &self.0
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}
