//! restic's locks: another program that works on the same repository waits for ours, and we for its.
//!
//! Who writes or reads holds a lock beside others; who deletes holds an exclusive one, and deletes nothing while anybody else holds any. Each
//! writes its own and then looks for others', so that of two who come in the same moment at least one sees the other.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::Repository;
use super::cipher::{self, Cipher};
use super::damage::restic_names;
use super::lock_file::{Here, LARGEST, LockFile, RENEWED, STALE};
use crate::error::{Context, Kind};
use crate::monitor::{Monitor, Problem};
use crate::storage::{SMALL, Store};
use crate::{Error, Result};

/// A lock that nobody renews is stale by then: only one that somebody holds is waited for in vain.
const PATIENCE: Duration = Duration::from_secs(35 * 60);
/// Between two looks whether a lock is gone: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Lock files that are read. Where nothing can be deleted they pile up.
const READ: usize = 1000;
/// What tells of others is short.
const TOLD: usize = 3;

/// All locks that this process holds, for [`let_go`].
static HELD: Mutex<Vec<Weak<Held>>> = Mutex::new(Vec::new());
/// This process ends: it writes to no repository any more.
static ENDING: AtomicBool = AtomicBool::new(false);

/// What a lock is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Adding to the repository.
    Write,
    /// Deleting from it. Nobody is waited for: it can be done another night.
    Delete,
    /// Reading, where a pack that somebody deletes meanwhile would look like damage.
    Read,
    /// Getting something back: nobody's lock may be in the way of that.
    Restore,
}

/// The lock of one command; it is let go when dropped.
#[derive(Debug)]
pub struct Lock {
    /// `None`: it cannot be written there, and what it is for is done all the same.
    held: Option<Arc<Held>>,
    remarks: Vec<Problem>,
}

impl Lock {
    /// Lets go; what of locks a person should know.
    pub fn release(mut self) -> Vec<Problem> {
        let mut remarks = std::mem::take(&mut self.remarks);
        remarks.extend(self.held.take().and_then(|held| held.release()));
        remarks
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Some(problem) = self.held.take().and_then(|held| held.release()) {
            log::warn!("{}", problem.message);
        }
    }
}

/// Deletes the locks that this process holds, on a thread of its own, and has it write no more; the returned function waits for that.
pub fn let_go() -> impl FnOnce(Duration) {
    ENDING.store(true, Ordering::SeqCst);
    let (done, over) = mpsc::channel();
    let release = move || {
        let held: Vec<_> = lock(&HELD).drain(..).filter_map(|held| held.upgrade()).collect();
        held.iter().for_each(|held| drop(held.release()));
        let _ = done.send(());
    };
    // Without it the next run removes them.
    let started = thread::Builder::new().name("let-go".into()).spawn(release).is_ok();
    move |within| {
        if started {
            let _ = over.recv_timeout(within);
        }
    }
}

/// Whether [`let_go`] was called.
pub(super) fn is_ending() -> bool {
    ENDING.load(Ordering::SeqCst)
}

/// A lock file of ours in storage.
struct Held {
    store: Store,
    cipher: Cipher,
    exclusive: bool,
    here: Here,
    /// Its name; `None`: it is gone.
    name: Mutex<Option<String>>,
    changed: Condvar,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Held").field(&lock(&self.name)).finish()
    }
}

impl Held {
    /// Writes a lock file, and renews it from then on.
    fn write(store: &Store, cipher: Cipher, exclusive: bool, here: Here) -> Result<Arc<Self>> {
        let (name, changed) = (Mutex::default(), Condvar::new());
        let held = Arc::new(Self { store: store.clone(), cipher, exclusive, here, name, changed });
        *lock(&held.name) = Some(held.put()?);
        lock(&HELD).push(Arc::downgrade(&held));
        let renewing = held.clone();
        let started = thread::Builder::new().name("lock".into()).spawn(move || renewing.keep_alive());
        match started.context(|| "start a thread".into()) {
            Ok(_) => Ok(held),
            Err(error) => {
                held.release();
                Err(error)
            }
        }
    }

    fn put(&self) -> Result<String> {
        let content = LockFile::of_this_process(&self.here, self.exclusive, now(&self.store)).seal(&self.cipher)?;
        let name = cipher::name(&content);
        self.store.put(&key(&name), &[content.into()])?;
        Ok(name)
    }

    /// Until it is let go.
    fn keep_alive(&self) {
        let mut name = lock(&self.name);
        loop {
            let waited = self.changed.wait_timeout_while(name, RENEWED, |name| name.is_some());
            name = waited.unwrap_or_else(PoisonError::into_inner).0;
            let Some(old) = name.clone() else { return };
            // The new one first: without any in between, somebody would take it for let go.
            match self.put() {
                Ok(new) => {
                    *name = Some(new);
                    if let Err(error) = self.store.delete(&key(&old)) {
                        log::debug!("{}", error.chain());
                    }
                }
                Err(error) => log::warn!("renew the lock of {}: {}", self.store, error.chain()),
            }
        }
    }

