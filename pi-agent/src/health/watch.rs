//! The machine, watched while something is done on it: what was wrong is noted, and what is too bad to go on is said.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::sensors::{Reading, Sensors};
use super::trouble::{Trouble, What, note};
use super::volumes::{by_device, is_read_only, mounts};
use crate::config::{Settings, StateDirectory};
use crate::report::words;

/// Between two glances while something is done: a few small files each.
const GLANCE: Duration = Duration::from_secs(10);
/// Less memory than this for programs: the kernel is about to end one.
const LITTLE_MEMORY: u64 = 24 << 20;
/// A disk with less room, or for fewer files, is full: a repository writes packs and indexes of some MiB.
const LITTLE_ROOM: u64 = 64 << 20;
const FEW_FILES: u64 = 1000;
/// What the network's time may correct without anything being wrong.
const MOVED: SignedDuration = SignedDuration::from_mins(10);

/// Watches.
#[derive(Debug)]
pub struct Watch<'a> {
    root: PathBuf,
    settings: &'a Settings,
    directory: &'a StateDirectory,
    sensors: Sensors,
    strain: Strain,
    disks: Vec<(u64, PathBuf)>,
    record: Vec<Trouble>,
    began: (Instant, Timestamp),
    looked: Instant,
}

impl<'a> Watch<'a> {
    /// The machine below `root`: `/` but in tests.
    pub fn new(root: impl Into<PathBuf>, settings: &'a Settings, directory: &'a StateDirectory) -> Self {
        let root = root.into();
        Self {
            sensors: Sensors::below(&root),
            root,
            settings,
            directory,
            strain: Strain::default(),
            disks: Vec::new(),
            record: Vec::new(),
            began: (Instant::now(), Timestamp::now()),
            looked: Instant::now(),
        }
    }

    /// Something begins: what is noted from now on is its.
    pub fn begin(&mut self) {
        self.record.clear();
        self.began = (Instant::now(), Timestamp::now());
        self.look_around();
    }

    /// It has ended: what was noted.
    pub fn end(&mut self) -> Vec<Trouble> {
        self.look_around();
        std::mem::take(&mut self.record)
    }

    /// Looks, if the last look was a while ago. Cheap: to be called often.
    pub fn glance(&mut self) {
        if self.looked.elapsed() >= GLANCE {
            self.look();
        }
    }

    /// Looks; why nothing should be done just now, if so.
    pub fn look(&mut self) -> Option<&str> {
        self.looked = Instant::now();
        let now = Timestamp::now();
        let limit = self.settings.alarms.temperature;
        let reading = self.sensors.look();
        for what in seen(&reading, limit) {
            note(&mut self.record, what, now);
        }
        self.strain.next(&reading, limit, self.looked);
        let mounts = mounts(&self.root);
        for (device, volume) in &self.disks {
            if is_read_only(&mounts, *device) {
                note(&mut self.record, What::ReadOnly { volume: volume.clone() }, now);
            }
        }
        let moved = moved(self.began, (self.looked, now));
        if let Some(why) = moved {
            self.note(What::Clock { why });
        }
        self.strain.why()
    }

    /// Why nothing should be done just now, as it was at the last look.
    pub fn strain(&self) -> Option<&str> {
        self.strain.why()
    }

    /// Notes what somebody else has seen.
    pub fn note(&mut self, what: What) {
        note(&mut self.record, what, Timestamp::now());
    }

    /// Looks at the disks as well, which may take its time.
    fn look_around(&mut self) {
        let found = by_device(&self.root, self.settings, self.directory);
        for (_, volume) in &found {
            let room = &volume.room;
            if !room.read_only && (room.free < LITTLE_ROOM || room.free_files.is_some_and(|files| files < FEW_FILES)) {
                self.note(What::Full { volume: volume.name.clone() });
            }
        }
        self.disks = found.into_iter().map(|(device, volume)| (device, volume.name)).collect();
        self.look();
    }
}

fn seen(reading: &Reading, limit: u32) -> impl Iterator<Item = What> {
    let hot = reading.celsius.filter(|celsius| *celsius >= limit);
    let little = reading.memory.filter(|left| *left < LITTLE_MEMORY);
    [
        reading.under_voltage.then_some(What::UnderVoltage),
        reading.slowed.then_some(What::Slowed),
        hot.map(|celsius| What::Heat { celsius }),
        little.map(|left| What::LittleMemory { left }),
    ]
    .into_iter()
    .flatten()
}

/// By how much the clock was moved since then, held against the one that nobody sets.
fn moved(then: (Instant, Timestamp), now: (Instant, Timestamp)) -> Option<String> {
    let passed = SignedDuration::try_from(now.0 - then.0).ok()?;
    let moved = now.1.duration_since(then.1) - passed;
    let direction = if moved.is_negative() { "back" } else { "forward" };
    (moved.abs() > MOVED)
        .then(|| format!("the clock was moved {direction} by {}", words::duration(moved.unsigned_abs())))
}

