//! What a cluster that does not run says of itself in its control file, read by its own `pg_controldata`.

use std::ffi::OsString;
use std::path::Path;

use super::programs::Programs;
use crate::error::{Error, Result};
use crate::pgbackrest::lsn;
use crate::process::User;

/// Part of a control file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Control {
    /// The major version of the server that wrote it, or an earlier one with such a file.
    pub version: u32,
    /// The server ended in an orderly way: of restored data, its recovery came to its end.
    pub is_shut_down: bool,
    /// `max_prepared_transactions` of the server that wrote it.
    pub prepared_transactions: u32,
    /// `max_locks_per_transaction` of the server that wrote it.
    pub locks_per_transaction: u32,
    /// The position of the last checkpoint: of restored data, right behind the end of their recovery.
    pub checkpoint: u64,
    /// MiB of a WAL segment.
    pub segment: u64,
}

impl Control {
    /// The control file of this data directory.
    ///
    /// # Errors
    /// `pg_controldata` cannot be started, or does not understand the file.
    pub fn read(programs: &Programs, user: &User, data: &Path) -> Result<Self> {
        let doing = || format!("read the control file of {}", data.display());
        let program = programs.program("pg_controldata", [OsString::from("-D"), data.into()]).as_user(user);
        let output = program.run(&mut |_, _| ())?;
        match Self::parse(&output.stdout).filter(|_| output.status.success()) {
            Some(control) => Ok(control),
            None => Err(Error::new(format!("{}: {}", doing(), output.stderr.trim()))),
        }
    }

    /// Reads it in the untranslated form, which our programs' `LANG` asks for.
    fn parse(text: &str) -> Option<Self> {
        let value = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(':'));
            lines.find_map(|(found, value)| (found == name).then(|| value.trim()))
        };
        Some(Self {
            version: value("pg_control version number")?.parse::<u32>().ok()? / 100,
            is_shut_down: value("Database cluster state")? == "shut down",
            prepared_transactions: value("max_prepared_xacts setting")?.parse().ok()?,
            locks_per_transaction: value("max_locks_per_xact setting")?.parse().ok()?,
            checkpoint: lsn(value("Latest checkpoint location")?)?,
            segment: value("Bytes per WAL segment")?.parse::<u64>().ok()? >> 20,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_file_tells_whether_a_recovery_ended() {
        let text = |state: &str| {
            format!(
                "pg_control version number:            1300\nDatabase cluster state:               {state}\n\
                 Latest checkpoint location:           1/7000060\n\
                 max_prepared_xacts setting:           7\nmax_locks_per_xact setting:           64\n\
                 Bytes per WAL segment:                16777216\n"
            )
        };
        let control = |state: &str| Control::parse(&text(state)).expect("all of it is there");
        assert_eq!(
            control("shut down"),
            Control {
                version: 13,
                is_shut_down: true,
                prepared_transactions: 7,
                locks_per_transaction: 64,
                checkpoint: 0x1_0700_0060,
                segment: 16
            }
        );
        assert!(!control("in archive recovery").is_shut_down && !control("shut down in recovery").is_shut_down);
        assert_eq!(Control::parse("Database cluster state: shut down\n"), None);
    }

    #[test]
    fn no_control_file_panics() {
        const TEXT: &str = "pg_control version number:            1300\nDatabase cluster state:               in production\n\
                            max_prepared_xacts setting:           7\nmax_locks_per_xact setting:           64\n\
                            Bytes per WAL segment:                16777216\n";
        crate::fuzzed::fuzz_text(&[TEXT], |text| {
            let _ = Control::parse(text);
        });
    }
}
