//! What restic's lock files say, and when one says nothing any more: `locks/NAME`, sealed JSON that its holder writes anew every
//! five minutes, under another name.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::{Pid, User, getegid, geteuid, gethostname};
use serde::{Deserialize, Serialize};

use super::cipher::Cipher;
use super::lock_record;
use super::pack::COMPRESSED;
use crate::error::{Context, Result};
use crate::storage::place;

/// How often a holder renews his lock, by restic's rules and ours.
pub(super) const RENEWED: Duration = Duration::from_secs(5 * 60);
/// A lock that is older than this is stale: by restic's rules its holder is gone.
pub(super) const STALE: Duration = Duration::from_secs(30 * 60);
/// No lock file is larger.
pub(super) const LARGEST: u64 = 64 << 10;

/// A lock file. restic reads the first seven fields, and passes over the others.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct LockFile {
    /// When it was written or renewed.
    time: Timestamp,
    pub(super) exclusive: bool,
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    pid: i32,
    #[serde(default)]
    uid: u32,
    #[serde(default)]
    gid: u32,
    /// Of the machine: host names are not unique, and Pis are often called the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    machine: Option<String>,
    /// The start of the machine, and its namespace of pids, in which the pid counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot: Option<String>,
    /// What its machine has on record: a clone of its card has the same id. See [`lock_record`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

/// What tells this process from others.
#[derive(Debug)]
pub(super) struct Here {
    hostname: String,
    machine: Option<String>,
    boot: Option<String>,
    /// Those of this machine's locks.
    tokens: Vec<String>,
}

impl Here {
    pub(super) fn new() -> Self {
        let boot = || {
            let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
            // Containers of one machine have its boot, each with pids of its own.
            let pids = std::fs::read_link("/proc/self/ns/pid").ok()?;
            Some(format!("{} {}", boot.trim(), pids.display()))
        };
        Self {
            hostname: gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default(),
            machine: place::machine_id(Path::new("/")).ok(),
            boot: boot(),
            tokens: lock_record::known(),
        }
    }
}

impl LockFile {
    /// Of this process, as of `now`.
    pub(super) fn of_this_process(here: &Here, exclusive: bool, now: Timestamp) -> Self {
        let user = User::from_uid(geteuid()).ok().flatten();
        Self {
            time: now,
            exclusive,
            hostname: here.hostname.clone(),
            username: user.map(|user| user.name).unwrap_or_default(),
            pid: Pid::this().as_raw(),
            uid: geteuid().as_raw(),
            gid: getegid().as_raw(),
            machine: here.machine.clone(),
            boot: here.boot.clone(),
            token: lock_record::own(),
        }
    }

    /// # Errors
    /// There is no randomness to be had.
    pub(super) fn seal(&self, cipher: &Cipher) -> Result<Vec<u8>> {
        cipher.seal(&serde_json::to_vec(self).context(|| "write a lock".into())?)
    }

    /// `None`: it is no lock file of this repository.
    pub(super) fn open(sealed: &[u8], cipher: &Cipher) -> Option<Self> {
        let plain = cipher.open(sealed)?;
        if plain.first() != Some(&COMPRESSED) {
            return serde_json::from_slice(&plain).ok();
        }
        let mut json = Vec::new();
        zstd::Decoder::new(&plain[1..]).ok()?.take(LARGEST).read_to_end(&mut json).ok()?;
        serde_json::from_slice(&json).ok()
    }

    /// A process of this program on this machine wrote it, and is gone: one of this start, or one that is on record. The machine's id alone,
    /// and another start, may be those of a clone that is at work.
    pub(super) fn is_left_by_us(&self, here: &Here) -> bool {
        let on_record = || self.token.as_ref().is_some_and(|token| here.tokens.contains(token));
        self.machine.is_some()
            && self.machine == here.machine
            && if self.counts(here) { self.is_gone() } else { on_record() }
    }

    /// Its holder is gone, by restic's rules; `now` is unknown where the clock is not to be trusted.
    pub(super) fn is_stale(&self, here: &Here, now: Option<Timestamp>) -> bool {
        let is_old = now.is_some_and(|now| now.duration_since(self.time).unsigned_abs() > STALE && now > self.time);
        is_old || (self.counts(here) && self.is_gone())
    }

    /// Its pid is one of those that count here. restic says no more than the name of its host.
    fn counts(&self, here: &Here) -> bool {
        match &self.machine {
            Some(_) => self.machine == here.machine && self.boot.is_some() && self.boot == here.boot,
            None => self.hostname == here.hostname,
        }
    }

