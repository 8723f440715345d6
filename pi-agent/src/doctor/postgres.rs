//! A PostgreSQL step: the tools and what they know, the cluster, the server's archiving, the spool.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::Finding;
use crate::config::Postgres;
use crate::error::{Context, Kind};
use crate::process::{Output, Program, User};
use crate::{Error, Result};

/// Major and minor number of a pgBackRest.
type Version = (u32, u32);

/// Looks at the tools; the version of the installed pgBackRest, if there is one.
pub(super) fn tools(findings: &mut Vec<Finding>) -> Option<Version> {
    let mut version = None;
    for (program, package) in [("pgbackrest", "pgbackrest"), ("psql", "postgresql-client")] {
        let argument = if program == "psql" { "--version" } else { "version" };
        match output(&Program::new(program, [argument])) {
            Ok(output) => {
                let line = output.stdout.trim().to_owned();
                if program == "pgbackrest" {
                    version = parse_version(&line);
                }
                findings.push(Finding::ok("tools", line));
            }
            Err(error) if error.kind() == Kind::NotFound => {
                let advice = format!("apt install {package}");
                findings.push(Finding::problem("tools", format!("{program} is not installed"), advice));
            }
            Err(error) => findings.push(Finding::error("tools", &error, &format!("apt reinstall {package}"))),
        }
    }
    version
}

fn parse_version(line: &str) -> Option<Version> {
    let mut parts = line.strip_prefix("pgBackRest ")?.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The newest PostgreSQL major a pgBackRest can back up, by its release notes (2.53 knew a beta of 17; 2.53.1 the final one).
fn newest_postgres(version: Version) -> u32 {
    match version {
        (3.., _) | (2, 55..) => 18,
        (2, 53 | 54) => 17,
        (2, 48..) => 16,
        _ => 15,
    }
}

pub(super) fn examine(step: &str, cluster: &Postgres, spool: &Path, pgbackrest: Option<Version>) -> Vec<Finding> {
    let subject = format!("step {step}");
    let mut findings = Vec::new();
    let major = match major(&cluster.data_directory) {
        Ok(major) => major,
        Err(error) => return vec![Finding::error(&subject, &error, "check data-directory: pg_lsclusters shows them")],
    };
    if let Some(version) = pgbackrest
        && major > newest_postgres(version)
    {
        let newest = newest_postgres(version);
        findings.push(Finding::problem(
            &subject,
            format!("pgBackRest {}.{} knows PostgreSQL up to {newest}, the cluster is {major}", version.0, version.1),
            "install a newer pgbackrest, from Debian's backports or apt.postgresql.org",
        ));
    }
    match ask(cluster) {
        Ok(server) => findings.extend(archiving(&subject, cluster, spool, &server)),
        Err(error) => findings.push(Finding::error(
            &subject,
            &error,
            "start the server (systemctl start postgresql), or correct socket-directory, port and user",
        )),
    }
    if findings.is_empty() {
        let data = cluster.data_directory.display();
        findings.push(Finding::ok(&subject, format!("PostgreSQL {major} in {data} answers and archives its WAL")));
    }
    findings
}

/// The major version of the cluster.
fn major(data_directory: &Path) -> Result<u32> {
    let file = data_directory.join("PG_VERSION");
    let text = std::fs::read_to_string(&file).context(|| format!("read {}", file.display()))?;
    let text = text.trim();
    text.parse().context(|| format!("read {}: {text:?} is no version this agent knows", file.display()))
}

/// What the server says of itself. Absent: hidden from the role that asks.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Server {
    archive_mode: Option<String>,
    archive_command: Option<String>,
    data_directory: Option<String>,
    /// The WAL file whose archiving failed last, unless one succeeded since.
    failing: Option<String>,
}

const QUESTION: &str = "select json_build_object(
    'archive_mode', (select setting from pg_settings where name = 'archive_mode'),
    'archive_command', (select setting from pg_settings where name = 'archive_command'),
    'data_directory', (select setting from pg_settings where name = 'data_directory'),
    'failing', (select last_failed_wal from pg_stat_archiver
                where last_failed_time > coalesce(last_archived_time, '-infinity')))";

fn ask(cluster: &Postgres) -> Result<Server> {
    let socket = cluster.socket_directory.display().to_string();
    let port = cluster.port.to_string();
    let mut arguments = vec!["-X", "-A", "-t", "-w", "-h", &socket, "-p", &port, "-d", "postgres", "-c", QUESTION];
    if let Some(user) = &cluster.user {
        arguments.extend(["-U", user]);
    }
    let psql = Program::new("psql", arguments)
        .as_user(&User::owner_of(&cluster.data_directory)?)
        .env("PGCONNECT_TIMEOUT", "5")
        .within(Duration::from_secs(15));
    let answer = output(&psql)?;
    serde_json::from_str(&answer.stdout).context(|| format!("understand what the server on port {port} answered"))
}

