//! A run that is stopped, overtaken by an upgrade, or cut off with the power.

use std::time::{Duration, Instant};

use harness::{Package, Scratch};

use crate::home::Home;

/// `MESSAGE_ID` of a run that was found cut off.
const RUN_CUT_OFF: &str = "28e5c9d07b3f4f61a8d4b6f0e1957c3a";

pub fn stopping_ends_the_run_in_time_and_leaves_nothing(system: &str) {
    let home = Home::set_up(system);
    let machine = &home.machine;
    home.add_a_large_file();
    home.start_and_be_in_the_middle();
    let asked = Instant::now();
    machine.ok("systemctl stop pi-agent-backup");
    // TimeoutStopSec=; beyond it systemd would have killed what is left.
    assert!(asked.elapsed() < Duration::from_secs(30), "it took {:?} to stop", asked.elapsed());
    assert_eq!(home.journal("UNIT=pi-agent-backup.service MESSAGE_ID=98268866d1d54a499c4e98921d93bc40"), 0);
    assert!(!machine.ok("journalctl --no-pager --unit=pi-agent-backup").contains("SIGKILL"));
    assert_eq!(home.status("foundry")["last_outcome"], "interrupted");
    home.assert_nothing_is_left_running();

    home.back_up();
    assert_eq!(home.status("foundry")["last_outcome"], "succeeded");
    machine.ok("pi-agent check foundry");
    home.assert_foundry_restores();
}

pub fn an_upgrade_lets_the_run_go_on(system: &str) {
    let home = Home::set_up(system);
    let machine = &home.machine;
    let scratch = Scratch::new();
    let newer = Package::native().with_version(&scratch, "99.0");
    home.add_a_large_file();
    home.start_and_be_in_the_middle();
    let run = machine.ok("systemctl show --property=MainPID,InvocationID pi-agent-backup");
    // Held in the middle of the work until the upgrade is done, however slow apt is.
    let held = "pkill --signal {} --full '^[^ ]*pi-agent .*step foundry'";
    machine.ok(&held.replace("{}", "STOP"));
    home.install(&newer);
    assert_eq!(machine.ok("dpkg-query --show --showformat='${Version}' pi-agent"), "99.0");
    assert_eq!(machine.ok("systemctl show --property=MainPID,InvocationID pi-agent-backup"), run);
    machine.ok(&held.replace("{}", "CONT"));
    assert_eq!(home.backup_result(), "success");
    assert_eq!(home.status("foundry")["last_outcome"], "succeeded");
    assert_eq!(machine.ok("systemctl is-active pi-agent-backup.timer pi-agent-wal.path"), "active\nactive");
    assert_eq!(machine.ok("systemctl --failed --quiet --no-legend"), "");
    home.assert_foundry_restores();
}

pub fn a_power_cut_is_caught_up_at_the_next_boot(system: &str) {
    let mut home = Home::set_up(system);
    home.add_a_large_file();
    home.start_and_be_in_the_middle();
    home.machine.pull_the_plug_and_boot();

    let machine = &home.machine;
    machine.until("test -n \"$(journalctl --boot --quiet --unit=pi-agent-backup)\"");
    assert_eq!(home.backup_result(), "success");
    assert_eq!(home.journal(&format!("--boot MESSAGE_ID={RUN_CUT_OFF} STEP=foundry")), 1);
    let status = home.status("foundry");
    assert_eq!(status["last_outcome"], "succeeded", "{status}");
    assert_eq!(status["success_rate_30d"], 0.5, "one was interrupted, one succeeded: {status}");
    machine.ok("pi-agent check");
    home.assert_foundry_restores();
    home.assert_database_restores();

    // Nothing is left to catch up.
    home.machine.pull_the_plug_and_boot();
    assert_eq!(home.machine.ok("systemctl is-active pi-agent-backup || true"), "inactive");
    assert_eq!(home.machine.ok("systemctl --failed --quiet --no-legend"), "");
}
