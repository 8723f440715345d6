//! WAL for a recovery, handed over on request. PostgreSQL asks through its `restore_command`, which writes a name into one named
//! pipe and waits at another for the answer; we fetch. So it may run where there is neither pgBackRest nor a network nor a
//! key, and a storage that does not answer is not taken for the end of all WAL, after which the cluster would go on without
//! the rest.
//!
//! Both ends of both pipes are open here: when we end, however, whoever waits ends as well. Only who comes after that waits
//! for good, until the next recovery ([`desk`]).

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use super::postgres::hand_over;
use crate::error::{Context, Error, Result};
use crate::process::{User, end_outliving};
use crate::shown::typed;

/// What PostgreSQL understands as the end of all WAL.
const NO_MORE: u8 = 1;
/// And as a reason to end at once, being more than 128.
const STOP: u8 = 255;

/// What the directories are called in which the pipes are.
const DESK: &str = "recovery-";

/// An empty directory for the pipes. Whoever still waits in one of a recovery that was killed is ended.
///
/// # Errors
/// It cannot be made, or who waits does not end.
pub(super) fn desk(runtime: &Path) -> Result<TempDir> {
    end_outliving(&format!("{}/{DESK}", runtime.display()))?;
    let doing = || format!("make a directory for a recovery in {}", runtime.display());
    tempfile::Builder::new().prefix(DESK).tempdir_in(runtime).context(doing)
}

pub(super) struct Handover {
    requests: File,
    answers: File,
    /// PostgreSQL's `restore_command`, for any POSIX shell.
    pub command: String,
}

impl Handover {
    /// Makes the pipes, for that user, in a directory that is empty.
    pub fn make(directory: &Path, user: &User) -> Result<Self> {
        let pipe = |name: &str| {
            let path = directory.join(name);
            let doing = || format!("make the pipe {}", path.display());
            mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).context(doing)?;
            hand_over(&path, user)?;
            let file = File::options().read(true).write(true).open(&path).context(doing)?;
            Ok::<_, Error>((file, typed(&path).replace('%', "%%")))
        };
        let (requests, ask) = pipe("ask")?;
        let (answers, hear) = pipe("hear")?;
        let command = format!("echo %f >{ask} && read answer <{hear} && exit $answer || exit {STOP}");
        Ok(Self { requests, answers, command })
    }

    /// Does the work, and meanwhile fetches what is asked for: a file of that name, to that one in the directory of WAL. Also
    /// why that failed, after which nothing more is handed over.
    pub fn serving<T>(
        &self,
        fetch: impl Fn(&str, &str) -> Result<bool> + Send,
        work: impl FnOnce() -> T,
    ) -> (T, Result<()>) {
        std::thread::scope(|scope| {
            let served = scope.spawn(|| self.serve(fetch));
            let end = End(&self.requests);
            let done = work();
            drop(end);
            (done, served.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    }

    fn serve(&self, fetch: impl Fn(&str, &str) -> Result<bool>) -> Result<()> {
        let mut served = Ok(());
        for name in BufReader::new(&self.requests).lines() {
            let name = name.context(|| "hear which WAL is asked for".into())?;
            if name.is_empty() {
                break;
            }
            let answer = match Self::place(&name).filter(|_| served.is_ok()).map(|to| fetch(&name, to)) {
                Some(Ok(true)) => 0,
                Some(Ok(false)) => NO_MORE,
                Some(Err(error)) => {
                    served = Err(error);
                    STOP
                }
                None => STOP,
            };
            writeln!(&self.answers, "{answer}").context(|| format!("hand over {name}"))?;
        }
        served
    }

    /// Where PostgreSQL looks for what it asked for: no other path is taken from it.
    fn place(name: &str) -> Option<&'static str> {
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.');
        plain.then(|| if name.ends_with(".history") { "RECOVERYHISTORY" } else { "RECOVERYXLOG" })
    }
}

/// Tells whoever serves that nobody asks any more, also when the work panics.
struct End<'a>(&'a File);

impl Drop for End<'_> {
    fn drop(&mut self) {
        // Only a reader that is gone could refuse it.
        let _ = self.0.write_all(b"\n");
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::Mutex;

    use super::*;
    use crate::process::Program;

    /// What a shell that asks for these says of each, and what was fetched.
    fn asked(
        names: &[&str],
        fetch: impl Fn(&str) -> Result<bool> + Sync,
    ) -> (Vec<Option<i32>>, Vec<String>, Result<()>) {
        let (root, fetched) = (tempfile::tempdir().expect("a folder"), Mutex::new(Vec::new()));
        // A percent sign is something to PostgreSQL, and a space to a shell.
        let desk = root.path().join("100 %f");
        std::fs::create_dir(&desk).expect("made");
        let user = User {
            name: "me".into(),
            uid: nix::unistd::getuid().into(),
            gid: nix::unistd::getgid().into(),
            groups: vec![],
        };
        let handover = Handover::make(&desk, &user).expect("it can be made");
        let said = RefCell::new(Vec::new());
        let ((), served) = handover.serving(
            |name, to| {
                fetched.lock().expect("whole").push(format!("{name} to {to}"));
                fetch(name)
            },
            || {
                for name in names {
                    // As PostgreSQL does it.
                    let script = handover.command.replacen("%f", name, 1).replace("%%", "%");
                    let output = Program::new("sh", ["-c", &script]).run(&mut |_, _| ()).expect("it runs");
                    said.borrow_mut().push(output.status.code());
                }
            },
        );
        (said.into_inner(), fetched.into_inner().expect("whole"), served)
    }

    #[test]
    fn what_is_there_is_told_from_what_is_not() {
        let (said, fetched, served) =
            asked(&["0000000100000000000000A1", "00000002.history"], |name| Ok(name.ends_with('1')));
        assert_eq!(said, [Some(0), Some(1)]);
        assert_eq!(fetched, ["0000000100000000000000A1 to RECOVERYXLOG", "00000002.history to RECOVERYHISTORY"]);
        assert!(served.is_ok());
    }

    #[test]
    fn an_error_is_not_the_end_of_wal_and_the_last_that_is_done() {
        let (said, fetched, served) = asked(&["A1", "A2"], |_| Err(Error::transient("no line")));
        assert_eq!(said, [Some(255), Some(255)]);
        assert_eq!(fetched.len(), 1);
        assert!(served.is_err_and(|error| error.is_transient()));
        let (said, fetched, _) = asked(&["/etc/passwd"], |_| Ok(true));
        assert_eq!((said, fetched.len()), (vec![Some(255)], 0));
    }
}
