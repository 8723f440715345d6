//! How much is waited for on this machine: the kernel's pressure stall information, or how busy disks and processors are
//! where the kernel has none (Raspberry Pi OS starts without it).

use std::path::{Path, PathBuf};
use std::time::Instant;

/// The shares of time from which on others are hindered, when they wait for a processor, a disk, or memory.
///
/// Of processors: a thread that is always ready costs a database beside it a third of its transactions even at the lowest
/// priority and with next to no work done (measured, Linux 6.18): who has to be woken is woken later. They come first in the list.
const LIMITS: [(&str, f64); 3] = [("cpu", 0.4), ("io", 0.1), ("memory", 0.05)];
/// The same of processors' and of disks' time, where it is not known who waits.
const BUSY_CPU: f64 = 0.8;
const BUSY_DISK: f64 = 0.4;

/// Where the machine tells it.
pub struct Pressure {
    proc: PathBuf,
    /// Our own control group, unless we share the root's.
    own: Option<PathBuf>,
}

/// What the counters showed at a moment.
pub struct Sample {
    at: Instant,
    counters: Counters,
}

enum Counters {
    /// Microseconds in which something waited, everywhere and in our own control group.
    Stalls { all: [u64; 3], own: [u64; 3] },
    /// Milliseconds in which each disk was busy, and ticks of processors: at work, and all.
    Busy { disks: Vec<(String, u64)>, cpu: (u64, u64) },
}

impl Pressure {
    /// Looks where to look, below `root`.
    pub fn of(root: &Path) -> Self {
        let proc = root.join("proc");
        let groups = std::fs::read_to_string(proc.join("self/cgroup")).unwrap_or_default();
        let name = groups.lines().find_map(|line| line.strip_prefix("0::/")).filter(|name| !name.is_empty());
        let places = ["sys/fs/cgroup", "sys/fs/cgroup/unified"];
        let own = name.and_then(|name| {
            places.iter().map(|place| root.join(place).join(name)).find(|own| own.join("io.pressure").exists())
        });
        Self { proc, own }
    }

    /// The counters as they stand.
    pub fn sample(&self, at: Instant) -> Sample {
        let stalls =
            |folder: &Path, ending: &str| LIMITS.map(|(name, _)| waited(&folder.join(format!("{name}{ending}"))));
        let all = stalls(&self.proc.join("pressure"), "");
        let counters = if all.iter().any(Option::is_some) {
            let own = self.own.as_ref().map_or([None; 3], |own| stalls(own, ".pressure"));
            Counters::Stalls { all: all.map(Option::unwrap_or_default), own: own.map(Option::unwrap_or_default) }
        } else {
            let read = |name| std::fs::read_to_string(self.proc.join(name)).unwrap_or_default();
            Counters::Busy { disks: disks(&read("diskstats")), cpu: processors(&read("stat")) }
        };
        Sample { at, counters }
    }
}

impl Sample {
    /// How much was waited between `before` and this, by others than us as far as that can be told; at 1 they are hindered.
    /// Who waits for a processor counts only if `processors`.
    pub fn level(&self, before: &Self, processors: bool) -> f64 {
        let skipped = usize::from(!processors);
        let seconds = self.at.saturating_duration_since(before.at).as_secs_f64().max(0.001);
        match (&self.counters, &before.counters) {
            (Counters::Stalls { all, own }, Counters::Stalls { all: all_before, own: own_before }) => {
                let levels = LIMITS.iter().enumerate().skip(skipped).map(|(index, (_, limit))| {
                    let ours = own[index].saturating_sub(own_before[index]);
                    let waited = all[index].saturating_sub(all_before[index]).saturating_sub(ours);
                    waited as f64 / 1e6 / seconds / limit
                });
                levels.fold(0.0, f64::max)
            }
            (Counters::Busy { disks, cpu }, Counters::Busy { disks: disks_before, cpu: cpu_before }) => {
                let busy = disks.iter().filter_map(|(name, busy)| {
                    let (_, before) = disks_before.iter().find(|(other, _)| other == name)?;
                    Some(busy.saturating_sub(*before))
                });
                let disk = busy.max().unwrap_or_default() as f64 / 1e3 / seconds;
                let ticks = cpu.1.saturating_sub(cpu_before.1).max(1) as f64;
                let cpu = cpu.0.saturating_sub(cpu_before.0) as f64 / ticks;
                if processors { (disk / BUSY_DISK).max(cpu / BUSY_CPU) } else { disk / BUSY_DISK }
            }
            _ => 0.0,
        }
    }
}

