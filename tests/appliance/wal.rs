//! Between two nights the database's own log goes out as it is written.

use std::fs;

use harness::{Garage, TlsProxy, Wire};

use crate::home::Home;

pub fn a_finished_segment_is_pushed_at_once(system: &str) {
    let home = Home::set_up(system);
    let machine = &home.machine;
    home.back_up();
    // Only the path unit is left to notice it.
    machine.ok("systemctl stop pi-agent-wal.timer");
    for row in [100_001, 100_002] {
        let segment = machine.ok(&format!(
            "runuser -u postgres -- psql -qXAt -c \"insert into voters values ({row}, 'late')\" \
             -c 'select pg_walfile_name(pg_switch_wal())'"
        ));
        machine.until(&format!("find /mnt/usb/pi-hosting/database/archive -name '{segment}-*' | grep -q ."));
        machine.until("test -z \"$(find /var/spool/pgbackrest -type f -name '0*')\"");
    }
    assert_eq!(machine.ok("systemctl --failed --quiet --no-legend"), "");
    assert_eq!(machine.ok("systemctl is-active pi-agent-wal.path"), "active");
    // The rows written after the backup are in what was pushed.
    home.assert_database_restores();

    // Somebody tidies up the spool. What comes next shows it, and the next look at the alarms starts a backup.
    let switch =
        "runuser -u postgres -- psql -qXAtc \"select pg_create_restore_point('x')\" -c 'select pg_switch_wal()'";
    machine.ok("systemctl stop pi-agent-wal.path");
    machine.ok(switch);
    machine.until("ls /var/spool/pgbackrest/*/0* && rm /var/spool/pgbackrest/*/0*");
    machine.ok("systemctl start pi-agent-wal.path");
    machine.ok(switch);
    machine.until("ls /var/spool/pgbackrest/*/.hole.json");
    let told =
        "journalctl --quiet --no-pager --output=json _SYSTEMD_UNIT=pi-agent-wal.service PRIORITY=3 STEP=database";
    machine.until(&format!("test \"$({told} | wc -l)\" = 1"));
    machine.ok("systemctl start pi-agent-alarms");
    machine.until("! ls /var/spool/pgbackrest/*/.hole.json");
    assert_eq!(home.backup_result(), "success");
    assert_eq!(home.status("database")["last_outcome"], "degraded", "the hole is told");
    machine.ok("systemctl start pi-agent-alarms");
    machine.ok("test \"$(systemctl is-active pi-agent-backup || :)\" = inactive");
    assert_eq!(home.journal("STEP=database OUTCOME=degraded"), 1, "it is started once");
    home.assert_database_restores();
}

/// Only the way to the server is looked at: it refuses these keys, so that nothing is pushed.
pub fn its_sandbox_lets_a_limit_be_kept(system: &str) {
    let (garage, home) = (Garage::start(), Home::set_up(system));
    let (proxy, machine) = (TlsProxy::before(&garage), &home.machine);
    let _wire = Wire::to(machine, proxy.port());
    home.back_up();
    machine.write("/etc/pi-agent/ca.pem", 0o644, &fs::read(proxy.ca_file()).unwrap());
    let endpoint = proxy.endpoint();
    machine.ok(&format!(
        "cd /etc/pi-agent; sed -i 's|^url = .*|url = \"s3://bucket/pi\"\\nendpoint = \"{endpoint}\"\\nregion = \"{}\"\\nca-file = \"/etc/pi-agent/ca.pem\"|' config.toml; \
         printf 'upload = \"256KiB\"\\n' >>config.toml; \
         printf 'AWS_ACCESS_KEY_ID=a\\nAWS_SECRET_ACCESS_KEY=b\\n' >secrets/aws.env; chmod 600 secrets/aws.env",
        Garage::REGION
    ));
    // It keeps what pgBackRest sees.
    let wrapper = "#!/bin/sh\ncp /etc/hosts /var/spool/pgbackrest/hosts\nexec /usr/bin/pgbackrest.real \"$@\"\n";
    machine.ok("mv /usr/bin/pgbackrest /usr/bin/pgbackrest.real; sed -i '1i # of this machine' /etc/hosts");
    machine.write("/usr/bin/pgbackrest", 0o755, wrapper.as_bytes());
    machine.ok("runuser -u postgres -- psql -qXAt -c 'create table late ()' -c 'select pg_switch_wal()'");
    machine.until("test \"$(head -n 1 /var/spool/pgbackrest/hosts)\" = '127.0.0.1 localhost'");
    machine.ok("head -n 1 /etc/hosts | grep '^# of this machine'");
    assert_eq!(machine.ok("journalctl --unit=pi-agent-wal | grep 'not limited' || :"), "");

    // A database with keys of its own is handed those, and of the machine's an empty file.
    machine.ok("cd /etc/pi-agent/secrets; install -m 600 aws.env aws-database.env; pi-agent setup --unattended >/tmp/setup.log || test $? = 5");
    let look =
        "[Service]\nExecStartPre=/bin/sh -c 'cd $CREDENTIALS_DIRECTORY; wc -c aws* >/var/spool/pgbackrest/keys'\n";
    machine.write("/etc/systemd/system/pi-agent-wal.service.d/look.conf", 0o644, look.as_bytes());
    machine.ok("systemctl daemon-reload; systemctl stop pi-agent-wal; systemctl start --no-block pi-agent-wal");
    machine.until("grep -q total /var/spool/pgbackrest/keys");
    let keys = machine.ok("awk '{print $2, $1}' /var/spool/pgbackrest/keys");
    assert_eq!(keys, "aws-database.env 44\naws.env 1\ntotal 45");
    machine.ok("systemctl stop pi-agent-wal.path pi-agent-wal.timer pi-agent-wal.service");
}
