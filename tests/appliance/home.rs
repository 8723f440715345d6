//! A household's machine with the package installed, and what it has to back up.

use std::path::{Path, PathBuf};

use harness::{Household, Machine, Package, Ran, Size, Tree};
use serde_json::Value;

/// What everything happens in.
pub struct Home {
    pub machine: Machine,
}

/// Answers every request as Discord does and keeps its body in memory, as `/run/discord/TIME.json`. The disk may be full.
const DISCORD: &str = r#"#!/bin/bash
length=0
while IFS=' ' read -r name value && [ "${name%$'\r'}" ]; do
    [ "${name,,}" != content-length: ] || length=${value%$'\r'}
done
mkdir -p /run/discord
message=/run/discord/$(date +%s%N)
head -c "$length" >"$message.part"
mv "$message.part" "$message.json"
printf 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\n{"id":"1"}'
"#;

/// The other tests keep these processors busy for minutes; what comes last gets nothing from them in all that time.
const AS_ANYBODY: &str = "\
[Service]
Nice=0
CPUSchedulingPolicy=other
CPUWeight=100
IOSchedulingClass=best-effort
IOWeight=100
";

impl Home {
    /// The machine with the package and nothing else.
    pub fn installed(system: &str) -> (Self, Ran) {
        let home = Self { machine: Machine::boot(system) };
        let ran = home.install(&Package::native());
        (home, ran)
    }

