//! A logical dump back, as files: what reads them, any PostgreSQL of their version or newer, need not be here yet.

use std::path::Path;

use super::directory::{by_id, nothing};
use super::{Point, Request, Restored, Unfinished};
use crate::Result;
use crate::config::{Postgres, Settings, Step};
use crate::error::Context;
use crate::monitor::{Monitor, Problem};
use crate::pgbackrest::server_user;
use crate::repository::{Purpose, Selection, Snapshot, Written};
use crate::shown::typed;
use crate::steps::points::other_host;
use crate::steps::postgres::pg_dump::{ENDING, GLOBALS};
use crate::steps::postgres::{container, dumps};

/// The dumps of a step, oldest first. Also what of their repository is damaged.
///
/// # Errors
/// Their repository cannot be read.
pub fn points(settings: &Settings, step: &Step) -> Result<(Vec<Point>, Vec<Problem>)> {
    let Some(repository) = dumps::open_what_is_left(settings, step)? else { return Ok((Vec::new(), Vec::new())) };
    let point = |snapshot: Snapshot| Point {
        other_host: other_host(&snapshot, &dumps::name(step), &settings.host).map(str::to_owned),
        step: step.name.clone(),
        time: snapshot.time,
        kind: "dump".into(),
        bytes: snapshot.bytes,
        new_bytes: snapshot.new_bytes,
        same: false,
        postgresql: dumps::version(&snapshot),
        id: snapshot.id,
    };
    let points = repository.readable_snapshots()?.into_iter().map(point).collect();
    Ok((points, repository.damage()))
}

/// It could be a dump's id: pgBackRest's labels hold more than hexadecimal digits.
pub fn is_id(id: &str) -> bool {
    !id.is_empty() && id.chars().all(|c| c.is_ascii_hexdigit())
}

/// Restores the files of the dump whose id begins so.
///
/// # Errors
/// There is no such dump; storage fails; the target cannot be written.
pub fn restore(
    settings: &Settings,
    step: &Step,
    postgres: &Postgres,
    id: &str,
    request: &Request,
    monitor: &Monitor,
) -> Result<Restored> {
    monitor.phase("opening the dumps");
    let repository = dumps::open_what_is_left(settings, step)?;
    let repository = repository.ok_or_else(|| nothing(step, &format!("there is no dump {id}")))?;
    let _lock = repository.lock(Purpose::Restore, true, None, monitor)?;
    let snapshot = by_id(&repository.readable_snapshots()?, step, id)?.clone();
    let fresh = request.to.read_dir().map_or(true, |mut entries| entries.next().is_none());
    Unfinished::begin(&step.name, request, Some(&snapshot.id))?;
    let selection = Selection { snapshot, to: request.to.clone(), paths: Vec::new(), fresh, privileges: false };
    let Written { bytes, problems, full } = repository.restore(&selection, monitor)?;
    let user = server_user(settings, step, postgres).map_or_else(|_| "postgres".into(), |user| user.name);
    let next = next(&user, postgres, &selection.snapshot, &request.to)?;
    let Selection { snapshot, .. } = selection;
    Ok(Restored {
        restore_point: snapshot.id,
        time: snapshot.time,
        bytes: Some(bytes),
        last_commit: None,
        hole: false,
        problems,
        remarks: repository.damage(),
        passed_over: None,
        unfinished: full,
        next,
    })
}

/// The commands that bring them into a server. They read the files as root; the programs are the server's user, or the container's.
fn next(user: &str, postgres: &Postgres, snapshot: &Snapshot, to: &Path) -> Result<Vec<String>> {
    let role =
        container::role(postgres).iter().map(|role| format!(" -U {}", typed(Path::new(role)))).collect::<String>();
    let port = postgres.port;
    let (run, server, place) = match &postgres.container {
        // Its programs and its socket are in the container alone.
        Some(name) => (
            format!("docker exec -i {name}"),
            format!("-p {port}{role}"),
            format!(", such as that in the container {name},"),
        ),
        None => (
            format!("runuser -u {user} --"),
            format!("-h {} -p {port}{role}", typed(&postgres.socket_directory)),
            String::new(),
        ),
    };
    let version = dumps::version(snapshot).map_or_else(|| "its version".into(), |version| version.to_string());
    let mut files = Vec::new();
    for entry in to.read_dir().context(|| format!("look into {}", to.display()))? {
        let name = entry.context(|| format!("look into {}", to.display()))?.file_name();
        files.extend(name.into_string().ok().filter(|name| name.ends_with(ENDING)));
    }
    files.sort();
    let mut lines = vec![
        format!(
            "These are logical dumps. A running, empty server of PostgreSQL {version} or newer{place} takes them in:"
        ),
        format!("  {run} psql -X {server} -d postgres < {}", typed(&to.join(GLOBALS))),
    ];
    lines.extend(files.iter().map(|file| {
        // Every server has a database of that name.
        let create = if file.strip_suffix(ENDING) == Some("postgres") { "" } else { " --create" };
        format!("  {run} pg_restore {server} -d postgres{create} < {}", typed(&to.join(file)))
    }));
    lines.push("That a role or a database exists already is no matter. Afterwards:".into());
    lines.push(format!("  {run} vacuumdb {server} --all --analyze-only"));
    lines.push("The files hold everything, password hashes too: remove them when done.".into());
    Ok(lines)
}
