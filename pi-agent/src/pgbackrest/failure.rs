//! What pgBackRest's exit codes and error texts mean.

use std::fmt;
use std::time::Duration;

use crate::Error;
use crate::error::Kind;
use crate::process::Output;

/// Longer than any backup or restore of a household; its own timeouts end it when nothing moves.
pub(super) const A_WEEK: Duration = Duration::from_hours(7 * 24);

/// How long to wait after the n-th failed try (from 1): about 5, 20, 80 s, never twice the same.
pub(super) fn pause(tries: u32) -> Duration {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let jitter = (RandomState::new().build_hasher().finish() % 1024) as f64 / 1024.0;
    Duration::from_secs(5 * 4_u64.pow(tries.clamp(1, 4) - 1)).mul_f64(0.5 + jitter / 2.0)
}

/// An exit code of pgBackRest (its `build/error.yaml`), kept as the cause of the [`Error`] so that callers can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub i32);

impl Code {
    /// The WAL is another cluster's.
    pub const ARCHIVE_MISMATCH: Self = Self(44);
    /// Another file of the same name is archived already.
    pub const ARCHIVE_DUPLICATE: Self = Self(45);
    /// The stanza is another cluster's.
    pub const BACKUP_MISMATCH: Self = Self(51);
    /// The label of a backup would not be later than one that is there.
    pub const CLOCK: Self = Self(106);
    /// No WAL arrived in time.
    pub const ARCHIVE_TIMEOUT: Self = Self(82);

    /// Whether trying again later may help. A failed HTTP request is 39 whatever its status, so the text decides.
    fn is_transient(self, text: &str) -> bool {
        let server_trouble = ["failed with 5", "failed with 429", "SlowDown", "RequestTimeout"];
        match self.0 {
            // Connect, lock, database timeout, protocol timeout, WAL did not arrive, TLS or DNS trouble.
            49 | 50 | 59 | 66 | 82 | 101 => true,
            // Unexpected end of a stream, and its counterpart when writing.
            42 | 64 => !text.contains("No space left") && !text.contains("Permission denied"),
            39 => server_trouble.iter().any(|sign| text.contains(sign)),
            _ => false,
        }
    }

    fn advice(self, text: &str) -> Option<&'static str> {
        Some(match self.0 {
            38 => "a server is running on that directory: stop it first",
            40 => "the target directory is not empty: choose another or use --overwrite",
            50 => "another pgBackRest works on this stanza: wait for it, or look with: ps -C pgbackrest",
            56 => "is the server running? see: pg_lsclusters",
            44 | 51 => "if this cluster is meant: pi-agent adopt STEP",
            58 => "the server's version or path differs from data-directory: see pi-agent doctor",
            82 => "PostgreSQL's WAL did not reach the repository: see pg_stat_archiver and pi-agent wal status",
            39 if text.contains("failed with 403") => "check the keys in aws.env and the bucket's policy",
            64 | 47 if text.contains("No space left") => "free some space where the repository lies",
            95 if text.contains("certificate") => "check ca-file and the endpoint's name in [storage]",
            27 | 29 | 95 => {
                "is pgbackrest.key the passphrase this repository was made with? else it is damaged: see pi-agent check"
            }
            _ => return None,
        })
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pgBackRest error {:03}", self.0)
    }
}

impl std::error::Error for Code {}

/// pgBackRest's code in an error or its causes.
pub fn code_of(error: &Error) -> Option<Code> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(code) = error.downcast_ref::<Code>() {
            return Some(*code);
        }
        cause = error.source();
    }
    None
}

/// The error of a command that ended with a non-zero status: pgBackRest's own words, its hints as ours.
pub(super) fn error(command: &str, stanza: &str, output: &Output) -> Error {
    let said = Said::of(&output.stderr);
    let operation = format!("pgbackrest {command} of stanza {stanza}");
    let Some(code) = output.status.code().map(Code) else {
        return Error::transient(format!("{operation} was ended by {}", output.status));
    };
    let text = if said.message.is_empty() { "failed without a message".into() } else { said.message };
    let hint = code.advice(&text).map(str::to_owned).into_iter().chain(said.hints).collect::<Vec<_>>().join("; ");
    let kind = if code.is_transient(&text) { Kind::Transient } else { Kind::Permanent };
    let error = Error::new(format!("{operation}: {text}")).kind_of(kind).caused_by(code);
    if hint.is_empty() { error } else { error.hint(hint) }
}

