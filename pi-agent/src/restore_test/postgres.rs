//! The test of a database: its newest backup with all WAL there is, and a backup with WAL to some moment since the last
//! test. On each a temporary server answers.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::place::Place;
use super::server::{Clone, is_foreign};
use super::{Sheet, Work, dump, history, wal};
use crate::config::Postgres;
use crate::error::{Context, Error, Kind, Result};
use crate::monitor::{Monitor, Problem};
use crate::mounts::within_reach;
use crate::pgbackrest::PgBackRest;
use crate::process::User;
use crate::report::words;
use crate::restore::postgres::{points, restore};
use crate::restore::{At, Point, Request, Restored, Window, with_a_name};
use crate::secrets::{Secrets, random};
use crate::steps::postgres::catalogue::{ALWAYS_THERE, CATALOGUE, Catalogue, Psql};
use crate::steps::postgres::losses::Losses;
use crate::steps::postgres::programs::{Found, Programs};
use crate::steps::postgres::{container, segment_size};
use crate::storage::Store;
use crate::wal::{Reached, spool_directory};

/// Of one look at every page and every row.
const LOOKING: Duration = Duration::from_hours(6);
pub(super) const ASKING: Duration = Duration::from_mins(10);
/// Where it is restored to, in the test's place.
const CLUSTER: &str = "database";

pub(super) fn test(work: &Work<'_>, postgres: &Postgres, sheet: &mut Sheet) -> Result<()> {
    let Work { step, place, monitor, .. } = work;
    let settings = &place.settings;

    // 1. What there is, and what it takes.
    monitor.phase("looking for the backup");
    let began = Instant::now();
    // Before the storage is looked at: what is pushed meanwhile is there, too.
    let pushed = Reached::read(&spool_directory(settings, postgres));
    let (points, window) = points(settings, step, postgres)?;
    let nothing = || Error::new(format!("there is no backup of {}", step.name)).kind_of(Kind::NotFound);
    let newest = points.last().ok_or_else(nothing)?;
    let version = newest.postgresql.unwrap_or_default();
    sheet.restore_point = Some(newest.id.clone());
    let size = newest.bytes.unwrap_or_default();
    // WAL comes one segment after the other, and what the server writes is little.
    place.room(size + size / 10 + (256 << 20))?;
    work.in_time(size)?;
    let user = container::user(settings, step, postgres)?;
    let programs = match Found::of_original(version, postgres, &settings.local.runtime, &user) {
        Ok(programs) => programs,
        Err(error) => {
            let hint = error.advice().unwrap_or_default();
            sheet.untested("server", format!("{}: {hint}", error.chain()));
            return Ok(());
        }
    };
    let facts = match history::saved(work) {
        Ok(history) => history.and_then(|history| history.facts(&step.name).ok()).unwrap_or_default(),
        Err(error) => {
            sheet.problem("history", Problem::from(&error));
            BTreeMap::new()
        }
    };
    let catalogue = facts.get(CATALOGUE).and_then(|fact| serde_json::from_str::<Catalogue>(fact).ok());
    let role = match (&catalogue, &postgres.user) {
        (Some(catalogue), _) => catalogue.superuser.clone(),
        (None, Some(role)) => role.clone(),
        (None, None) if postgres.container.is_some() => "postgres".into(),
        (None, None) => user.name.clone(),
    };
    let test = Test { work, postgres, version, programs, user, role };

    // 2. What a restore gets by without.
    let older = test.losses(window.as_ref(), segment_size(&facts), pushed.as_ref(), sheet)?;

    // 3. The newest moment, and all that is to be known of it.
    let restored = test.restored(At::Latest, Some(&older), sheet, |psql, _, sheet| {
        sheet.timed(began.elapsed(), size, size);
        // One of an earlier backup knows tables that were dropped before this one.
        let recorded = catalogue.as_ref().filter(|catalogue| catalogue.label == newest.id);
        test.look_closely(psql, recorded, sheet)?;
        dump::test(work, psql, &work.place.directory.join(CLUSTER), sheet);
        Ok(())
    })?;
    let newest_moment = window.as_ref().map(|window| window.to).max(restored.last_commit).unwrap_or(newest.time);
    sheet.newest(newest_moment, work.began, Some(settings.alarms.rpo));

    // 4. Some moment since the last test.
    match moment(window.as_ref(), work.earlier.last, restored.last_commit, &points) {
        Some(moment) => test.go_back_to(moment, sheet),
        None => {
            sheet.passed("moment", "nothing was committed since the first backup");
            Ok(())
        }
    }
}

