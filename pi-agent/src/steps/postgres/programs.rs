//! Where the programs of one major version of PostgreSQL are.

use std::path::PathBuf;

/// The directory that holds `program` of that major version: Debian's, or that of PostgreSQL's own RPMs.
pub fn folder(version: u32, program: &str) -> Option<PathBuf> {
    [format!("/usr/lib/postgresql/{version}/bin"), format!("/usr/pgsql-{version}/bin")]
        .into_iter()
        .map(PathBuf::from)
        .find(|folder| folder.join(program).exists())
}
