//! docs/restore.md as a tired person follows it: each disaster happens to a household, and every command of its page is run as it stands.

use std::process::Command;

use harness::{Machine, Package, Tree, sh};

use crate::home::Home;

const RUNBOOK: &str = include_str!("../../docs/restore.md");
/// What the pages' moment is, written in two ways.
const MOMENTS: [&str; 2] = ["2026-11-20 21:30", "2026-11-20 21:29:59"];
const DUMP: &str = "1a2b3c4d";

const FILES: &str = "/srv/foundry";
const WORLD: &str = "/srv/foundry/data/Data/worlds/saltmarsh";
const ROWS: &str = "select md5(string_agg(v::text, chr(10) order by id)) from voters v";

/// What happens on a page.
type Disaster = fn(&Stage<'_>);

/// The pages and what happens on them, in the document's order.
const PAGES: [(&str, Disaster); 9] = [
    ("1. A file is gone", a_file_is_gone),
    ("2. The database is broken", the_database_is_broken),
    ("3. All was well until a moment you know", a_deploy_breaks_things),
    ("4. The SD card is dead", the_card_is_dead),
    ("5. Only the kit is left", only_the_kit_is_left),
    ("6. Keys are lost, changed, or known to somebody", keys_are_lost),
    ("A database whose PostgreSQL is gone", a_dump),
    ("Without pi-agent", a_laptop),
    ("Two machines", another_machine),
];

pub fn every_command_of_the_runbook_is_run(system: &str) {
    let written: Vec<_> = pages().filter(|(_, commands)| !commands.is_empty()).map(|(title, _)| title).collect();
    let known: Vec<_> = PAGES.iter().map(|(title, _)| *title).collect();
    assert_eq!(written, known, "each page with commands has its disaster here");

    let home = Home::set_up(system);
    let machine = &home.machine;
    machine.ok(&format!(
        "mkdir -p {WORLD}; echo '{{\"title\": \"Saltmarsh\"}}' >{WORLD}/world.json; cp -a /etc/hosts {WORLD}/scene"
    ));
    machine.write("/root/pi-agent_0.1.0_all.deb", 0o644, &Package::native().bytes());
    home.back_up();
    for (title, happens) in PAGES {
        eprintln!("{title}");
        let (_, commands) = pages().find(|(page, _)| *page == title).expect("was just compared");
        happens(&Stage { home: &home, commands });
    }
}

/// A page in the midst of its disaster.
struct Stage<'a> {
    home: &'a Home,
    commands: Vec<&'static str>,
}

impl Stage<'_> {
    fn machine(&self) -> &Machine {
        &self.home.machine
    }

    /// Runs all commands of the page.
    fn follow(&self, moment: &str) {
        self.follow_some(0..self.commands.len(), moment);
    }

    fn follow_some(&self, range: std::ops::Range<usize>, moment: &str) {
        for command in &self.commands[range] {
            let mut script =
                MOMENTS.iter().fold((*command).to_owned(), |script, written| script.replace(written, moment));
            if script.contains("--in-place") {
                script.push_str(" --yes"); // Nobody is there to be asked.
            }
            let ran = self.machine().run(&script);
            eprintln!("{ran}");
            // The doctor has remarks on a machine like this one, and the system's own files are put beside their place.
            let remarks = command.contains("doctor") || command.contains("recover ") || command.contains("setup");
            assert!(ran.code() == Some(0) || (remarks && ran.code() == Some(5)), "{ran}");
        }
    }

    fn sql(&self, sql: &str) -> String {
        self.machine().until(&format!("cd /; runuser -u postgres -- psql -XAtqc \"{sql}\""))
    }

    /// A moment between what was and what comes.
    fn moment(&self) -> String {
        self.machine().ok("sleep 1; date --utc '+%FT%T.%6NZ'; sleep 1")
    }

    fn files(&self) -> Tree {
        Tree::read(self.home.path(FILES))
    }

    /// Nothing of the household is left but the storage and what is in /root, as on a new card.
    fn lose_the_card(&self) {
        self.machine().ok(
            "systemctl stop 'pi-agent-*'; apt-get purge --yes --quiet pi-agent >/dev/null; \
             rm -rf /etc/pi-agent /var/lib/pi-agent /var/cache/pi-agent /var/spool/pgbackrest/* /srv/*; \
             version=$(ls /usr/lib/postgresql); pg_dropcluster --stop $version main; systemctl daemon-reload; \
             pg_createcluster $version main >/dev/null; systemctl daemon-reload; systemctl start postgresql@$version-main",
        );
    }
}

