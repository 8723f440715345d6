//! A night as the household sees it the next morning.

use crate::home::Home;

/// `MESSAGE_ID` of the end of a run in which every step succeeded.
const RUN_SUCCEEDED: &str = "5a0c9be1d5f7484d8a4be7f2c90b3d16";

pub fn the_timer_makes_a_backup_that_restores(system: &str) {
    let home = Home::set_up(system);
    home.add_a_large_file();
    let machine = &home.machine;
    assert_eq!(machine.ok("systemctl is-active pi-agent-backup.timer pi-agent-wal.path"), "active\nactive");
    assert_eq!(machine.ok("systemctl is-enabled pi-agent-backup.timer pi-agent-boot.service"), "enabled\nenabled");

    // Three in the morning comes early.
    home.fires_now("pi-agent-backup");
    let shown = machine.until("systemctl status --no-pager pi-agent-backup | grep -E 'Status: \"foundry: .* [0-9]+ %'");
    eprintln!("{system}: {}", shown.trim());
    assert_eq!(home.backup_result(), "success");
    assert_eq!(machine.ok("systemctl show --property=TriggeredBy --value pi-agent-backup"), "pi-agent-backup.timer");

    let status = machine.run("pi-agent status --json").expect(0);
    for step in ["database", "foundry", "configs"] {
        assert_eq!(status.step(step)["last_outcome"], "succeeded", "{status}");
        assert!(home.journal(&format!("_SYSTEMD_UNIT=pi-agent-backup.service STEP={step} OUTCOME=succeeded")) >= 1);
    }
    assert_eq!(home.journal(&format!("MESSAGE_ID={RUN_SUCCEEDED}")), 1);
    let run = machine.ok(&format!("journalctl --quiet --output=cat --output-fields=RUN_ID MESSAGE_ID={RUN_SUCCEEDED}"));
    assert!(home.journal(&format!("RUN_ID={run}")) >= 8, "the start and the end of the run and of each step");
    let explained = machine.ok(&format!("journalctl --no-pager -x MESSAGE_ID={RUN_SUCCEEDED}"));
    assert!(explained.contains("lists what can be restored"), "{explained}");
    assert_eq!(machine.ok("systemctl --failed --quiet --no-legend"), "");

    home.assert_foundry_restores();
    home.assert_database_restores();
}