fn archiving(subject: &str, cluster: &Postgres, spool: &Path, server: &Server) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut problem = |message: String, advice: String| findings.push(Finding::problem(subject, message, advice));
    if let Some(data) = &server.data_directory
        && !same_place(Path::new(data), &cluster.data_directory)
    {
        let message = format!("the server on port {} has its data in {data}", cluster.port);
        problem(message, "correct data-directory, or port: pg_lsclusters shows both".into());
    }
    let spool = spool.join(&cluster.stanza);
    let wanted = spool_command(&spool);
    let command = server.archive_command.as_deref().unwrap_or_default();
    let pushes = command.contains("pgbackrest") && command.contains("archive-push");
    let spools = command.contains(&*spool.to_string_lossy());
    if server.archive_mode.as_deref() == Some("off") {
        let advice = format!(
            "as the database's superuser:\nalter system set archive_mode = on;\n{}\nthen restart the server",
            alter(&wanted)
        );
        problem("archive_mode is off: no point in time can be restored".into(), advice);
    } else if !pushes && !spools {
        let advice = format!("as the database's superuser:\n{}\nselect pg_reload_conf();", alter(&wanted));
        problem(format!("archive_command does not bring WAL to {}: it is {command:?}", spool.display()), advice);
    }
    if !pushes {
        findings.extend(spool_directory(subject, cluster, &spool));
    }
    if let Some(file) = &server.failing {
        findings.push(Finding::warning(
            subject,
            format!("the server could not archive {file} and tries again"),
            "look at the server's log for what archive_command said",
        ));
    }
    findings
}

/// Copies a WAL file into the spool so that it is there whole or not at all; one that is there already must be the same.
/// pgBackRest insists on finding its own name in the command: the default spool's path has it, for others a comment does.
fn spool_command(spool: &Path) -> String {
    let s = spool.display();
    let word = if s.to_string().contains("pgbackrest") { "" } else { " # pgbackrest" };
    format!(
        r#"if test -e "{s}/%f"; then cmp -s "%p" "{s}/%f"; else cp "%p" "{s}/.%f" && sync "{s}/.%f" && mv "{s}/.%f" "{s}/%f" && sync "{s}"; fi{word}"#
    )
}

fn alter(command: &str) -> String {
    format!("alter system set archive_command = '{}';", command.replace('\'', "''"))
}

fn spool_directory(subject: &str, cluster: &Postgres, spool: &Path) -> Option<Finding> {
    let owner = cluster.data_directory.metadata().ok()?;
    let (uid, gid) = (owner.uid(), owner.gid());
    let advice = format!("install -d -o {uid} -g {gid} -m 750 {}", spool.display());
    let shown = spool.display();
    match spool.metadata() {
        Err(error) => Some(Finding::problem(subject, format!("the WAL spool {shown}: {error}"), advice)),
        Ok(found) if !found.is_dir() => {
            Some(Finding::problem(subject, format!("the WAL spool {shown} is not a directory"), advice))
        }
        Ok(found) if found.uid() != uid => {
            let message = format!("the WAL spool {shown} belongs to user {}, the server runs as {uid}", found.uid());
            Some(Finding::problem(subject, message, advice))
        }
        Ok(found) if found.mode() & 0o007 != 0 => {
            Some(Finding::problem(subject, format!("the WAL spool {shown} is open to everybody"), advice))
        }
        Ok(_) => None,
    }
}

fn same_place(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Runs a program whose failure is an error.
fn output(program: &Program) -> Result<Output> {
    let output = program.run(&mut |_, _| {})?;
    if output.status.success() {
        return Ok(output);
    }
    let said = output.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    Err(Error::new(format!("{} ended with {}: {said}", program.program.display(), output.status)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_what_they_know() {
        assert_eq!(parse_version("pgBackRest 2.45"), Some((2, 45)));
        assert_eq!(parse_version("pgBackRest 2.53.1"), Some((2, 53)));
        assert_eq!(parse_version("pgBackRest 2.56.0dev"), Some((2, 56)));
        assert_eq!(parse_version("something else"), None);
        for (version, newest) in
            [((2, 45), 15), ((2, 47), 15), ((2, 48), 16), ((2, 52), 16), ((2, 54), 17), ((2, 55), 18)]
        {
            assert_eq!(newest_postgres(version), newest, "{version:?}");
        }
    }
}
