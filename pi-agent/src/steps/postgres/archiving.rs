//! Archiving: is it set up, and does a segment really reach the repository?

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::access;
use super::container::Spool;
use super::server::{Identity, Server};
use crate::config::{Postgres, Settings, Step};
use crate::error::{Error, Result};
use crate::monitor::Problem;
use crate::pgbackrest::PgBackRest;
use crate::wal::{self, Whose};

/// How WAL gets into the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// archive_command fills the spool, [`wal::push`] empties it.
    Spool,
    /// archive_command runs `pgbackrest archive-push` itself.
    Push,
}

/// How long archive_command may go on failing before we say so.
const FAILING: Duration = Duration::from_secs(20);

/// Recognises the style, or says exactly what to set.
pub(super) fn style(identity: &Identity, spool: &Spool, rpo: Duration) -> Result<Style> {
    let command = &identity.archive_command;
    let there = &spool.there;
    let known = if command.contains(&*there.to_string_lossy()) {
        Some(Style::Spool)
    } else {
        command.contains("archive-push").then_some(Style::Push)
    };
    let wrong = if identity.wal_level == "minimal" {
        "wal_level is minimal, so there is nothing to archive".into()
    } else if identity.archive_mode == "off" {
        "archive_mode is off".into()
    } else if !identity.archive_library.is_empty() {
        format!("archive_library is {}, so archive_command is not used", identity.archive_library)
    } else if !command.contains("pgbackrest") {
        format!("archive_command does not contain the word pgbackrest, which pgBackRest insists on: {command}")
    } else if let Some(style) = known {
        return match &spool.missing {
            Some(remedy) if style == Style::Spool => Err(unseen(spool).hint(remedy)),
            _ => Ok(style),
        };
    } else {
        format!("archive_command does not fill the spool {}: {command}", there.display())
    };
    let remedy = spool.missing.iter().map(|remedy| format!("{remedy}\n")).collect::<String>();
    Err(Error::new(wrong).hint(remedy + &set_up(identity, there, rpo).to_string()))
}

/// A server in a container that would write its WAL into the container, or nowhere.
fn unseen(spool: &Spool) -> Error {
    Error::new(format!("the container does not see the WAL spool {}", spool.here.display()))
}

/// What to tell a server so that its WAL reaches the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetUp {
    /// SQL for a superuser, each ending with a semicolon.
    pub statements: Vec<String>,
    /// Only a restart makes the server follow.
    pub restart: bool,
}

impl SetUp {
    /// For a server that cannot be asked what it needs.
    pub fn unseen(spool: &Path, rpo: Duration) -> Self {
        let command = set("archive_command", &wal::archive_command(spool));
        Self { statements: vec![set("archive_mode", "on"), command, set_timeout(rpo)], restart: true }
    }
}

impl fmt::Display for SetUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let then = if self.restart { " then restart PostgreSQL" } else { "" };
        write!(f, "in psql as a superuser: {}{then}", self.statements.join(" "))
    }
}

pub(super) fn set_up(identity: &Identity, spool: &Path, rpo: Duration) -> SetUp {
    let restart = identity.wal_level == "minimal" || identity.archive_mode == "off";
    let mut statements = Vec::new();
    if identity.wal_level == "minimal" {
        statements.push(set("wal_level", "replica"));
    }
    if identity.archive_mode == "off" {
        statements.push(set("archive_mode", "on"));
    }
    if !identity.archive_library.is_empty() {
        statements.push(set("archive_library", ""));
    }
    statements.push(set("archive_command", &wal::archive_command(spool)));
    if late(identity, rpo).is_some() {
        statements.push(set_timeout(rpo));
    }
    if !restart {
        statements.push("SELECT pg_reload_conf();".into());
    }
    SetUp { statements, restart }
}

fn set(name: &str, value: &str) -> String {
    format!("ALTER SYSTEM SET {name} = '{}';", value.replace('\'', "''"))
}

