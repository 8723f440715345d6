//! Whose cluster it is: the one known before, one that an upgrade made of it, or another that is refused.

use super::server::{Identity, Server};
use super::{SYSTEM_ID, VERSION, Work};
use crate::config::{Postgres, Settings, Step};
use crate::error::{Error, Result};
use crate::pgbackrest::{Cluster, Info, PgBackRest};
use crate::wal::{self, Whose};

impl Work<'_> {
    /// True when the stanza went on to a higher major version: then the next backup is full.
    pub(super) fn know_cluster(&self, identity: &Identity, info: &Info) -> Result<bool> {
        let now = Cluster { system_id: identity.system_id, version: identity.version() };
        let known = info.cluster();
        match decide(known.or(self.recorded_cluster()), now, known.is_some()) {
            Decision::Go => match went_back(&self.step.name, &self.server, &self.pgbackrest, info)? {
                Some(error) => Err(error),
                None => Ok(false),
            },
            Decision::Create => self.pgbackrest.create_stanza().map(|()| false),
            Decision::Upgrade => {
                let settings = &self.job.settings;
                succeed(settings, self.step, self.postgres, &self.pgbackrest, Whose::Ours).map(|()| true)
            }
            Decision::Refuse(before) => Err(Error::new(format!(
                "this is another cluster than before: system id {} (PostgreSQL {}), but the backups are of {} \
                 (PostgreSQL {}); nothing was expired",
                now.system_id, now.version, before.system_id, before.version
            ))
            .hint(format!(
                "an empty or foreign cluster? then restore: pi-agent points {0}; if it is meant: pi-agent adopt {0}",
                self.step.name
            ))),
        }
    }

    /// The newest backup is of a state that the cluster does not come from: it was put back to before that. Another one on top of it
    /// would hold little that is in it.
    pub(super) fn left_its_newest_backup(&self, identity: &Identity, info: &Info) -> bool {
        let (Some(newest), Some(number)) = (info.backups.last(), identity.timeline()) else { return false };
        let leads = || {
            let timelines = self.pgbackrest.timelines(&newest.archive, &info.backups);
            timelines.is_ok_and(|timelines| timelines.lead(newest, number))
        };
        newest.timeline() != Some(number) && !leads()
    }

    /// The cluster of the last good run.
    fn recorded_cluster(&self) -> Option<Cluster> {
        let fact = |key: &str| self.job.facts.get(key);
        Some(Cluster { system_id: fact(SYSTEM_ID)?.parse().ok()?, version: fact(VERSION)?.parse().ok()? })
    }
}

/// Makes the server's cluster the stanza's next. WAL of the one before that waits in the spool goes into the repository first, which would
/// refuse it afterwards.
///
/// # Errors
/// Storage is away, so that it is still possible later; or pgBackRest's.
pub(super) fn succeed(
    settings: &Settings,
    step: &Step,
    postgres: &Postgres,
    pgbackrest: &PgBackRest,
    whose: Whose<'_>,
) -> Result<()> {
    let report = wal::push(settings, step, postgres, whose)?;
    // What no later try would push is told when it is set aside.
    match report.problems.into_iter().next().filter(|_| report.try_again) {
        Some(problem) => Err(Error::transient(format!("push the WAL of the cluster before: {}", problem.message))
            .hint(problem.hint.unwrap_or_else(|| "try again later".into()))),
        None => pgbackrest.upgrade_stanza(),
    }
}

/// The known cluster is behind the WAL that the repository had of its timeline: its data are those of an old image. The server is
/// asked now, for its WAL goes on while the repository is asked.
///
/// # Errors
/// The server does not answer, or the repository cannot be read.
pub(super) fn went_back(
    step: &str,
    server: &Server<'_>,
    pgbackrest: &PgBackRest,
    info: &Info,
) -> Result<Option<Error>> {
    let identity = server.identity()?;
    let (Some(segment), Some(number)) = (&identity.segment, identity.timeline()) else { return Ok(None) };
    let (Some(newest), Some((archive, _))) = (info.newest_wal_of_cluster(), &info.newest_wal) else { return Ok(None) };
    let newest_of_timeline = if newest.get(..8) == segment.get(..8) {
        Some(newest.to_owned())
    } else {
        let timelines = pgbackrest.timelines(archive, &info.backups)?;
        let newest = timelines.folders(number).last();
        let segments = newest.map_or(Ok(Vec::new()), |folder| pgbackrest.archived(archive, folder))?;
        segments.into_iter().next_back().map(|segment| segment.name)
    };
    Ok(newest_of_timeline.filter(|newest| newest > segment).map(|newest| wal::went_back(step, segment, &newest)))
}

/// What becomes of a cluster, given the one known before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Go,
    Create,
    Upgrade,
    Refuse(Cluster),
}

/// A higher major version with a new system id is what pg_upgrade leaves. Any other new id is an empty or foreign cluster,
/// whose backups would push out the good ones.
fn decide(known: Option<Cluster>, now: Cluster, stanza: bool) -> Decision {
    match known {
        Some(known) if known.system_id == now.system_id && known.version == now.version => {
            if stanza {
                Decision::Go
            } else {
                Decision::Create
            }
        }
        Some(known) if now.version > known.version && now.system_id != known.system_id => {
            if stanza {
                Decision::Upgrade
            } else {
                Decision::Create
            }
        }
        Some(known) => Decision::Refuse(known),
        None => Decision::Create,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_upgrade_passes_as_another_cluster() {
        let cluster = |system_id, version| Cluster { system_id, version };
        let known = Some(cluster(1, 15));
        assert_eq!(decide(None, cluster(1, 15), false), Decision::Create);
        assert_eq!(decide(known, cluster(1, 15), true), Decision::Go);
        assert_eq!(decide(known, cluster(1, 15), false), Decision::Create, "a new place for the same cluster");
        assert_eq!(decide(known, cluster(2, 17), true), Decision::Upgrade);
        assert_eq!(decide(known, cluster(2, 15), true), Decision::Refuse(cluster(1, 15)));
        assert_eq!(decide(known, cluster(2, 15), false), Decision::Refuse(cluster(1, 15)));
        assert_eq!(decide(known, cluster(2, 14), true), Decision::Refuse(cluster(1, 15)));
    }
}
