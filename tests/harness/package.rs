//! The Debian package, as `make deb` built it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Scratch, sh};

/// A `.deb`.
#[derive(Clone, Debug)]
pub struct Package {
    file: PathBuf,
}

impl Package {
    /// The one in `build/`, or in `PI_AGENT_PACKAGES`, for this machine's architecture.
    pub fn native() -> Self {
        Self::built(sh(Command::new("dpkg").arg("--print-architecture")).trim())
    }

    /// The one for that architecture.
    pub fn built(architecture: &str) -> Self {
        let folder = std::env::var_os("PI_AGENT_PACKAGES").map_or_else(|| "build".into(), PathBuf::from);
        // A relative one is meant from where the tests are started, and nextest starts each in its crate's directory.
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
        let ending = format!("_{architecture}.deb");
        let is_it = |path: &PathBuf| {
            path.file_name().is_some_and(|name| {
                name.to_string_lossy().starts_with("pi-agent_") && name.to_string_lossy().ends_with(&ending)
            })
        };
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()).filter(is_it);
        let newest = entries.max_by_key(|path| fs::metadata(path).and_then(|data| data.modified()).ok());
        let file = newest
            .unwrap_or_else(|| panic!("no package in {}: `make deb ARCH={architecture}` builds it", folder.display()));
        Self { file }
    }

    /// The same with another version, in `scratch`.
    #[must_use]
    pub fn with_version(&self, scratch: &Scratch, version: &str) -> Self {
        let tree = scratch.join(format!("package-{version}"));
        sh(Command::new("dpkg-deb").arg("--raw-extract").arg(&self.file).arg(&tree));
        let control = tree.join("DEBIAN/control");
        let text = fs::read_to_string(&control).expect("every package has one");
        let lines = text.lines().map(|line| match line.starts_with("Version:") {
            true => format!("Version: {version}\n"),
            false => format!("{line}\n"),
        });
        fs::write(&control, lines.collect::<String>()).expect("our own file");
        let file = scratch.join(format!("pi-agent_{version}.deb"));
        sh(Command::new("dpkg-deb").args(["--build", "--root-owner-group", "-Zgzip", "-z1"]).arg(&tree).arg(&file));
        Self { file }
    }

    /// Its version.
    pub fn version(&self) -> String {
        sh(Command::new("dpkg-deb").arg("--field").arg(&self.file).arg("Version")).trim().to_owned()
    }

    /// The program in it, unpacked into `scratch`.
    pub fn program(&self, scratch: &Scratch) -> PathBuf {
        let tree = scratch.join("package");
        sh(Command::new("dpkg-deb").arg("--extract").arg(&self.file).arg(&tree));
        tree.join("usr/bin/pi-agent")
    }

    /// What is in it.
    pub fn bytes(&self) -> Vec<u8> {
        fs::read(&self.file).unwrap_or_else(|error| panic!("read {}: {error}", self.file.display()))
    }
}
