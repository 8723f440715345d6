//! The newest monthly dump: each of its databases goes into the temporary server, beside those that are there.
//!
//! What is in it is not ours: any role may have put code into a check or a view that runs while it is loaded, and whoever writes to the
//! storage may have put anything into it. So it is loaded by a role that has no rights over the server, into a database of that role's
//! own; what only a superuser may load is not tested, but for extensions, which are made as the original has them.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::unistd::geteuid;

use super::postgres::{ASKING, LOOKING};
use super::{Sheet, Work};
use crate::error::{Context, Error, Result};
use crate::monitor::Problem;
use crate::process::Output;
use crate::report::words;
use crate::repository::Selection;
use crate::steps::future;
use crate::steps::postgres::catalogue::{ALWAYS_THERE, Catalogue, Psql};
use crate::steps::postgres::dumps;
use crate::steps::postgres::pg_dump::{ENDING, file_name};
use crate::steps::postgres::said::{errors, is_only_missing};
use crate::steps::postgres::session;

const NAME: &str = "dump";

/// `found`: what the server has. `to`: an empty directory of ours, in which the server's user reaches files.
pub(super) fn test(work: &Work<'_>, psql: &Psql<'_>, found: &Catalogue, to: &Path, sheet: &mut Sheet) {
    if let Err(error) = try_to(work, psql, found, to, sheet) {
        sheet.problem(NAME, Problem::from(&error));
    }
}

