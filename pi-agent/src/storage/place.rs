//! `host.json` at the root of a place: which machine writes there. Two machines that prune one repository with no lock
//! between them would destroy it, and each would forget what the other keeps.

use std::path::Path;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::disk::Disk;
use super::{SMALL, Store};
use crate::error::{Context, Kind};
use crate::{Error, Result};

const KEY: &str = "host.json";

/// What `host.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Version of this record: 1.
    pub schema: u32,
    /// `[host] name` of the machine that writes here.
    pub host: String,
    /// Its `/etc/machine-id`.
    pub machine_id: String,
    /// Its hardware's own number, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Since when.
    pub since: Timestamp,
    /// The disk that it is on, when that is not the system's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Disk>,
    /// Of its last run: see [`token`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// When that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<Timestamp>,
}

/// Who this machine is. `/etc` is copied with a card, its hardware is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// `[host] name`.
    pub host: String,
    /// `/etc/machine-id`.
    pub id: String,
    /// The hardware's own number.
    pub serial: Option<String>,
}

impl Machine {
    /// The one below `root` (`/` but in tests).
    ///
    /// # Errors
    /// See [`machine_id`].
    pub fn of(root: &Path, host: &str) -> Result<Self> {
        Ok(Self { host: host.into(), id: machine_id(root)?, serial: serial(root) })
    }

    /// In words.
    fn words(&self) -> String {
        named(&self.host, self.serial.as_ref())
    }

    fn owns(&self, disk: Option<&Disk>) -> Owner {
        Owner {
            schema: 1,
            host: self.host.clone(),
            machine_id: self.id.clone(),
            serial: self.serial.clone(),
            since: Timestamp::now(),
            disk: disk.cloned(),
            token: None,
            written: None,
        }
    }
}

fn named(host: &str, serial: Option<&String>) -> String {
    serial.map_or_else(|| host.to_owned(), |serial| format!("{host} (serial {serial})"))
}

/// A Pi's serial number, or what a PC's firmware calls it. Some firmware says the same of every machine, or only zeros.
fn serial(root: &Path) -> Option<String> {
    let known = ["sys/firmware/devicetree/base/serial-number", "sys/class/dmi/id/product_uuid"];
    known.iter().find_map(|path| {
        let text = std::fs::read_to_string(root.join(path)).ok()?;
        let text = text.trim_matches(|c: char| c == '\0' || c.is_whitespace()).to_ascii_lowercase();
        let digits: Vec<_> = text.chars().filter(char::is_ascii_hexdigit).collect();
        let says_something = digits.iter().any(|digit| *digit != digits[0]);
        let is_a_number = text.len() <= 64 && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        (says_something && is_a_number).then_some(text)
    })
}

/// This machine's id, below `root` (`/` but in tests).
///
/// # Errors
/// `/etc/machine-id` is missing or empty.
pub fn machine_id(root: &Path) -> Result<String> {
    let path = root.join("etc/machine-id");
    let hint = "run systemd-machine-id-setup";
    let text = std::fs::read_to_string(&path)
        .map_err(|error| Error::new(format!("cannot read {}", path.display())).hint(hint).caused_by(error))?;
    let id = text.trim();
    if id.is_empty() || id == "uninitialized" {
        return Err(Error::new(format!("{} holds no id", path.display())).hint(hint));
    }
    Ok(id.into())
}

/// Who writes to the place at the root of `store`; `None`: nobody yet.
///
/// # Errors
/// It cannot be read, or is no such record.
pub fn owner(store: &Store) -> Result<Option<Owner>> {
    match store.get_small(KEY, SMALL) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            Error::new(format!("{store}/{KEY} is not readable"))
                .hint("look at it; pi-agent adopt writes it anew")
                .caused_by(error)
        }),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a place is taken for that does not say whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unowned {
    /// A new one, which becomes this machine's if it is empty; its folder is made.
    New,
    /// One that was never backed up to. Who does not back up leaves it as it is.
    Unused,
    /// One that held this machine's backups: the disk it lies on is not mounted, or it was emptied.
    Lost,
}

/// The owner of the place at the root of `store`, which is this machine; `None`: it is nobody's, and may become this machine's.
/// `disk`: where it is now. `tokens`: those that this machine has put there.
///
/// # Errors
/// It belongs to another machine, somebody else has written there since our last run, it has no owner but holds things or is not to
/// become ours, it is a copy on another disk, or storage fails.
pub fn verify(
    store: &Store,
    machine: &Machine,
    unowned: Unowned,
    disk: Option<&Disk>,
    tokens: &[String],
) -> Result<Option<Owner>> {
    if let Some(owner) = owner(store)? {
        owner.is(machine, tokens, &store.to_string())?;
        if let Some(marked) = &owner.disk {
            marked.expect(disk, &store.to_string())?;
        }
        return Ok(Some(owner));
    }
    match unowned {
        Unowned::Lost => {
            Err(Error::new(format!("{store} held this machine's backups, and now does not even say whose it is"))
                .hint("mount the disk it lies on; if the backups were given up on purpose: pi-agent adopt"))
        }
        Unowned::Unused => Err(Error::new(format!("{store} says nothing of whose it is")).hint(
            "the first backup makes a new place: pi-agent run; if what lies there is this machine's: pi-agent adopt",
        )),
        Unowned::New => {
            store.make_root()?;
            // A listing that fails ends here: it does not make the place ours.
            if store.list("")?.is_empty() {
                Ok(None)
            } else {
                Err(Error::new(format!("{store} is not empty, and says nothing of whose it is"))
                    .hint("if what lies there is this machine's: pi-agent adopt"))
            }
        }
    }
}

