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
    Household::make(machine.path("/srv/foundry"), Size { bytes: files << 20, files: 50 + files }, 7);
    machine.ok("mv /srv/foundry/foundry /srv/foundry/data; mv /srv/foundry/configs /srv/foundry/logs /srv");
    machine.write("/srv/foundry/data/Config/options.json", 0o644, b"{}\n");
    machine.ok("chown -R 421:421 /srv/foundry; useradd --system --no-create-home --uid 999 pi-agent-999");
    start_containers(machine, Some(document::block("yaml")));
    let keys = format!("AWS_ACCESS_KEY_ID={}\nAWS_SECRET_ACCESS_KEY={}\n", Garage::KEY_ID, Garage::KEY);
    machine.write("/root/aws.env", 0o600, keys.as_bytes());
    machine.write("/etc/pi-agent/ca.pem", 0o644, &std::fs::read(proxy.ca_file()).unwrap());
    let setup = machine.run(&format!(
        "pi-agent setup --unattended --name pi-hosting --storage s3://{}/pi-hosting --region {} --endpoint {} \
         --path-style --ca-file /etc/pi-agent/ca.pem --aws-env /root/aws.env --kit {KIT} --kit-saved",
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
    // All that setup proposes stays; what it does not know is added.
    let proposed = machine.ok("grep -vE '^(#|$)' /etc/pi-agent/config.toml");
    for own in
        ["/srv/foundry/data", "docker:foundry", "/var/log", "/srv/secrets", "/etc/pi-agent", "container = \"db\""]
    {
        assert!(proposed.contains(own), "setup does not propose {own}:\n{proposed}");
    }
    let more = "\n[[step]]\nname = \"compose\"\nkind = \"directory\"\npaths = [\"/srv/compose\", \"/etc\"]\n";
    machine.ok(&format!("printf '{}' >>/etc/pi-agent/config.toml", more.replace('\n', "\\n")));
    machine.ok(&format!("pi-agent recovery-kit --to {KIT}"));
    let _ = machine.run_within("systemctl reset-failed; systemctl start pi-agent-backup", PATIENCE).expect(0);
    assert_eq!(home.backup_result(), "success");
    // What came after the backup is in the WAL.
    machine.ok(&format!("{PSQL} -c \"insert into voters values (0, 'the last')\" -c 'select pg_switch_wal()'"));
    machine.ok("sleep 1; pi-agent wal push --retry-for 30s");
    machine.until("test -z \"$(find /var/spool/pgbackrest -type f -name '0*')\"");
    let rows = machine.ok(&format!("{PSQL} -c '{ROWS}'"));
    // The same with a Foundry that is not written to: what is compared.
    machine.ok("docker stop foundry");
    let _ = machine.run_within("pi-agent run foundry", PATIENCE).expect(0);
    let trees = ["/srv/foundry/data", "/srv/logs", "/srv/compose", "/srv/secrets"]
        .map(|path| (path, Tree::read(machine.path(path))));
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
    let aside = machine.path("/var/lib/pi-agent/recovered/compose/etc/passwd");
    assert!(aside.exists(), "what this system has itself lies aside: {ran}");
    assert!(machine.path("/var/lib/pi-agent/recovered/logs/var/log").exists(), "{ran}");
    assert_eq!(machine.ok("ls -d /etc/pi-agent.* 2>/dev/null || :"), "", "the kit's files are in nobody's way");
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
    sh(compose.args(["up", "--detach"]).env("DOCKER_HOST", engine.host()).current_dir(folder));
}

/// A machine of which only the stick with the backups and the kit are left: its own server comes back, and serves at once.
pub fn a_server_of_the_machine_serves_again(system: &str) {
    let psql = "runuser -u postgres -- psql -qXAt -v ON_ERROR_STOP=1";
    let home = Home::set_up(system);
    propose_all(&home, "--discord-env /root/discord.env");
    home.back_up();
    let rows = home.machine.ok(&format!("{psql} -c '{ROWS}'"));
    let trees = Proposed::read(&home);
    let stick = Stick::of(&home);
    drop(home);

    let (home, _) = Home::installed(system);
    let machine = &home.machine;
    machine.write(KIT, 0o600, &stick.kit);
    let recover = format!("pi-agent recover --kit {KIT}");
    let _ = machine.run(&recover).expect(1).says("/mnt/usb/pi-hosting");
    machine.ok("test ! -e /etc/pi-agent/config.toml");
    stick.plug_into(machine);
    // The package of PostgreSQL has made a cluster, and somebody uses it.
    machine.ok("pg_createcluster $(ls /usr/lib/postgresql) main >/dev/null; systemctl daemon-reload; systemctl start postgresql");
    machine.until(&format!("{psql} -c 'select 1'"));
    let ran = machine.run(&recover).expect(0);
    ran.says("main.before-restore-").says("enable the timers: pi-agent setup");
    trees.are_back_on(&home);
    assert_eq!(machine.until(&format!("{psql} -c '{ROWS}'")), rows, "{ran}");
    assert_eq!(machine.run("systemctl is-enabled pi-agent-backup.timer").stdout.trim(), "disabled");

    // It archives, and backs up. Another recovery changes nothing, with timers this time.
    machine.ok(&format!("{psql} -c \"insert into voters values (-1, 'after')\"; pi-agent run database"));
    let _ = machine.run(&format!("{recover} --start-timers")).expect(0).says("was back already").says("the timers run");
    assert_eq!(machine.ok(&format!("{psql} -c 'select name from voters where id = -1'")), "after");
    assert_eq!(machine.ok("systemctl is-active pi-agent-backup.timer"), "active");
}

/// A machine without a database and without Docker: logs and configurations alone, as setup proposes them.
pub fn a_machine_of_files_alone_is_back(system: &str) {
    let (home, _) = Home::installed(system);
    Household::make(home.machine.path("/srv"), Size::SMALL, 7);
    home.machine.ok("mkdir -p /mnt/usb/pi-hosting");
    propose_all(&home, "");
    home.back_up();
    let trees = Proposed::read(&home);
    let stick = Stick::of(&home);
    drop(home);

    let (home, _) = Home::installed(system);
    home.machine.write(KIT, 0o600, &stick.kit);
    stick.plug_into(&home.machine);
    let recover = format!("pi-agent recover --kit {KIT} --start-timers");
    let _ = home.machine.run(&recover).expect(0).says("the timers run");
    trees.are_back_on(&home);
    home.back_up();
    let _ = home.machine.run(&recover).expect(0).says("was back already");
}

/// Has setup make a configuration of nothing but what it proposes; with the kit.
fn propose_all(home: &Home, more: &str) {
    home.machine.write("/srv/secrets/token", 0o600, b"token\n");
    home.machine.write("/srv/foundry/Config/options.json", 0o644, b"{}\n");
    home.machine.write("/etc/pi-agent/hooks/before", 0o750, b"#!/bin/sh\n");
    let setup = home.machine.run(&format!(
        "pi-agent setup --unattended --overwrite --name pi-hosting --storage file:///mnt/usb/pi-hosting {more} \
         --kit {KIT} --kit-saved; rm -f /etc/pi-agent/*.before-*"
    ));
    assert!(matches!(setup.code(), Some(0 | 5)), "{setup}");
    home.does_not_give_way();
    home.machine.ok(&format!("pi-agent recovery-kit --to {KIT}"));
}

/// What setup proposes of a household.
struct Proposed([Tree; 4]);

impl Proposed {
    const PLACES: [&str; 4] = ["/srv/foundry", "/srv/logs", "/srv/secrets", "/etc/pi-agent/hooks"];

    fn read(home: &Home) -> Self {
        Self(Self::PLACES.map(|path| Tree::read(home.machine.path(path))))
    }

    #[track_caller]
    fn are_back_on(&self, home: &Home) {
        for ((path, before), after) in Self::PLACES.iter().zip(&self.0).zip(&Self::read(home).0) {
            assert_eq!(before.differences(after), Vec::<String>::new(), "{path}");
        }
        assert!(home.machine.path("/var/lib/pi-agent/recovered/logs/var/log").exists(), "the system has its own");
        assert_eq!(
            home.machine.ok("ls -d /etc/pi-agent.* 2>/dev/null || :"),
            "",
            "the kit's files are in nobody's way"
        );
    }
}

/// The stick with the backups, and the kit: what is left of a machine.
struct Stick {
    kit: Vec<u8>,
    scratch: Scratch,
}

impl Stick {
    fn of(home: &Home) -> Self {
        let stick = Self { kit: std::fs::read(home.machine.path(KIT)).unwrap(), scratch: Scratch::new() };
        stick.tar("--create", &home.machine);
        stick
    }

    fn plug_into(&self, machine: &Machine) {
        machine.ok("mkdir -p /mnt/usb");
        self.tar("--extract", machine);
    }

    fn tar(&self, way: &str, machine: &Machine) {
        let mut tar = Command::new("tar");
        tar.args([way, "--numeric-owner", "--file"]).arg(self.scratch.join("stick.tar"));
        sh(tar.arg("-C").arg(machine.path("/mnt/usb")).arg("."));
    }
}