    /// The machine set up: a database and Foundry's files, a stick to keep backups on, Discord. The timers are enabled.
    pub fn set_up(system: &str) -> Self {
        let (home, _) = Self::installed(system);
        let machine = &home.machine;
        Household::make(machine.path("/srv"), Size::SMALL, 7);
        home.make_database();
        home.listen_as_discord();
        machine.ok("mkdir -p /mnt/usb/pi-hosting");
        let setup = home.setup();
        // As the person who reads it would do.
        let statements: String = setup
            .stdout
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with("ALTER SYSTEM"))
            .flat_map(|line| [line, "\n"])
            .collect();
        assert!(statements.contains("archive_command"), "setup does not say how PostgreSQL is to archive: {setup}");
        machine.write("/tmp/archiving.sql", 0o644, statements.as_bytes());
        machine.ok(
            "runuser -u postgres -- psql -qX -v ON_ERROR_STOP=1 -f /tmp/archiving.sql; systemctl restart postgresql",
        );
        machine.until("runuser -u postgres -- psql -XAtc 'select 1'");
        home.does_not_give_way();
        home
    }

    /// Nor does a run pause while others are at work: they always are.
    pub fn does_not_give_way(&self) {
        self.machine.ok("printf '\\n[limits]\\ngive-way = false\\n' >>/etc/pi-agent/config.toml");
    }

    fn setup(&self) -> Ran {
        let ran = self.machine.run(
            "pi-agent setup --unattended --name pi-hosting --storage file:///mnt/usb/pi-hosting \
             --discord-env /root/discord.env --directory foundry=/srv/foundry --directory configs=/srv/configs,/etc \
             --kit /root/kit.txt --kit-saved",
        );
        // 5: the doctor has found the server that does not archive yet.
        assert!(matches!(ran.code(), Some(0 | 5)), "{ran}");
        ran
    }

    fn make_database(&self) {
        let rows = "create table voters(id int primary key, name text); \
                    insert into voters select i, md5(i::text) from generate_series(1, 20000) i";
        self.machine.ok(&format!(
            "version=$(ls /usr/lib/postgresql); pg_createcluster $version main >/dev/null; \
             systemctl daemon-reload; systemctl start postgresql@$version-main; \
             runuser -u postgres -- psql -qXc '{rows}'"
        ));
    }

    fn listen_as_discord(&self) {
        let machine = &self.machine;
        machine.write("/usr/local/bin/discord", 0o755, DISCORD.as_bytes());
        let socket = "[Socket]\nListenStream=127.0.0.1:8080\nAccept=yes\n[Install]\nWantedBy=sockets.target\n";
        machine.write("/etc/systemd/system/discord.socket", 0o644, socket.as_bytes());
        let service = "[Service]\nExecStart=/usr/local/bin/discord\nStandardInput=socket\n";
        machine.write("/etc/systemd/system/discord@.service", 0o644, service.as_bytes());
        machine.ok("systemctl daemon-reload; systemctl enable --quiet --now discord.socket");
        machine.write("/root/discord.env", 0o600, b"DISCORD_WEBHOOK_URL=http://127.0.0.1:8080/hook\n");
    }

    /// Adds random data that takes a run seconds to back up.
    pub fn add_a_large_file(&self) {
        self.machine.ok("head -c 400M /dev/urandom >/srv/foundry/large.bin");
    }

    /// Starts the backup as its timer does, and returns when it is in the middle of the large file.
    pub fn start_and_be_in_the_middle(&self) {
        let before = self.stored();
        self.machine.ok("systemctl start --no-block pi-agent-backup");
        self.machine.until(&format!("test $(du -sm /mnt/usb/pi-hosting/foundry | cut -f 1) -gt {}", before + 20));
        self.machine.ok("test \"$(systemctl is-active pi-agent-backup || :)\" != inactive");
    }

    /// MiB of files' backups.
    fn stored(&self) -> u64 {
        let mib =
            self.machine.ok("mkdir -p /mnt/usb/pi-hosting/foundry; du -sm /mnt/usb/pi-hosting/foundry | cut -f 1");
        mib.parse().expect("a number of MiB")
    }

    /// Makes a backup as the timer does; passes when it succeeded.
    #[track_caller]
    pub fn back_up(&self) {
        self.machine.ok("systemctl reset-failed; systemctl start pi-agent-backup");
        assert_eq!(self.backup_result(), "success");
    }

    /// Waits until the backup service has ended; its result as systemd tells it.
    pub fn backup_result(&self) -> String {
        self.machine
            .until("case $(systemctl is-active pi-agent-backup || :) in inactive | failed) ;; *) false ;; esac");
        self.machine.ok("systemctl show --property=Result --value pi-agent-backup")
    }

    /// Puts a package there and gives it to apt.
    pub fn install(&self, package: &Package) -> Ran {
        self.machine.write("/etc/systemd/system/service.d/busy.conf", 0o644, AS_ANYBODY.as_bytes());
        self.machine.write("/root/pi-agent.deb", 0o644, &package.bytes());
        self.machine.run("apt-get install --yes --quiet /root/pi-agent.deb").expect(0)
    }

    /// Lets the timer of that name fire in a few seconds.
    pub fn fires_now(&self, name: &str) {
        self.machine.ok(&format!(
            "mkdir -p /etc/systemd/system/{name}.timer.d; \
             date --date='+4 seconds' '+[Timer]%nOnCalendar=%nOnCalendar=%F %T%nAccuracySec=100ms%nRandomizedDelaySec=0' \
                 >/etc/systemd/system/{name}.timer.d/now.conf; \
             systemctl daemon-reload; systemctl restart {name}.timer"
        ));
    }

    /// Time from the failure of a step, as the journal knows it, to the first message.
    pub fn seconds_until_told(&self, step: &str) -> f64 {
        let text = self.machine.until(&format!(
            "message=$(ls /run/discord/*.json | head -n 1); basename $message .json; \
             journalctl --quiet --output=json STEP={step} OUTCOME=failed | sed -n 1p"
        ));
        let (told, entry) = text.split_once('\n').expect("two lines");
        let entry: Value = serde_json::from_str(entry).expect("a line of JSON");
        let failed: f64 = entry["__REALTIME_TIMESTAMP"].as_str().expect("a time").parse().expect("microseconds");
        told.parse::<f64>().expect("nanoseconds") / 1e9 - failed / 1e6
    }

    /// What `status --json` says of a step.
    pub fn status(&self, step: &str) -> Value {
        self.machine.run("pi-agent status --json").expect(0).step(step)
    }

    /// How many journal entries have these fields.
    pub fn journal(&self, fields: &str) -> usize {
        self.machine.ok(&format!("journalctl --quiet --no-pager --output=json {fields}")).lines().count()
    }

    /// Starts the backup as the timer does, and returns when it has ended: how, as systemd tells it.
    pub fn start_backup(&self) -> String {
        // A service that says when it is ready fails after `systemctl start` is content, others before.
        self.machine.run("systemctl reset-failed; systemctl start pi-agent-backup");
        self.backup_result()
    }

    /// Waits until Discord got a message and no more come; their titles since last asked, in order.
    pub fn heard(&self) -> Vec<String> {
        let all = self.machine.until(
            "ls /run/discord/*.json >/dev/null; sleep 3; \
             for message in /run/discord/*.json; do cat $message; echo; done; rm /run/discord/*.json",
        );
        assert!(!all.contains("127.0.0.1:8080"), "the webhook's address is a secret: {all}");
        let title = |line: &str| {
            let message: Value = serde_json::from_str(line).expect("a message is one line of JSON");
            message["embeds"][0]["title"].as_str().or(message["content"].as_str()).expect("a title").to_owned()
        };
        all.lines().filter(|line| !line.is_empty()).map(title).collect()
    }

    /// Passes when Discord heard exactly these, by a part of each title.
    #[track_caller]
    pub fn hears(&self, why: &str, parts: &[impl AsRef<str>]) {
        let heard = self.heard();
        eprintln!("{why}: {heard:#?}");
        let matches = |title: &String| parts.iter().filter(|part| title.contains(part.as_ref())).count();
        assert_eq!(heard.len(), parts.len(), "{why}: {heard:#?}");
        assert!(heard.iter().all(|title| matches(title) == 1), "{why}: {heard:#?}");
    }

    /// Passes when the newest backup of Foundry's files restores to what is there.
    pub fn assert_foundry_restores(&self) {
        self.machine.ok("rm -rf /srv/restored; pi-agent restore foundry --to /srv/restored");
        Tree::read(self.path("/srv/foundry")).assert_equals(self.path("/srv/restored/srv/foundry"));
    }

    /// Passes when the database restores with all its rows, started by the commands the restore prints.
    pub fn assert_database_restores(&self) {
        let ran = self.machine.run("pi-agent restore database --to /var/lib/postgresql/restored").expect(0);
        let commands: Vec<_> = ran.stdout.lines().map(str::trim).filter(|line| line.contains("runuser -u")).collect();
        let [start, look, stop] = commands[..] else { panic!("not three commands: start, look, stop: {ran}") };
        let rows = "select md5(string_agg(v::text, chr(10) order by id)) from voters v";
        let original = self.machine.ok(&format!("runuser -u postgres -- psql -XAtc '{rows}'"));
        assert_eq!(self.machine.ok(&format!("cd /; {start} >/dev/null; {look} -XAtc '{rows}'")), original);
        self.machine.ok(&format!("cd /; {stop}; rm -rf /var/lib/postgresql/restored"));
    }

    /// A path of the machine seen from outside.
    pub fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        self.machine.path(&inside.as_ref().to_string_lossy())
    }

    /// Passes when nothing of the agent runs.
    pub fn assert_nothing_is_left_running(&self) {
        let left = self.machine.run("pgrep --full --list-full '^[^ ]*(pi-agent|pgbackrest) '");
        assert_eq!(left.code(), Some(1), "still running: {left}");
    }
}
