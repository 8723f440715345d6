//! What a step's result says of a backup, of maintenance, and of what the repository holds now.

use std::collections::BTreeMap;

use super::catalogue::{CATALOGUE, Catalogue, Psql};
use super::programs::Programs;
use super::server::Identity;
use super::session::LIVE;
use super::{ARCHIVE_TIMEOUT, SEGMENT, SYSTEM_ID, VERSION, Work};
use crate::monitor::Problem;
use crate::pgbackrest::{Backup, Info};
use crate::steps::points::{self, POINTS};
use crate::steps::{Figures, Maintenance, Outcome, StepResult};

impl Work<'_> {
    pub(super) fn result(
        &self,
        identity: &Identity,
        made: &Backup,
        warnings: Vec<String>,
        mut problems: Vec<Problem>,
        expired: Maintenance,
        objects: &[(String, u64)],
    ) -> StepResult {
        if made.damaged_pages {
            problems.push(Problem {
                message: format!("backup {} holds pages with wrong checksums", made.label),
                hint: Some("the database's disk is failing: see pg_amcheck; the newest backup without them is kept until there is a newer one".into()),
            });
        }
        let outcome =
            if problems.is_empty() && expired.problem.is_none() { Outcome::Succeeded } else { Outcome::Degraded };
        let error = problems.first().or(expired.problem.as_ref()).cloned();
        // A first backup is full whatever was asked, and says so.
        let left = self.pgbackrest.info().ok();
        let mut facts = BTreeMap::from([
            (SYSTEM_ID.to_owned(), identity.system_id.to_string()),
            (VERSION.to_owned(), identity.version().to_string()),
            (ARCHIVE_TIMEOUT.to_owned(), identity.archive_timeout.to_string()),
            (SEGMENT.to_owned(), identity.wal_segment_size.to_string()),
        ]);
        facts.extend(left.iter().map(|info| {
            let points =
                info.backups.iter().map(|backup| (backup.stopped, backup.label.as_str(), backup.damaged_pages));
            (POINTS.to_owned(), points::told(points))
        }));
        let catalogue = self.catalogue(&made.label);
        facts.extend(catalogue.iter().map(|catalogue| (CATALOGUE.to_owned(), catalogue.told())));
        problems.extend(catalogue.into_iter().flat_map(|catalogue| catalogue.unopened).map(unopened));
        let telling = warnings.into_iter().filter(|warning| !warning.starts_with("no prior backup exists"));
        problems.extend(telling.map(|message| Problem { message, hint: None }));
        StepResult {
            error,
            problems,
            restore_point: Some(made.label.clone()),
            figures: Figures {
                bytes_processed: Some(made.size),
                bytes_added: Some(made.copied),
                bytes_added_stored: made.stored,
                ..figures(objects, left.as_ref())
            },
            facts,
            maintenance: vec![expired],
            ..StepResult::of(outcome)
        }
    }

    /// The result of maintenance alone.
    pub(super) fn maintained(&self, done: Vec<Maintenance>) -> StepResult {
        let error = done.iter().find_map(|done| done.problem.clone());
        let outcome = if error.is_some() { Outcome::Failed } else { Outcome::Succeeded };
        let figures = figures(&self.objects(), self.pgbackrest.info().ok().as_ref());
        StepResult { error, maintenance: done, figures, ..StepResult::of(outcome) }
    }

    /// What the cluster holds, for restore tests to compare with. A server that does not tell costs no backup: the test says
    /// then what it could not compare.
    fn catalogue(&self, label: &str) -> Option<Catalogue> {
        let programs = Programs::default();
        let psql =
            Psql { connection: self.server.connection(), user: self.server.user, programs: &programs, options: LIVE };
        let catalogue = psql.catalogue(&self.step.test.count).ok()?;
        Some(Catalogue { label: label.to_owned(), ..catalogue })
    }

    /// Every object of this step. Only figures and notes are made of it, so a list that cannot be had is empty.
    pub(super) fn objects(&self) -> Vec<(String, u64)> {
        self.store.join(&self.step.name).list("").unwrap_or_default()
    }
}

/// The backup has it all the same; a restore test cannot compare it.
fn unopened((database, why): (String, String)) -> Problem {
    Problem {
        message: format!("the database {database} could not be opened: {why}"),
        hint: Some("the backup holds its files; whether they can be used, only its opening tells".into()),
    }
}

/// What the repository holds now. Figures are for the report: one that cannot be had is left out.
fn figures(objects: &[(String, u64)], info: Option<&Info>) -> Figures {
    let stored = objects.iter().map(|(_, size)| size).sum();
    Figures {
        bytes_stored: Some(stored).filter(|stored| *stored > 0),
        restore_points: info.map(|info| info.backups.len() as u64),
        bytes_restorable: info.map(|info| info.backups.iter().map(|backup| backup.size).sum()),
        ..Figures::default()
    }
}