/// A random one between the last test, or the first one that can be had, and the last commit.
fn moment(
    window: Option<&Window>,
    last: Option<Timestamp>,
    newest: Option<Timestamp>,
    points: &[Point],
) -> Option<Timestamp> {
    let to = newest.or_else(|| points.iter().map(|point| point.time).max())?;
    let first = window?.from;
    let from = last.filter(|last| *last < to).map_or(first, |last| last.max(first));
    let span = u64::try_from(to.duration_since(from).as_micros()).ok().filter(|span| *span > 0)?;
    // Without randomness the middle is as good as any.
    let chance = random().map_or(span / 2, u64::from_ne_bytes);
    from.checked_add(SignedDuration::from_micros(i64::try_from(chance % span).ok()?)).ok()
}

struct Test<'a> {
    work: &'a Work<'a>,
    postgres: &'a Postgres,
    version: u32,
    programs: Found,
    user: User,
    role: String,
}

impl Test<'_> {
    /// What is there twice, or is WAL of before the newest backup: no restore of the newest moment asks for it. That
    /// WAL's objects, whose content is still to be looked at.
    fn losses(
        &self,
        window: Option<&Window>,
        segment: Option<u64>,
        pushed: Option<&Reached>,
        sheet: &mut Sheet,
    ) -> Result<Vec<String>> {
        let Work { step, place: Place { settings, .. }, .. } = self.work;
        let store = Store::open(&settings.storage, &settings.storage.location, &Secrets::new(&settings.secrets))?;
        let info = PgBackRest::prepare(settings, step, self.postgres, &self.user)?.info()?;
        let losses = Losses { store: &store.join(&step.name), stanza: &self.postgres.stanza, info: &info };
        let since = window.map(|window| window.from).unwrap_or_default();
        let mut lost = losses.of_two(losses.backups(since))?;
        if let (None, Some(segment)) = (&lost, segment) {
            lost = losses.of_wal(since, segment, pushed)?;
        }
        match lost {
            Some(lost) => sheet.problem("repository", lost),
            None if segment.is_none() => sheet.passed("repository", "nothing is gone that is kept twice"),
            None => sheet.passed("repository", "nothing is gone that is kept twice, and no WAL"),
        }
        losses.older_wal(since)
    }

    /// Restores, and looks while a server runs on it; then reads older WAL for it, if that is asked for. What remains is
    /// removed before the next.
    fn restored(
        &self,
        at: At,
        older: Option<&[String]>,
        sheet: &mut Sheet,
        look: impl FnOnce(&Psql<'_>, &Restored, &mut Sheet) -> Result<()> + Send,
    ) -> Result<Restored> {
        let Work { step, place, monitor, .. } = self.work;
        let settings = &place.settings;
        let to = place.fresh(CLUSTER)?;
        place.fresh("database.tablespaces")?;
        let request = Request { to: to.clone(), at, paths: Vec::new(), overwrite: false };
        let restored = restore(settings, step, self.postgres, &request, monitor)?;
        let holes: Vec<_> = restored.problems.iter().filter(|_| restored.hole).cloned().collect();
        match holes.is_empty() {
            true => sheet.passed("WAL", last_commit(&restored)),
            false => holes.into_iter().for_each(|hole| sheet.problem("WAL", hole)),
        }
        monitor.phase("starting a server on it");
        let (runtime, home) = (&settings.local.runtime, settings.local.runtime.join("server"));
        fs::create_dir_all(&home).context(|| format!("make a server's directory {}", home.display()))?;
        let tablespaces = place.directory.join("database.tablespaces");
        let reached: Vec<_> =
            [&to, &tablespaces].into_iter().filter(|path| path.exists()).map(|path| &**path).collect();
        let seen: Vec<_> = reached.iter().copied().chain([&*home]).collect();
        let programs = self.programs.open(self.version, runtime, &self.user, &seen)?;
        within_reach(runtime, &reached, self.user.uid, || {
            with_a_name(settings, &self.user, || {
                let clone = Clone { programs: &programs, data: &to, home: &home, user: &self.user, role: &self.role };
                let looked = clone.running(monitor, |psql| {
                    let opened = psql.catalogue(&[])?.databases.len();
                    sheet.passed("databases", format!("all {opened} open"));
                    look(psql, &restored, sheet)
                });
                if let Some(older) = older {
                    // Whatever the server said.
                    let pgbackrest = PgBackRest::prepare(settings, step, self.postgres, &self.user)?;
                    wal::test(self.work, &pgbackrest, older, &to, sheet);
                }
                match looked {
                    Err(error) if is_foreign(&error) => sheet.untested(
                        "databases",
                        match self.programs {
                            Found::Image(_) => "their image lacks their locale; it is made when the container starts",
                            Found::Here(_) => "this machine lacks their locale (dpkg-reconfigure locales), and their container is not there",
                        },
                    ),
                    looked => looked?,
                }
                self.checksums(&programs, &to, sheet)
            })
        })?;
        place.fresh(CLUSTER)?;
        place.fresh("database.tablespaces")?;
        Ok(restored)
    }

    /// Tables, rows, pages, indexes, and what the configuration asks.
    fn look_closely(&self, psql: &Psql<'_>, recorded: Option<&Catalogue>, sheet: &mut Sheet) -> Result<()> {
        let (test, monitor) = (&self.work.step.test, self.work.monitor);
        monitor.phase("sampling the tables");
        run(monitor, psql, "vacuumdb", &["--all", "--analyze-only", "--quiet"].map(str::to_owned))
            .map_err(|error| Error::new("read samples of all tables").caused_by(error))?;
        let found = psql.catalogue(&test.count)?;
        match recorded {
            None => sheet.untested("tables", "no list of them was saved with this backup"),
            Some(recorded) => compare(recorded, &found, sheet),
        }
        for name in &test.count {
            match (found.counts.get(name), recorded.and_then(|recorded| recorded.counts.get(name))) {
                (None, _) => sheet.failed("rows", format!("{name} cannot be counted")),
                (Some(found), Some(then)) if !in_range(*found, *then) => {
                    sheet.failed("rows", format!("{name} has {found}, and had {then} at the backup"));
                }
                (Some(found), Some(then)) => sheet.passed("rows", format!("{name} has {found}, {then} at the backup")),
                (Some(found), None) => {
                    sheet.untested("rows", format!("{name}, which has {found}, was not counted then"));
                }
            }
        }
        let lacking = lacking(psql, &found, sheet)?;
        for assertion in &test.assert {
            let name = "assertion";
            match psql.ask(&assertion.database, &assertion.sql, ASKING) {
                Ok(answer) if answer == "t" => sheet.passed(name, assertion.sql.clone()),
                Ok(answer) => sheet.failed(name, format!("{}: {answer:?} instead of true", assertion.sql)),
                Err(error) if lacking && needs_a_library(&error.chain()) => sheet.untested(name, error.chain()),
                Err(error) => sheet.failed(name, format!("{}: {}", assertion.sql, error.chain())),
            }
        }
        self.amcheck(psql, lacking, sheet);
        Ok(())
    }

    /// Another restore, of some moment: the newest commit in it is not later.
    fn go_back_to(&self, moment: Timestamp, sheet: &mut Sheet) -> Result<()> {
        let restored = self.restored(At::Time(moment), None, sheet, |psql, restored, sheet| {
            let name = "moment";
            let recovering = psql.ask(ALWAYS_THERE, "select pg_is_in_recovery()", ASKING)?;
            match restored.last_commit {
                _ if restored.hole => {
                    restored.problems.iter().cloned().for_each(|problem| sheet.problem(name, problem));
                }
                _ if recovering != "f" => sheet.failed(name, "the recovery did not end"),
                Some(last) if last > moment => {
                    sheet.failed(name, format!("asked for {moment}, and got a commit of {last}"));
                }
                last => sheet.passed(
                    name,
                    format!(
                        "{}{}",
                        words::time(moment),
                        last.map_or_else(String::new, |last| format!(", last commit {}", words::time(last)))
                    ),
                ),
            }
            self.amcheck(psql, true, sheet);
            Ok(())
        });
        restored.map(drop).map_err(|error| {
            let hint = error.advice().unwrap_or_default().to_owned();
            Error::new(format!("go back to {moment}")).hint(hint).caused_by(error)
        })
    }

    /// Every table and index, held against each other.
    fn amcheck(&self, psql: &Psql<'_>, lacking: bool, sheet: &mut Sheet) {
        const NAME: &str = "pg_amcheck";
        self.work.monitor.phase("checking tables and indexes");
        match run(self.work.monitor, psql, NAME, &["--all", "--install-missing", "--heapallindexed"].map(str::to_owned))
        {
            Ok(()) => sheet.passed(NAME, "every table and index is sound"),
            Err(error) if error.kind() == Kind::NotFound => {
                sheet.untested(NAME, "this version of PostgreSQL has none");
            }
            Err(error) if lacking && needs_a_library(&error.chain()) => sheet.untested(NAME, error.chain()),
            Err(error) if error.chain().contains("amcheck.control") => sheet.untested(NAME, error.chain()),
            Err(error) => sheet.failed(NAME, error.chain()),
        }
    }

    /// Every page, of a server that has been stopped.
    fn checksums(&self, programs: &Programs, data: &Path, sheet: &mut Sheet) -> Result<()> {
        const NAME: &str = "pg_checksums";
        self.work.monitor.phase("checking the pages' checksums");
        let arguments = ["--check".to_owned(), "-D".into(), data.display().to_string()];
        let program = programs.program(NAME, arguments).within(LOOKING).as_user(&self.user);
        let output = program.run(&mut |_, _| self.work.monitor.alive())?;
        match output.status.success() {
            true => sheet.passed(NAME, "every page is as it was written"),
            false if output.stderr.contains("not enabled") => {}
            false => sheet.failed(NAME, last_lines(&output.stderr)),
        }
        Ok(())
    }
}

