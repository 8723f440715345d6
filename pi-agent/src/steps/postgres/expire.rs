//! What retention no longer keeps goes.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Work;
use crate::error::Result;
use crate::pgbackrest::{Backup, Info};
use crate::retention;
use crate::steps::{Maintenance, StepResult, nothing_removed};

impl Work<'_> {
    pub(super) fn only_expire(&self, keep_everything: Option<&str>) -> Result<StepResult> {
        let info = self.pgbackrest.info()?;
        let contradicted = self.contradicted(&info, Timestamp::now());
        let doubt = self.job.doubt(keep_everything, self.store.clock_ahead());
        if let Some(why) = doubt.or(contradicted.as_deref()) {
            return Ok(StepResult { clock: contradicted.clone(), ..StepResult::failed(&nothing_removed(why)) });
        }
        self.claim.write_down()?;
        let mut done = vec![self.expire(&info, None)];
        done.extend(self.prune_dumps()?);
        let mut result = self.maintained(done);
        self.of_the_future(&info).into_iter().for_each(|problem| result.degrade(problem));
        Ok(result)
    }

    /// Removes what retention no longer keeps. The backup that was just made is not endangered by a failure here.
    pub(super) fn expire(&self, info: &Info, keep_everything: Option<&str>) -> Maintenance {
        let what = "expire".to_owned();
        if let Some(why) = keep_everything {
            return Maintenance { what, problem: None, note: format!("nothing expired: {why}") };
        }
        self.monitor.phase("expiring");
        match self.expire_victims(info) {
            Ok(count) => Maintenance { what, problem: None, note: format!("removed {count} backups") },
            Err(error) => Maintenance { what, problem: Some((&error).into()), note: String::new() },
        }
    }

    fn expire_victims(&self, info: &Info) -> Result<usize> {
        let (now, zone) = (Timestamp::now(), TimeZone::system());
        let points = retention_points(info);
        let victims = retention::pg_victims(&points, &self.step.keep, now, &zone);
        for label in roots(&points, &victims) {
            self.pgbackrest.expire(label)?;
        }
        let left: Vec<_> = points.into_iter().filter(|point| !victims.contains(&point.id)).collect();
        if let Some(fulls) = retention::retention_archive(&left, &self.step.keep, now) {
            self.pgbackrest.expire_wal(fulls)?;
        }
        Ok(victims.len())
    }
}

fn retention_points(info: &Info) -> Vec<retention::Point> {
    let point = |backup: &Backup| retention::Point {
        id: backup.label.clone(),
        time: backup.stopped,
        full: backup.is_full(),
        needs: backup.needs.clone(),
        lacks: backup.damaged_pages,
    };
    info.backups.iter().map(point).collect()
}

/// The victims that need no other victim: expiring one takes its dependents along, which are victims too.
fn roots<'a>(points: &[retention::Point], victims: &'a [String]) -> Vec<&'a str> {
    let needs_a_victim = |id: &String| {
        points.iter().any(|point| point.id == *id && point.needs.iter().any(|needed| victims.contains(needed)))
    };
    victims.iter().filter(|id| !needs_a_victim(id)).map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_roots_of_victim_chains_are_expired() {
        let point = |id: &str, needs: &[&str]| retention::Point {
            id: id.into(),
            time: Timestamp::UNIX_EPOCH,
            full: needs.is_empty(),
            needs: needs.iter().map(|id| (*id).into()).collect(),
            lacks: false,
        };
        let points =
            [point("A", &[]), point("A1", &["A"]), point("A2", &["A", "A1"]), point("B", &[]), point("B1", &["B"])];
        let victims = ["A", "A1", "A2", "B1"].map(String::from);
        assert_eq!(roots(&points, &victims), ["A", "B1"]);
    }
}
