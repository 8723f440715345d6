//! The test of a database: its newest backup with all WAL there is, and a backup with WAL to some moment since the last
//! test. On each a temporary server answers.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::content::{self, Content};
use super::place::Place;
use super::server::{Clone, is_foreign};
use super::{Sheet, Work, dump, history, wal};
use crate::config::Postgres;
use crate::error::{Context, Error, Kind, Result};
use crate::monitor::Problem;
use crate::mounts::within_reach;
use crate::pgbackrest::PgBackRest;
use crate::process::User;
use crate::report::words;
use crate::restore::postgres::{points, restore};
use crate::restore::{At, Point, Request, Restored, Window, with_a_name};
use crate::secrets::{Secrets, random};
use crate::steps::future;
use crate::steps::postgres::catalogue::{ALWAYS_THERE, CATALOGUE, Catalogue, Psql};
use crate::steps::postgres::losses::Losses;
use crate::steps::postgres::programs::{Found, Programs};
use crate::steps::postgres::said::errors;
use crate::steps::postgres::{container, segment_size};
use crate::storage::Store;
use crate::wal::{Reached, spool_directory};

/// Of one look at every page and every row.
pub(super) const LOOKING: Duration = Duration::from_hours(6);
pub(super) const ASKING: Duration = Duration::from_mins(10);
/// Where it is restored to, in the test's place.
const CLUSTER: &str = "database";
/// And a dump, which is to be loaded.
const DUMP: &str = "database.dump";

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
    let (newest, remark) =
        future::newest(&points, |point| (point.time, point.id.as_str()), None).ok_or_else(nothing)?;
    sheet.remark(remark);
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
    let role = match &catalogue {
        Some(catalogue) => catalogue.superuser.clone(),
        None => container::role(postgres).unwrap_or_else(|| user.name.clone()),
    };
    let test = Test { work, postgres, version, programs, user, role };

    // 2. What a restore gets by without. From here on each part is tested whatever became of the one before.
    let older = test.losses(window.as_ref(), segment_size(&facts), pushed.as_ref(), sheet).unwrap_or_else(|error| {
        sheet.problem("repository", Problem::from(&error));
        Vec::new()
    });

    // 3. The newest moment, and all that is to be known of it.
    let restored = test.restored(At::Latest, Some(&older), sheet, |psql, found, _, sheet| {
        sheet.timed(began.elapsed(), size, size);
        // One of an earlier backup knows tables that were dropped before this one.
        let recorded = catalogue.as_ref().filter(|catalogue| catalogue.label == newest.id);
        Content { psql, step, monitor, sorts_alike: test.sorts_alike() }.test(&found, recorded, sheet);
        dump::test(work, psql, &found, &work.place.directory.join(DUMP), sheet);
    });
    let last_commit = match restored {
        Ok(restored) => {
            let newest_moment = window.as_ref().map(|window| window.to).max(restored.last_commit);
            sheet.newest(newest_moment.unwrap_or(newest.time), work.began, Some(settings.alarms.rpo));
            restored.last_commit
        }
        Err(error) => {
            sheet.problem("restore", Problem::from(&error));
            None
        }
    };

    // 4. Some moment since the last test.
    match moment(window.as_ref(), work.earlier.last, last_commit, &points) {
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
    /// The programs sort text as the original does. Those of this machine have its C library and locales, not those of a container.
    fn sorts_alike(&self) -> bool {
        self.postgres.container.is_none() || matches!(self.programs, Found::Image(_))
    }

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
        let pgbackrest = PgBackRest::prepare(settings, step, self.postgres, &self.user)?;
        let (info, store, stanza) = (pgbackrest.info()?, store.join(&step.name), &self.postgres.stanza);
        let losses = Losses { store: &store, stanza, pgbackrest: &pgbackrest, info: &info };
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
        look: impl FnOnce(&Psql<'_>, Catalogue, &Restored, &mut Sheet) + Send,
    ) -> Result<Restored> {
        let Work { step, place, monitor, .. } = self.work;
        let settings = &place.settings;
        let to = place.fresh(CLUSTER)?;
        place.fresh("database.tablespaces")?;
        let dump = place.fresh(DUMP)?;
        fs::create_dir(&dump).context(|| format!("make {}", dump.display()))?;
        let request = Request { to: to.clone(), at, paths: Vec::new(), overwrite: false, privileges: false };
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
            [&to, &tablespaces, &dump].into_iter().filter(|path| path.exists()).map(|path| &**path).collect();
        let seen: Vec<_> = reached.iter().copied().chain([&*home]).collect();
        let programs = self.programs.open(self.version, runtime, &self.user, &seen)?;
        within_reach(runtime, &reached, self.user.uid, || {
            with_a_name(settings, &self.user, || {
                let clone = Clone { programs: &programs, data: &to, home: &home, user: &self.user, role: &self.role };
                let looked = clone.running(monitor, |psql| {
                    let found = psql.catalogue(&[])?;
                    content::all_open(&found, sheet);
                    look(psql, found, &restored, sheet);
                    Ok(())
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
                    Err(error) => sheet.problem("server", Problem::from(&error)),
                    Ok(()) => {}
                }
                self.checksums(&programs, &to, sheet)
            })
        })?;
        place.fresh(CLUSTER)?;
        place.fresh("database.tablespaces")?;
        place.fresh(DUMP)?;
        Ok(restored)
    }

    /// Another restore, of some moment: the newest commit in it is not later.
    fn go_back_to(&self, moment: Timestamp, sheet: &mut Sheet) -> Result<()> {
        let Work { step, monitor, .. } = self.work;
        let restored = self.restored(At::Time(moment), None, sheet, |psql, found, restored, sheet| {
            let name = "moment";
            let recovering = psql.system(ALWAYS_THERE, "select pg_is_in_recovery()", ASKING);
            match restored.last_commit {
                _ if restored.hole => {
                    restored.problems.iter().cloned().for_each(|problem| sheet.problem(name, problem));
                }
                _ if recovering.as_deref().ok() != Some("f") => sheet.failed(name, "the recovery did not end"),
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
            Content { psql, step, monitor, sorts_alike: self.sorts_alike() }.check_structure(&found, sheet);
        });
        restored.map(drop).map_err(|error| {
            let hint = error.advice().unwrap_or_default().to_owned();
            Error::new(format!("go back to {moment}")).hint(hint).caused_by(error)
        })
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
            false => sheet.failed(NAME, errors(&output.stderr)),
        }
        Ok(())
    }
}

fn last_commit(restored: &Restored) -> String {
    match restored.last_commit {
        Some(last) => format!("whole, up to a commit of {}", words::time(last)),
        None => "whole; nothing was committed since the backup".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_lie_between_the_last_test_and_the_last_commit() {
        let at = |second| Timestamp::from_second(second).ok();
        let window = Window {
            step: "d".into(),
            from: Timestamp::UNIX_EPOCH,
            to: Timestamp::UNIX_EPOCH,
            timelines: vec![],
            gaps: vec![],
        };
        for _ in 0..50 {
            let found = moment(Some(&window), at(100), at(200), &[]).expect("there is one");
            assert!(found >= at(100).expect("valid") && found < at(200).expect("valid"));
        }
        let first = moment(Some(&window), at(300), at(200), &[]).expect("since the first one");
        assert!(first < at(200).expect("valid"));
        assert_eq!(moment(None, None, at(200), &[]), None);
    }
}
