//! The outbox: `STATE/outbox/SERVICE/NUMBER-KEY.json`, one file a message, sent in the order of the numbers.
//!
//! A message is durable when [`Queue::put`] returns. It goes only after the service's answer is on record in `sent.jsonl`:
//! whoever is killed between the two finds it there, and does not send it again.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::{Kind, Notice};
use crate::config::StateDirectory;
use crate::error::{Context, Result};
use crate::secrets::{create_private, write_private};

/// What one service still has to be told.
#[derive(Clone, Debug)]
pub struct Queue {
    directory: PathBuf,
}

/// A message that waits.
#[derive(Clone, Debug)]
pub struct Entry {
    number: u64,
    path: PathBuf,
    /// The message.
    pub notice: Notice,
}

/// A line of `sent.jsonl`.
#[derive(Debug, Serialize, Deserialize)]
struct Sent {
    number: u64,
    key: String,
    at: Timestamp,
    /// The service's name for it.
    answer: String,
}

/// Lines of `sent.jsonl` that are kept.
const REMEMBERED: usize = 500;

impl Queue {
    /// The queue of that service; nothing is made yet.
    pub fn new(directory: &StateDirectory, service: &str) -> Self {
        Self { directory: directory.path().join("outbox").join(service) }
    }

    /// Puts a message at the end; durable when it returns. One that waits under the same key already is replaced where it
    /// stands, so that reminders do not pile up while nobody can be reached; one that was sent already is not sent again.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn put(&self, notice: &Notice) -> Result<()> {
        let text = serde_json::to_vec_pretty(notice).context(|| "write down a message".into())?;
        let names = self.names()?;
        let key = file_name(&notice.key);
        if let Some((_, name)) =
            names.iter().find(|(_, name)| name.split_once('-').is_some_and(|(_, rest)| rest == key))
        {
            return write_private(&self.directory.join(name), &text);
        }
        let sent = self.sent();
        // Reminders share one key.
        if notice.kind != Kind::Reminder && sent.iter().any(|sent| sent.key == notice.key) {
            return Ok(());
        }
        let newest = names.iter().map(|(number, _)| *number).chain(sent.iter().map(|sent| sent.number)).max();
        let mut number = newest.unwrap_or(0) + 1;
        while !create_private(&self.directory.join(format!("{number:08}-{key}")), &text)? {
            number += 1;
        }
        Ok(())
    }

    /// What waits, in order. A file that holds no message is set aside in `refused/`.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn waiting(&self) -> Result<Vec<Entry>> {
        let sent = self.sent();
        let mut waiting = Vec::new();
        for (number, name) in self.names()? {
            let path = self.directory.join(name);
            let text = match fs::read(&path) {
                // Whoever sends at the same time has just finished with it.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                read => read.context(|| format!("read {}", path.display()))?,
            };
            match serde_json::from_slice::<Notice>(&text) {
                // Sent, and then the power went before the file could go.
                Ok(notice) if sent.iter().any(|sent| sent.number == number && sent.key == notice.key) => remove(&path)?,
                Ok(notice) => waiting.push(Entry { number, path, notice }),
                Err(_) => self.set_aside(&path)?,
            }
        }
        Ok(waiting)
    }

    /// How many wait; cheap.
    pub fn count(&self) -> usize {
        self.names().map_or(0, |names| names.len())
    }

    /// Records the service's answer, then lets the message go.
    ///
    /// # Errors
    /// Either cannot be done; the message may then be sent again.
    pub fn done(&self, entry: &Entry, answer: &str) -> Result<()> {
        let sent =
            Sent { number: entry.number, key: entry.notice.key.clone(), at: Timestamp::now(), answer: answer.into() };
        self.record(&sent)?;
        remove(&entry.path)
    }

    /// Takes a message that the service will never take out of the way of the others.
    ///
    /// # Errors
    /// It cannot be moved.
    pub fn refuse(&self, entry: &Entry) -> Result<()> {
        self.set_aside(&entry.path)
    }

    /// One sender at a time, or messages would overtake each other; `None`: somebody else is sending.
    ///
    /// # Errors
    /// The lock cannot be opened.
    pub fn sender(&self) -> Result<Option<Flock<File>>> {
        let path = self.directory.join("lock");
        let file = private(&path).context(|| format!("open {}", path.display()))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(lock)),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(error).context(|| format!("lock {}", path.display())),
        }
    }

    /// The service asked not to be asked again so soon.
    ///
    /// # Errors
    /// That cannot be kept.
    pub fn rest(&self, time: Duration) -> Result<()> {
        let until = Timestamp::now().as_second().saturating_add_unsigned(time.as_secs() + 1);
        write_private(&self.directory.join("rest"), until.to_string().as_bytes())
    }

    /// For how long it must be left alone still.
    pub fn resting(&self) -> Option<Duration> {
        const LONGEST: i64 = 24 * 3600;
        let until: i64 = fs::read_to_string(self.directory.join("rest")).ok()?.trim().parse().ok()?;
        let left = until - Timestamp::now().as_second();
        // More than a day is a clock that was wrong then, or is now.
        (1..=LONGEST).contains(&left).then(|| Duration::from_secs(left.unsigned_abs()))
    }

    /// Numbers and names of the messages' files, in order.
    fn names(&self) -> Result<Vec<(u64, String)>> {
        let doing = || format!("read {}", self.directory.display());
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.context(doing)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.context(doing)?.file_name().to_string_lossy().into_owned();
            if let Some(number) = name.split_once('-').and_then(|(number, _)| number.parse().ok()) {
                names.push((number, name));
            }
        }
        names.sort();
        Ok(names)
    }

    fn sent(&self) -> Vec<Sent> {
        // One that cannot be read costs a repetition, not a message.
        let text = fs::read_to_string(self.directory.join("sent.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn record(&self, sent: &Sent) -> Result<()> {
        let path = self.directory.join("sent.jsonl");
        let line = |sent| serde_json::to_string(sent).context(|| "write down what was sent".into());
        let before = self.sent();
        if before.len() >= 2 * REMEMBERED {
            let kept = before[before.len() - REMEMBERED..].iter().chain([sent]);
            let text = kept.map(|sent| line(sent).map(|line| line + "\n")).collect::<Result<String>>()?;
            return write_private(&path, text.as_bytes());
        }
        let append = |line: String| -> std::io::Result<()> {
            let mut file = private(&path)?;
            // Begins with a new line: the last one may have been cut off by a power cut.
            file.write_all(format!("\n{line}").as_bytes())?;
            file.sync_all()
        };
        append(line(sent)?).context(|| format!("write {}", path.display()))
    }

    fn set_aside(&self, path: &Path) -> Result<()> {
        let aside = self.directory.join("refused");
        let doing = || format!("set {} aside", path.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&aside).context(doing)?;
        fs::rename(path, aside.join(path.file_name().unwrap_or_default())).context(doing)
    }
}

/// Opens a file of ours to append to it.
fn private(path: &Path) -> std::io::Result<File> {
    if let Some(directory) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.context(|| format!("remove {}", path.display())),
    }
}