impl Owner {
    /// Makes sure that it is that machine, and nobody else has written since its last run.
    ///
    /// # Errors
    /// It is another one, or somebody else has: who, and when.
    pub fn is(&self, machine: &Machine, tokens: &[String], place: &str) -> Result<()> {
        let owner = named(&self.host, self.serial.as_ref());
        if self.machine_id != machine.id {
            return Err(Error::new(format!(
                "{place} belongs to the machine {owner} (id {}) since {:.0}",
                self.machine_id, self.since
            ))
            .hint(A_PLACE_EACH));
        }
        if let (Some(theirs), Some(ours)) = (&self.serial, &machine.serial)
            && theirs != ours
        {
            return Err(Error::new(format!(
                "{place} belongs to another machine with this card's machine-id: {owner} since {:.0}, and this is {}",
                self.since,
                machine.words()
            ))
            .hint(A_CLONE));
        }
        // Without a token of ours the state directory is new, and nothing says that this is not what it was.
        let Some(token) = self.token.as_ref().filter(|token| !tokens.is_empty() && !tokens.contains(token)) else {
            return Ok(());
        };
        let written = self.written.map_or_else(String::new, |written| format!(" on {written:.0}"));
        Err(Error::new(format!(
            "another machine or card also writes to {place}: {owner} did{written} (token {token}), and this one, {}, did not",
            machine.words()
        ))
        .hint(A_CLONE))
    }

    /// The name it had when it last wrote, if that was another one.
    pub fn renamed<'a>(&'a self, machine: &Machine) -> Option<&'a str> {
        (self.host != machine.host).then_some(&self.host)
    }
}

const A_PLACE_EACH: &str =
    "each machine needs a place of its own in [storage] url; if this machine replaces that one: pi-agent adopt";

/// Which of both it is only a person knows.
const A_CLONE: &str = "nothing was written or removed. If this card is a clone: give it another [host] name, a place of its own in [storage] url and an id of its own \
     (rm /etc/machine-id; systemd-machine-id-setup). If it is the only one from now on, as an older image of the card that was put back or a card that was \
     put into new hardware: pi-agent adopt";

/// Makes the place this machine's, whoever's it was, with that token.
///
/// # Errors
/// Storage fails.
pub fn take_over(store: &Store, machine: &Machine, disk: Option<&Disk>, token: Option<String>) -> Result<()> {
    renew(store, None, machine, disk, token).map(drop)
}

/// Writes down that this machine has written there, with that token, and on which disk the place is; what is written there now. `owner`:
/// what was there before. Without a token only when something else is new.
///
/// # Errors
/// Storage fails.
pub fn renew(
    store: &Store,
    owner: Option<&Owner>,
    machine: &Machine,
    disk: Option<&Disk>,
    token: Option<String>,
) -> Result<Owner> {
    let mut renewed = owner.cloned().unwrap_or_else(|| machine.owns(disk));
    renewed.host.clone_from(&machine.host);
    // A UUID or a serial number that is not to be seen just now is not forgotten.
    renewed.serial = machine.serial.clone().or(renewed.serial);
    if disk.is_some_and(|disk| disk.uuid.is_some() || renewed.disk.is_none()) {
        renewed.disk = disk.cloned();
    }
    if token.is_some() {
        (renewed.token, renewed.written) = (token, Some(Timestamp::now()));
    }
    if owner != Some(&renewed) {
        write(store, &renewed)?;
    }
    Ok(renewed)
}

