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
        machine.until("test -z \"$(find /var/spool/pgbackrest -type f)\"");
    }
    assert_eq!(machine.ok("systemctl --failed --quiet --no-legend"), "");
    assert_eq!(machine.ok("systemctl is-active pi-agent-wal.path"), "active");
    // The rows written after the backup are in what was pushed.
    home.assert_database_restores();
}