/// A key as part of a file's name.
fn file_name(key: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let name: String = key.chars().take(150).map(plain).collect();
    name + ".json"
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::notify::tests::notice;

    fn queue() -> (tempfile::TempDir, Queue) {
        let folder = tempfile::tempdir().unwrap();
        let queue = Queue::new(&StateDirectory(folder.path().into()), "discord");
        (folder, queue)
    }

    fn keys(queue: &Queue) -> Vec<String> {
        queue.waiting().unwrap().into_iter().map(|entry| entry.notice.key).collect()
    }

    #[test]
    fn messages_wait_in_order_and_once() {
        let (_folder, queue) = queue();
        for key in ["b.raised", "a.raised", "b.raised", "/var/lib.raised"] {
            queue.put(&notice(Kind::Raised, key)).unwrap();
        }
        assert_eq!(keys(&queue), ["b.raised", "a.raised", "/var/lib.raised"]);
        let first = &queue.waiting().unwrap()[0];
        queue.done(first, "1234").unwrap();
        assert_eq!(keys(&queue), ["a.raised", "/var/lib.raised"]);
        queue.put(&notice(Kind::Raised, "b.raised")).unwrap();
        assert_eq!(keys(&queue), ["a.raised", "/var/lib.raised"], "told already");
    }

    #[test]
    fn a_reminder_replaces_the_one_that_waits_and_follows_the_one_that_went() {
        let (_folder, queue) = queue();
        queue.put(&notice(Kind::Reminder, "a.reminder")).unwrap();
        queue.put(&Notice { text: "newer".into(), ..notice(Kind::Reminder, "a.reminder") }).unwrap();
        let waiting = queue.waiting().unwrap();
        assert_eq!((waiting.len(), waiting[0].notice.text.as_str()), (1, "newer"));
        queue.done(&waiting[0], "1").unwrap();
        queue.put(&notice(Kind::Reminder, "a.reminder")).unwrap();
        assert_eq!(keys(&queue), ["a.reminder"], "the next day's");
    }

    #[test]
    fn what_is_on_record_as_sent_is_not_sent_again() {
        let (_folder, queue) = queue();
        queue.put(&notice(Kind::Raised, "a.raised")).unwrap();
        let entry = queue.waiting().unwrap().remove(0);
        // Killed between the record and the removal.
        queue
            .record(&Sent { number: entry.number, key: "a.raised".into(), at: Timestamp::now(), answer: "1".into() })
            .unwrap();
        assert_eq!(keys(&queue), [""; 0]);
        assert_eq!(queue.count(), 0);
    }

    #[test]
    fn a_record_that_was_cut_off_harms_no_other() {
        let (_folder, queue) = queue();
        queue.put(&notice(Kind::Raised, "a.raised")).unwrap();
        queue.put(&notice(Kind::Raised, "b.raised")).unwrap();
        let waiting = queue.waiting().unwrap();
        queue.done(&waiting[0], "1").unwrap();
        let record = queue.directory.join("sent.jsonl");
        fs::write(&record, fs::read_to_string(&record).unwrap() + "\n{\"number\":2,\"ke").unwrap();
        queue.done(&waiting[1], "2").unwrap();
        assert_eq!(queue.sent().len(), 2);
    }

    #[test]
    fn the_record_stays_small() {
        let (_folder, queue) = queue();
        for number in 0..=2 * REMEMBERED as u64 {
            queue
                .record(&Sent { number, key: number.to_string(), at: Timestamp::now(), answer: String::new() })
                .unwrap();
        }
        let sent = queue.sent();
        assert_eq!((sent.len(), sent.last().unwrap().number), (REMEMBERED + 1, 2 * REMEMBERED as u64));
    }

    #[test]
    fn a_file_that_is_no_message_is_set_aside() {
        let (_folder, queue) = queue();
        queue.put(&notice(Kind::Raised, "a.raised")).unwrap();
        fs::write(queue.directory.join("00000000-bad.json"), "{").unwrap();
        assert_eq!(keys(&queue), ["a.raised"]);
        assert!(queue.directory.join("refused/00000000-bad.json").exists());
    }

    #[test]
    fn one_sends_at_a_time() {
        let (_folder, queue) = queue();
        let lock = queue.sender().unwrap();
        assert!(lock.is_some() && queue.sender().unwrap().is_none());
        drop(lock);
        assert!(queue.sender().unwrap().is_some());
    }

    #[test]
    fn rest_is_kept_and_a_wild_clock_is_not_believed() {
        let (_folder, queue) = queue();
        assert_eq!(queue.resting(), None);
        queue.rest(Duration::from_secs(60)).unwrap();
        assert!(queue.resting().unwrap() > Duration::from_secs(50));
        queue.rest(Duration::from_secs(365 * 86_400)).unwrap();
        assert_eq!(queue.resting(), None);
    }
}