    /// What is wrong if it stays.
    fn release(&self) -> Option<Problem> {
        let name = lock(&self.name).take()?;
        self.changed.notify_all();
        let error = self.store.delete(&key(&name)).err()?;
        let store = &self.store;
        Some(Problem {
            message: format!("the lock {} in {store} cannot be removed: {}", key(&name), error.chain()),
            hint: Some(format!(
                "after 30 minutes nobody waits for it any more, and restic -r {} unlock removes it, with keys that may; until then no other is written \
                 here. All else is well",
                restic_names(store)
            )),
        })
    }
}

/// Another's lock file.
struct Other {
    name: String,
    /// Since when it is seen unchanged.
    seen: Instant,
    /// `None`: it cannot be read.
    file: Option<LockFile>,
}

impl Other {
    /// Nobody holds it: by its own time, or because nobody has renewed it while we looked, whatever the clocks say.
    fn is_stale(&self, here: &Here, now: Option<Timestamp>) -> bool {
        let Some(file) = &self.file else { return true };
        file.is_stale(here, now) || self.seen.elapsed() > STALE
    }
}

/// What lies in `locks/`, of one command.
struct Others<'a> {
    repository: &'a Repository,
    here: Here,
    /// `None`: the clock is not trusted.
    clock: bool,
    known: HashMap<String, Other>,
    /// One that this machine left there cannot be removed: no more are to be left.
    stuck: bool,
    ours: Vec<String>,
}

impl Others<'_> {
    /// Reads those that are new; removes what a process of ours left that is gone.
    fn look(&mut self, names: Vec<(String, u64)>) -> Result<()> {
        let store = self.repository.store();
        let cipher = Cipher::of(&self.repository.key);
        let is_name = |name: &str| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let names = names.into_iter().filter_map(|(key, size)| {
            let name = key.strip_prefix("locks/").filter(|name| is_name(name))?;
            Some((name.to_owned(), size))
        });
        let names: HashMap<_, _> = names.filter(|(name, _)| !self.ours.contains(name)).take(READ).collect();
        self.known.retain(|name, _| names.contains_key(name));
        for (name, size) in names {
            if self.known.contains_key(&name) {
                continue;
            }
            let file = match size {
                0..=LARGEST => match store.get_small(&key(&name), SMALL) {
                    Err(error) if error.kind() == Kind::NotFound => continue,
                    Err(error) if error.is_transient() => return Err(error),
                    content => content.ok().and_then(|content| LockFile::open(&content, &cipher)),
                },
                _ => None,
            };
            if file.as_ref().is_some_and(|file| file.is_left_by_us(&self.here)) {
                match store.delete(&key(&name)) {
                    Ok(()) => log::info!("removed the lock {} of a run that was cut off", key(&name)),
                    Err(error) => {
                        log::debug!("{}", error.chain());
                        self.stuck = true;
                    }
                }
                continue;
            }
            self.known.insert(name.clone(), Other { name, seen: Instant::now(), file });
        }
        Ok(())
    }

    /// The locks that are in the way.
    fn in_the_way(&self, purpose: Purpose) -> Vec<&LockFile> {
        let now = self.clock.then(|| now(self.repository.store()));
        let held = self.known.values().filter(|other| !other.is_stale(&self.here, now));
        held.filter_map(|other| other.file.as_ref())
            .filter(|file| file.exclusive || purpose == Purpose::Delete)
            .collect()
    }

    /// What is told of those that nobody holds any more. They are their owners' to remove.
    fn remarks(&self) -> Vec<Problem> {
        let now = self.clock.then(|| now(self.repository.store()));
        let store = self.repository.store();
        let stale = self.known.values().filter(|other| other.is_stale(&self.here, now));
        let remark = |other: &Other| {
            let what = match &other.file {
                Some(file) => format!("is stale: it was held {}, who let go without removing it", file.holder()),
                None => "cannot be read, and is taken for none".into(),
            };
            Problem {
                message: format!("the lock {} in {store} {what}", key(&other.name)),
                hint: Some(format!(
                    "no backup waits for it, but restic may: restic -r {} unlock{}",
                    restic_names(store),
                    if other.file.is_some() { "" } else { " --remove-all" }
                )),
            }
        };
        stale.take(TOLD).map(remark).collect()
    }
}

