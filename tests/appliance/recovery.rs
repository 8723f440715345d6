//! The card is dead. A blank machine, the package and the recovery kit: everything is back, and backs up again.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::{DockerEngine, Garage, Household, Machine, Package, Scratch, Size, TlsProxy, Tree, Wire, document, sh};

use crate::home::Home;

/// MiB, from the environment: by hand one tries it with a real household's sizes.
fn mib(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{variable}: MiB")))
}

/// Nothing in a drill takes longer.
const PATIENCE: Duration = Duration::from_secs(3600);
const PSQL: &str = "docker exec -i db psql -U postgres -qXAt -v ON_ERROR_STOP=1";
/// Every row of the table, in one line.
const ROWS: &str = "select count(*), sum(hashtextextended(name, id)) from voters";
const KIT: &str = "/root/kit.txt";

/// `PI_AGENT_DRILL_DATABASE=1600 PI_AGENT_DRILL_FILES=4000` are the sizes of the household in the requirements.
pub fn a_dead_card_is_no_disaster(system: &str) {
    let (database, files) = (mib("PI_AGENT_DRILL_DATABASE", 30), mib("PI_AGENT_DRILL_FILES", 20));
    let disk = format!("{}M", 3_072 + 4 * (database + files));
    let garage = Garage::start();
    let proxy = TlsProxy::before(&garage);

    // The household of docs/docker.md, backed up to S3 by the units.
    let (home, wire) = blank(system, &disk, &proxy);
    let machine = &home.machine;
    start_containers(machine, Some(document::block("yaml")));
    Household::make(machine.path("/srv"), Size { bytes: files << 20, files: 50 + files }, 7);
    machine.ok("chown -R 421:421 /srv/foundry; useradd --system --no-create-home --uid 999 pi-agent-999");
    let keys = format!("AWS_ACCESS_KEY_ID={}\nAWS_SECRET_ACCESS_KEY={}\n", Garage::KEY_ID, Garage::KEY);
    machine.write("/root/aws.env", 0o600, keys.as_bytes());
    machine.write("/etc/pi-agent/ca.pem", 0o644, &std::fs::read(proxy.ca_file()).unwrap());
    let setup = machine.run(&format!(
        "pi-agent setup --unattended --name pi-hosting --storage s3://{}/pi-hosting --region {} --endpoint {} \
         --path-style --ca-file /etc/pi-agent/ca.pem --aws-env /root/aws.env \
         --directory foundry=/srv/foundry --directory configs=/srv/compose,/srv/secrets,/etc --kit {KIT} --kit-saved",
        Garage::BUCKET,
        Garage::REGION,
        proxy.endpoint(),
    ));
    let statements: Vec<_> = setup.stdout.lines().filter(|line| line.trim().starts_with("ALTER SYSTEM")).collect();
    assert_eq!(statements.len(), 3, "{setup}");
    machine.write("/root/archiving.sql", 0o644, statements.join("\n").as_bytes());
    machine.ok(&format!("{PSQL} </root/archiving.sql; docker restart db"));
    machine.until(&format!("{PSQL} -c 'create table voters(id int primary key, name text)'"));
    // A KiB each.
    let rows = format!(
        "insert into voters select i, (select string_agg(md5((i * 32 + part)::text), '') from generate_series(1, 31) part) \
         from generate_series(1, {}) i",
        database << 10
    );
    let _ = machine.run_within(&format!("{PSQL} -c \"{rows}\""), PATIENCE).expect(0);
    home.does_not_give_way();
    machine.ok(&format!("pi-agent recovery-kit --to {KIT}"));
    let _ = machine.run_within("systemctl reset-failed; systemctl start pi-agent-backup", PATIENCE).expect(0);
    assert_eq!(home.backup_result(), "success");
    // What came after the backup is in the WAL.
    machine.ok(&format!("{PSQL} -c \"insert into voters values (0, 'the last')\" -c 'select pg_switch_wal()'"));
    machine.ok("sleep 1; pi-agent wal push --retry-for 30s");
    machine.until("test -z \"$(find /var/spool/pgbackrest -type f -name '0*')\"");
    let rows = machine.ok(&format!("{PSQL} -c '{ROWS}'"));
    let trees = ["/srv/foundry", "/srv/compose", "/srv/secrets"].map(|path| (path, Tree::read(machine.path(path))));
    let kit = std::fs::read(machine.path(KIT)).unwrap();
    drop((wire, home));

    // A blank machine: the package, the kit, and nothing else.
    let (home, _wire) = blank(system, &disk, &proxy);
    let machine = &home.machine;
    machine.write(KIT, 0o600, &kit);
    let recover = format!("pi-agent recover --kit {KIT} --start-timers");
    let ran = machine.run_within(&recover, PATIENCE).expect(0);
    println!(
        "{} MiB of database and {} MiB of files were back after {:.0?}:\n{}",
        database, files, ran.took, ran.stdout
    );
    for (path, tree) in trees {
        assert_eq!(tree.differences(&Tree::read(machine.path(path))), Vec::<String>::new(), "{path}");
    }
    let aside = machine.path("/var/lib/pi-agent/recovered/configs/etc/passwd");
    assert!(aside.exists(), "what this system has itself lies aside: {ran}");
    ran.says("/etc is this system's own").says("docker compose up -d db").says("the timers run");
    for unit in ["pi-agent-backup.timer", "pi-agent-alarms.timer", "pi-agent-wal.path", "pi-agent-wal.timer"] {
        assert_eq!(machine.ok(&format!("systemctl is-active {unit}; systemctl is-enabled {unit}")), "active\nenabled");
    }

    // What is left to do, as it says.
    let compose = std::fs::read_to_string(machine.path("/srv/compose/compose.yaml")).unwrap();
    assert_eq!(compose, document::block("yaml"));
    let begun = Instant::now();
    start_containers(machine, None);
    assert_eq!(machine.ok(&format!("{PSQL} -c '{ROWS}'")), rows, "the server answers after {:.0?}", begun.elapsed());
    let data = "/var/lib/docker/volumes/db-data/_data";
    assert_eq!(machine.ok(&format!("stat --format=%u:%g:%a {data} {data}/PG_VERSION")), "999:999:700\n999:999:600");

    // It backs up to the same place, as if nothing had been.
    machine.ok("useradd --system --no-create-home --uid 999 pi-agent-999; pi-agent setup --unattended >/dev/null || :");
    machine.ok(&format!("{PSQL} -c \"insert into voters values (-1, 'after')\""));
    let _ = machine.run_within("systemctl reset-failed; systemctl start pi-agent-backup", PATIENCE).expect(0);
    assert_eq!(home.backup_result(), "success");
    let status = home.status("database");
    assert_eq!(status["last_outcome"], "succeeded", "{status}");
    // And a second recovery has nothing to do.
    let _ = machine.run(&recover).expect(0).says("was back already");
    assert_eq!(machine.ok(&format!("{PSQL} -c 'select name from voters where id = -1'")), "after");
}