    /// No process has its pid.
    fn is_gone(&self) -> bool {
        self.pid <= 0 || kill(Pid::from_raw(self.pid), None) == Err(Errno::ESRCH)
    }

    /// Who holds it, as restic says it.
    pub(super) fn holder(&self) -> String {
        let Self { username, hostname, pid, time, .. } = self;
        let program = if self.machine.is_some() { "pi-agent" } else { "restic" };
        let how = if self.exclusive { "exclusively " } else { "" };
        format!("{how}by {program} of {username:?} on {hostname:?} (pid {pid}, last renewed {time:.0})")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rustic_core::repofile::MasterKey;

    use super::*;

    fn here() -> Here {
        let (machine, boot) = (Some("m1".into()), Some("b1".into()));
        Here { hostname: "raspberrypi".into(), machine, boot, tokens: vec!["t1".into()] }
    }

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + minutes * 60).unwrap()
    }

    fn of_restic(hostname: &str, pid: i32) -> LockFile {
        let json = format!(
            "{{\"time\":\"{}\",\"exclusive\":true,\"hostname\":\"{hostname}\",\"username\":\"root\",\"pid\":{pid}}}",
            at(0)
        );
        serde_json::from_str(&json).unwrap()
    }

    /// Of a process that has ended.
    fn ended() -> i32 {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        i32::try_from(child.id()).unwrap()
    }

    #[test]
    fn a_lock_is_read_as_it_was_written_also_compressed_and_with_another_zone() {
        let cipher = Cipher::of(&MasterKey::new());
        let ours = LockFile::of_this_process(&here(), true, at(0));
        let opened = LockFile::open(&ours.seal(&cipher).unwrap(), &cipher).unwrap();
        assert_eq!((opened.time, opened.exclusive, opened.pid), (at(0), true, ours.pid));
        let json = b"{\"time\":\"2026-11-30T04:15:14.713+11:00\",\"exclusive\":false,\"hostname\":\"h\",\"username\":\"u\",\"pid\":7}";
        let plain = [&[COMPRESSED][..], &zstd::encode_all(&json[..], 0).unwrap()].concat();
        let opened = LockFile::open(&cipher.seal(&plain).unwrap(), &cipher).unwrap();
        assert_eq!(opened.time, "2026-11-29T17:15:14.713Z".parse().unwrap());
        assert!(LockFile::open(&ours.seal(&Cipher::of(&MasterKey::new())).unwrap(), &cipher).is_none());
        assert!(LockFile::open(b"", &cipher).is_none());
    }

    #[test]
    fn a_lock_is_stale_after_half_an_hour_or_when_its_process_here_is_gone() {
        let (this, gone) = (Pid::this().as_raw(), ended());
        let other = of_restic("laptop", gone);
        assert!(!other.is_stale(&here(), Some(at(29))) && other.is_stale(&here(), Some(at(31))));
        assert!(!other.is_stale(&here(), None), "by a clock that is wrong nothing is old");
        assert!(!other.is_stale(&here(), Some(at(-600))), "it is of the future: one of the clocks is wrong");
        assert!(of_restic("raspberrypi", gone).is_stale(&here(), Some(at(1))));
        assert!(!of_restic("raspberrypi", this).is_stale(&here(), Some(at(1))));
    }

    #[test]
    fn our_own_is_known_by_machine_and_boot_or_record_and_never_by_the_name_of_the_host() {
        let lock = |pid, machine: &str, boot: &str| LockFile {
            pid,
            machine: Some(machine.into()),
            boot: Some(boot.into()),
            ..of_restic("raspberrypi", pid)
        };
        let (this, gone) = (Pid::this().as_raw(), ended());
        assert!(!lock(this, "m1", "b1").is_left_by_us(&here()));
        assert!(lock(gone, "m1", "b1").is_left_by_us(&here()));
        let token = |token: &str, pid| LockFile { token: Some(token.into()), ..lock(pid, "m1", "b0") };
        assert!(token("t1", this).is_left_by_us(&here()), "the pid is another's since the restart");
        for of_a_clone in [lock(gone, "m1", "b0"), token("t2", gone)] {
            assert!(!of_a_clone.is_left_by_us(&here()) && !of_a_clone.is_stale(&here(), Some(at(29))));
            assert!(of_a_clone.is_stale(&here(), Some(at(31))));
        }
        let twin = lock(gone, "m2", "b1");
        assert!(!twin.is_left_by_us(&here()) && !twin.is_stale(&here(), Some(at(1))));
        assert!(!of_restic("raspberrypi", gone).is_left_by_us(&here()), "it is restic's");
    }
}