/// One of PostgreSQL's programs that asks the server.
pub(super) fn run(monitor: &Monitor, psql: &Psql<'_>, name: &str, arguments: &[String]) -> Result<()> {
    let program =
        psql.programs.program(name, psql.connection.iter().chain(arguments)).within(LOOKING).as_user(psql.user);
    let output = program.run(&mut |_, _| monitor.alive())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(Error::new(last_lines(&format!("{}\n{}", output.stdout, output.stderr)))),
    }
}

fn last_commit(restored: &Restored) -> String {
    match restored.last_commit {
        Some(last) => format!("whole, up to a commit of {}", words::time(last)),
        None => "whole; nothing was committed since the backup".into(),
    }
}

/// The end of it on one line.
fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(4)..].join("; ")
}

/// What an extension says that is not installed here.
pub(super) fn needs_a_library(said: &str) -> bool {
    ["could not access file", "could not load library", "is not available"].iter().any(|sign| said.contains(sign))
}

/// Databases, tables and about how many rows, against what was there at the backup.
fn compare(then: &Catalogue, found: &Catalogue, sheet: &mut Sheet) {
    let mut count = 0;
    let before = sheet.problems.len();
    for (database, tables) in &then.databases {
        let Some(now) = found.databases.get(database) else {
            sheet.failed("tables", format!("the database {database} is missing"));
            continue;
        };
        for (table, rows) in tables {
            count += 1;
            match now.get(table) {
                None => sheet.failed("tables", format!("{database}: {table} is missing")),
                Some(now) if !in_range(*now, *rows) => {
                    sheet.failed("tables", format!("{database}: {table} has about {now} rows, and had {rows}"));
                }
                Some(_) => {}
            }
        }
    }
    if sheet.problems.len() == before {
        let (databases, label) = (then.databases.len(), &then.label);
        sheet.passed("tables", format!("all {count} in {databases} databases, as at the backup {label}"));
    }
}

