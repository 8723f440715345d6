//! What the machine feels: voltage, throttling, temperature, memory. A few small files, read in a moment; where there are
//! none (no Raspberry Pi, a container) nothing is known, and nothing is said.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::process::Program;

/// What the firmware says (`vcgencmd get_throttled`): in the lower half what is so now, sixteen bits higher what was so
/// since the machine's start.
/// <https://www.raspberrypi.com/documentation/computers/os.html#get_throttled>
const UNDER_VOLTAGE: u32 = 1;
/// Frequency capped, throttled, soft temperature limit.
const SLOWED: u32 = 0b1110;
const SINCE_START: u32 = 16;

/// A first backup takes 60 to 70 MiB, and so does a restore.
pub const NEEDED_MEMORY: u64 = 72 << 20;

/// Below this no Raspberry Pi is slowed by its heat (the soft limit of a 3B+ is 60 °C).
const COOL: u32 = 59;

/// `vcgencmd` is a program, and asks the firmware by a slow way.
const ASKED_EVERY: Duration = Duration::from_secs(60);
const ANSWER: Duration = Duration::from_secs(2);

/// One look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Somebody can tell the voltage.
    pub knows_voltage: bool,
    /// The supply gives too little just now.
    pub under_voltage: bool,
    /// It gave too little at some time since the machine's start.
    pub was_under_voltage: bool,
    /// The firmware holds the processor back: for heat, or for want of voltage.
    pub slowed: bool,
    /// The hottest part of the processor, in degrees Celsius.
    pub celsius: Option<u32>,
    /// Bytes of memory that programs may still have.
    pub memory: Option<u64>,
}

/// Where to look, and what was asked lately.
#[derive(Debug)]
pub struct Sensors {
    root: PathBuf,
    asked: Option<(Instant, Option<u32>)>,
}

impl Sensors {
    /// Those below `root`: `/` but in tests.
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), asked: None }
    }

    /// Looks.
    pub fn look(&mut self) -> Reading {
        let (alarm, celsius) = (self.voltage_alarm(), self.celsius());
        let quiet = alarm == Some(false) && celsius.is_some_and(|celsius| celsius <= COOL);
        // Newer kernels write a warning with a stack trace into their log when that file is read: not while all is well.
        let bits = if quiet { None } else { self.throttled().or_else(|| self.asked(alarm)) };
        let said = |bit: u32| bits.is_some_and(|bits| bits & bit != 0);
        Reading {
            knows_voltage: alarm.is_some() || bits.is_some(),
            under_voltage: alarm == Some(true) || said(UNDER_VOLTAGE),
            was_under_voltage: said(UNDER_VOLTAGE << SINCE_START),
            slowed: said(SLOWED),
            celsius,
            memory: self.memory(),
        }
    }

    /// Looks, and asks the firmware whatever the files say: for a person who waits for the answer.
    pub fn look_closely(&mut self) -> Reading {
        let mut reading = self.look();
        let bits = self.asked(None);
        reading.knows_voltage |= bits.is_some();
        reading.was_under_voltage |= bits.is_some_and(|bits| bits & (UNDER_VOLTAGE << SINCE_START) != 0);
        reading
    }

    fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        fs::read_to_string(self.root.join(path)).ok()
    }

    fn class(&self, name: &str) -> impl Iterator<Item = PathBuf> {
        let folder = self.root.join("sys/class").join(name);
        fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
    }

    /// The kernel asks the firmware every two seconds, and says whether there was under-voltage since.
    fn voltage_alarm(&self) -> Option<bool> {
        let is_it = |device: &PathBuf| self.text(device.join("name")).is_some_and(|name| name.trim() == "rpi_volt");
        let device = self.class("hwmon").find(is_it)?;
        self.text(device.join("in0_lcrit_alarm")).map(|alarm| alarm.trim() == "1")
    }

    fn throttled(&self) -> Option<u32> {
        number(&self.text("sys/devices/platform/soc/soc:firmware/get_throttled")?)
    }

    /// `vcgencmd`, where nothing else tells. A unit of systemd has no access to the firmware, so there it is not known.
    fn asked(&mut self, alarm: Option<bool>) -> Option<u32> {
        let model = self.text("proc/device-tree/model");
        if alarm.is_some() || !model.is_some_and(|model| model.starts_with("Raspberry Pi")) {
            return None;
        }
        if let Some((when, told)) = self.asked
            && when.elapsed() < ASKED_EVERY
        {
            return told;
        }
        let program = Program::new("vcgencmd", ["get_throttled"]).within(ANSWER);
        let told = program.run(&mut |_, _| ()).ok().filter(|output| output.status.success());
        let told = told.and_then(|output| number(output.stdout.trim().strip_prefix("throttled=")?));
        self.asked = Some((Instant::now(), told));
        told
    }

    fn celsius(&self) -> Option<u32> {
        let of_processor = |zone: &PathBuf| {
            let kind = self.text(zone.join("type")).unwrap_or_default();
            ["cpu", "soc", "bcm", "x86_pkg"].iter().any(|part| kind.to_lowercase().contains(part))
        };
        let degrees = |zone: PathBuf| self.text(zone.join("temp"))?.trim().parse::<u32>().ok().map(|it| it / 1000);
        // A sensor that is off says nonsense.
        let zones = self.class("thermal").filter(of_processor);
        zones.filter_map(degrees).filter(|celsius| (1..150).contains(celsius)).max()
    }

    /// Bytes of memory that programs may still have.
    pub fn memory(&self) -> Option<u64> {
        let text = self.text("proc/meminfo")?;
        let kilobytes = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        kilobytes.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|it| it << 10)
    }
}

