//! What a restored server holds: databases that open, tables, rows, indexes, and what the configuration asks of them.
//!
//! Code that the data brings (functions in indexes, types, triggers) may not work here. What cannot be tested for that is no damage, and
//! no pass. Nothing is left in a database: amcheck is taken out of it again.

use super::postgres::{ASKING, LOOKING};
use super::server::is_foreign_text;
use super::{Sheet, Verdict};
use crate::config::Step;
use crate::error::{Context, Result};
use crate::monitor::Monitor;
use crate::process::Output;
use crate::steps::postgres::catalogue::{Catalogue, Psql};
use crate::steps::postgres::pg_dump::connection_string;
use crate::steps::postgres::said::{errors, is_about_order, is_damage, is_only_missing, needs_a_library};

/// So many are named; the rest is counted.
const NAMED: usize = 3;
const STRUCTURE: &str = "pg_amcheck";

/// A database that does not open is a failure, unless only its locale is missing here.
pub(super) fn all_open(found: &Catalogue, sheet: &mut Sheet) {
    const NAME: &str = "databases";
    for (database, why) in &found.unopened {
        match is_foreign_text(why) {
            true => sheet.untested(NAME, format!("this machine lacks the locale of {database}")),
            false => sheet.failed(NAME, format!("{database} could not be opened: {why}")),
        }
    }
    if found.unopened.is_empty() {
        sheet.passed(NAME, format!("all {} open", found.databases.len()));
    }
}

/// A server to be looked at.
pub(super) struct Content<'a> {
    pub psql: &'a Psql<'a>,
    pub step: &'a Step,
    pub monitor: &'a Monitor,
    /// Its locales sort text as those of the original.
    pub sorts_alike: bool,
}

/// What became of several objects under one name.
#[derive(Default)]
struct Findings {
    failed: Vec<String>,
    untested: Vec<String>,
}

impl Findings {
    fn add(&mut self, is_only_missing: bool, what: String) {
        let list = if is_only_missing { &mut self.untested } else { &mut self.failed };
        list.push(what);
    }

    /// Notes them down, or that all is well.
    fn note(self, name: &str, well: Option<&str>, sheet: &mut Sheet) {
        if let Some(well) = well.filter(|_| self.failed.is_empty() && self.untested.is_empty()) {
            sheet.passed(name, well);
        }
        for (verdict, list) in [(Verdict::Failed, self.failed), (Verdict::Untested, self.untested)] {
            if list.is_empty() {
                continue;
            }
            let more = list.len().saturating_sub(NAMED);
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            let told = list[..list.len().min(NAMED)].join("; ") + &more;
            match verdict {
                Verdict::Failed => sheet.failed(name, told),
                _ => sheet.untested(name, told),
            }
        }
    }
}