/// Nobody counted, or it is between half and double, give or take what a night's work may do to a small table.
fn in_range(now: i64, then: i64) -> bool {
    const SMALL: i64 = 1000;
    then < 0
        || now < 0 && then < SMALL
        || (now >= then / 2 - SMALL / 2 && now / 2 - SMALL <= then && (now > 0 || then < SMALL))
}

/// Whether an extension is used that this server does not have: what rests on it is not tested.
fn lacking(psql: &Psql<'_>, found: &Catalogue, sheet: &mut Sheet) -> Result<bool> {
    let mut any = false;
    for database in found.databases.keys() {
        let lacks = psql.ask(
            database,
            "select string_agg(extname, ', ') from pg_extension \
             where extname not in (select name from pg_available_extensions)",
            ASKING,
        )?;
        if !lacks.is_empty() {
            any = true;
            sheet.untested("extensions", format!("the server here lacks {lacks}, which {database} uses"));
        }
    }
    Ok(any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_may_grow_and_shrink_and_not_vanish() {
        for (now, then, good) in [
            (10, -1, true),
            (-1, 10, true),
            (0, 100, true),
            (0, 100_000, false),
            (40_000, 100_000, false),
            (60_000, 100_000, true),
            (190_000, 100_000, true),
            (300_000, 100_000, false),
            (-1, 100_000, false),
        ] {
            assert_eq!(in_range(now, then), good, "{now} after {then}");
        }
    }

    #[test]
    fn moments_lie_between_the_last_test_and_the_last_commit() {
        let at = |second| Timestamp::from_second(second).ok();
        let window =
            Window { step: "d".into(), from: Timestamp::UNIX_EPOCH, to: Timestamp::UNIX_EPOCH, timelines: vec![] };
        for _ in 0..50 {
            let found = moment(Some(&window), at(100), at(200), &[]).expect("there is one");
            assert!(found >= at(100).expect("valid") && found < at(200).expect("valid"));
        }
        let first = moment(Some(&window), at(300), at(200), &[]).expect("since the first one");
        assert!(first < at(200).expect("valid"));
        assert_eq!(moment(None, None, at(200), &[]), None);
    }
}
