//! The newest monthly dump: each of its databases goes into the temporary server, beside those that are there.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;

use super::postgres::{ASKING, needs_a_library, run};
use super::{Sheet, Work};
use crate::error::{Context, Result};
use crate::monitor::Problem;
use crate::report::words;
use crate::repository::Selection;
use crate::steps::postgres::catalogue::{ALWAYS_THERE, Psql};
use crate::steps::postgres::dumps;
use crate::steps::postgres::pg_dump::ENDING;

const NAME: &str = "dump";
/// The database into which one after the other goes.
const INTO: &str = "pi_agent_dump";

/// `data`: the cluster, where the server's user reaches files.
pub(super) fn test(work: &Work<'_>, psql: &Psql<'_>, data: &Path, sheet: &mut Sheet) {
    if let Err(error) = try_to(work, psql, data, sheet) {
        sheet.problem(NAME, Problem::from(&error));
    }
}

fn try_to(work: &Work<'_>, psql: &Psql<'_>, data: &Path, sheet: &mut Sheet) -> Result<()> {
    let Work { step, place, monitor, .. } = work;
    monitor.phase("restoring the monthly dump");
    let Some(repository) = dumps::open(&place.settings, step)? else { return Ok(()) };
    let Some(snapshot) = repository.snapshots()?.into_iter().max_by_key(|snapshot| snapshot.time) else {
        return Ok(());
    };
    // As files, and as a database.
    if let Err(error) = place.room(2 * snapshot.bytes.unwrap_or_default()) {
        sheet.untested(NAME, error.to_string());
        return Ok(());
    }
    let (time, to) = (snapshot.time, data.join("pi-agent-dump"));
    let selection = Selection { snapshot, to: to.clone(), paths: Vec::new(), fresh: true };
    let problems = repository.restore(&selection, monitor)?.problems;
    let mut good = problems.is_empty();
    problems.into_iter().for_each(|problem| sheet.problem(NAME, problem));
    let doing = || format!("look into {}", to.display());
    let give = |path: &Path| chown(path, Some(psql.user.uid), Some(psql.user.gid)).context(doing);
    give(&to)?;
    let mut count = 0;
    for file in to.read_dir().context(doing)? {
        let file = file.context(doing)?.path();
        let Some(database) = file.file_name().and_then(OsStr::to_str).and_then(|name| name.strip_suffix(ENDING)) else {
            continue;
        };
        give(&file)?;
        for sql in [format!("drop database if exists {INTO}"), format!("create database {INTO} template template0")] {
            psql.ask(ALWAYS_THERE, &sql, ASKING)?;
        }
        let into = format!("--dbname={INTO}");
        // Roles and tablespaces may have changed since. What PostgreSQL's template has is made anew when the dump has it.
        let how = ["--no-owner", "--no-privileges", "--no-tablespaces", "--clean", "--if-exists", "--exit-on-error"];
        let arguments =
            how.into_iter().chain([&*into, &*file.to_string_lossy()]).map(str::to_owned).collect::<Vec<_>>();
        match run(monitor, psql, "pg_restore", &arguments) {
            Ok(()) => count += 1,
            Err(error) => {
                good = false;
                let said = format!("{database}: {}", error.chain());
                match needs_a_library(&said) {
                    true => sheet.untested(NAME, said),
                    false => sheet.failed(NAME, said),
                }
            }
        }
    }
    if good {
        sheet.passed(NAME, format!("{count} databases of {}", words::time(time)));
    }
    fs::remove_dir_all(&to).context(doing)
}
