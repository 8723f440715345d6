//! The household of docs/docker.md in a whole machine: its containers are backed up by the units, in their sandboxes.

use std::process::Command;
use std::time::Duration;

use harness::{DockerEngine, Scratch, document, sh};

use crate::home::Home;

pub fn containers_are_backed_up_by_the_units(system: &str) {
    let (mut home, _) = Home::installed(system);
    let machine = &home.machine;
    let engine = DockerEngine::of(machine);
    document::stand_ins(&engine);
    let scratch = Scratch::new();
    std::fs::write(scratch.join("compose.yaml"), document::block("yaml")).unwrap();
    machine.write("/srv/secrets/db-password", 0o600, b"correct horse\n");
    let mut compose = Command::new("docker-compose");
    sh(compose.args(["up", "--detach"]).env("DOCKER_HOST", engine.host()).current_dir(scratch.path()));
    let psql = "docker exec -i db psql -U postgres -qXAt -v ON_ERROR_STOP=1";
    machine.until(&format!("{psql} -c 'select 1'"));
    machine.until("test -s /srv/foundry/data/Data/worlds/saltmarsh/acknowledged");

    // Setup finds everything, and says the rest. The user has a name, so that systemd can push as it: the doctor's advice.
    machine.ok("useradd --system --no-create-home --uid 999 pi-agent-999; mkdir -p /mnt/usb/pi-hosting");
    let setup = "pi-agent setup --unattended --storage file:///mnt/usb/pi-hosting --kit /root/kit.txt --kit-saved";
    let setup = machine.run(setup).expect(5);
    home.does_not_give_way();
    let statements: Vec<_> = setup.stdout.lines().filter(|line| line.trim().starts_with("ALTER SYSTEM")).collect();
    assert_eq!(statements.len(), 3, "{setup}");
    machine.write("/root/archiving.sql", 0o644, statements.join("\n").as_bytes());
    machine.ok(&format!("{psql} </root/archiving.sql; docker restart db"));
    machine.until(&format!("{psql} -c 'create table voters(id int)'"));

    home.back_up();
    for step in ["database", "foundry"] {
        assert_eq!(machine.run("pi-agent status --json").expect(0).step(step)["last_outcome"], "succeeded");
    }
    assert_eq!(machine.ok("docker inspect --format '{{.State.Status}}' foundry"), "running");
    assert_eq!(machine.ok("find / -xdev -path '*/var/lib/postgresql/data'"), "", "no mount point is left");

    // Between two nights the path unit pushes, as the server's user.
    machine.ok("systemctl stop pi-agent-wal.timer");
    let late = format!("{psql} -c 'insert into voters values (1)' -c 'select pg_walfile_name(pg_switch_wal())'");
    let segment = machine.ok(&late);
    machine.until(&format!("find /mnt/usb/pi-hosting/database/archive -name '{segment}-*' | grep -q ."));
    machine.until("test -z \"$(find /var/spool/pgbackrest -type f -name '0*')\"");
    assert_eq!(machine.ok("systemctl show --property=User --value pi-agent-wal"), "pi-agent-999");

    // A power cut: Docker starts them again, and the next night is as good.
    home.machine.pull_the_plug_and_boot();
    let machine = &home.machine;
    machine.until(&format!("{psql} -c 'insert into voters values (2)'"));
    home.back_up();
    assert_eq!(machine.ok("systemctl --failed --quiet --no-legend"), "");

    // It comes back by the image alone, in the sandbox of the restore test's unit.
    machine.ok("mv /usr/lib/postgresql /usr/lib/away");
    // It tells systemd when it is ready, which is long before it is done.
    let _ = machine.run_within("systemctl start --wait pi-agent-restore-test.service", Duration::from_mins(5));
    let tested = machine.run("pi-agent status --json").expect(0).step("database")["last_restore_test"].clone();
    assert!(
        tested.to_string().contains("pg_amcheck") && !tested.to_string().contains("failed"),
        "{tested}\n{}",
        machine.run("journalctl --no-pager --unit pi-agent-restore-test")
    );
    assert_eq!(machine.ok("docker ps --all --format '{{.Names}}' | sort | xargs"), "db foundry");

    // What comes back starts in a container.
    machine.ok("pi-agent restore database --to /root/restored");
    machine.ok("mv /usr/lib/away /usr/lib/postgresql");
    machine.ok("docker run --detach --name clone --network none --env POSTGRES_PASSWORD_FILE=/dev/null \
        --volume /root/restored:/var/lib/postgresql/data postgres:15");
    let rows = machine.until("docker exec clone psql -U postgres -qXAtc 'select count(*) from voters'");
    assert_eq!(rows, "2");
}
