//! pg_dump and pg_dumpall, as streams.

use std::io::{self, Read};
use std::path::PathBuf;
use std::time::Duration;

use super::programs::{self, major};
use super::server::Server;
use super::session;
use crate::error::{Context, Kind};
use crate::process::{Piped, Program};
use crate::repository::Stream;
use crate::{Error, Result};

/// Roles, their password hashes, tablespaces: what belongs to no database.
pub(crate) const GLOBALS: &str = "globals.sql";
/// The ending of a database's file.
pub(crate) const ENDING: &str = ".dump";

/// A table that is locked for longer is being rebuilt; the next night is a better time.
const LOCK_PATIENCE: &str = "--lock-wait-timeout=5min";
/// A dump that says nothing for so long hangs: a sequence of dead rows that takes as long to skip is hard to imagine.
const SILENCE: Duration = Duration::from_secs(30 * 60);

/// The programs that dump a server of one major version.
pub(super) struct PgDump {
    /// Empty: those in the path.
    folder: PathBuf,
}

impl PgDump {
    /// Finds them: those of the server's own version, else newer ones.
    ///
    /// # Errors
    /// There are none.
    pub(super) fn find(version: u32) -> Result<Self> {
        if let Some(folder) = programs::folder(version, "pg_dump") {
            return Ok(Self { folder });
        }
        let hint = format!("apt install postgresql-client-{version}");
        let output =
            Program::new("pg_dump", ["--version"]).run(&mut |_, _| ()).map_err(|error| match error.kind() {
                Kind::NotFound => Error::new("pg_dump is not installed").hint(&hint),
                _ => error,
            })?;
        match major(&output.stdout) {
            Some(found) if found >= version => Ok(Self { folder: PathBuf::new() }),
            Some(found) => {
                Err(Error::new(format!("pg_dump {found} is older than the server, PostgreSQL {version}")).hint(hint))
            }
            None => Err(Error::new(format!("understand pg_dump's version: {:?}", output.stdout.trim())).hint(hint)),
        }
    }

    /// Roles and tablespaces, and each of these databases, each within `deadline`.
    pub(super) fn streams(
        &self,
        server: &Server<'_>,
        databases: &[(String, String)],
        deadline: Duration,
    ) -> Vec<Stream> {
        let globals = self.program(server, "pg_dumpall", ["--globals-only".to_owned()], deadline);
        let mut streams = vec![stream(GLOBALS.into(), "the roles and tablespaces".into(), globals)];
        streams.extend(databases.iter().map(|(database, encoding)| {
            // Not compressed: the repository does that, and finds what is the same as last month.
            let arguments = [
                "--format=custom".to_owned(),
                "--compress=0".into(),
                LOCK_PATIENCE.into(),
                // That of a session may be a role's, in which not every text can be written.
                format!("--encoding={encoding}"),
                connection_to(database),
            ];
            let program = self.program(server, "pg_dump", arguments, deadline);
            stream(file_name(database), format!("database {database}"), program)
        }));
        streams
    }

    fn program<const N: usize>(
        &self,
        server: &Server<'_>,
        name: &str,
        arguments: [String; N],
        deadline: Duration,
    ) -> Program {
        Program::new(self.folder.join(name), server.connection().into_iter().chain(arguments))
            .as_user(server.user)
            .env("PGCONNECT_TIMEOUT", "15")
            .env(session::VARIABLE, session::OF_PG_DUMP)
            .within(deadline)
    }
}

fn stream(name: String, what: String, program: Program) -> Stream {
    let begin = move || -> Result<Box<dyn Read + Send>> {
        let output = program.pipe(SILENCE).context(|| format!("dump {what}"))?;
        Ok(Box::new(Dump { what, output }))
    };
    Stream { name, begin: Box::new(begin) }
}

/// The output of one of them, whose errors say what was being dumped.
struct Dump {
    what: String,
    output: Piped,
}

impl Read for Dump {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.output.read(buffer).map_err(|error| {
            let what = format!("dump {}", self.what);
            io::Error::other(match error.downcast::<Error>() {
                Ok(error) => Error::new(what).kind_of(error.kind()).caused_by(error),
                Err(error) => Error::new(what).caused_by(error),
            })
        })
    }
}

/// A database's name alone would be read as a connection string if it looked like one.
pub(crate) fn connection_to(database: &str) -> String {
    format!("--dbname={}", connection_string(database))
}

/// The same as an argument of its own.
pub(crate) fn connection_string(database: &str) -> String {
    format!("dbname='{}'", database.replace('\\', r"\\").replace('\'', r"\'"))
}

/// A database may be named anything: what is not plain in a file name is written as in an address, `%2F`.
pub(crate) fn file_name(database: &str) -> String {
    let mut name = String::new();
    for byte in database.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => name.push(char::from(byte)),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    name + ENDING
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_of_a_database_is_a_plain_file_name_and_no_connection_string() {
        assert_eq!(file_name("shop_2-A"), "shop_2-A.dump");
        assert_eq!(file_name("../a b.dump"), "%2E%2E%2Fa%20b%2Edump.dump");
        assert_eq!(file_name("ü"), "%C3%BC.dump");
        assert_eq!(connection_to(r"host=x 'y\"), r"--dbname=dbname='host=x \'y\\'");
    }
}
