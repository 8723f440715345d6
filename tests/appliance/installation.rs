//! The package comes and goes.

use crate::home::Home;

/// systemd's measure of what a service could do if it were taken over: 10 is everything.
const EXPOSURE: [(&str, f64); 7] = [
    ("pi-agent-backup.service", 3.6),
    ("pi-agent-restore-test.service", 4.0),
    ("pi-agent-boot.service", 2.0),
    ("pi-agent-wal.service", 2.0),
    ("pi-agent-alarms.service", 2.0),
    ("pi-agent-heartbeat.service", 2.0),
    ("pi-agent-failure@test.service", 2.0),
];

pub fn without_a_configuration_nothing_runs_and_nothing_fails(system: &str) {
    let (home, installing) = Home::installed(system);
    let machine = &home.machine;
    let last: Vec<_> = installing.stdout.lines().rev().take(8).collect();
    assert!(
        last.iter().any(|line| line.contains("pi-agent setup")),
        "apt's last lines do not say what next: {installing}"
    );

    let units = machine.ok("dpkg --listfiles pi-agent | sed -n 's|.*/systemd/system/||p'");
    for unit in units.lines() {
        let state = machine.run(&format!("systemctl is-active {}", unit.replace("@.", "@test.")));
        assert_eq!(state.stdout, "inactive\n", "{unit}: {state}");
    }
    for timer in units.lines().filter(|unit| !unit.ends_with(".service")) {
        assert_eq!(machine.run(&format!("systemctl is-enabled {timer}")).stdout, "disabled\n", "{timer}");
    }
    // Started all the same, they see that there is nothing to do.
    for (service, _) in EXPOSURE.iter().filter(|(service, _)| !service.contains('@')) {
        machine.ok(&format!("systemctl start {service}"));
    }
    assert_eq!(machine.ok("systemctl --failed --quiet --no-legend"), "");

    let files = units.lines().map(|unit| unit.replace("@.", "@test.")).collect::<Vec<_>>().join(" ");
    let verified = machine.run(&format!("systemd-analyze verify --man=no {files}")).expect(0);
    let about_us: Vec<_> = verified.stderr.lines().filter(|line| line.contains("pi-agent")).collect();
    assert!(about_us.is_empty(), "{verified}");
    for (service, most) in EXPOSURE {
        let table = machine.ok(&format!("systemd-analyze security --no-pager {service}"));
        let last = table.lines().last().unwrap_or_default();
        let level =
            last.split(": ").nth(1).and_then(|rest| rest.split(' ').next()).and_then(|number| number.parse().ok());
        assert!(level.is_some_and(|level: f64| level <= most), "at most {most}: {last}");
        eprintln!("{system}: {last}");
    }
}

pub fn removing_keeps_the_state_and_purging_keeps_repositories_and_keys(system: &str) {
    let home = Home::set_up(system);
    let machine = &home.machine;
    home.back_up();
    let key = machine.ok("sha256sum </etc/pi-agent/secrets/restic.key");
    let stored = machine.ok("cd /mnt/usb; find -type f | sort | xargs sha256sum");

    machine.ok("apt-get remove --yes pi-agent");
    machine.ok("test -s /var/lib/pi-agent/state.db; test -s /etc/pi-agent/config.toml");
    machine.ok("test ! -e /usr/bin/pi-agent; systemctl daemon-reload");
    assert_eq!(machine.ok("systemctl list-units --quiet --no-legend 'pi-agent-*'"), "");

    let purging = machine.run("apt-get purge --yes pi-agent").expect(0);
    purging.says("/var/backups/pi-agent-keys");
    assert_eq!(machine.ok("sha256sum </var/backups/pi-agent-keys/restic.key"), key);
    assert_eq!(machine.ok("stat --format='%a %U' /var/backups/pi-agent-keys"), "700 root");
    assert_eq!(machine.ok("cd /mnt/usb; find -type f | sort | xargs sha256sum"), stored);
    // The kit, the journal and PostgreSQL's own setting are the household's.
    let left = machine.ok(
        "find / -xdev -name '*pi-agent*' -not -path '/proc/*' -not -path '/root/*' -not -path '/mnt/*' -not -path '/tmp/*' \
         -not -path '/var/backups/pi-agent-keys*' -not -path '/var/lib/systemd/deb-systemd-helper*' -not -path '/sys/*'",
    );
    assert_eq!(left, "", "purging leaves files");
    assert_eq!(machine.ok("systemctl --failed --quiet --no-legend"), "");
}