/// The `total` of `some avg10=0.00 avg60=0.00 avg300=0.00 total=58762874`. A kernel that was started without has the file, but
/// does not let it be read.
fn waited(file: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix("some "))?.rsplit_once("total=")?.1.parse().ok()
}

/// Of each disk how long it was busy; partitions are slower to tell apart than to count.
fn disks(text: &str) -> Vec<(String, u64)> {
    let disk = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let name = *fields.get(2)?;
        let is_real = !["loop", "ram", "zram"].iter().any(|kind| name.starts_with(kind));
        is_real.then(|| Some((name.to_owned(), fields.get(12)?.parse().ok()?)))?
    };
    text.lines().filter_map(disk).collect()
}

/// Ticks at work, and all: what waits for a disk is idle.
fn processors(text: &str) -> (u64, u64) {
    let all = text.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    // user, nice, system, idle, iowait, irq, softirq, steal; guests are in user already.
    let ticks: Vec<u64> = all.split_whitespace().take(8).filter_map(|ticks| ticks.parse().ok()).collect();
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    let sum = ticks.iter().sum::<u64>();
    (sum - idle, sum)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Duration;

    fn put(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn stall(total: u64) -> String {
        format!(
            "some avg10=1.00 avg60=0.00 avg300=0.00 total={total}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"
        )
    }

    /// The level over one second in which `change` was made.
    fn level(root: &Path, change: impl FnOnce()) -> f64 {
        let pressure = Pressure::of(root);
        let now = Instant::now();
        let before = pressure.sample(now);
        change();
        pressure.sample(now + Duration::from_secs(1)).level(&before, true)
    }

    #[test]
    fn the_worst_stall_counts_without_our_own() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for name in ["cpu", "io", "memory"] {
            put(root, &format!("proc/pressure/{name}"), &stall(1_000_000));
        }
        assert!(level(root, || ()) < 0.001);
        let half_of_what_may_be = level(root, || put(root, "proc/pressure/memory", &stall(1_025_000)));
        assert!((half_of_what_may_be - 0.5).abs() < 0.01);
        assert!((level(root, || put(root, "proc/pressure/cpu", &stall(1_800_000))) - 2.0).abs() < 0.01);
        assert!((level(root, || put(root, "proc/pressure/io", &stall(1_300_000))) - 3.0).abs() < 0.01);
        assert!((level(root, || put(root, "proc/pressure/memory", &stall(1_075_000))) - 1.0).abs() < 0.01);

        put(root, "proc/self/cgroup", "4:memory:/x\n0::/system.slice/pi-agent-backup.service\n");
        let own = "sys/fs/cgroup/system.slice/pi-agent-backup.service/io.pressure";
        put(root, own, &stall(0));
        let ours = level(root, || {
            put(root, "proc/pressure/io", &stall(1_700_000));
            put(root, own, &stall(380_000));
        });
        assert!((ours - 0.2).abs() < 0.01, "{ours}");
    }

    #[test]
    fn without_that_a_busy_disk_or_processor_counts() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        // What the file is on a kernel started with psi=0 cannot be made here; one that says nothing is as good.
        put(root, "proc/pressure/io", "");
        let disk = |busy: u64| {
            format!(
                "   7 0 loop0 1 0 8 1 0 0 0 0 0 99{busy} 1\n 179 0 mmcblk0 633 15 2346 129 140 31 2352 169 0 {busy} 338\n"
            )
        };
        put(root, "proc/diskstats", &disk(1000));
        assert!((level(root, || put(root, "proc/diskstats", &disk(1800))) - 2.0).abs() < 0.01);
        let cpu = |user: u64, idle: u64| format!("cpu  {user} 0 100 {idle} 0 0 0 0 0 0\ncpu0 1 2 3 4\n");
        put(root, "proc/stat", &cpu(100, 100));
        let saturated = level(root, || put(root, "proc/stat", &cpu(490, 110)));
        assert!((saturated - 0.975 / BUSY_CPU).abs() < 0.01, "{saturated}");
    }
}