fn write(store: &Store, owner: &Owner) -> Result<()> {
    let text = serde_json::to_vec_pretty(owner).context(|| "cannot write down the owner".into())?;
    // The server's user, who pushes its WAL, has to see whose the place is.
    store.put_for_all(KEY, &[Bytes::from(text)])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn machine(host: &str, id: &str, serial: Option<&str>) -> Machine {
        Machine { host: host.into(), id: id.into(), serial: serial.map(str::to_owned) }
    }

    fn owner(machine: &Machine, token: Option<&str>) -> Owner {
        Owner { token: token.map(str::to_owned), written: Some(Timestamp::UNIX_EPOCH), ..machine.owns(None) }
    }

    fn refused(owner: &Owner, machine: &Machine, tokens: &[&str]) -> Option<String> {
        let tokens: Vec<_> = tokens.iter().map(|token| (*token).to_owned()).collect();
        owner.is(machine, &tokens, "PLACE").err().map(|error| error.to_string())
    }

    #[test]
    fn a_token_of_ours_says_that_nobody_else_wrote() {
        for serial in [None, Some("10000000abcd")] {
            let pi = machine("pi", "id", serial);
            assert_eq!(refused(&owner(&pi, Some("b")), &pi, &["a", "b", "c"]), None);
            // Of before there were tokens; and with a state directory that was lost.
            assert_eq!(refused(&owner(&pi, None), &pi, &["a"]), None);
            assert_eq!(refused(&owner(&pi, Some("b")), &pi, &[]), None);
            let told = refused(&owner(&pi, Some("z")), &pi, &["a", "b"]).unwrap();
            assert!(told.starts_with("another machine or card also writes to PLACE: pi"), "{told}");
            assert!(told.contains("did on 1970-01-01T00:00:00Z (token z)"), "{told}");
        }
    }

    #[test]
    fn hardware_of_its_own_is_a_machine_of_its_own() {
        let (pi, clone) = (machine("pi", "id", Some("1000abcd")), machine("pi", "id", Some("1000dcba")));
        let told = refused(&owner(&pi, Some("a")), &clone, &["a"]).unwrap();
        assert!(told.contains("another machine with this card's machine-id: pi (serial 1000abcd)"), "{told}");
        assert!(told.ends_with("this is pi (serial 1000dcba)"), "{told}");
        // Not to be seen on one side it says nothing.
        let unseen = machine("pi", "id", None);
        assert_eq!(refused(&owner(&pi, Some("a")), &unseen, &["a"]), None);
        assert_eq!(refused(&owner(&unseen, Some("a")), &pi, &["a"]), None);
        let other = machine("other", "another", Some("1000abcd"));
        assert!(refused(&owner(&pi, Some("a")), &other, &["a"]).unwrap().contains("belongs to the machine pi"));
    }

    #[test]
    fn a_new_name_is_the_same_machine() {
        let (old, new) = (machine("old", "id", None), machine("new", "id", None));
        let owner = owner(&old, Some("a"));
        assert_eq!((refused(&owner, &new, &["a"]), owner.renamed(&new)), (None, Some("old")));
        assert_eq!(owner.renamed(&old), None);
    }

    #[test]
    fn numbers_that_say_nothing_are_none() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
            serial(root.path())
        };
        assert_eq!(serial(root.path()), None);
        let dmi = "sys/class/dmi/id/product_uuid";
        assert_eq!(write(dmi, "00000000-0000-0000-0000-000000000000\n"), None);
        assert_eq!(write(dmi, "Not Specified\n"), None);
        assert_eq!(write(dmi, "4C4C4544-0051\n").as_deref(), Some("4c4c4544-0051"));
        let pi = "sys/firmware/devicetree/base/serial-number";
        assert_eq!(write(pi, "0000000000000000\0").as_deref(), Some("4c4c4544-0051"));
        assert_eq!(write(pi, "10000000abcdef01\0").as_deref(), Some("10000000abcdef01"));
    }

    #[test]
    fn what_is_not_to_be_seen_just_now_is_not_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let location = crate::config::Location::File(folder.path().join("place"));
        let text = format!(
            "[host]\nname = \"pi\"\n[storage]\nurl = \"{location}\"\n[[step]]\nname = \"s\"\nkind = \"directory\"\npaths = [\"/srv\"]\n"
        );
        let settings = crate::config::parse(&text, Path::new("/etc/pi-agent/config.toml")).unwrap();
        let store = Store::open(&settings.storage, &location, &crate::secrets::Secrets::new("/none")).unwrap();
        let seen = machine("pi", "id", Some("1000abcd"));
        let disk = Disk { mounted_at: "/mnt/usb".into(), uuid: Some("aaaa".into()) };
        assert_eq!(verify(&store, &seen, Unowned::New, Some(&disk), &[]).unwrap(), None);
        renew(&store, None, &seen, Some(&disk), None).unwrap();
        let unseen = machine("pi", "id", None);
        let written = super::owner(&store).unwrap().unwrap();
        assert_eq!((written.serial.as_deref(), written.token.as_deref()), (Some("1000abcd"), None));
        let hidden = Disk { uuid: None, ..disk.clone() };
        renew(&store, Some(&written), &unseen, Some(&hidden), Some("t".into())).unwrap();
        let written = super::owner(&store).unwrap().unwrap();
        assert_eq!((written.serial.as_deref(), written.token.as_deref()), (Some("1000abcd"), Some("t")));
        assert_eq!(written.disk, Some(disk));
    }

    #[test]
    fn no_owner_panics() {
        let ours = machine("pi", "0123", Some("1000abcd"));
        let written = serde_json::to_vec(&owner(&ours, Some("token"))).expect("JSON");
        crate::fuzzed::fuzz(&[&written], |bytes| {
            if let Ok(owner) = serde_json::from_slice::<Owner>(bytes) {
                drop(owner.is(&ours, &["token".into()], "s3://bucket"));
                let _ = owner.renamed(&ours);
            }
        });
    }
}