impl Repository {
    /// Takes a lock. Who writes or reads waits for another's exclusive one, but not beyond `until`. With `clock` false, what time it is is not
    /// certain, and only a lock that nobody renews while it is looked at is stale.
    ///
    /// # Errors
    /// Kind `Locked`, with who holds it, when it is in the way of that purpose; also when storage fails.
    pub fn lock(&self, purpose: Purpose, clock: bool, until: Option<Instant>, monitor: &Monitor) -> Result<Lock> {
        let mut others = Others {
            repository: self,
            here: Here::new(),
            clock,
            known: HashMap::new(),
            stuck: false,
            ours: lock(&HELD).iter().filter_map(|held| lock(&held.upgrade()?.name).clone()).collect(),
        };
        let end = Instant::now() + PATIENCE;
        let end = until.map_or(end, |until| until.min(end));
        let (mut pause, longest) = PAUSES;
        match self.backend.below("locks/").and_then(|names| others.look(names)) {
            Err(error) if purpose == Purpose::Restore => log::warn!("look for locks: {}", error.chain()),
            looked => looked?,
        }
        loop {
            if others.in_the_way(purpose).is_empty() {
                let held = self.hold(purpose, others.stuck)?;
                if purpose != Purpose::Restore {
                    others.ours.extend(held.as_ref().and_then(|held| lock(&held.name).clone()));
                    let looked = self.look_for_locks(purpose).and_then(|names| others.look(names));
                    if let Err(error) = looked {
                        drop(Lock { held, remarks: Vec::new() });
                        return Err(error);
                    }
                }
                let lock = Lock { held, remarks: others.remarks() };
                if others.in_the_way(purpose).is_empty() {
                    return Ok(lock);
                }
            }
            let holders: Vec<_> = others.in_the_way(purpose).into_iter().take(TOLD).map(LockFile::holder).collect();
            let holders = format!("{} is locked {}", self.store(), holders.join(", and "));
            if purpose == Purpose::Restore {
                log::warn!("{holders}: if something is deleted there meanwhile, not all may come back");
                return Ok(Lock { held: self.hold(purpose, others.stuck)?, remarks: others.remarks() });
            }
            if purpose == Purpose::Delete || Instant::now() >= end {
                return Err(Error::new(holders).kind_of(Kind::Locked).hint(format!(
                    "let it end, or end it, where it runs; if nothing of that runs any more: restic -r {} unlock",
                    restic_names(self.store())
                )));
            }
            monitor.phase(&format!("waiting: {holders}"));
            let turn = Instant::now() + pause;
            while Instant::now() < turn.min(end) {
                monitor.alive();
                thread::sleep(Duration::from_millis(200));
            }
            pause = (pause * 2).min(longest);
            others.look(self.store().list("locks/")?)?;
        }
    }

    /// Writes a lock file, where that is possible; `None`: it is not, and not needed for that purpose.
    fn hold(&self, purpose: Purpose, stuck: bool) -> Result<Option<Arc<Held>>> {
        if stuck {
            return Ok(None);
        }
        match Held::write(self.store(), Cipher::of(&self.key), purpose == Purpose::Delete, Here::new()) {
            Ok(held) => Ok(Some(held)),
            // Storage that can only be read is read; and a backup is worth more than its lock.
            Err(error)
                if matches!(purpose, Purpose::Read | Purpose::Restore)
                    || (purpose == Purpose::Write && error.kind() == Kind::Refused) =>
            {
                log::info!("no lock is written: {}", error.chain());
                Ok(None)
            }
            Err(error) => Err(error).context(|| format!("lock {}", self.store())),
        }
    }

    /// Who writes needs to know what else lies there, too.
    fn look_for_locks(&self, purpose: Purpose) -> Result<Vec<(String, u64)>> {
        if purpose != Purpose::Write {
            return self.store().list("locks/");
        }
        self.backend.look_at_all()?;
        self.backend.below("locks/")
    }
}

/// As the storage's server has it, where there is one: that is the time that all who write there have in common.
fn now(store: &Store) -> Timestamp {
    let now = Timestamp::now();
    store.clock_ahead().and_then(|ahead| now.checked_sub(ahead).ok()).unwrap_or(now)
}

fn key(name: &str) -> String {
    format!("locks/{name}")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each lock guards one value that is replaced whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_nobody_renews_while_we_look_is_stale_whatever_the_clocks_say() {
        let (here, then) = (Here::new(), Timestamp::now() + Duration::from_hours(5000));
        // Of this process, which lives, and of a clock that is far ahead.
        let file = Some(LockFile::of_this_process(&here, true, then));
        let other = |ago: Duration| Other { name: String::new(), seen: Instant::now() - ago, file: file.clone() };
        assert!(!other(Duration::from_secs(10)).is_stale(&here, Some(Timestamp::now())));
        assert!(!other(STALE - Duration::from_secs(10)).is_stale(&here, None));
        assert!(other(STALE + Duration::from_secs(10)).is_stale(&here, None));
        assert!(PATIENCE > STALE + PAUSES.1, "so it is never waited for in vain");
    }
}