impl Content<'_> {
    /// All of it, of these databases.
    pub fn test(&self, found: &Catalogue, recorded: Option<&Catalogue>, sheet: &mut Sheet) {
        // Before the sample, which writes down anew how many pages there are.
        self.check_structure(found, sheet);
        self.sample(found, sheet);
        match self.psql.catalogue(&self.step.test.count) {
            Ok(found) => {
                match recorded {
                    None => sheet.untested("tables", "no list of them was saved with this backup"),
                    Some(recorded) => compare(recorded, &found, sheet),
                }
                self.count(&found, recorded, sheet);
            }
            Err(error) => sheet.failed("tables", error.chain()),
        }
        let lacking = self.lacking(found, sheet);
        for assertion in &self.step.test.assert {
            let name = "assertion";
            match self.psql.ask(&assertion.database, &assertion.sql, ASKING) {
                Ok(answer) if answer == "t" => sheet.passed(name, assertion.sql.clone()),
                Ok(answer) => sheet.failed(name, format!("{}: {answer:?} instead of true", assertion.sql)),
                Err(error) if lacking && needs_a_library(&error.chain()) => sheet.untested(name, error.chain()),
                Err(error) => sheet.failed(name, format!("{}: {}", assertion.sql, error.chain())),
            }
        }
    }

    /// Reads samples of all tables, with the search path that the database has: numbers of rows are estimated by them.
    fn sample(&self, found: &Catalogue, sheet: &mut Sheet) {
        self.monitor.phase("sampling the tables");
        let mut findings = Findings::default();
        for database in found.databases.keys() {
            self.monitor.alive();
            if self.psql.ask(database, "analyze", LOOKING).is_ok() {
                continue;
            }
            // It ends at the first table that fails; each by itself, they are named.
            for table in self.tables(database).unwrap_or_default() {
                self.monitor.alive();
                if let Err(error) = self.psql.ask(database, &format!("analyze {table}"), LOOKING) {
                    let said = error.chain();
                    findings.add(is_only_missing(&said), format!("{table} of {said}"));
                }
            }
        }
        findings.note("samples", None, sheet);
    }

    fn tables(&self, database: &str) -> Result<Vec<String>> {
        let text = self.psql.system(
            database,
            "select coalesce(json_agg(format('%I.%I', n.nspname, c.relname)), '[]') \
             from pg_class c join pg_namespace n on n.oid = c.relnamespace \
             where c.relkind in ('r', 'm') and c.relpersistence <> 't'",
            ASKING,
        )?;
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }

    /// Exact numbers of rows, of the tables that the configuration names.
    fn count(&self, found: &Catalogue, recorded: Option<&Catalogue>, sheet: &mut Sheet) {
        for name in &self.step.test.count {
            if let Ok(Some(why)) = self.psql.is_not_backed_up(name) {
                sheet.untested("rows", format!("{name} cannot come back: {why}"));
                continue;
            }
            match (found.counts.get(name), recorded.and_then(|recorded| recorded.counts.get(name))) {
                (None, _) => sheet.failed("rows", format!("{name} cannot be counted")),
                (Some(found), Some(then)) if !in_range(*found, *then) => {
                    sheet.failed("rows", format!("{name} has {found}, and had {then} at the backup"));
                }
                (Some(found), Some(then)) => sheet.passed("rows", format!("{name} has {found}, {then} at the backup")),
                (Some(found), None) => {
                    sheet.untested("rows", format!("{name}, which has {found}, was not counted then"));
                }
            }
        }
    }

    /// Whether an extension is used that this server does not have: what rests on it is not tested.
    fn lacking(&self, found: &Catalogue, sheet: &mut Sheet) -> bool {
        let mut any = false;
        for database in found.databases.keys() {
            let lacks = self.psql.system(
                database,
                "select string_agg(extname, ', ') from pg_extension \
                 where extname not in (select name from pg_available_extensions)",
                ASKING,
            );
            match lacks {
                Ok(lacks) if lacks.is_empty() => {}
                Ok(lacks) => {
                    any = true;
                    sheet.untested("extensions", format!("the server here lacks {lacks}, which {database} uses"));
                }
                Err(error) => sheet.failed("extensions", error.chain()),
            }
        }
        any
    }

    /// Every table and index, held against each other.
    pub fn check_structure(&self, found: &Catalogue, sheet: &mut Sheet) {
        self.monitor.phase("checking tables and indexes");
        let mut findings = Findings::default();
        for database in found.databases.keys() {
            match self.cut_short(database) {
                Ok(lost) => lost.into_iter().for_each(|what| findings.add(false, format!("{database}.{what}"))),
                Err(error) => findings.add(false, error.chain()),
            }
            match self.with_amcheck(database, || self.check_database(database, &mut findings)) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => findings.add(true, error.chain()),
                Err(error) => {
                    let said = error.chain();
                    findings.add(!is_damage(&said), format!("amcheck cannot be used: {said}"));
                }
            }
        }
        findings.note(STRUCTURE, Some("every table and index is sound"), sheet);
    }

    /// Relations that have fewer pages than PostgreSQL has seen in them: amcheck takes the end of a file for the end of a table, and opens
    /// neither sequences nor indexes other than B-trees. From 18 on, a dump brings the numbers of another cluster.
    fn cut_short(&self, database: &str) -> Result<Vec<String>> {
        let text = self.psql.system(
            database,
            "select coalesce(json_agg(format('%I.%I has %s of %s pages', n.nspname, c.relname, p.pages, c.relpages)), '[]') \
             from pg_class c join pg_namespace n on n.oid = c.relnamespace, \
               lateral (select pg_relation_size(c.oid) / current_setting('block_size')::int as pages) p \
             where c.relkind in ('r', 'm', 't', 'i', 'S') and c.relpersistence = 'p' and c.relpages > p.pages \
               and (c.relkind = 'S' or current_setting('server_version_num')::int < 180000)",
            ASKING,
        )?;
        serde_json::from_str(&text).context(|| format!("understand the list of what {database} lacks"))
    }

    /// Does the work while the database has the extension.
    fn with_amcheck<T>(&self, database: &str, work: impl FnOnce() -> T) -> Result<T> {
        let ask = |sql: &str| self.psql.system(database, sql, ASKING);
        let has = ask("select count(*) from pg_extension where extname = 'amcheck'")? != "0";
        if !has {
            ask("create extension amcheck schema pg_catalog")?;
        }
        let done = work();
        if !has {
            ask("drop extension amcheck")?;
        }
        Ok(done)
    }

    fn check_database(&self, database: &str, findings: &mut Findings) -> Result<()> {
        let arguments = ["--heapallindexed".to_owned(), connection_string(database)];
        let program = self.psql.program(STRUCTURE, arguments).within(LOOKING);
        let output = program.run(&mut |_, _| self.monitor.alive())?;
        for (is_only_missing, what) in reports(database, &output) {
            let sorted_otherwise = !self.sorts_alike && is_about_order(&what);
            let why = if sorted_otherwise { ", which may only be this machine's way to sort text" } else { "" };
            findings.add(is_only_missing || sorted_otherwise, what + why);
        }
        Ok(())
    }
}