/// Whether it is too bad to go on. What has become too bad must be well for a while before it is over: else work and rest
/// would change places every few seconds.
#[derive(Debug, Default)]
pub struct Strain {
    why: Option<String>,
    calm: Option<Instant>,
}

impl Strain {
    /// Degrees below the limit at which it is cool again.
    const BAND: u32 = 5;
    /// The kernel looks at the voltage every two seconds.
    const CALM: Duration = Duration::from_secs(10);

    /// Why work must rest, if it must.
    pub fn why(&self) -> Option<&str> {
        self.why.as_deref()
    }

    /// Takes what was seen into account.
    fn next(&mut self, reading: &Reading, limit: u32, now: Instant) {
        let band = if self.why.is_some() { Self::BAND } else { 0 };
        let hot = reading.celsius.filter(|celsius| *celsius + band >= limit);
        let why = match hot {
            _ if reading.under_voltage => Some("the power supply gives too little voltage".to_owned()),
            Some(celsius) => Some(format!("the processor is at {celsius} °C, and the limit is {limit} °C")),
            None => None,
        };
        if why.is_some() {
            (self.why, self.calm) = (why, None);
        } else if self.why.is_some() && now - *self.calm.get_or_insert(now) >= Self::CALM {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;

    fn reading(under_voltage: bool, celsius: u32) -> Reading {
        Reading { knows_voltage: true, under_voltage, celsius: Some(celsius), ..Reading::default() }
    }

    #[test]
    fn what_was_too_bad_is_over_only_after_a_while_of_calm() {
        let (mut strain, start) = (Strain::default(), Instant::now());
        let mut at = |seconds, reading: &Reading| {
            strain.next(reading, 80, start + Duration::from_secs(seconds));
            strain.why().map(str::to_owned)
        };
        assert_eq!(at(0, &reading(false, 79)), None);
        assert!(at(2, &reading(false, 80)).unwrap().contains("80 °C, and the limit is 80 °C"));
        assert!(at(4, &reading(false, 76)).is_some(), "not yet cool");
        assert!(at(6, &reading(false, 74)).is_some(), "not yet long enough");
        assert!(at(14, &reading(true, 74)).unwrap().contains("voltage"));
        assert!(at(16, &reading(false, 74)).is_some());
        assert!(at(25, &reading(false, 74)).is_some());
        assert_eq!(at(26, &reading(false, 74)), None);
        assert_eq!(at(28, &reading(false, 79)), None);
        assert_eq!(at(30, &Reading::default()), None, "a machine without sensors is never held up");
    }

    #[test]
    fn a_clock_that_is_moved_is_noticed() {
        let (instant, wall) = (Instant::now(), "2026-11-21T03:00:00Z".parse::<Timestamp>().unwrap());
        let after = |seconds: i64| {
            moved((instant, wall), (instant + Duration::from_mins(1), wall + SignedDuration::from_secs(seconds)))
        };
        assert_eq!((after(60), after(60 + 600), after(60 - 600)), (None, None, None));
        assert_eq!(after(7260).unwrap(), "the clock was moved forward by 2 h");
        assert_eq!(after(60 - 3600).unwrap(), "the clock was moved back by 1 h");
    }

    #[test]
    fn a_machine_made_of_files_is_watched() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let file = root.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        let here = root.path().display();
        let text = format!(
            "[host]\nname = \"pi\"\n[storage]\nurl = \"file://{here}/storage\"\n[local]\ncache = \"{here}/cache\"\n\
             [[step]]\nname = \"d\"\nkind = \"directory\"\npaths = [\"/srv\"]\n"
        );
        let settings = crate::config::parse(&text, "/etc/pi-agent/config.toml".as_ref()).unwrap();
        let directory = StateDirectory(root.path().join("state"));
        let mut watch = Watch::new(root.path(), &settings, &directory);
        watch.begin();
        assert_eq!(watch.end(), []);

        watch.begin();
        assert_eq!(watch.look(), None);
        write("sys/class/hwmon/hwmon0/name", "rpi_volt\n");
        write("sys/class/hwmon/hwmon0/in0_lcrit_alarm", "1\n");
        write("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n");
        write("sys/class/thermal/thermal_zone0/temp", "84000\n");
        write("sys/devices/platform/soc/soc:firmware/get_throttled", "d0005\n");
        write("proc/meminfo", "MemAvailable: 10240 kB\n");
        let device = watch.disks[0].0;
        let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
        write("proc/self/mountinfo", &format!("1 0 {major}:{minor} / / rw - ext4 /dev/sda1 ro,errors=remount-ro\n"));
        assert!(watch.look().unwrap().contains("voltage"));
        write("sys/class/hwmon/hwmon0/in0_lcrit_alarm", "0\n");
        let record = watch.end();
        let whats: Vec<&What> = record.iter().map(|trouble| &trouble.what).collect();
        let volume = watch.disks[0].1.clone();
        assert_eq!(
            whats,
            [
                &What::UnderVoltage,
                &What::Slowed,
                &What::Heat { celsius: 84 },
                &What::LittleMemory { left: 10 << 20 },
                &What::ReadOnly { volume },
            ]
        );
    }
}
