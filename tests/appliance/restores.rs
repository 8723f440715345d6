//! The monthly restore test as its timer starts it: in the sandbox of its unit, within its limits, and told.

use harness::Ran;

use crate::home::Home;

/// A test and its servers work in these.
const PLACES: &str = "/var/cache/pi-agent/pi-agent-restore-test /run/pi-agent/restore-test";
const STEPS: [&str; 4] = ["database", "foundry", "configs", "agent"];

pub fn the_timer_proves_that_all_comes_back(system: &str) {
    let home = Home::set_up(system);
    let machine = &home.machine;
    home.back_up();
    machine
        .ok("runuser -u postgres -- psql -qXAtc \"insert into voters values (0, 'late')\" -c 'select pg_switch_wal()'");
    machine.until("test -z \"$(find /var/spool/pgbackrest -type f -name '0*')\"");
    assert_eq!(machine.ok("systemctl is-active pi-agent-restore-test.timer"), "active");
    assert_eq!(machine.ok("systemctl is-enabled pi-agent-restore-test.timer"), "enabled");

    // The first Sunday comes early.
    let servers = servers(&home);
    home.fires_now("pi-agent-restore-test");
    let limits = machine.until("cat /proc/$(pgrep -f '^pi-agent step database')/limits");
    assert!(limits.lines().any(|line| line.starts_with("Max data size") && line.contains("536870912")), "{limits}");
    assert_eq!(result(&home), "success");
    let status = machine.run("pi-agent status --json").expect(0);
    for step in STEPS {
        assert!(
            home.journal(&format!("_SYSTEMD_UNIT=pi-agent-restore-test.service STEP={step} OUTCOME=succeeded")) >= 1
        );
    }
    for step in &STEPS[..3] {
        assert_eq!(status.step(step)["last_restore_test"]["outcome"], "succeeded", "{status}");
    }
    let checks = &home.status("database")["last_restore_test"];
    eprintln!("{system}: {checks}");
    nothing_is_left(&home, &servers);
    machine.ok("systemctl start pi-agent-heartbeat; sleep 1; grep -q 'restore' /run/discord/*.json");
    home.hears("a month is over", &["💚 all healthy"]);

    // Stopped while its server runs.
    machine.ok("systemctl start --no-block pi-agent-restore-test");
    machine.until("pgrep -f '^[^ ]*/postgres -D [^ ]*/pi-agent-restore-test/'");
    machine.ok("systemctl stop pi-agent-restore-test");
    nothing_is_left(&home, &servers);

    // What does not come back is told.
    machine.ok("mv /mnt/usb/pi-hosting/foundry/data /mnt/usb/away");
    let failed = machine.run("systemctl start pi-agent-restore-test");
    assert_eq!(result(&home), "exit-code", "{failed}");
    assert_eq!(machine.ok("systemctl show --property=ExecMainStatus --value pi-agent-restore-test"), "3");
    assert_eq!(home.status("foundry")["last_restore_test"]["outcome"], "failed");
    home.hears("Foundry's packs are gone", &["🔴 foundry: the restore test failed"]);
    nothing_is_left(&home, &servers);
    machine.ok("mv /mnt/usb/away /mnt/usb/pi-hosting/foundry/data; systemctl start pi-agent-restore-test");
    assert_eq!(result(&home), "success");
    home.hears("they are back", &["✅ foundry: over: the restore test failed"]);

    // It has taken nothing from what it tested.
    home.back_up();
    let _: Ran = machine.run("pi-agent check").expect(0);
}

/// Waits until the service has ended; its result as systemd tells it.
fn result(home: &Home) -> String {
    let service = "pi-agent-restore-test";
    home.machine.until(&format!(
        "test -n \"$(systemctl show --property=ExecMainExitTimestamp --value {service})\"; \
         case $(systemctl is-active {service} || :) in inactive | failed) ;; *) false ;; esac"
    ));
    home.machine.ok(&format!("systemctl show --property=Result --value {service}"))
}

#[track_caller]
fn nothing_is_left(home: &Home, servers: &str) {
    home.assert_nothing_is_left_running();
    home.machine.ok(&format!(
        "for place in {PLACES}; do test ! -e $place; done; ! grep -E ' /(var/cache|run)/pi-agent' /proc/mounts"
    ));
    assert_eq!(self::servers(home), servers);
}

/// The directories in which servers run. Not how many processes: a server starts some of its own when it likes.
fn servers(home: &Home) -> String {
    home.machine.ok("for server in $(pgrep -x postgres); do readlink /proc/$server/cwd || :; done | sort -u")
}
