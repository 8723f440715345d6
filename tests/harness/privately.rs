//! Usual places of a machine, and its network, empty and a test's own.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::{Scratch, sh};

/// Does the work in a thread for which, and for whatever it starts, these directories are empty ones of its own, on the
/// disk that has the scratch directories, and for which there is no network but a loopback of its own. Needs root.
pub fn privately<T: Send>(places: &[&str], work: impl FnOnce() -> T + Send) -> T {
    let scratch = Scratch::new();
    // They stay: to remove one ends the mounts that other tests have there.
    places.iter().for_each(|place| fs::create_dir_all(place).expect("root may"));
    let done = std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).expect("root may");
            let bind = |from: &Path, at: &str, flags| mount(Some(from), at, None::<&str>, flags, None::<&str>);
            bind(Path::new("none"), "/", MsFlags::MS_REC | MsFlags::MS_PRIVATE).expect("root may");
            for place in places {
                let own = scratch.directory(place.trim_start_matches('/'));
                bind(&own, place, MsFlags::MS_BIND).unwrap_or_else(|error| panic!("mount {place}: {error}"));
            }
            sh(Command::new("ip").args(["link", "set", "lo", "up"]));
            work()
        });
        inside.join()
    });
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