/// A machine with the package, and the wire to the storage.
fn blank(system: &str, disk: &str, proxy: &TlsProxy) -> (Home, Wire) {
    let home = Home { machine: Machine::boot_with(system, disk) };
    home.install(&Package::native());
    // Debian 12's pgBackRest tries one address of a name, and the wire is at the other.
    home.machine.ok("sed -i '/^::1/d' /etc/hosts");
    let wire = Wire::to(&home.machine, proxy.port());
    (home, wire)
}

/// Gives the machine's engine its images and starts the database, with the compose file that is there, or this one.
fn start_containers(machine: &Machine, compose: Option<&str>) {
    let engine = DockerEngine::of(machine);
    document::stand_ins(&engine);
    if let Some(compose) = compose {
        machine.write("/srv/compose/compose.yaml", 0o640, compose.as_bytes());
        machine.write("/srv/secrets/db-password", 0o600, b"correct horse\n");
    }
    // The machine has Docker's engine only; compose itself is this one's.
    let scratch = Scratch::new();
    std::fs::copy(machine.path("/srv/compose/compose.yaml"), scratch.join("compose.yaml")).unwrap();
    up(&engine, scratch.path());
    machine.until(&format!("{PSQL} -c 'select 1'"));
}

fn up(engine: &DockerEngine, folder: &Path) {
    let mut compose = Command::new("docker-compose");
    sh(compose.args(["up", "--detach", "db"]).env("DOCKER_HOST", engine.host()).current_dir(folder));
}

/// A machine of which only the stick with the backups and the kit are left: its own server comes back, and serves at once.
pub fn a_server_of_the_machine_serves_again(system: &str) {
    let psql = "runuser -u postgres -- psql -qXAt -v ON_ERROR_STOP=1";
    let home = Home::set_up(system);
    home.machine.ok(&format!("pi-agent recovery-kit --to {KIT}"));
    home.back_up();
    let rows = home.machine.ok(&format!("{psql} -c '{ROWS}'"));
    let kit = std::fs::read(home.machine.path(KIT)).unwrap();
    let scratch = Scratch::new();
    let stick = scratch.join("stick.tar");
    let tar = |way: &str, folder: &Path| {
        sh(Command::new("tar")
            .arg(way)
            .arg("--numeric-owner")
            .arg("--file")
            .arg(&stick)
            .arg("-C")
            .arg(folder)
            .arg("."));
    };
    tar("--create", &home.machine.path("/mnt/usb"));
    drop(home);

    let (home, _) = Home::installed(system);
    let machine = &home.machine;
    machine.write(KIT, 0o600, &kit);
    let recover = format!("pi-agent recover --kit {KIT}");
    let _ = machine.run(&recover).expect(1).says("/mnt/usb/pi-hosting");
    machine.ok("test ! -e /etc/pi-agent/config.toml; mkdir -p /mnt/usb");
    tar("--extract", &machine.path("/mnt/usb"));
    // The package of PostgreSQL has made a cluster, and somebody uses it.
    machine.ok("pg_createcluster $(ls /usr/lib/postgresql) main >/dev/null; systemctl daemon-reload; systemctl start postgresql");
    machine.until(&format!("{psql} -c 'select 1'"));
    let ran = machine.run(&recover).expect(0);
    ran.says("main.before-restore-").says("enable the timers: pi-agent setup");
    assert_eq!(machine.until(&format!("{psql} -c '{ROWS}'")), rows, "{ran}");
    assert_eq!(machine.run("systemctl is-enabled pi-agent-backup.timer").stdout.trim(), "disabled");

    // It archives, and backs up. Another recovery changes nothing, with timers this time.
    machine.ok(&format!("{psql} -c \"insert into voters values (-1, 'after')\"; pi-agent run database"));
    let _ = machine.run(&format!("{recover} --start-timers")).expect(0).says("was back already").says("the timers run");
    assert_eq!(machine.ok(&format!("{psql} -c 'select name from voters where id = -1'")), "after");
    assert_eq!(machine.ok("systemctl is-active pi-agent-backup.timer"), "active");
}