fn set_timeout(rpo: Duration) -> String {
    // A third leaves time for the way to the repository; more often than every ten minutes helps nobody.
    let timeout = (rpo / 3).clamp(Duration::from_secs(10), Duration::from_secs(600));
    set("archive_timeout", &format!("{}s", timeout.as_secs()))
}

/// A server that is idle, or nearly so, keeps its last changes to itself for longer than may be lost.
pub(super) fn late(identity: &Identity, rpo: Duration) -> Option<Error> {
    let found = match identity.archive_timeout {
        0 => "0: WAL leaves only when 16 MiB are full".to_owned(),
        seconds if Duration::from_secs(seconds) > rpo / 2 => format!("{seconds} s, more than half of the RPO"),
        _ => return None,
    };
    let hint = format!("in psql as a superuser: {} SELECT pg_reload_conf();", set_timeout(rpo));
    Some(Error::new(format!("archive_timeout is {found}")).hint(hint))
}

/// The way of a segment: from the server, by the spool, into the repository.
pub(super) struct Way<'a> {
    pub settings: &'a Settings,
    pub step: &'a Step,
    pub postgres: &'a Postgres,
    pub spool: &'a Spool,
    pub server: &'a Server<'a>,
    pub pgbackrest: &'a PgBackRest,
    pub whose: Whose<'a>,
}

