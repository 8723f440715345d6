//! Nothing that breaks breaks silently, and what is over is told to be over.

use harness::MemoryLimit;

use crate::home::Home;

/// What the agent itself can still tell.
pub fn what_fails_in_a_run_is_told_once_and_its_end_too(system: &str) {
    let home = Home::set_up(system);
    let machine = &home.machine;
    // What follows is a bad week.
    machine.ok("printf '[alarms]\\nsuccess-rate = 1\\n' >>/etc/pi-agent/config.toml");
    home.back_up();

    machine.ok("mv /mnt/usb/pi-hosting /mnt/usb/away");
    assert_eq!(home.start_backup(), "exit-code");
    // 3: it has told it itself, and the failure unit leaves it alone.
    assert_eq!(machine.ok("systemctl show --property=ExecMainStatus --value pi-agent-backup"), "3");
    let late = home.seconds_until_told("database");
    eprintln!("told after {late} s");
    assert!(late < 60.0, "{late}");
    let steps = ["database", "foundry", "configs", "agent"];
    home.hears("the stick is gone", &steps.map(|step| format!("🔴 {step}: ")));
    machine.ok("mv /mnt/usb/away /mnt/usb/pi-hosting");
    home.back_up();
    home.hears("the stick is back", &steps.map(|step| format!("✅ {step}: ")));

    home.add_a_large_file();
    home.start_and_be_in_the_middle();
    let limit = MemoryLimit::on(machine.process("step foundry").pid());
    assert_eq!(home.backup_result(), "exit-code");
    assert_eq!(limit.kills(), 1);
    home.hears("a step ran out of memory", &["🔴 foundry: "]);
    home.back_up();
    home.hears("the step is well again", &["✅ foundry: "]);

    machine.ok("systemctl stop discord.socket; mv /srv/foundry /srv/elsewhere");
    assert_eq!(home.start_backup(), "exit-code");
    machine.ok("systemctl start discord.socket");
    machine.ok("systemctl start pi-agent-alarms");
    home.hears("the network was away", &["🔴 foundry: "]);
    machine.ok("mv /srv/elsewhere /srv/foundry");
    home.back_up();
    home.hears("the source is back", &["✅ foundry: "]);

    machine.ok("head -c 20000 /dev/urandom | dd of=/var/lib/pi-agent/state.db conv=notrunc status=none; rm -f /var/lib/pi-agent/state.db-*");
    machine.ok("systemctl start pi-agent-alarms");
    home.hears("the history is damaged", &["🟠 pi-hosting: the history"]);
    home.start_backup();
    // That it was damaged is a problem of this run, and none of the next.
    home.back_up();
    assert_eq!(home.heard().iter().filter(|title| title.starts_with("✅ pi-hosting: over: the history")).count(), 1);
    assert_eq!(machine.ok("systemctl --failed --quiet --no-legend"), "");
    assert_eq!(machine.ok("pi-agent alarms"), "no alarms");

    // The first of the month comes early.
    home.fires_now("pi-agent-heartbeat");
    home.hears("a month is over", &["💚 all healthy"]);
}

/// What only the script can tell, because the agent cannot.
pub fn what_the_agent_cannot_tell_the_script_does(system: &str) {
    let home = Home::set_up(system);
    let machine = &home.machine;
    // What follows is a bad week.
    machine.ok("printf '[alarms]\\nsuccess-rate = 1\\n' >>/etc/pi-agent/config.toml");
    home.back_up();

    machine.ok("mv /usr/bin/pi-agent /root/");
    for unit in ["pi-agent-backup.service", "pi-agent-wal.service"] {
        machine.run(&format!("systemctl start {unit}"));
        home.hears("the program is gone", &[format!(": {unit} failed**")]);
    }
    machine.ok("mv /root/pi-agent /usr/bin/; systemctl start pi-agent-wal");
    home.back_up();
    machine.ok("systemctl start pi-agent-alarms");
    home.hears("it is back", &["✅ pi-agent-backup", "✅ pi-agent-wal"]);

    machine.ok("cp /etc/pi-agent/config.toml /root/; echo 'nonsense = [' >>/etc/pi-agent/config.toml");
    for unit in ["pi-agent-boot.service", "pi-agent-alarms.service"] {
        machine.run(&format!("systemctl start {unit}"));
        home.hears("the configuration is broken", &[format!(": {unit} failed**")]);
    }
    machine.ok("cp /root/config.toml /etc/pi-agent/; systemctl start pi-agent-boot pi-agent-alarms; systemctl start pi-agent-alarms");
    home.hears("it is right again", &["✅ pi-agent-boot", "✅ pi-agent-alarms"]);

    home.add_a_large_file();
    home.start_and_be_in_the_middle();
    machine.ok("systemctl kill --kill-whom=all --signal=KILL pi-agent-backup");
    assert_eq!(home.backup_result(), "signal");
    home.hears("the run was killed", &[": pi-agent-backup.service failed** (killed by signal KILL)"]);
    home.back_up();
    machine.ok("systemctl start pi-agent-alarms");
    home.hears("the run is well again", &["✅ pi-agent-backup"]);

    // A server whose WAL has no room would crash again and again, and this is not about that.
    machine.ok("echo postgresql@$(ls /usr/lib/postgresql)-main >/root/server; systemctl stop $(cat /root/server)");
    // More than once, because ext4 finds out late how much room there is.
    machine.ok("fallocate --length=$(($(df --output=avail --block-size=1 /var | tail -n 1) - 1000000)) /var/full; \
         for number in 1 2 3; do cat /dev/zero >/var/full$number || sync; done");
    assert_ne!(machine.run("head -c 1M /dev/zero >/var/lib/pi-agent/more").code(), Some(0), "the disk is not full");
    // Something new, so that there is something to write.
    machine.ok("mount -t tmpfs tmpfs /srv/foundry; head -c 20M /dev/urandom >/srv/foundry/new");
    assert_eq!(home.start_backup(), "exit-code");
    // The agent, if its outbox found room for a few lines; else the script.
    let told =
        |title: &String| title.contains("foundry: the backup failed") || title.contains("backup.service failed**");
    let heard = home.heard();
    assert!(heard.iter().any(told), "the disk is full: {heard:#?}");
    machine.ok("umount /srv/foundry; rm /var/full* /var/lib/pi-agent/more; systemctl start $(cat /root/server)");
    home.back_up();
    machine.ok("systemctl start pi-agent-alarms");
    let over = |title: &String| title.starts_with("✅ foundry") || title.starts_with("✅ pi-agent-backup");
    let heard = home.heard();
    assert!(heard.iter().any(over), "there is room again: {heard:#?}");
    assert_eq!(machine.ok("pi-agent alarms"), "no alarms");
    home.assert_foundry_restores();
}
