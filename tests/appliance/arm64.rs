//! The package for the Raspberry Pi, installed in an arm64 system and run under user-mode emulation.

use std::path::PathBuf;
use std::process::Command;

use harness::machine::root_of;
use harness::{Household, Package, Scratch, Size, Tree, sh};

/// An arm64 system that nothing has booted, in which commands can be run.
struct Chroot {
    scratch: Scratch,
}

impl Chroot {
    fn new() -> Self {
        let scratch = Scratch::new();
        sh(Command::new("cp").arg("--archive").arg(root_of("arm64")).arg(scratch.join("root")));
        Self { scratch }
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.scratch.join("root").join(inside.trim_start_matches('/'))
    }

    /// Runs a script in it, in namespaces of its own: no mount and no process outlives it.
    #[track_caller]
    fn ok(&self, script: &str) -> String {
        let root = self.path("/");
        // As on a machine, its root is a mount.
        let enter = "mount --bind \"$1\" \"$1\"; mount -t proc proc \"$1/proc\"; mount --rbind /dev \"$1/dev\"; \
                     mount -t tmpfs tmpfs \"$1/run\"; \
                     exec chroot \"$1\" bash -euo pipefail -c \"$2\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--net", "bash", "-euc", enter, "bash"]);
        command.arg(root).arg(script).env_clear().env("DEBIAN_FRONTEND", "noninteractive").env("HOME", "/root");
        sh(command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8"))
    }
}

#[test]
fn long_the_arm64_package_installs_sets_up_backs_up_and_restores() {
    let pi = Chroot::new();
    std::fs::write(pi.path("/root/pi-agent.deb"), Package::built("arm64").bytes()).unwrap();
    let installing = pi.ok("apt-get install --yes --quiet /root/pi-agent.deb 2>&1");
    assert!(installing.contains("pi-agent setup"), "{installing}");
    assert_eq!(pi.ok("uname -m").trim(), "aarch64");
    // No machine id, no place to back up to: each boot makes one, and nothing has booted here.
    pi.ok("systemd-machine-id-setup 2>/dev/null; mkdir -p /mnt/usb/pi-hosting");

    let household = Household::make(pi.path("/srv"), Size::SMALL, 3);
    let setup = pi.ok("pi-agent setup --unattended --name pi-hosting --storage file:///mnt/usb/pi-hosting \
                       --postgres none --directory foundry=/srv/foundry --kit /root/kit.txt --kit-saved 2>&1 || test $? = 5");
    assert!(setup.contains("/root/kit.txt"), "{setup}");
    pi.ok("printf '\\n[limits]\\ngive-way = false\\n' >>/etc/pi-agent/config.toml");
    let report: serde_json::Value = serde_json::from_str(&pi.ok("pi-agent run --json")).unwrap();
    assert_eq!(report["outcome"], "succeeded", "{report}");
    pi.ok("pi-agent restore foundry --to /srv/restored");
    Tree::read(household.foundry()).assert_equals(pi.path("/srv/restored/srv/foundry"));
}
