//! Where the programs of one major version of PostgreSQL are, and how they are started.

use std::error::Error as _;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::image::Image;
use crate::config::Postgres;
use crate::docker::Docker;
use crate::error::{Error, Kind, Result};
use crate::process::{Program, User};

/// The directory that holds `program` of that major version: Debian's, or that of PostgreSQL's own RPMs.
pub fn folder(version: u32, program: &str) -> Option<PathBuf> {
    [format!("/usr/lib/postgresql/{version}/bin"), format!("/usr/pgsql-{version}/bin")]
        .into_iter()
        .map(PathBuf::from)
        .find(|folder| folder.join(program).exists())
}

/// Where they were found.
#[derive(Clone, Debug)]
pub enum Found {
    /// In this directory.
    Here(PathBuf),
    /// In this image of Docker's.
    Image(String),
}

impl Found {
    /// This machine's; for a container's cluster else those of its image. Nothing has to be running.
    ///
    /// # Errors
    /// There are none.
    pub fn of(version: u32, postgres: &Postgres, runtime: &Path, user: &User) -> Result<Self> {
        match folder(version, "postgres") {
            Some(folder) => Ok(Self::Here(folder)),
            None => Self::image(version, postgres, runtime, user),
        }
    }

    /// Those of the original's image, which have the libraries and the locales that the data was written with; where its
    /// container is not there, this machine's.
    ///
    /// # Errors
    /// There are none.
    pub fn of_original(version: u32, postgres: &Postgres, runtime: &Path, user: &User) -> Result<Self> {
        let own = postgres.container.as_ref().map(|name| Docker::open()?.container(name));
        match own {
            Some(Ok(container)) if Image::start(&container.image, version, runtime, user, &[]).is_ok() => {
                Ok(Self::Image(container.image))
            }
            Some(Err(error)) if error.kind() != Kind::NotFound => Err(error),
            _ => Self::of(version, postgres, runtime, user),
        }
    }

    /// Each is tried: a container may have been made anew, of another version.
    fn image(version: u32, postgres: &Postgres, runtime: &Path, user: &User) -> Result<Self> {
        let none = Error::new(format!("PostgreSQL {version} is not installed here"));
        let Some(name) = &postgres.container else {
            return Err(none.hint(format!(
                "apt install postgresql-{version}; where there is none any more: a dump in pi-agent points goes into any newer one"
            )));
        };
        let official = format!("postgres:{version}");
        let mut none = none.hint(format!("docker pull {official}, or: apt install postgresql-{version}"));
        let own = Docker::open().and_then(|docker| docker.container(name)).map(|container| container.image);
        // What is wrong with the original's is told rather than that there is no other.
        for image in own.into_iter().chain([official]) {
            match Image::start(&image, version, runtime, user, &[]) {
                Ok(_) => return Ok(Self::Image(image)),
                Err(error) if none.source().is_none() => none = none.caused_by(error),
                Err(_) => {}
            }
        }
        Err(none)
    }

    /// Ready to be started on restored data, confined. In an image they see these directories and no others of this machine.
    ///
    /// # Errors
    /// Docker's.
    pub fn open(&self, version: u32, runtime: &Path, user: &User, directories: &[&Path]) -> Result<Programs> {
        Ok(match self {
            Self::Here(folder) => Programs { folder: folder.clone(), image: None, confined: true },
            Self::Image(image) => {
                let image = Image::start(image, version, runtime, user, directories)?;
                Programs { folder: PathBuf::new(), image: Some(image), confined: true }
            }
        })
    }
}

/// Programs of one version, which can be started. The default are those in the path, for a server that is not ours.
#[derive(Debug, Default)]
pub struct Programs {
    /// Empty: those in the path.
    folder: PathBuf,
    /// It is there as long as this.
    image: Option<Image>,
    /// They work on what somebody else has written.
    confined: bool,
}

impl Programs {
    /// One of them, not yet started.
    pub fn program<A: Into<OsString>>(&self, name: &str, arguments: impl IntoIterator<Item = A>) -> Program {
        let program = Program::new(self.folder.join(name), arguments);
        match &self.image {
            Some(image) => image.lead(program),
            None if self.confined => program.confined(),
            None => program,
        }
    }
}

/// The 15 of `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
pub(super) fn major(version: &str) -> Option<u32> {
    let number = version.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_releases_and_betas() {
        assert_eq!(major("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major("pg_dump (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major("no version"), None);
    }
}
