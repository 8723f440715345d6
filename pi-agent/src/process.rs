//! The only file that starts processes: arguments, environment, user, deadline, group, the tail of stderr.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use crate::Result;

/// A program to run to its end.
#[derive(Clone, Debug)]
pub struct Program {
    /// Name or path.
    pub program: PathBuf,
    /// Arguments; never a secret.
    pub arguments: Vec<OsString>,
    /// The whole environment besides PATH, LANG and TZ, which are set by [`Program::run`].
    pub environment: Vec<(OsString, OsString)>,
    /// Run as this user, with its groups, when we are root.
    pub user: Option<User>,
    /// Working directory. Default `/`.
    pub directory: PathBuf,
    /// Ended with everything it started when this is over.
    pub deadline: Duration,
}

/// An operating-system user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// uid.
    pub uid: u32,
    /// Primary gid.
    pub gid: u32,
    /// All groups.
    pub groups: Vec<u32>,
}

/// Which stream a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// How a program ended.
#[derive(Debug)]
pub struct Output {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// All of standard output, lossy UTF-8, at most 64 MiB.
    pub stdout: String,
    /// The last 16 KiB of standard error.
    pub stderr: String,
}

impl Program {
    /// A program with arguments; no environment, our own user, one minute.
    pub fn new<A: Into<OsString>>(program: impl Into<PathBuf>, arguments: impl IntoIterator<Item = A>) -> Self {
        Self {
            program: program.into(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
            user: None,
            directory: "/".into(),
            deadline: Duration::from_secs(60),
        }
    }

    /// Runs it in a process group of its own and waits; every line of both streams goes through `on_line` as it comes.
    /// At the deadline, and when this process dies, the whole group ends.
    ///
    /// # Errors
    /// It could not be started (kind `NotFound` when there is no such program), or the deadline passed (`Transient`). A non-zero exit is not an error here.
    pub fn run(&self, on_line: &mut dyn FnMut(Stream, &str)) -> Result<Output> {
        let _ = on_line;
        todo!()
    }
}

impl User {
    /// The owner of a path.
    ///
    /// # Errors
    /// The path cannot be looked at, or its owner has no name.
    pub fn owner_of(path: &std::path::Path) -> Result<Self> {
        let _ = path;
        todo!()
    }
}
