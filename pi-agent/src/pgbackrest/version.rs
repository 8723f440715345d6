//! The installed pgBackRest, and the PostgreSQL versions that each release supports.

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

/// The first release that can back up each major version of PostgreSQL as it was released: one that knows only a beta
/// of it may refuse its `pg_control` or its WAL. Older majors are known to every release that we accept (of 9.x, 9.3 went
/// with 2.49, 9.4 with 2.55 and 9.5 with 2.58).
///
/// From pgBackRest's release notes, and from `postgres.yaml` and `version.vendor.h` of each tag. 2.59 knows the WAL of
/// PostgreSQL 19 beta 2 (page magic D120), which beta 3 changed (D121); 2.59.1 knows that.
const FIRST: [(u32, Version); 4] = [
    (16, Version::new(2, 48, 0)),
    (17, Version::new(2, 53, 1)),
    (18, Version::new(2, 55, 0)),
    (19, Version::new(2, 59, 1)),
];

impl Version {
    /// Bundles, zst and what else is relied on; nothing older is tested.
    pub const OLDEST: Self = Self::new(2, 45, 0);
    /// The first whose `restore` and `expire` stop at backups that hold pages with wrong checksums, unless told otherwise.
    pub(super) const STOPS_AT_DAMAGED_PAGES: Self = Self::new(2, 60, 0);
    /// The newest release that [`FIRST`] was made for. A newer one may support a newer PostgreSQL.
    const NEWEST: Self = Self::new(2, 60, 0);

    const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// The newest PostgreSQL major that it can back up, as far as is known here.
    pub fn newest_postgres(self) -> u32 {
        FIRST.iter().rev().find(|(_, first)| self >= *first).map_or(15, |(postgres, _)| *postgres)
    }

    /// It is newer than what is known here, so that it may support a newer PostgreSQL than [`Self::newest_postgres`].
    pub fn is_unknown(self) -> bool {
        (self.major, self.minor) > (Self::NEWEST.major, Self::NEWEST.minor)
    }

    /// Checks that it can back up that PostgreSQL major. A release that is newer than what is known here may, and says itself
    /// when it cannot.
    ///
    /// # Errors
    /// It cannot; the hint names the first release that can.
    pub fn check_postgres(self, postgres: u32) -> Result<()> {
        let first = FIRST.iter().find(|(known, _)| *known == postgres).map(|(_, first)| *first);
        if postgres <= self.newest_postgres() || (first.is_none() && self.is_unknown()) {
            return Ok(());
        }
        let hint = match first {
            Some(first) => {
                format!("PostgreSQL {postgres} needs pgbackrest {first} or newer, for example from apt.postgresql.org")
            }
            None => format!(
                "PostgreSQL {postgres} needs a pgbackrest newer than {}, for example from apt.postgresql.org",
                Self::NEWEST
            ),
        };
        Err(Error::new(format!("pgbackrest {self} does not support PostgreSQL {postgres}")).hint(hint))
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
    }

    #[test]
    fn each_release_supports_what_its_notes_say() {
        let newest = |text: &str| Version::parse(&format!("pgBackRest {text}")).expect("a version").newest_postgres();
        let releases = ["2.45", "2.47", "2.48", "2.52.1", "2.53", "2.53.1", "2.54.2", "2.55.0", "2.58.0"];
        assert_eq!(releases.map(newest), [15, 15, 16, 16, 16, 17, 17, 18, 18]);
        // 2.59.0 cannot read the WAL of the PostgreSQL 19 that was released.
        assert_eq!(["2.59.0", "2.59.1", "2.60.0"].map(newest), [18, 19, 19]);
    }

    #[test]
    fn an_unsupported_postgresql_is_refused_with_the_release_that_supports_it() {
        let check = |version: Version, postgres| {
            version.check_postgres(postgres).map_err(|error| {
                let hint = error.advice().expect("a hint").split(", for example").next().map(str::to_owned);
                (error.to_string(), hint.unwrap_or_default())
            })
        };
        assert_eq!(check(Version::OLDEST, 15), Ok(()));
        assert_eq!(check(Version::OLDEST, 10), Ok(()));
        assert_eq!(check(Version::new(2, 59, 1), 19), Ok(()));
        let refused = |what: &str, hint: &str| Err((what.to_owned(), hint.to_owned()));
        assert_eq!(
            check(Version::OLDEST, 17),
            refused("pgbackrest 2.45 does not support PostgreSQL 17", "PostgreSQL 17 needs pgbackrest 2.53.1 or newer")
        );
        assert_eq!(
            check(Version::new(2, 59, 0), 19),
            refused("pgbackrest 2.59 does not support PostgreSQL 19", "PostgreSQL 19 needs pgbackrest 2.59.1 or newer")
        );
        assert_eq!(
            check(Version::new(2, 60, 3), 20),
            refused(
                "pgbackrest 2.60.3 does not support PostgreSQL 20",
                "PostgreSQL 20 needs a pgbackrest newer than 2.60"
            )
        );
    }

    #[test]
    fn a_release_newer_than_the_table_is_trusted_with_a_newer_postgresql() {
        assert!(Version::new(2, 61, 0).check_postgres(20).is_ok());
        assert!(Version::new(3, 0, 0).check_postgres(20).is_ok());
        assert!(Version::new(2, 61, 0).is_unknown() && !Version::new(2, 60, 1).is_unknown());
    }

    #[test]
    fn no_version_panics() {
        crate::fuzzed::fuzz_text(&["pgBackRest 2.53.1\n", "pgBackRest 2.56dev"], |text| {
            let _ = Version::parse(text).map(Version::newest_postgres);
        });
    }
}
