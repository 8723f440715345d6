//! Archiving: is it set up, and does a segment really reach the repository?

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Work;
use super::server::Identity;
use crate::error::{Error, Result};
use crate::wal;

/// How WAL gets into the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// archive_command fills the spool, [`wal::push`] empties it.
    Spool,
    /// archive_command runs `pgbackrest archive-push` itself.
    Push,
}

/// How long a segment may take, and how long archive_command may go on failing before we say so.
const ARRIVAL: Duration = Duration::from_secs(600);
const FAILING: Duration = Duration::from_secs(20);

/// Recognises the style, or says exactly what to set.
pub(super) fn style(identity: &Identity, spool: &Path) -> Result<Style> {
    let command = &identity.archive_command;
    let known = if command.contains(&*spool.to_string_lossy()) {
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
        return Ok(style);
    } else {
        format!("archive_command does not fill the spool {}: {command}", spool.display())
    };
    Err(Error::new(wrong).hint(set_up(identity, spool).to_string()))
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
    pub fn unseen(spool: &Path) -> Self {
        Self {
            statements: vec![set("archive_mode", "on"), set("archive_command", &wal::archive_command(spool))],
            restart: true,
        }
    }
}

impl fmt::Display for SetUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let then = if self.restart { " then restart PostgreSQL" } else { "" };
        write!(f, "in psql as a superuser: {}{then}", self.statements.join(" "))
    }
}

pub(super) fn set_up(identity: &Identity, spool: &Path) -> SetUp {
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
    if !restart {
        statements.push("SELECT pg_reload_conf();".into());
    }
    SetUp { statements, restart }
}

fn set(name: &str, value: &str) -> String {
    format!("ALTER SYSTEM SET {name} = '{}';", value.replace('\'', "''"))
}

/// Switches a segment and follows it into the repository.
pub(super) fn prove(work: &Work<'_>, identity: &Identity, style: Style) -> Result<()> {
    let failed_before = work.server.archiver()?.failed_count;
    let segment = work.server.switch_wal()?;
    let spool = wal::spool_directory(&work.job.settings, work.postgres);
    let mut started = Instant::now();
    let mut failing_since = None;
    loop {
        let report = match style {
            Style::Spool => wal::push(&work.job.settings, work.step, work.postgres)?,
            Style::Push => wal::PushReport::default(),
        };
        if report.pushed > 0 {
            // A backlog may take its time as long as it moves.
            started = Instant::now();
        }
        let archiver = work.server.archiver()?;
        let archived = archiver.last_archived_wal.as_deref().is_some_and(|last| reached(last, &segment));
        if archived && !spool.join(&segment).exists() && in_repository(work, &segment)? {
            return Ok(());
        }
        if archiver.failed_count > failed_before && !archived {
            let since = failing_since.get_or_insert_with(Instant::now);
            if since.elapsed() > FAILING {
                return Err(Error::new(format!("archive_command fails: WAL {segment} is still waiting in PostgreSQL"))
                    .hint(format!("PostgreSQL's log says why; {}", set_up(identity, &spool))));
            }
        }
        if let (true, Some(problem)) = (archived && started.elapsed() > FAILING, report.problems.first()) {
            return Err(Error::new(format!("WAL does not get into the repository: {}", problem.message))
                .hint(problem.hint.clone().unwrap_or_else(|| "see pi-agent wal push".into())));
        }
        if started.elapsed() > ARRIVAL {
            return Err(Error::new(format!(
                "WAL {segment} did not reach the repository within {} s",
                ARRIVAL.as_secs()
            ))
            .hint(match style {
                Style::Spool => "is PostgreSQL's archiver running? see pg_stat_archiver and the spool",
                Style::Push => "does archive_command push into this step's repository, with its passphrase?",
            }));
        }
        work.remaining()?;
        work.monitor.phase("waiting for WAL");
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn in_repository(work: &Work<'_>, segment: &str) -> Result<bool> {
    Ok(work.pgbackrest.info()?.newest_wal.is_some_and(|(_, newest)| reached(&newest, segment)))
}

/// Whether archiving has come as far as `segment`: names of segments sort by timeline and place; other files' names begin like one.
fn reached(last: &str, segment: &str) -> bool {
    last.len() >= segment.len() && last[..segment.len()] >= *segment
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(mode: &str, command: &str) -> Identity {
        serde_json::from_value(serde_json::json!({
            "system_id": "7710451772011988257", "version_num": 150_018, "data_directory": "/d", "archive_mode": mode,
            "archive_command": command, "archive_library": "", "wal_level": "replica",
            "wal_segment_size": 16_777_216, "in_recovery": false,
        }))
        .expect("complete")
    }

    #[test]
    fn both_styles_are_known_and_all_else_is_refused_with_the_remedy() {
        let spool = Path::new("/var/spool/pgbackrest/main");
        assert_eq!(style(&identity("on", &wal::archive_command(spool)), spool).expect("ours"), Style::Spool);
        let push = "pgbackrest --stanza=main archive-push %p";
        assert_eq!(style(&identity("always", push), spool).expect("its own"), Style::Push);
        for (mode, command) in [("off", "(disabled)"), ("on", ""), ("on", "cp %p /elsewhere/%f"), ("on", "/bin/true")] {
            let error = style(&identity(mode, command), spool).expect_err("useless");
            assert!(
                error.advice().is_some_and(|hint| hint.contains("ALTER SYSTEM SET archive_command = 'd=''/var/spool"))
            );
        }
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