impl Way<'_> {
    /// Switches a segment and follows it into the repository. `meanwhile` is asked every half second whether to go on. What is returned
    /// is said of WAL of other clusters that was in the spool.
    ///
    /// # Errors
    /// It does not arrive within `patience`, or stops on its way: where, and what to do.
    pub fn prove(
        &self,
        identity: &Identity,
        style: Style,
        patience: Duration,
        meanwhile: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Vec<Problem>> {
        let mut foreign = Vec::new();
        let failed_before = self.server.archiver()?.failed_count;
        let segment = self.server.switch_wal()?;
        let mut started = Instant::now();
        let mut failing_since = None;
        loop {
            let report = match style {
                Style::Spool => wal::push(self.settings, self.step, self.postgres, self.whose)?,
                Style::Push => wal::PushReport::default(),
            };
            foreign.extend(report.foreign);
            if report.pushed > 0 {
                // A backlog may take its time as long as it moves.
                started = Instant::now();
            }
            let archiver = self.server.archiver()?;
            let archived = archiver.last_archived_wal.as_deref().is_some_and(|last| reached(last, &segment));
            if archived && !self.spool.here.join(&segment).exists() && self.in_repository(&segment)? {
                return Ok(foreign);
            }
            if archiver.failed_count > failed_before && !archived {
                let since = failing_since.get_or_insert_with(Instant::now);
                if since.elapsed() > FAILING {
                    let what = format!("archive_command fails: WAL {segment} is still waiting in PostgreSQL");
                    if let Some(obstacle) = self.obstacle(style) {
                        let hint = obstacle.advice().unwrap_or_default().to_owned();
                        return Err(Error::new(what).hint(hint).caused_by(obstacle));
                    }
                    return Err(Error::new(what).hint(format!(
                        "PostgreSQL's log says why; {}",
                        set_up(identity, &self.spool.there, self.settings.alarms.rpo)
                    )));
                }
            }
            let waited = started.elapsed();
            // What may pass is given all the time there is.
            let hopeless = waited > FAILING && !report.try_again;
            if let (true, Some(problem)) = (archived && (hopeless || waited > patience), report.problems.first()) {
                return Err(Error::new(format!("WAL does not get into the repository: {}", problem.message))
                    .hint(problem.hint.clone().unwrap_or_else(|| "see pi-agent wal push".into())));
            }
            if waited > patience {
                return Err(Error::new(format!(
                    "WAL {segment} did not reach the repository within {} s",
                    patience.as_secs()
                ))
                .hint(match style {
                    Style::Spool => "is PostgreSQL's archiver running? see pg_stat_archiver and the spool",
                    Style::Push => "does archive_command push into this step's repository, with its passphrase?",
                }));
            }
            meanwhile()?;
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// What keeps the server from filling the spool, as far as this machine knows: a container has its own way to it.
    fn obstacle(&self, style: Style) -> Option<Error> {
        let fills = style == Style::Spool && self.postgres.container.is_none();
        fills.then(|| access::obstacle(&self.spool.here, self.server.user)).flatten()
    }

    fn in_repository(&self, segment: &str) -> Result<bool> {
        Ok(self.pgbackrest.info()?.newest_wal.is_some_and(|(_, newest)| reached(&newest, segment)))
    }
}

/// Whether archiving has come as far as `segment`: names of segments sort by timeline and place; other files' names begin like one.
fn reached(last: &str, segment: &str) -> bool {
    last.len() >= segment.len() && last[..segment.len()] >= *segment
}

#[cfg(test)]
mod tests {
    use super::*;

    const RPO: Duration = Duration::from_secs(1800);

    fn identity(mode: &str, command: &str) -> Identity {
        serde_json::from_value(serde_json::json!({
            "system_id": "7710451772011988257", "version_num": 150_018, "data_directory": "/d", "archive_mode": mode,
            "archive_command": command, "archive_library": "", "wal_level": "replica",
            "wal_segment_size": 16_777_216, "archive_timeout": 0, "in_recovery": false, "segment": null, "database": "postgres", "broken_names": [],
        }))
        .expect("complete")
    }

    #[test]
    fn both_styles_are_known_and_all_else_is_refused_with_the_remedy() {
        let there = Path::new("/var/spool/pgbackrest/main");
        let spool = &Spool { here: "/srv/spool".into(), there: there.into(), missing: None };
        assert_eq!(style(&identity("on", &wal::archive_command(there)), spool, RPO).expect("ours"), Style::Spool);
        let push = "pgbackrest --stanza=main archive-push %p";
        assert_eq!(style(&identity("always", push), spool, RPO).expect("its own"), Style::Push);
        for (mode, command) in [("off", "(disabled)"), ("on", ""), ("on", "cp %p /elsewhere/%f"), ("on", "/bin/true")] {
            let error = style(&identity(mode, command), spool, RPO).expect_err("useless");
            assert!(
                error.advice().is_some_and(|hint| hint.contains("ALTER SYSTEM SET archive_command = 'd=''/var/spool"))
            );
        }
    }

    #[test]
    fn a_spool_that_a_container_does_not_see_is_refused_unless_it_needs_none() {
        let there = Path::new("/var/spool/pgbackrest/main");
        let spool = Spool { here: there.into(), there: there.into(), missing: Some("volumes:".into()) };
        let error = style(&identity("on", &wal::archive_command(there)), &spool, RPO).expect_err("it goes nowhere");
        assert_eq!(error.advice(), Some("volumes:"));
        let error = style(&identity("off", ""), &spool, RPO).expect_err("nothing is set up");
        assert!(error.advice().is_some_and(|hint| hint.starts_with("volumes:\nin psql")));
        let push = identity("on", "pgbackrest --stanza=main archive-push %p");
        assert_eq!(style(&push, &spool, RPO).expect("its own"), Style::Push);
    }

    #[test]
    fn an_idle_server_hands_its_wal_over_in_time() {
        let at = |archive_timeout| {
            let mut server = identity("on", "");
            server.archive_timeout = archive_timeout;
            late(&server, RPO)
        };
        assert!(at(0).is_some_and(|late| late.advice().is_some_and(|hint| hint.contains("archive_timeout = '600s'"))));
        assert!(at(901).is_some() && at(900).is_none(), "the way to the repository takes time, too");
        assert_eq!(set_timeout(Duration::from_secs(300)), "ALTER SYSTEM SET archive_timeout = '100s';");
    }

    #[test]
    fn progress_of_archiving_is_read_from_names() {
        let segment = "00000001000000000000000A";
        assert!(reached(segment, segment));
        assert!(reached("00000001000000000000000A.00000028.backup", segment));
        assert!(reached("000000020000000000000001", segment));
        assert!(!reached("000000010000000000000009", segment));
        assert!(!reached("00000002.history", segment));
    }
}