/// Hexadecimal, with or without `0x`.
fn number(text: &str) -> Option<u32> {
    let text = text.trim();
    u32::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const THROTTLED: &str = "sys/devices/platform/soc/soc:firmware/get_throttled";

    /// A machine made of files.
    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Sensors) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let file = root.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let sensors = Sensors::below(root.path());
        (root, sensors)
    }

    #[test]
    fn where_there_is_nothing_nothing_is_known() {
        assert_eq!(machine(&[]).1.look(), Reading::default());
        // A PC: no voltage, a disk's temperature that is none of ours, one zone that is off.
        let (_root, mut sensors) = machine(&[
            ("sys/class/hwmon/hwmon0/name", "nvme\n"),
            ("sys/class/hwmon/hwmon0/in0_lcrit_alarm", "1\n"),
            ("sys/class/thermal/thermal_zone0/type", "iwlwifi_1\n"),
            ("sys/class/thermal/thermal_zone0/temp", "99000\n"),
            ("sys/class/thermal/thermal_zone1/type", "cpu-thermal\n"),
            ("sys/class/thermal/thermal_zone1/temp", "-274000\n"),
            ("proc/meminfo", "MemTotal: 948304 kB\nMemAvailable:  512000 kB\n"),
        ]);
        assert_eq!(sensors.look(), Reading { memory: Some(512_000 << 10), ..Reading::default() });
    }

    #[test]
    fn the_voltage_sensor_of_the_kernel_tells() {
        let volt = |alarm| {
            let (root, mut sensors) = machine(&[
                ("sys/class/hwmon/hwmon0/name", "cpu_thermal\n"),
                ("sys/class/hwmon/hwmon1/name", "rpi_volt\n"),
                ("sys/class/hwmon/hwmon1/in0_lcrit_alarm", alarm),
                ("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n"),
                ("sys/class/thermal/thermal_zone0/temp", "48312\n"),
                (THROTTLED, "50005\n"),
            ]);
            (root, sensors.look()).1
        };
        let well = volt("0\n");
        assert_eq!((well.knows_voltage, well.under_voltage, well.celsius), (true, false, Some(48)));
        assert!(!well.slowed, "the file that makes the kernel complain is left alone while all is well");
        let low = volt("1\n");
        assert!(low.under_voltage && low.slowed && low.was_under_voltage);
    }

    #[test]
    fn each_bit_of_the_firmware_means_what_it_says() {
        let bits = |text: &str| machine(&[(THROTTLED, text)]).1.look();
        let of = |text: &str| {
            let reading = bits(text);
            (reading.under_voltage, reading.slowed, reading.was_under_voltage)
        };
        assert_eq!(of("0\n"), (false, false, false));
        assert_eq!(of("1\n"), (true, false, false));
        assert_eq!([of("2\n"), of("4\n"), of("8\n")], [(false, true, false); 3]);
        assert_eq!(of("50000\n"), (false, false, true));
        assert_eq!(of("e0000\n"), (false, false, false), "slowed once is no want of voltage");
        assert_eq!(of("0xd0005\n"), (true, true, true));
        assert!(bits("0\n").knows_voltage && !bits("nonsense\n").knows_voltage);
    }

    #[test]
    fn the_hottest_zone_of_the_processor_counts() {
        let (_root, mut sensors) = machine(&[
            ("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n"),
            ("sys/class/thermal/thermal_zone0/temp", "79999\n"),
            ("sys/class/thermal/thermal_zone1/type", "soc-thermal\n"),
            ("sys/class/thermal/thermal_zone1/temp", "81250\n"),
        ]);
        assert_eq!(sensors.look().celsius, Some(81));
    }
}