/// `archive-get` says that there is none (no other command ends with 1), or that what is there can be neither decrypted nor
/// unpacked.
pub(super) fn has_no_such_wal(error: &Error) -> bool {
    let damaged = ["[CryptoError]", "[FormatError]"].iter().any(|sign| error.to_string().contains(sign));
    code_of(error).is_some_and(|code| code.0 == 1 || damaged)
}

/// The text of a warning line on standard error.
pub(super) fn warning(line: &str) -> Option<String> {
    line.trim_start().strip_prefix("WARN: ").map(printable)
}

/// What pgBackRest says on standard error when it fails: `ERROR: [NNN]: message`, then indented lines, some `HINT: …`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    message: String,
    hints: Vec<String>,
}

impl Said {
    fn of(stderr: &str) -> Self {
        let mut lines = stderr.lines().skip_while(|line| !line.starts_with("ERROR: ["));
        let Some(first) = lines.next() else {
            // It ended before its own logging began (a bad option, a loader error).
            let message = printable(stderr.trim().lines().last().unwrap_or_default());
            return Self { message, hints: vec![] };
        };
        let message = first.split_once("]: ").map_or(first, |(_, message)| message);
        let mut said = Self { message: printable(message), hints: vec![] };
        for line in lines.take_while(|line| line.starts_with(' ')) {
            match line.trim().strip_prefix("HINT: ") {
                Some(hint) => said.hints.push(printable(hint)),
                // The causes repeat the message at length; two are enough to understand it.
                None if said.message.len() < 400 => {
                    said.message.push_str(": ");
                    said.message.push_str(&printable(line.trim()));
                }
                None => {}
            }
        }
        said.message = said.message.replace(":: ", ": ");
        said
    }
}

/// With a wrong passphrase it prints the undeciphered bytes.
pub(super) fn printable(text: &str) -> String {
    let clean: String = text.chars().filter(|c| !c.is_control() && *c != '\u{fffd}').collect();
    match clean.char_indices().nth(500) {
        Some((end, _)) => format!("{}…", &clean[..end]),
        None => clean,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    fn failed(code: i32, stderr: &str) -> Error {
        let status = ExitStatus::from_raw(code << 8);
        error("backup", "main", &Output { status, stdout: String::new(), stderr: stderr.into() })
    }

    #[test]
    fn its_message_and_hints_are_ours() {
        let error = failed(
            55,
            "WARN: something before\n\
             ERROR: [055]: unable to load info file '/r/backup.info' or '/r/backup.info.copy':\n       \
             FileMissingError: unable to open missing file '/r/backup.info' for read\n       \
             HINT: backup.info cannot be opened and is required to perform a backup.\n       \
             HINT: has a stanza-create been performed?\n",
        );
        assert_eq!(
            error.to_string(),
            "pgbackrest backup of stanza main: unable to load info file '/r/backup.info' or '/r/backup.info.copy': \
             FileMissingError: unable to open missing file '/r/backup.info' for read"
        );
        assert_eq!(
            error.advice(),
            Some(
                "backup.info cannot be opened and is required to perform a backup.; has a stanza-create been performed?"
            )
        );
        assert_eq!(code_of(&error), Some(Code(55)));
        assert_eq!(error.kind(), Kind::Permanent);
    }

    #[test]
    fn only_what_may_pass_is_transient() {
        let kind = |code, text: &str| failed(code, &format!("ERROR: [{code:03}]: {text}\n")).kind();
        assert_eq!(kind(49, "unable to connect to 'h:443'"), Kind::Transient);
        assert_eq!(kind(50, "unable to acquire lock"), Kind::Transient);
        assert_eq!(kind(39, "HTTP request failed with 503 (Slow Down)"), Kind::Transient);
        assert_eq!(kind(39, "HTTP request failed with 403 (Forbidden)"), Kind::Permanent);
        assert_eq!(kind(64, "unable to write '/r/x': [28] No space left on device"), Kind::Permanent);
        assert_eq!(kind(51, "PostgreSQL version 15, system-id 1 do not match"), Kind::Permanent);
        assert_eq!(kind(95, "unable to verify certificate presented by 'h:443'"), Kind::Permanent);
    }

    #[test]
    fn a_failure_without_its_own_words_still_says_something() {
        assert_eq!(
            failed(127, "pgbackrest: error while loading shared libraries\n").to_string(),
            "pgbackrest backup of stanza main: pgbackrest: error while loading shared libraries"
        );
        assert!(failed(25, "").to_string().ends_with("failed without a message"));
    }
}
