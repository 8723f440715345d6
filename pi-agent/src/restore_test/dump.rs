//! The newest monthly dump: each of its databases goes into the temporary server, beside those that are there.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;

use super::postgres::{ASKING, LOOKING};
use super::{Sheet, Work};
use crate::error::{Context, Error, Result};
use crate::monitor::Problem;
use crate::report::words;
use crate::repository::Selection;
use crate::steps::future;
use crate::steps::postgres::catalogue::{ALWAYS_THERE, Catalogue, Psql};
use crate::steps::postgres::dumps;
use crate::steps::postgres::pg_dump::{ENDING, file_name};
use crate::steps::postgres::said::{errors, is_only_missing};

const NAME: &str = "dump";

/// `found`: what the server has. `data`: the cluster, where the server's user reaches files.
pub(super) fn test(work: &Work<'_>, psql: &Psql<'_>, found: &Catalogue, data: &Path, sheet: &mut Sheet) {
    if let Err(error) = try_to(work, psql, found, data, sheet) {
        sheet.problem(NAME, Problem::from(&error));
    }
}

fn try_to(work: &Work<'_>, psql: &Psql<'_>, found: &Catalogue, data: &Path, sheet: &mut Sheet) -> Result<()> {
    let Work { step, place, monitor, .. } = work;
    monitor.phase("restoring the monthly dump");
    let Some(repository) = dumps::open(&place.settings, step)? else { return Ok(()) };
    let (snapshots, ahead) = (repository.snapshots()?, repository.store().clock_ahead());
    let newest = future::newest(&snapshots, |snapshot| (snapshot.time, snapshot.id.as_str()), ahead);
    let Some((snapshot, remark)) = newest else { return Ok(()) };
    let snapshot = snapshot.clone();
    sheet.remark(remark);
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
        let original = found.databases.keys().find(|name| file.ends_with(file_name(name))).map(String::as_str);
        match into_a_database(work, psql, &file, original) {
            Ok(said) if said.is_empty() => count += 1,
            Ok(said) => {
                good = false;
                let told = format!("{database}: {}", errors(&said));
                match is_only_missing(&said) {
                    true => sheet.untested(NAME, told),
                    false => sheet.failed(NAME, told),
                }
            }
            Err(error) => {
                good = false;
                sheet.failed(NAME, format!("{database}: {}", error.chain()));
            }
        }
    }
    if good {
        sheet.passed(NAME, format!("{count} databases of {}", words::time(time)));
    }
    fs::remove_dir_all(&to).context(doing)
}

/// Those of a database, for one like it: its texts may be none in another encoding, and sorted otherwise by another locale. The names of
/// the columns differ from version to version.
fn encoding_and_locale(psql: &Psql<'_>, database: &str) -> Result<String> {
    let name = database.replace('\'', "''");
    psql.system(
        ALWAYS_THERE,
        &format!(
            "select format('encoding %L lc_collate %L lc_ctype %L', pg_encoding_to_char(encoding), datcollate, datctype) || \
               case to_jsonb(d) ->> 'datlocprovider' \
                 when 'i' then format(' locale_provider icu icu_locale %L', coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale')) \
                 when 'b' then format(' locale_provider builtin builtin_locale %L', to_jsonb(d) ->> 'datlocale') \
                 else '' end \
             from pg_database d where datname = E'{}'",
            name.replace('\\', r"\\")
        ),
        ASKING,
    )
}

/// Restores a dump into a database of our own, which is removed again; what pg_restore said of errors. It goes on behind one.
fn into_a_database(work: &Work<'_>, psql: &Psql<'_>, file: &Path, original: Option<&str>) -> Result<String> {
    // No user's: in those nothing is made.
    let name = format!("pi_agent_dump_{}", std::process::id());
    let like = original.map_or_else(|| Ok(String::new()), |original| encoding_and_locale(psql, original))?;
    psql.ask(ALWAYS_THERE, &format!("create database {name} template template0 {like}"), ASKING)?;
    // Roles and tablespaces may have changed since. What PostgreSQL's template has is made anew when the dump has it.
    let how = ["--no-owner", "--no-privileges", "--no-tablespaces", "--no-subscriptions", "--clean", "--if-exists"];
    let how = how.map(str::to_owned);
    let arguments = how.into_iter().chain([format!("--dbname={name}"), file.to_string_lossy().into_owned()]);
    let program = psql.program("pg_restore", arguments).within(LOOKING);
    let output = program.run(&mut |_, _| work.monitor.alive());
    psql.ask(ALWAYS_THERE, &format!("drop database {name}"), ASKING)?;
    let output = output?;
    match output.status.success() {
        true => Ok(String::new()),
        false if output.stderr.trim().is_empty() => Err(Error::new("pg_restore failed without a word")),
        false => Ok(output.stderr),
    }
}
