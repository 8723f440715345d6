//! The machine: rights, state, clock, room on its disks.

use std::path::Path;

use jiff::Timestamp;

use super::Finding;
use crate::config::StateDirectory;
use crate::health::{self, NEEDED_MEMORY, Reading};
use crate::state::State;
use crate::systemd::{TimeService, time_service};

/// Below this nothing can be expected to work: a repository writes packs and indexes of some MiB.
const TOO_LITTLE: u64 = 64 << 20;
const TOO_FEW_FILES: u64 = 1000;

pub(super) fn rights() -> Option<Finding> {
    (!nix::unistd::geteuid().is_root()).then(|| {
        Finding::warning(
            "rights",
            "not looking as root: what backups can read and write may differ",
            "sudo pi-agent doctor",
        )
    })
}

/// The history, if there is any.
pub(super) fn state(directory: &StateDirectory, findings: &mut Vec<Finding>) -> Option<State> {
    let file = directory.database();
    match State::open_read_only(&file) {
        Ok(Some(state)) => {
            findings.push(Finding::ok("state", format!("history in {}", file.display())));
            Some(state)
        }
        Ok(None) => {
            let advice =
                "nothing to do before the first run; otherwise the next run fetches the saved copy from storage";
            findings.push(Finding::note("state", format!("no history in {} yet", file.display()), advice));
            None
        }
        Err(error) => {
            let advice = "nothing is lost: the next run sets it aside and fetches the saved copy from storage";
            findings.push(Finding::warning("state", error.chain(), error.advice().unwrap_or(advice)));
            None
        }
    }
}

pub(super) fn clock(state: Option<&State>) -> Vec<Finding> {
    let last = state.and_then(|state| state.newest_moment().ok().flatten());
    let mut findings = vec![match health::clock_problem(last) {
        Some(doubt) => Finding::problem(
            "clock",
            format!("{}; nothing is deleted while that is so", doubt.why),
            "look at `timedatectl`; set it with `timedatectl set-ntp true` and a network, or `timedatectl set-time`",
        ),
        None => Finding::ok("clock", format!("{:.0}", Timestamp::now())),
    }];
    if time_service() == TimeService::Absent {
        findings.push(Finding::note(
            "clock",
            "no time service is at work",
            "nothing, if a clock chip or the host of a container keeps it; otherwise: apt install systemd-timesyncd",
        ));
    }
    findings
}

/// Can the kernel limit memory? Raspberry Pi OS boots with that switched off. `root` is `/` but in tests.
pub(super) fn memory_limits(root: &Path) -> Option<Finding> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    let unified = read("sys/fs/cgroup/cgroup.controllers");
    let limited = unified.split_whitespace().any(|controller| controller == "memory")
        || root.join("sys/fs/cgroup/memory").is_dir();
    (!limited && read("proc/cmdline").contains("cgroup_disable=memory")).then(|| {
        Finding::note(
            "memory",
            "the kernel was started without memory limits (cgroup_disable=memory)",
            "add cgroup_enable=memory to the one line of /boot/firmware/cmdline.txt and restart; until then only the limit \
             for each process holds",
        )
    })
}

/// Voltage, temperature and memory, as far as somebody can tell. A run rests while the first two are bad.
pub(super) fn strain(reading: &Reading, limit: u32) -> Vec<Finding> {
    const SUPPLY: &str = "use the official power supply and a short cable, and give USB disks a supply of their own";
    let mut findings = Vec::new();
    if reading.knows_voltage {
        findings.push(match (reading.under_voltage, reading.was_under_voltage) {
            (true, _) => {
                Finding::problem("power", "the power supply gives too little voltage: runs wait, then fail", SUPPLY)
            }
            (false, true) => {
                Finding::warning("power", "the power supply gave too little voltage since the machine's start", SUPPLY)
            }
            (false, false) => Finding::ok("power", "the voltage is as it should be"),
        });
    }
    findings.extend(reading.celsius.map(|celsius| {
        let shown = format!("the processor is at {celsius} °C; runs rest from {limit} °C on");
        match celsius >= limit {
            true => Finding::problem(
                "temperature",
                shown,
                "a heat sink or a fan, and room for air; `top` shows what keeps it busy",
            ),
            false => Finding::ok("temperature", shown),
        }
    }));
    let little = reading.memory.filter(|left| *left < NEEDED_MEMORY);
    findings.extend(little.map(|left| {
        let advice =
            "see what takes it: `ps -eo rss,args --sort=-rss | head`; a step that finds none is killed by the kernel";
        Finding::warning("memory", format!("only {} are left for programs", bytes(left)), advice)
    }));
    findings
}

