//! A PostgreSQL step: the tools, the cluster, the server's archiving, the spool.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Finding;
use crate::config::{Postgres, Settings, Step};
use crate::error::{Context, Kind};
use crate::process::{Program, User};
use crate::report::words;
use crate::steps::postgres::{Look, look};
use crate::{Result, pgbackrest};

/// Looks at the tools.
pub(super) fn tools() -> Vec<Finding> {
    let pgbackrest = match pgbackrest::version() {
        Ok(version) => {
            let newest = version.newest_postgres();
            let more = if version.is_unknown() { " and perhaps newer" } else { "" };
            Finding::ok("tools", format!("pgBackRest {version}, which supports PostgreSQL up to {newest}{more}"))
        }
        Err(error) => Finding::error("tools", &error, "apt reinstall pgbackrest"),
    };
    let psql = match Program::new("psql", ["--version"]).run(&mut |_, _| ()) {
        Ok(output) => Finding::ok("tools", output.stdout.trim()),
        Err(error) if error.kind() == Kind::NotFound => {
            Finding::problem("tools", "psql is not installed", "apt install postgresql-client")
        }
        Err(error) => Finding::error("tools", &error, "apt reinstall postgresql-client"),
    };
    vec![pgbackrest, psql]
}

/// `storage`: it can be reached and written to, so that WAL can be sent there to see whether it arrives.
pub(super) fn examine(settings: &Settings, step: &Step, postgres: &Postgres, storage: bool) -> Vec<Finding> {
    let subject = format!("step {}", step.name);
    if postgres.container.is_none()
        && let Err(error) = is_a_cluster(&postgres.data_directory)
    {
        return vec![Finding::error(&subject, &error, "correct data-directory: pg_lsclusters shows what there is")];
    }
    let Look { version, problems, spool, user, late, uncountable, failing, arrival, .. } =
        match look(settings, step, postgres, storage) {
            Ok(look) => look,
            Err(error) => {
                let start = match &postgres.container {
                    Some(container) => format!("docker logs --tail 50 {container}"),
                    None => "start the server: systemctl start postgresql".into(),
                };
                return vec![Finding::error(&subject, &error, &start)];
            }
        };
    let advice = "look at the server's log";
    let mut findings: Vec<_> = problems.iter().map(|error| Finding::error(&subject, error, advice)).collect();
    if let Some(spool) = spool {
        findings.extend(spool_directory(&subject, &user, &spool.here));
    }
    if user.is_nameless() && Path::new("/run/systemd/system").exists() {
        findings.push(Finding::warning(
            &subject,
            format!("the server's user {} has no name on this machine, so that systemd cannot push its WAL", user.uid),
            format!("useradd --system --no-create-home --uid {} pi-agent-{0}; pi-agent setup", user.uid),
        ));
    }
    if let Some(error) = late {
        findings.push(Finding::warning(&subject, error.to_string(), error.advice().unwrap_or(advice)));
    }
    for (table, why) in uncountable {
        findings.push(Finding::warning(
            &subject,
            format!("no restore test can count {table}: {why}"),
            "take it out of count, below [step.restore-test]",
        ));
    }
    if let Some(file) = failing {
        findings.push(Finding::warning(
            &subject,
            format!("the server could not archive {file} and tries again"),
            "look at the server's log for what archive_command said",
        ));
    }
    if findings.is_empty() {
        let place = match &postgres.container {
            Some(container) => format!("the container {container}"),
            None => postgres.data_directory.display().to_string(),
        };
        findings.push(Finding::ok(&subject, format!("PostgreSQL {version} in {place} answers and archives its WAL")));
    }
    if let Some(took) = arrival {
        let proof = format!("a segment of WAL was in the repository after {}", words::duration(took));
        findings.push(Finding::ok(&subject, proof));
    }
    findings
}

fn is_a_cluster(data_directory: &Path) -> Result<()> {
    let file = data_directory.join("PG_VERSION");
    file.metadata().map(drop).context(|| format!("look for a cluster: {}", file.display()))
}

/// What is wrong with the folder that archive_command copies into, if anything.
fn spool_directory(subject: &str, owner: &User, spool: &Path) -> Option<Finding> {
    let shown = spool.display();
    let problem = |what: String| {
        let advice = format!("install -d -o {} -m 750 {shown}", owner.uid);
        Some(Finding::problem(subject, format!("the WAL spool {shown} {what}"), advice))
    };
    match spool.metadata() {
        Err(error) => problem(format!("cannot be looked at: {error}")),
        Ok(found) if !found.is_dir() => problem("is not a directory".into()),
        Ok(found) if found.uid() != owner.uid => {
            problem(format!("belongs to user {}, the server runs as {}", found.uid(), owner.name))
        }
        Ok(found) if found.mode() & 0o007 != 0 => problem("is open to everybody".into()),
        Ok(_) => None,
    }
}