fn try_to(work: &Work<'_>, psql: &Psql<'_>, found: &Catalogue, to: &Path, sheet: &mut Sheet) -> Result<()> {
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
    let time = snapshot.time;
    let selection = Selection { snapshot, to: to.to_owned(), paths: Vec::new(), fresh: true, privileges: false };
    let problems = repository.restore(&selection, monitor)?.problems;
    let mut good = problems.is_empty();
    problems.into_iter().for_each(|problem| sheet.problem(NAME, problem));
    let doing = || format!("look into {}", to.display());
    open_to(psql, to, OFlag::O_DIRECTORY, 0o750).context(doing)?;
    let mut count = 0;
    for file in to.read_dir().context(doing)? {
        let file = file.context(doing)?.path();
        let Some(database) = file.file_name().and_then(OsStr::to_str).and_then(|name| name.strip_suffix(ENDING)) else {
            continue;
        };
        open_to(psql, &file, OFlag::empty(), 0o640).context(doing)?;
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
    Ok(())
}

/// Lets the server's group read it, which stays ours.
fn open_to(psql: &Psql<'_>, path: &Path, kind: OFlag, mode: u32) -> io::Result<()> {
    let flags = kind | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let opened = File::options().read(true).custom_flags(flags.bits()).open(path)?;
    if geteuid().is_root() {
        fchown(&opened, None, Some(psql.user.gid))?;
    }
    opened.set_permissions(Permissions::from_mode(mode))
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

/// The extensions of a database: the schema of each, and statements that make both. Their scripts are this server's.
fn extensions(psql: &Psql<'_>, database: &str, owner: &str) -> Result<Vec<(String, Vec<String>)>> {
    let sql = "select coalesce(json_agg(json_build_array(n.nspname, \
                 format('create schema if not exists %I authorization ', n.nspname), \
                 format('create extension if not exists %I schema %I cascade', e.extname, n.nspname)) order by e.oid), '[]') \
               from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname <> 'plpgsql'";
    let made: Vec<(String, String, String)> = serde_json::from_str(&psql.system(database, sql, ASKING)?)
        .context(|| format!("understand the list of extensions of {database}"))?;
    // Those of the system are there, and nobody may make one of such a name.
    let statements = |name: &str, schema: String, extension| match name.starts_with("pg_") {
        true => vec![extension],
        false => vec![schema + owner, extension],
    };
    Ok(made.into_iter().map(|(name, schema, extension)| (name.clone(), statements(&name, schema, extension))).collect())
}

/// Restores a dump into a database of our own, which is removed again; what pg_restore said of errors. It goes on behind one.
fn into_a_database(work: &Work<'_>, psql: &Psql<'_>, file: &Path, original: Option<&str>) -> Result<String> {
    // No user's: in those nothing is made.
    let name = format!("pi_agent_dump_{}", std::process::id());
    let like = original.map_or_else(|| Ok(String::new()), |original| encoding_and_locale(psql, original))?;
    psql.system(ALWAYS_THERE, &format!("create role {name} login bypassrls"), ASKING)?;
    for setting in session::GIVEN {
        psql.system(ALWAYS_THERE, &format!("alter role {name} set {setting}"), ASKING)?;
    }
    psql.ask(ALWAYS_THERE, &format!("create database {name} owner {name} template template0 {like}"), ASKING)?;
    psql.system(&name, &format!("alter schema public owner to {name}"), ASKING)?;
    let mut schemas = vec!["public".to_owned()];
    if let Some(original) = original {
        for (schema, statements) in extensions(psql, original, &name)? {
            // One that is not installed here is named by what the dump has of it.
            let made = statements.iter().try_for_each(|statement| psql.system(&name, statement, ASKING).map(drop));
            schemas.extend(made.is_ok().then_some(schema));
        }
    }
    let output = load(work, psql, file, &name, &schemas);
    psql.ask(ALWAYS_THERE, &format!("drop database {name}"), ASKING)?;
    psql.system(ALWAYS_THERE, &format!("drop role {name}"), ASKING)?;
    let output = output?;
    match output.status.success() {
        true => Ok(String::new()),
        false if output.stderr.trim().is_empty() => Err(Error::new("pg_restore failed without a word")),
        false => Ok(output.stderr),
    }
}

/// By that role, into its database, which has these schemas.
fn load(work: &Work<'_>, psql: &Psql<'_>, file: &Path, role: &str, schemas: &[String]) -> Result<Output> {
    let mut connection = psql.connection.clone();
    connection[3] = format!("--username={role}");
    let psql = Psql { connection, options: session::OF_A_DUMP, ..*psql };
    let path = file.to_string_lossy().into_owned();
    let listed = psql.program("pg_restore", ["--list".to_owned(), path.clone()]).within(LOOKING).run(&mut |_, _| ())?;
    if !listed.status.success() {
        return Ok(listed);
    }
    let chosen = file.with_extension("list");
    let text: String =
        listed.stdout.lines().filter(|line| !is_made_before(line, schemas)).flat_map(|line| [line, "\n"]).collect();
    fs::write(&chosen, text)
        .and_then(|()| open_to(&psql, &chosen, OFlag::empty(), 0o640))
        .context(|| format!("write {}", chosen.display()))?;
    // Roles and tablespaces may have changed since.
    let how = ["--no-owner", "--no-privileges", "--no-tablespaces", "--no-subscriptions"].map(str::to_owned);
    let which = [format!("--use-list={}", chosen.display()), format!("--dbname={role}"), path];
    let program = psql.program("pg_restore", how.into_iter().chain(which)).within(LOOKING);
    program.run(&mut |_, _| work.monitor.alive())
}

/// A line of pg_restore's list of what is there already, in each database or with an extension.
fn is_made_before(line: &str, schemas: &[String]) -> bool {
    // Name and owner stand beside each other: what has a space in it may be the rest of a longer name.
    let is_schema = |schema: &String| match line.split_once(&format!(" SCHEMA - {schema} ")) {
        Some((_, owner)) => !owner.contains(' '),
        None => false,
    };
    line.contains(" EXTENSION - ") || line.contains(" COMMENT - EXTENSION ") || schemas.iter().any(is_schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_not_taken_for_another_whose_name_begins_like_its() {
        let schemas = ["public".to_owned(), "tools".to_owned()];
        for line in [
            "5; 2615 2200 SCHEMA - public pg_database_owner",
            "7; 2615 16385 SCHEMA - tools web",
            "2; 3079 16386 EXTENSION - citext ",
        ] {
            assert!(is_made_before(line, &schemas), "{line}");
        }
        for line in ["6; 2615 16390 SCHEMA - public stuff postgres", "215; 1259 16391 TABLE public votes postgres"] {
            assert!(!is_made_before(line, &schemas), "{line}");
        }
    }
}
