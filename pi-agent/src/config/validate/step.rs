//! A step of the file, and the one that is in no file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeValue;

use super::live::{exclude, is_excluded, live};
use crate::config::keys::Missing;
use crate::config::raw::Table;
use crate::config::{
    Assertion, Count, Directory, Keep, Location, Postgres, Source, Step, StepTest, Storage, keys, values,
};

/// Where a name was first used, by name.
pub(super) type Seen = BTreeMap<String, usize>;

/// A step; `names` and `stanzas` are those of the steps before it.
pub(super) fn step(
    mut table: Table<'_>,
    index: usize,
    storage: Option<&Storage>,
    names: &mut Seen,
    stanzas: &mut Seen,
) -> Option<Step> {
    let given = table.entry("name").and_then(|(at, value)| Some((at, value.get_ref().as_str()?)));
    table.call(match given {
        Some((_, name)) => format!("step {name:?}: "),
        None => format!("step {}: ", index + 1),
    });
    let name = table.text("name", |text| {
        let good = values::word(text, "-_") && !text.contains(|c: char| c.is_ascii_uppercase());
        good.then(|| text.to_owned())
    });
    match given {
        Some((at, "agent")) => {
            table.mistake(at, r#"name = "agent": wanted another, this is the step that saves the agent's own history"#);
        }
        Some((at, name)) => unique(&table, "name", name, at, names, "steps have different names"),
        None => {}
    }
    let keep = keep(&table);
    let max_duration = table.duration("max-duration");
    let stall = table.duration("stall");
    let kind = table.text("kind", |text| match text {
        "postgres" => Some(Kind::Postgres),
        "directory" => Some(Kind::Directory),
        _ => None,
    });
    let source = match kind {
        Some(Kind::Postgres) => postgres(&table, name.as_deref(), storage, stanzas).map(Source::Postgres),
        Some(Kind::Directory) => directory(&table, storage).map(Source::Directory),
        None => {
            // Which keys belong here depends on the kind: say nothing about them.
            for key in keys::KEYS.iter().filter(|key| key.section == "[[step]]" && key.missing != Missing::Later) {
                let _ = table.entry(key.name);
            }
            None
        }
    };
    let test = step_test(&table, kind);
    table.finish();
    Some(Step { name: name?, source: source?, keep: keep?, max_duration, stall: stall?, test: test? })
}

/// What the test of a step looks at; which of it, the kind decides.
fn step_test(step: &Table<'_>, kind: Option<Kind>) -> Option<StepTest> {
    if step.entry("restore-test").is_none() {
        return Some(StepTest::default());
    }
    let table = step.table("restore-test", "[step.restore-test]")?;
    let critical = table.list("critical", |text| exclude(text).map(|()| text.to_owned()).map_err(Some));
    let count = table.list("count", |text| match text.split('.').collect::<Vec<_>>()[..] {
        [database, schema, name] if ![database, schema, name].contains(&"") => Ok(text.to_owned()),
        _ => Err(None),
    });
    let mut assert = Some(Vec::new());
    if table.entry("assert").is_some() {
        for one in table.tables("assert", "[[step.restore-test.assert]]") {
            let text = |name| one.text(name, |text| (!text.trim().is_empty()).then(|| text.to_owned()));
            let assertion = text("database").zip(text("sql"));
            one.finish();
            assert = assert.zip(assertion).map(|(mut all, (database, sql))| {
                all.push(Assertion { database, sql });
                all
            });
        }
    }
    let foreign: &[_] = match kind {
        Some(Kind::Postgres) => &["critical"],
        Some(Kind::Directory) => &["count", "assert"],
        None => &[],
    };
    for name in foreign {
        if let Some((at, _)) = table.entry(name) {
            table.mistake(at, &format!("{name}: a step of this kind does not have it"));
        }
    }
    table.finish();
    Some(StepTest { critical: critical?, count: count?, assert: assert? })
}

#[derive(Clone, Copy)]
enum Kind {
    Postgres,
    Directory,
}

/// Notes a value that an earlier step has already.
fn unique(table: &Table<'_>, key: &str, text: &str, at: usize, seen: &mut Seen, wanted: &str) {
    match seen.get(text) {
        Some(first) => {
            let line = table.source.position(*first).0;
            table.mistake(at, &format!("{key} = {text:?} is also used on line {line}: {wanted}"));
        }
        None => {
            seen.insert(text.to_owned(), at);
        }
    }
}

fn postgres(table: &Table<'_>, step: Option<&str>, storage: Option<&Storage>, stanzas: &mut Seen) -> Option<Postgres> {
    let (container, data_directory, socket_directory) = cluster(table);
    let stanza = table.text("stanza", |text| values::word(text, "-_").then(|| text.to_owned()));
    let given = table.entry("stanza");
    let stanza = match given {
        Some(_) => stanza,
        None => step.map(str::to_owned),
    };
    if let Some(stanza) = &stanza {
        let at = given.map_or(table.at, |(at, _)| at);
        unique(table, "stanza", stanza, at, stanzas, "each cluster needs its own");
    }
    if let (Some(data), Some(Storage { location: Location::File(storage), .. })) = (&data_directory, storage)
        && container.is_none()
        && storage.starts_with(data)
    {
        let at = table.entry("data-directory").map_or(table.at, |(at, _)| at);
        table.mistake(at, &format!("[storage] url lies inside {}: wanted storage elsewhere", data.display()));
    }
    let port = table.number("port", 1..65_536).and_then(|port| u16::try_from(port).ok());
    let user = table.text("user", |text| {
        let good = !text.is_empty() && text.len() <= 63 && !text.contains(char::is_control);
        good.then(|| text.to_owned())
    });
    let full_every = table.duration("full-every");
    let monthly_dump = table.flag("monthly-dump");
    Some(Postgres {
        stanza: stanza?,
        container,
        data_directory: data_directory?,
        socket_directory: socket_directory?,
        port: port?,
        user,
        full_every: full_every?,
        monthly_dump: monthly_dump?,
    })
}

/// Where the server is: its container, or its directories.
fn cluster(table: &Table<'_>) -> (Option<String>, Option<PathBuf>, Option<PathBuf>) {
    let container = table.text("container", |text| {
        // Docker's own rule.
        let good = values::word(text, "-_.") && text.len() > 1;
        good.then(|| text.to_owned())
    });
    if table.entry("container").is_some() {
        for name in ["data-directory", "socket-directory"] {
            if let Some((at, _)) = table.entry(name) {
                table.mistake(at, &format!("{name}: of a container it is found, wanted either it or container"));
            }
        }
        let found = container.as_ref().map(|_| PathBuf::new());
        return (container, found.clone(), found);
    }
    let (data, socket) = (table.path("data-directory"), table.path("socket-directory"));
    if table.entry("data-directory").is_none() {
        let wanted = keys::find("[[step]]", "data-directory").map(|key| key.form.wanted()).unwrap_or_default();
        table.mistake(table.at, &format!("data-directory is missing: wanted {wanted}, or container"));
    }
    (None, data, socket)
}

fn directory(table: &Table<'_>, storage: Option<&Storage>) -> Option<Directory> {
    let paths =
        table.list("paths", |text| values::path(text).ok_or_else(|| Some("an absolute path without \"..\"".into())));
    let exclude = table.list("exclude", |text| exclude(text).map(|()| text.to_owned()).map_err(Some));
    if let (Some(paths), Some((at, value))) = (&paths, table.entry("paths")) {
        if paths.is_empty() {
            table.refuse("paths", value.span(), Some("at least one absolute path".into()));
        }
        if let (Some(exclude), Some(Storage { location: Location::File(storage), .. })) = (&exclude, storage) {
            for path in paths.iter().filter(|path| storage.starts_with(path) && !is_excluded(storage, path, exclude)) {
                let (path, storage) = (path.display(), storage.display());
                let what = format!(
                    "[storage] url lies inside {path}, so that each backup would contain the earlier ones: \
                     wanted storage elsewhere, or exclude = [\"{storage}\"]"
                );
                table.mistake(at, &what);
            }
        }
    }
    let one_file_system = table.flag("one-file-system");
    let prune_every = table.duration("prune-every");
    let check_every = table.duration("check-every");
    let read_all_months = table.number("read-all-months", 0..121);
    let live = live(table, paths.as_deref().zip(exclude.as_deref()));
    Some(Directory {
        paths: paths?,
        exclude: exclude?,
        one_file_system: one_file_system?,
        prune_every: prune_every?,
        check_every: check_every?,
        read_all_months: read_all_months?,
        live: live?,
    })
}

fn keep(step: &Table<'_>) -> Option<Keep> {
    let Some((_, value)) = step.entry("keep") else { return Some(Keep::DEFAULT) };
    match value.get_ref() {
        DeValue::String(text) if text == "forever" => Some(Keep::Forever),
        DeValue::Table(_) => {
            let table = step.table("keep", "[step.keep]")?;
            let count = |name| table.count(name).map(|count| count.map_or(Count::Forever, Count::Of));
            let (last, daily, weekly) = (count("last"), count("daily"), count("weekly"));
            let (monthly, yearly) = (count("monthly"), count("yearly"));
            table.finish();
            let rules = Keep::Rules { last: last?, daily: daily?, weekly: weekly?, monthly: monthly?, yearly: yearly? };
            if [last, daily, weekly, monthly, yearly].iter().all(|count| *count == Some(Count::Of(0))) {
                let wanted = "at least one of last, daily, weekly, monthly, yearly that keeps something";
                step.refuse("keep", value.span(), Some(wanted.into()));
                return None;
            }
            Some(rules)
        }
        _ => {
            step.refuse("keep", value.span(), None);
            None
        }
    }
}

/// The implicit last step: the configuration; the supervisor adds its snapshot of the state database.
pub(super) fn of_the_agent(file: &Path) -> Step {
    let hours = Duration::from_hours;
    Step {
        name: "agent".into(),
        source: Source::Agent(Directory {
            paths: vec![file.to_owned()],
            exclude: Vec::new(),
            one_file_system: true,
            prune_every: hours(30 * 24),
            check_every: hours(7 * 24),
            read_all_months: 3,
            live: None,
        }),
        keep: Keep::DEFAULT,
        max_duration: None,
        stall: Duration::from_mins(15),
        test: StepTest::default(),
    }
}
