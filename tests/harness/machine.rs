//! A machine that boots systemd from a throwaway copy of a root file system, and whose plug can be pulled. Needs root.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Process, Ran, Scratch, descendants, sh};

/// One of `tests/setup-machines.sh`'s systems, running. No network but loopback. Nothing of it is left when dropped.
#[derive(Debug)]
pub struct Machine {
    name: String,
    system: PathBuf,
    scratch: Scratch,
    power: Option<Power>,
}

/// What runs while a machine is on.
#[derive(Debug)]
struct Power {
    container: Child,
    /// systemd, the machine's first process; when it is killed, the kernel ends all others.
    leader: Process,
}

/// A disk that a test can fill, and that holds the largest source of a test twice.
const DISK: &str = "3G";
/// A boot takes a second or two, on a busy machine ten.
const BOOT: Duration = Duration::from_secs(90);

impl Machine {
    /// How long [`Self::run`] and [`Self::until`] wait.
    pub const PATIENCE: Duration = Duration::from_secs(300);

    /// Boots a copy of the system of that name, and waits until everything is started.
    pub fn boot(system: &str) -> Self {
        Self::boot_with(system, DISK)
    }

    /// The same with a disk of that size, as `truncate` understands it.
    pub fn boot_with(system: &str, size: &str) -> Self {
        let scratch = Scratch::new();
        let disk = scratch.join("disk");
        sh(Command::new("truncate").args(["--size", size]).arg(&disk));
        sh(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&disk));
        static MACHINES: AtomicU32 = AtomicU32::new(1);
        let number = MACHINES.fetch_add(1, Ordering::Relaxed);
        let name = format!("{system}-{}-{number}", std::process::id());
        let mut machine = Self { name, system: root_of(system), scratch, power: None };
        machine.switch_on();
        machine
    }

    /// Kills everything that runs at once, as a power cut does, and boots from the same disk.
    pub fn pull_the_plug_and_boot(&mut self) {
        self.switch_off();
        self.switch_on();
    }

    /// Boots again in an orderly way.
    pub fn reboot(&mut self) {
        self.run("systemctl --no-block poweroff");
        let power = self.power.as_mut().expect("a machine is on");
        let started = Instant::now();
        while power.container.try_wait().expect("our own child").is_none() {
            assert!(started.elapsed() < Self::PATIENCE, "the machine does not shut down:\n{}", self.console());
            pause();
        }
        self.switch_off();
        self.switch_on();
    }

    /// Runs a bash script in it as root, at most [`Self::PATIENCE`] long.
    pub fn run(&self, script: &str) -> Ran {
        self.run_within(script, Self::PATIENCE)
    }

    /// Runs one that may take so long.
    pub fn run_within(&self, script: &str, patience: Duration) -> Ran {
        let seconds = patience.as_secs().to_string();
        let started = Instant::now();
        let output = self
            .inside()
            .args(["timeout", "--kill-after=5", &seconds, "bash", "-euo", "pipefail", "-c", script])
            .output()
            .expect("nsenter can be started");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran {
            command: format!("({}) {script}", self.name),
            status: output.status,
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
            took: started.elapsed(),
        }
    }

    /// Runs a script that must succeed; its standard output without the last newline.
    #[track_caller]
    pub fn ok(&self, script: &str) -> String {
        self.run(script).expect(0).stdout.trim_end().to_owned()
    }

    /// Waits until a script succeeds; its standard output. The journal's end is shown when it never does.
    #[track_caller]
    pub fn until(&self, script: &str) -> String {
        let started = Instant::now();
        loop {
            let ran = self.run(script);
            if ran.code() == Some(0) {
                return ran.stdout.trim_end().to_owned();
            }
            if started.elapsed() > Self::PATIENCE {
                let journal = self.run("systemctl --no-pager --failed; journalctl --no-pager --lines=100");
                panic!("still not so after {:?}: {ran}\n{journal}", Self::PATIENCE);
            }
            pause();
        }
    }

    /// Puts a file into it.
    pub fn write(&self, path: &str, mode: u32, bytes: &[u8]) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("there is space");
        let mut file = File::create(&path).unwrap_or_else(|error| panic!("make {}: {error}", path.display()));
        file.write_all(bytes).expect("there is space");
        file.set_permissions(fs::Permissions::from_mode(mode)).expect("our own file");
    }

    /// The process in it whose arguments end like this.
    #[track_caller]
    pub fn process(&self, arguments: &str) -> Process {
        let mut all = descendants(self.leader().pid()).into_iter();
        let found = all.find(|process| process.arguments().join(" ").trim_end().ends_with(arguments));
        found.unwrap_or_else(|| panic!("no process {arguments}"))
    }

    /// Where a path of the machine lies for programs outside of it, until it is switched off.
    pub fn path(&self, inside: &str) -> PathBuf {
        let leader = self.leader().pid();
        Path::new(&format!("/proc/{leader}/root")).join(inside.trim_start_matches('/'))
    }

    /// Its network, for `setns`.
    pub fn network(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.leader().pid()).into()
    }

    fn leader(&self) -> &Process {
        &self.power.as_ref().expect("a machine is on").leader
    }

    fn inside(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.leader().pid().to_string(), "--all", "--root", "--wd"]);
        command.args(["env", "--ignore-environment", "HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"]);
        command.arg("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
        command
    }

    fn console(&self) -> String {
        fs::read_to_string(self.scratch.join("console")).unwrap_or_default()
    }

    fn switch_on(&mut self) {
        let console = File::create(self.scratch.join("console")).expect("our own directory");
        // SIGTERM, when the test itself is killed: the container then shuts down.
        let container = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "unshare", "--mount", "bash", "-c", include_str!("boot.sh"), "boot.sh"])
            .args([self.name.as_ref(), self.system.as_os_str(), self.scratch.join("disk").as_os_str()])
            .stdin(Stdio::null())
            .stdout(console.try_clone().expect("an open file"))
            .stderr(console)
            .spawn()
            .expect("setpriv can be started");
        let pid = Pid::from_raw(i32::try_from(container.id()).expect("a pid"));
        let mut unready = Unready(Some(container));
        let started = Instant::now();
        let leader = self.wait_for_leader(pid, started);
        self.power = Some(Power { container: unready.0.take().expect("was just put there"), leader });
        while !matches!(self.run("systemctl is-system-running").stdout.trim(), "running" | "degraded") {
            assert!(started.elapsed() < BOOT, "{} does not boot:\n{}", self.name, self.console());
            pause();
        }
    }

    fn wait_for_leader(&self, container: Pid, started: Instant) -> Process {
        loop {
            let below = descendants(container);
            if let Some(leader) = below.into_iter().find(|process| process.name == "systemd") {
                return leader;
            }
            assert!(started.elapsed() < BOOT, "{} has no first process:\n{}", self.name, self.console());
            pause();
        }
    }

    fn switch_off(&mut self) {
        let Some(mut power) = self.power.take() else { return };
        if power.leader.is_alive() {
            let _ = kill(power.leader.pid(), Signal::SIGKILL);
        }
        let _ = power.container.kill();
        let _ = power.container.wait();
        // The disk is free for the next boot when the last process of the machine is gone.
        let started = Instant::now();
        while power.leader.is_alive() && started.elapsed() < BOOT {
            pause();
        }
        for hierarchy in ["", "systemd", "unified"] {
            let group = Path::new("/sys/fs/cgroup").join(hierarchy).join(&self.name);
            let _ = Command::new("find").arg(group).args(["-depth", "-type", "d", "-delete"]).output();
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() && self.power.is_some() {
            let journal = self.run("journalctl --no-pager --boot --lines=200 --output=short-monotonic");
            eprintln!("the journal of {} ends with\n{}", self.name, journal.stdout);
        }
        self.switch_off();
    }
}