/// Room for what is written below `path`.
pub(super) fn room(what: &str, path: &Path) -> Finding {
    let shown = path.display();
    let room = match health::room(path) {
        Ok(room) => room,
        Err(error) => return Finding::error(what, &error, "look at the disk with `df` and `dmesg`"),
    };
    let free = bytes(room.free);
    let advice = format!("make room: `df -h {shown}`, `du -xh {shown} | sort -h | tail`");
    if room.read_only {
        let advice = "look at `dmesg` for errors of the disk, then `mount -o remount,rw` it or replace it";
        return Finding::problem(what, format!("{shown} lies on a disk that is mounted read-only"), advice);
    }
    if !room.is_told() {
        let advice = "look at it from time to time: no alarm tells when it is full before a write fails";
        return Finding::note(
            what,
            format!("{shown} lies on a file system that does not tell how much room it has"),
            advice,
        );
    }
    if room.free < TOO_LITTLE {
        return Finding::problem(what, format!("{shown} has only {free} free"), advice);
    }
    if let Some(files) = room.free_files.filter(|files| *files < TOO_FEW_FILES) {
        let advice = format!("remove small files: `df -i {shown}`");
        return Finding::problem(what, format!("{shown} has room for only {files} more files"), advice);
    }
    // 90 %: from there on a disk fills faster than people look.
    if room.free < room.total / 10 {
        return Finding::warning(what, format!("{shown} is over 90 % full, {free} free"), advice);
    }
    Finding::ok(what, format!("{shown} has {free} free"))
}

fn bytes(count: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| count >= *unit) {
        Some((name, unit)) => format!("{}.{} {name}", count / unit, count % unit * 10 / unit),
        None => format!("{count} B"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::doctor::Severity;
    use crate::process::Program;

    #[test]
    fn sizes_for_people() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1 << 20), "1.0 MiB");
        assert_eq!(bytes((3 << 30) + (1 << 29)), "3.5 GiB");
    }

    #[test]
    fn a_kernel_without_memory_limits_is_told() {
        let root = tempfile::tempdir().expect("a folder");
        let write = |path: &str, text: &str| {
            let file = root.path().join(path);
            std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
            std::fs::write(file, text).expect("written");
        };
        write("proc/cmdline", "console=tty1 cgroup_disable=memory rootwait\n");
        write("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io pids\n");
        let finding = memory_limits(root.path()).expect("told");
        assert!(finding.advice.expect("what to do").contains("/boot/firmware/cmdline.txt"));
        write("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n");
        assert_eq!(memory_limits(root.path()), None);
    }

    #[test]
    fn what_strains_the_machine_is_told() {
        assert_eq!(strain(&Reading::default(), 80), [], "nothing is known, nothing is said");
        let well = Reading { knows_voltage: true, celsius: Some(48), memory: Some(1 << 30), ..Reading::default() };
        let severities = |reading| strain(&reading, 80).iter().map(|finding| finding.severity).collect::<Vec<_>>();
        assert_eq!(severities(well.clone()), [Severity::Ok, Severity::Ok]);
        assert_eq!(severities(Reading { was_under_voltage: true, ..well.clone() }), [Severity::Warning, Severity::Ok]);
        let bad = Reading { under_voltage: true, celsius: Some(80), memory: Some(1 << 20), ..well };
        assert_eq!(severities(bad.clone()), [Severity::Problem, Severity::Problem, Severity::Warning]);
        assert!(strain(&bad, 80).iter().all(|finding| finding.advice.is_some()));
    }

    #[test]
    fn a_disk_that_cannot_be_written_is_a_problem() {
        let directory = tempfile::tempdir().unwrap();
        let disk = |options: &str| {
            let arguments = ["-t", "tmpfs", "-o", options, "tmpfs", directory.path().to_str().unwrap()];
            let output = Program::new("mount", arguments).run(&mut |_, _| ()).unwrap();
            assert!(output.status.success(), "{}", output.stderr);
            let finding = room("cache", directory.path());
            let output = Program::new("umount", [directory.path()]).run(&mut |_, _| ()).unwrap();
            assert!(output.status.success(), "{}", output.stderr);
            finding
        };
        for options in ["size=64k", "size=4g,nr_inodes=2", "size=4g,ro"] {
            let finding = disk(options);
            assert_eq!(
                (finding.severity, finding.advice.is_some()),
                (Severity::Problem, true),
                "{options}: {finding:?}"
            );
        }
        // /proc does not tell.
        let finding = room("cache", Path::new("/proc/self"));
        assert_eq!((finding.severity, finding.advice.is_some()), (Severity::Note, true));
    }
}