fn a_file_is_gone(stage: &Stage<'_>) {
    let (before, moment) = (Tree::read(stage.home.path(WORLD)), stage.moment());
    stage.machine().ok(&format!("echo spoilt >{WORLD}/world.json; rm {WORLD}/scene"));
    stage.home.back_up();
    stage.follow(&moment);
    stage.machine().ok(&format!("rm -rf {WORLD}.before-restore-*"));
    before.assert_equals(stage.home.path(WORLD));
}

fn the_database_is_broken(stage: &Stage<'_>) {
    stage.sql("insert into voters values (20001, 'after the last backup')");
    let before = stage.sql(ROWS);
    let file = stage.sql("select current_setting('data_directory') || '/' || pg_relation_filepath('voters')");
    stage.machine().ok(&format!(
        "systemctl restart postgresql; dd if=/dev/urandom of={file} bs=8192 count=3 conv=notrunc status=none; \
         ! runuser -u postgres -- psql -XAtqc 'select * from voters'"
    ));
    stage.follow("latest");
    assert_eq!(stage.sql(ROWS), before);
}

fn a_deploy_breaks_things(stage: &Stage<'_>) {
    stage.home.back_up();
    stage.sql("insert into voters values (20002, 'just before the deploy')");
    let (rows, files) = (stage.sql(ROWS), stage.files());
    let moment = stage.moment();
    stage.sql("drop table voters");
    stage.machine().ok(&format!("rm -r {WORLD}"));
    stage.follow(&moment);
    stage.machine().ok("rm -rf /srv/foundry.before-restore-*");
    assert_eq!(stage.sql(ROWS), rows);
    files.assert_equals(stage.home.path(FILES));
}

fn the_card_is_dead(stage: &Stage<'_>) {
    let (rows, files) = (stage.sql(ROWS), stage.files());
    stage.lose_the_card();
    stage.follow("latest");
    assert_eq!(stage.sql(ROWS), rows);
    files.assert_equals(stage.home.path(FILES));
    assert_eq!(stage.machine().ok("systemctl is-active pi-agent-backup.timer"), "active");
}

fn only_the_kit_is_left(stage: &Stage<'_>) {
    let (rows, files) = (stage.sql(ROWS), stage.files());
    stage.lose_the_card();
    stage.follow_some(0..2, "latest");
    assert_eq!(stage.sql(ROWS), rows);
    files.assert_equals(stage.home.path(FILES));
    // And only the files of it, on a machine that has nothing.
    stage.machine().ok("rm -rf /etc/pi-agent/*");
    stage.follow_some(2..stage.commands.len(), "latest");
    files.assert_equals(stage.home.path("/srv/restored/srv/foundry"));
    stage
        .machine()
        .ok("test -s /var/lib/postgresql/restored/PG_VERSION; rm -rf /srv/restored /var/lib/postgresql/restored");
}

fn keys_are_lost(stage: &Stage<'_>) {
    let keys = stage.machine().ok("cd /etc/pi-agent/secrets; sha256sum restic.key pgbackrest.key");
    stage.machine().ok("rm -r /etc/pi-agent/secrets");
    stage.follow("latest");
    assert_eq!(stage.machine().ok("cd /etc/pi-agent/secrets; sha256sum restic.key pgbackrest.key"), keys);
    stage.home.back_up();
}

fn a_dump(stage: &Stage<'_>) {
    let points = stage.machine().run("pi-agent points database --json").expect(0).json();
    let dump = points["points"].as_array().unwrap().iter().find(|point| point["kind"] == "dump").expect("a dump");
    let id = dump["id"].as_str().unwrap();
    for command in &stage.commands {
        stage.machine().ok(&command.replace(DUMP, id));
    }
    stage.machine().ok("test -s /var/tmp/dump/globals.sql; test -s /var/tmp/dump/postgres.dump; rm -r /var/tmp/dump");
}

/// restic is another machine's: this one's, which sees the disk and the key from outside.
fn a_laptop(stage: &Stage<'_>) {
    for command in &stage.commands {
        let mut words: Vec<_> = command.split_whitespace().map(str::to_owned).collect();
        for word in words.iter_mut().filter(|word| word.starts_with('/')) {
            *word = stage.home.path(&*word).display().to_string();
        }
        sh(Command::new(&words[0]).args(&words[1..]).arg("--no-cache"));
    }
    stage.files().assert_equals(stage.home.path("/srv/restored/srv/foundry"));
}

fn another_machine(stage: &Stage<'_>) {
    stage.follow("latest");
    stage.home.back_up();
}

/// Each heading with the commands below it.
fn pages() -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    RUNBOOK.split("\n## ").skip(1).map(|page| {
        let title = page.lines().next().expect("a heading");
        let blocks = page.split("```sh\n").skip(1);
        let commands = blocks.flat_map(|block| block.split_once("```").expect("a block ends").0.lines());
        (title, commands.filter(|line| !line.trim().is_empty()).collect())
    })
}