/// A container that is ended when it has no leader yet and never gets one.
struct Unready(Option<Child>);

impl Drop for Unready {
    fn drop(&mut self) {
        if let Some(mut container) = self.0.take() {
            let _ = container.kill();
            let _ = container.wait();
        }
    }
}

/// Where the root file system of that name is.
pub fn root_of(system: &str) -> PathBuf {
    let cache = std::env::var_os("PI_AGENT_TEST_CACHE").map_or("/var/cache/pi-agent-tests".into(), PathBuf::from);
    let root = cache.join("machines").join(system);
    assert!(root.join("usr").is_dir(), "{} is missing: tests/setup-machines.sh makes it", root.display());
    root
}

fn pause() {
    std::thread::sleep(Duration::from_millis(100));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_keeps_its_disk_when_the_plug_is_pulled_and_leaves_nothing() {
        let mut machine = Machine::boot("bookworm");
        assert_eq!(machine.ok("cat /proc/1/comm; ls /sys/class/net"), "systemd\nlo");
        machine.write("/srv/file", 0o640, b"kept");
        machine.ok("sync; systemd-run --unit=sleeper sleep 1000; test -z \"$(systemctl --failed --quiet)\"");
        assert_eq!(machine.run("exit 7").code(), Some(7));
        let before = machine.leader().clone();
        let id = machine.ok("cat /etc/machine-id /proc/sys/kernel/random/boot_id");
        machine.pull_the_plug_and_boot();
        assert!(!before.is_alive());
        assert_eq!(machine.ok("cat /etc/machine-id /proc/sys/kernel/random/boot_id").lines().next(), id.lines().next());
        assert_eq!(machine.ok("stat --format=%a /srv/file; cat /srv/file"), "640\nkept");
        assert_eq!(machine.run("systemctl is-active sleeper").stdout, "inactive\n");

        let (leader, name, scratch) =
            (machine.leader().clone(), machine.name.clone(), machine.scratch.path().to_owned());
        drop(machine);
        assert!(!leader.is_alive() && !scratch.exists());
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(&name) && !mounts.contains(&*scratch.to_string_lossy()), "{mounts}");
        assert!(!Path::new("/sys/fs/cgroup/systemd").join(name).exists());
    }
}
