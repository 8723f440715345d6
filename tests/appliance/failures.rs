//! Nothing that breaks breaks silently.

use crate::home::Home;

pub fn every_failure_reaches_discord(system: &str) {
    let home = Home::set_up(system);
    let machine = &home.machine;
    home.back_up();
    let fails_and_tells = |why: &str, unit: &str| {
        // It is told once an hour only.
        machine.ok("rm -rf /run/pi-agent-failure/*; systemctl reset-failed");
        // A service that says when it is ready fails after `systemctl start` is content, others before.
        machine.run(&format!("systemctl start {unit}"));
        let message = home.told();
        assert!(message.contains(unit), "{why}: {message}");
        assert!(!message.contains("127.0.0.1:8080"), "the webhook's address is a secret: {message}");
        eprintln!("{system}: {why}: {message}");
    };

    machine.ok("mv /mnt/usb/pi-hosting /mnt/usb/away");
    fails_and_tells("the stick is gone", "pi-agent-backup.service");
    machine.ok("mv /mnt/usb/away /mnt/usb/pi-hosting");

    machine.ok("mv /usr/bin/pi-agent /root/");
    for unit in ["pi-agent-backup.service", "pi-agent-wal.service"] {
        fails_and_tells("the program is gone", unit);
    }
    machine.ok("mv /root/pi-agent /usr/bin/");

    machine.ok("cp /etc/pi-agent/config.toml /root/; echo 'nonsense = [' >>/etc/pi-agent/config.toml");
    for unit in ["pi-agent-backup.service", "pi-agent-boot.service"] {
        fails_and_tells("the configuration is broken", unit);
    }
    machine.ok("cp /root/config.toml /etc/pi-agent/");

    // A server whose WAL has no room would crash again and again, and this is not about that.
    machine.ok("echo postgresql@$(ls /usr/lib/postgresql)-main >/root/server; systemctl stop $(cat /root/server)");
    // More than once, because ext4 finds out late how much room there is.
    machine.ok("fallocate --length=$(($(df --output=avail --block-size=1 /var | tail -n 1) - 1000000)) /var/full; \
         for number in 1 2 3; do cat /dev/zero >/var/full$number || sync; done");
    assert_ne!(machine.run("head -c 1M /dev/zero >/var/lib/pi-agent/more").code(), Some(0), "the disk is not full");
    // Something new, so that there is something to write.
    machine.ok("mount -t tmpfs tmpfs /srv/foundry; head -c 20M /dev/urandom >/srv/foundry/new");
    fails_and_tells("the disk is full", "pi-agent-backup.service");
    machine.ok("umount /srv/foundry; rm /var/full* /var/lib/pi-agent/more; systemctl start $(cat /root/server)");
    home.back_up();
    home.assert_foundry_restores();
}