/// What pg_amcheck found, object by object: whether only code is missing for it, and the object with what was said of it.
fn reports(database: &str, output: &Output) -> Vec<(bool, String)> {
    let mut found: Vec<(&str, String)> = Vec::new();
    for line in output.stdout.lines() {
        match (line.starts_with(char::is_whitespace), found.last_mut()) {
            (true, Some((_, said))) => *said += &format!("{}\n", line.trim()),
            _ => found.push((line, String::new())),
        }
    }
    let told = |(object, said): (&str, String)| (is_only_missing(&said), format!("{object} {}", errors(&said)));
    let mut reports: Vec<_> = found.into_iter().map(told).collect();
    if !output.status.success() && reports.is_empty() {
        reports.push((false, format!("{database}: {}", errors(&output.stderr))));
    }
    reports
}

/// Databases, tables and about how many rows, against what was there at the backup.
fn compare(then: &Catalogue, found: &Catalogue, sheet: &mut Sheet) {
    let mut count = 0;
    let before = sheet.problems.len();
    for (database, tables) in &then.databases {
        let Some(now) = found.databases.get(database) else {
            if !found.unopened.contains_key(database) {
                sheet.failed("tables", format!("the database {database} is missing"));
            }
            continue;
        };
        for (table, rows) in tables {
            count += 1;
            match now.get(table) {
                None => sheet.failed("tables", format!("{database}: {table} is missing")),
                Some(now) if !in_range(*now, *rows) => {
                    sheet.failed("tables", format!("{database}: {table} has about {now} rows, and had {rows}"));
                }
                Some(_) => {}
            }
        }
    }
    if sheet.problems.len() == before {
        let (databases, label) = (then.databases.len(), &then.label);
        sheet.passed("tables", format!("all {count} in {databases} databases, as at the backup {label}"));
    }
}

/// Nobody counted, or it is between half and double, give or take what a night's work may do to a small table.
fn in_range(now: i64, then: i64) -> bool {
    const SMALL: i64 = 1000;
    then < 0
        || now < 0 && then < SMALL
        || (now >= then / 2 - SMALL / 2 && now / 2 - SMALL <= then && (now > 0 || then < SMALL))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    #[test]
    fn a_table_may_grow_and_shrink_and_not_vanish() {
        for (now, then, good) in [
            (10, -1, true),
            (-1, 10, true),
            (0, 100, true),
            (0, 100_000, false),
            (40_000, 100_000, false),
            (60_000, 100_000, true),
            (190_000, 100_000, true),
            (300_000, 100_000, false),
            (-1, 100_000, false),
        ] {
            assert_eq!(in_range(now, then), good, "{now} after {then}");
        }
    }

    #[test]
    fn damage_is_told_from_code_that_is_missing() {
        let stdout = "btree index \"geo.public.plain\":\n    ERROR:  function unaccent(text) does not exist\n    HINT:  No function\n\
                      heap table \"geo.public.names\", block 0, offset 1:\n    xmin 5 precedes relation freeze threshold\n";
        let output = |stdout: &str, stderr: &str| Output {
            status: ExitStatus::from_raw(2 << 8),
            stdout: stdout.into(),
            stderr: stderr.into(),
        };
        let found = reports("geo", &output(stdout, ""));
        let [missing, damaged] = &*found else { panic!("two objects") };
        assert_eq!(
            *missing,
            (true, "btree index \"geo.public.plain\": ERROR:  function unaccent(text) does not exist".into())
        );
        assert!(
            !damaged.0 && damaged.1.ends_with("offset 1: xmin 5 precedes relation freeze threshold"),
            "{damaged:?}"
        );
        let failed = reports("geo", &output("", "pg_amcheck: error: connection failed\n"));
        assert_eq!(failed, [(false, "geo: pg_amcheck: error: connection failed".into())]);
    }
}
