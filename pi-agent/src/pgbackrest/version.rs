//! Which pgBackRest is installed, and which PostgreSQL it knows.

use std::fmt;

use super::program;
use crate::error::Kind;
use crate::{Error, Result};

/// A version of pgBackRest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 2 in 2.53.1
    pub major: u32,
    /// 53 in 2.53.1
    pub minor: u32,
    /// 1 in 2.53.1
    pub patch: u32,
}

impl Version {
    /// Bundles, zst and what else is relied on; nothing older is tested.
    pub const OLDEST: Self = Self { major: 2, minor: 45, patch: 0 };

    /// The newest PostgreSQL major that it can back up, from pgBackRest's release notes.
    pub fn newest_postgres(self) -> u32 {
        const KNOWS: [(Version, u32); 3] = [
            (Version { major: 2, minor: 55, patch: 0 }, 18),
            (Version { major: 2, minor: 53, patch: 1 }, 17),
            (Version { major: 2, minor: 48, patch: 0 }, 16),
        ];
        KNOWS.iter().find(|(since, _)| self >= *since).map_or(15, |(_, postgres)| *postgres)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().strip_prefix("pgBackRest ")?.split('.').map(|part| {
            let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u32>().ok()
        });
        Some(Self { major: parts.next()??, minor: parts.next()??, patch: parts.next().flatten().unwrap_or(0) })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        if self.patch > 0 { write!(f, ".{}", self.patch) } else { Ok(()) }
    }
}

/// The version installed.
///
/// # Errors
/// Kind `NotFound`: it is not installed. Also when it is older than [`Version::OLDEST`].
pub fn version() -> Result<Version> {
    let output = program::version().run(&mut |_, _| ()).map_err(missing)?;
    let version = Version::parse(&output.stdout)
        .ok_or_else(|| Error::new(format!("pgbackrest says an odd version: {:?}", output.stdout.trim())))?;
    if version < Version::OLDEST {
        return Err(Error::new(format!("pgbackrest {version} is too old, {} is wanted", Version::OLDEST))
            .hint("apt install pgbackrest from Debian 12 or newer, or from apt.postgresql.org"));
    }
    Ok(version)
}

/// Says how to install it when it is not there.
pub(super) fn missing(error: Error) -> Error {
    match error.kind() {
        Kind::NotFound => {
            Error::new("pgbackrest is not installed").kind_of(Kind::NotFound).hint("apt install pgbackrest")
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        let of = |text| Version::parse(text).expect("a version");
        assert_eq!(of("pgBackRest 2.45\n"), Version::OLDEST);
        assert_eq!(of("pgBackRest 2.53.1").to_string(), "2.53.1");
        assert_eq!(of("pgBackRest 2.56dev").to_string(), "2.56");
        assert!(Version::parse("bash: no").is_none());
        assert_eq!(of("pgBackRest 2.45").newest_postgres(), 15);
        assert_eq!(of("pgBackRest 2.53").newest_postgres(), 16);
        assert_eq!(of("pgBackRest 2.53.1").newest_postgres(), 17);
        assert_eq!(of("pgBackRest 2.55").newest_postgres(), 18);
    }
}
