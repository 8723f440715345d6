//! A running program and what it writes, for as much output as fits nowhere.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdout};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use super::below::end_session;
use super::tail::Tail;
use crate::error::{Context, Error, Kind, Result};

/// A running program and its standard output. Its end is an end only after exit code 0: anything else is an error (an
/// [`Error`] inside an [`io::Error`]), so that half of an output never passes for the whole.
pub struct Piped {
    pub(super) name: String,
    pub(super) child: Child,
    pub(super) stdout: ChildStdout,
    pub(super) stderr: Option<JoinHandle<Tail>>,
    pub(super) deadline: Option<Instant>,
    pub(super) patience: Duration,
    pub(super) ended: bool,
}

impl Read for Piped {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        self.wait_for_output().map_err(io::Error::other)?;
        let length = self.stdout.read(buffer)?;
        if length == 0 {
            self.finish().map_err(io::Error::other)?;
        }
        Ok(length)
    }
}

impl Piped {
    fn wait_for_output(&self) -> Result<()> {
        let waiting = Instant::now();
        loop {
            let mut pipe = [PollFd::new(self.stdout.as_fd(), PollFlags::POLLIN)];
            match poll(&mut pipe, PollTimeout::from(1000_u16)) {
                Ok(0) | Err(Errno::EINTR) => self.check_time(waiting)?,
                Ok(_) => return Ok(()),
                Err(error) => return Err(Error::new(format!("wait for {}", self.name)).caused_by(error)),
            }
        }
    }

    fn check_time(&self, waiting: Instant) -> Result<()> {
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(Error::transient(format!("{} did not finish in time", self.name)).kind_of(Kind::OutOfTime));
        }
        if waiting.elapsed() >= self.patience {
            return Err(Error::transient(format!("{} was silent for {} s", self.name, self.patience.as_secs())));
        }
        Ok(())
    }

    /// Its output is over; was it good?
    fn finish(&mut self) -> Result<()> {
        let waiting = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().context(|| format!("wait for {}", self.name))? {
                break status;
            }
            self.check_time(waiting)?;
            std::thread::sleep(Duration::from_millis(5));
        };
        let said = self.end();
        if status.success() {
            return Ok(());
        }
        let said = said.trim();
        Err(Error::new(format!("{} ended with {status}{}{said}", self.name, if said.is_empty() { "" } else { ": " })))
    }

    /// Ends whatever is left of it; the tail of its standard error.
    fn end(&mut self) -> String {
        self.ended = true;
        end_session(Pid::from_raw(self.child.id().cast_signed()));
        // Dead by now; this only buries it.
        let _ = self.child.wait();
        self.stderr.take().and_then(|reader| reader.join().ok()).map(Tail::text).unwrap_or_default()
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        if !self.ended {
            self.end();
        }
    }
}
