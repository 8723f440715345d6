//! Between two nights the database's own log goes out as it is written.

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

/// Only the way to the server is looked at: this machine has no network.
pub fn its_sandbox_lets_a_limit_be_kept(system: &str) {
    let home = Home::set_up(system);
    let machine = &home.machine;
    home.back_up();
    machine.ok("cd /etc/pi-agent; \
         sed -i 's|^url = .*|url = \"s3://bucket/pi\"\\nendpoint = \"https://garage.home:3900\"|' config.toml; \
         printf 'upload = \"256KiB\"\\n' >>config.toml; \
         printf 'AWS_ACCESS_KEY_ID=a\\nAWS_SECRET_ACCESS_KEY=b\\n' >secrets/aws.env; chmod 600 secrets/aws.env");
    machine.ok("runuser -u postgres -- psql -qXAt -c 'create table late ()' -c 'select pg_switch_wal()'");
    let pgbackrest = "$(pgrep -o -u postgres -x pgbackrest)";
    machine.until(&format!("grep -qx '127.0.0.1 garage.home' /proc/{pgbackrest}/root/etc/hosts"));
    machine.ok("! grep garage.home /etc/hosts");
    assert_eq!(machine.ok("journalctl --unit=pi-agent-wal | grep 'not limited' || :"), "");
    machine.ok("systemctl stop pi-agent-wal.path pi-agent-wal.timer pi-agent-wal.service");
}
