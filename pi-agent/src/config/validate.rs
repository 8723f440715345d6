//! From tables to [`Settings`]: what each table means, and what must hold between them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ignore::gitignore::GitignoreBuilder;
use toml::de::{DeTable, DeValue};

use super::keys::Missing;
use super::raw::{Source, Table};
use super::{
    Alarms, Assertion, Count, Directory, Keep, Limits, Live, Local, Location, Notify, PartOfDay, Postgres, Rates,
    RestoreTest, S3Location, Settings, Step, StepTest, Storage, Writer, keys, values,
};

/// The settings; `None` when a mistake was noted in `source`.
pub(super) fn settings<'a>(source: &'a Source<'a>, document: &'a DeTable<'a>, file: &Path) -> Option<Settings> {
    let root = Table::root(source, document);
    let empty = DeTable::new();
    let section = |name, section| root.table(name, section).unwrap_or_else(|| absent(source, section, &empty));

    let host = root.table("host", "[host]").and_then(host);
    let mut storage = root.table("storage", "[storage]").and_then(storage);
    let secrets = secrets(section("secrets", "[secrets]"));
    let local = local(section("local", "[local]"));
    let notify = notify(section("notify", "[notify]"));
    let alarms = alarms(section("alarms", "[alarms]"));
    let restore_test = restore_test(section("restore-test", "[restore-test]"), local.as_ref());

    let mut warnings = Vec::new();
    let table = section("limits", "[limits]");
    let gives_way = table.flag("give-way");
    let mut limits = limits(table);
    limits.shared = local.as_ref().map(|local| local.runtime.join("line")).unwrap_or_default();
    match storage.as_mut() {
        Some(Storage { location: Location::File(_), limits: reading, .. }) => {
            if !limits.is_none() {
                warnings.push("limits of upload and download do not hold for a file:// storage".to_owned());
            }
            *reading = limits.of_reading();
        }
        Some(storage) => storage.limits = limits,
        None => {}
    }

    let tables = root.tables("step", "[[step]]");
    let mut names = BTreeMap::new();
    let mut stanzas = BTreeMap::new();
    let mut steps = Some(Vec::new());
    for (index, table) in tables.into_iter().enumerate() {
        let step = step(table, index, storage.as_ref(), &mut names, &mut stanzas);
        steps = steps.zip(step).map(|(mut steps, step)| {
            steps.push(step);
            steps
        });
    }
    root.finish();
    let mut steps = steps?;
    steps.push(agent_step(file));
    Some(Settings {
        file: file.to_owned(),
        host: host?,
        storage: storage?,
        secrets: secrets?,
        local: local?,
        notify: notify?,
        alarms: alarms?,
        restore_test: restore_test?,
        steps,
        gives_way: gives_way?,
        warnings,
    })
}

/// A table that is not in the file: all its keys take their defaults.
fn absent<'a>(source: &'a Source<'a>, section: &'static str, empty: &'a DeTable<'a>) -> Table<'a> {
    Table::new(source, section, format!("{section} "), 0, empty)
}

fn host(table: Table<'_>) -> Option<String> {
    let name = table.text("name", |text| values::word(text, "-_.").then(|| text.to_owned()));
    table.finish();
    name
}

fn storage(table: Table<'_>) -> Option<Storage> {
    let url = table.text("url", |text| match (values::file_url(text), values::s3_url(text)) {
        (Some(path), _) => Some(Location::File(path)),
        (_, Some((bucket, prefix))) => Some(Location::S3(S3Location {
            bucket,
            prefix,
            region: String::new(),
            endpoint: None,
            path_style: false,
            ca_file: None,
        })),
        _ => None,
    });
    let endpoint = table.text("endpoint", values::endpoint);
    let region = table.text("region", |text| values::word(text, "-_").then(|| text.to_owned()));
    let path_style = table.flag("path-style");
    let ca_file = table.path("ca-file");
    let location = match url {
        None => None,
        Some(Location::File(path)) => {
            for name in ["region", "endpoint", "path-style", "ca-file"] {
                if let Some((at, _)) = table.entry(name) {
                    table
                        .mistake(at, &format!("{name}: only an s3:// url has this key; the url here is a file:// one"));
                }
            }
            Some(Location::File(path))
        }
        Some(Location::S3(s3)) => {
            if region.is_none() && table.entry("region").is_none() && table.entry("endpoint").is_none() {
                let wanted = keys::find("[storage]", "region").map(|key| key.form.wanted()).unwrap_or_default();
                table.mistake(table.at, &format!("region is missing: wanted {wanted}"));
            }
            let path_style = path_style.unwrap_or(endpoint.is_some());
            let region = region.unwrap_or_else(|| "us-east-1".into());
            Some(Location::S3(S3Location { region, endpoint, path_style, ca_file, ..s3 }))
        }
    };
    let timeout = table.duration("timeout");
    let retry_for = table.duration("retry-for");
    table.finish();
    Some(Storage { location: location?, timeout: timeout?, retry_for: retry_for?, limits: Limits::default() })
}

fn secrets(table: Table<'_>) -> Option<PathBuf> {
    let directory = table.path("directory");
    table.finish();
    directory
}

fn local(table: Table<'_>) -> Option<Local> {
    let (cache, spool, runtime) = (table.path("cache"), table.path("spool"), table.path("runtime"));
    let (prometheus, max_size) = (table.path("prometheus"), table.size("max-size"));
    table.finish();
    Some(Local { cache: cache?, max_size: max_size?, spool: spool?, runtime: runtime?, prometheus })
}

fn alarms(table: Table<'_>) -> Option<Alarms> {
    let (backup_age, rpo) = (table.duration("backup-age"), table.duration("rpo"));
    let success_rate = table.number("success-rate", 1..101);
    let disk_used = table.number("disk-used", 1..100);
    let inodes_used = table.number("inodes-used", 1..100);
    let size_change = table.number("size-change", 1..1001);
    let check_age = table.duration("check-age");
    let restore_test_age = table.duration("restore-test-age");
    let certificate = table.duration("certificate-days");
    let remind_every = table.duration("remind-every");
    let temperature = table.number("temperature", 40..111);
    let rest_at_most = table.duration("rest-at-most");
    table.finish();
    Some(Alarms {
        backup_age: backup_age?,
        rpo: rpo?,
        success_rate: success_rate?,
        disk_used: disk_used?,
        inodes_used: inodes_used?,
        size_change: size_change?,
        check_age: check_age?,
        restore_test_age: restore_test_age?,
        certificate: certificate?,
        remind_every: remind_every?,
        temperature: temperature?,
        rest_at_most: rest_at_most?,
    })
}

fn restore_test(table: Table<'_>, local: Option<&Local>) -> Option<RestoreTest> {
    let directory = table.path("directory");
    let (budget, months) = (table.size("budget"), table.number("months", 1..121));
    let max_duration = table.duration("max-duration");
    table.finish();
    // One of its own in there: it is emptied.
    let directory = directory.or_else(|| Some(local?.cache.clone()))?.join("pi-agent-restore-test");
    Some(RestoreTest { directory, budget: budget?, months: months?, max_duration: max_duration? })
}

/// What of it holds; a wrong one is noted, and then nobody uses the result.
fn limits(table: Table<'_>) -> Limits {
    let all_day = rates(&table, Rates::default());
    let mut parts = Vec::new();
    for between in table.tables("between", "[[limits.between]]") {
        let from = between.text("from", values::time);
        let to = between.text("to", values::time);
        if from.is_some() && from == to {
            between.mistake(between.at, "from and to are the same time: wanted a part of the day");
        }
        let rates = rates(&between, all_day);
        if ["upload", "download", "read"].iter().all(|name| between.entry(name).is_none()) {
            between.mistake(between.at, "limits nothing: wanted at least one of upload, download, read");
        }
        between.finish();
        parts.extend(from.zip(to).map(|(from, to)| PartOfDay { from, to, rates }));
    }
    table.finish();
    Limits { all_day, between: parts, shared: PathBuf::new() }
}

/// A rate that is not given is that of `otherwise`.
fn rates(table: &Table<'_>, otherwise: Rates) -> Rates {
    /// A unit that was left out would make a backup take years.
    const LEAST: u64 = 16 << 10;
    let rate = |name| {
        let rate = table.size(name);
        if let (Some(_), Some((_, value))) = (rate.filter(|rate| *rate < LEAST), table.entry(name)) {
            table.refuse(name, value.span(), Some(r#"at least "16KiB" a second"#.into()));
        }
        rate
    };
    let (upload, download, read) = (rate("upload"), rate("download"), rate("read"));
    Rates {
        upload: upload.or(otherwise.upload),
        download: download.or(otherwise.download),
        read: read.or(otherwise.read),
    }
}

fn notify(table: Table<'_>) -> Option<Notify> {
    let daily_summary = table.text("summary", |text| match text {
        "never" => Some(false),
        "daily" => Some(true),
        _ => None,
    });
    let urls = |name| table.list(name, |text| values::url(text).ok_or(None));
    let (ping_urls, ntfy_urls, webhooks) = (urls("ping-urls"), urls("ntfy-urls"), urls("webhooks"));
    if let (Some(ntfy), Some((_, value))) = (&ntfy_urls, table.entry("ntfy-urls"))
        && ntfy.iter().any(|url| url.trim_end_matches('/').matches('/').count() < 3)
    {
        table.refuse(
            "ntfy-urls",
            value.span(),
            Some(r#"a server and a topic such as "https://ntfy.sh/my-topic""#.into()),
        );
    }
    table.finish();
    Some(Notify { daily_summary: daily_summary?, ping_urls: ping_urls?, ntfy_urls: ntfy_urls?, webhooks: webhooks? })
}

/// Where a name was first used, by name.
type Seen = BTreeMap<String, usize>;

fn step(
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
        Some(Kind::Postgres) => postgres(&table, name.as_deref(), storage, stanzas).map(super::Source::Postgres),
        Some(Kind::Directory) => directory(&table, storage).map(super::Source::Directory),
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

/// A longer night for the players than this is not what anybody means by quiet.
const LONGEST_QUIET: Duration = Duration::from_mins(10);

/// The part that is written to day and night; `around` are the step's paths and globs, when these are good.
fn live(step: &Table<'_>, around: Option<(&[PathBuf], &[String])>) -> Option<Option<Live>> {
    if step.entry("live").is_none() {
        return Some(None);
    }
    let table = step.table("live", "[step.live]")?;
    let paths = table.list("paths", |text| match around {
        Some((paths, exclude)) => live_path(text, paths, exclude).map_err(|wanted| Some(wanted.into())),
        None => Ok(PathBuf::new()),
    });
    if let (Some([]), Some((_, value))) = (paths.as_deref(), table.entry("paths")) {
        table.refuse("paths", value.span(), Some("at least one path".into()));
    }
    let pause = table.text("pause", |text| {
        let (how, name) = text.split_once(':')?;
        // Docker's own rule for names.
        let good = name.len() >= 2 && values::word(name, "_.-");
        match how {
            "docker" if good => Some(Writer::Pause(name.to_owned())),
            "docker-stop" if good => Some(Writer::Stop(name.to_owned())),
            _ => None,
        }
    });
    let command = |name| {
        let words = table.list(name, |word| Ok(word.to_owned()));
        if let (Some(words), Some((_, value))) = (&words, table.entry(name))
            && (words.first().and_then(|program| values::path(program)).is_none()
                || words.iter().any(|word| word.contains('\0')))
        {
            table.refuse(name, value.span(), None);
            return None;
        }
        words
    };
    let (quiet, resume) = (command("quiet"), command("resume"));
    let at_most = table.duration("at-most");
    if let (Some(_), Some((_, value))) = (at_most.filter(|limit| *limit > LONGEST_QUIET), table.entry("at-most")) {
        table.refuse("at-most", value.span(), Some("at most ten minutes".into()));
        return None;
    }
    let given = ["pause", "quiet", "resume"].map(|name| table.entry(name).is_some());
    let writer = match given {
        [true, false, false] => pause,
        [false, true, true] => quiet.zip(resume).map(|(quiet, resume)| Writer::Commands { quiet, resume }),
        _ => {
            step.mistake(table.at, "live: wanted either `pause`, or `quiet` and `resume`");
            None
        }
    };
    table.finish();
    let mut paths = paths.filter(|paths| !paths.is_empty())?;
    paths.sort();
    let all = paths.clone();
    paths.retain(|path| !all.iter().any(|other| other != path && path.starts_with(other)));
    paths.dedup();
    Some(Some(Live { paths, writer: writer?, at_most: at_most? }))
}

/// A live path, made absolute; else what is wanted.
fn live_path(text: &str, paths: &[PathBuf], exclude: &[String]) -> Result<PathBuf, &'static str> {
    let path = match (Path::new(text).is_absolute(), paths) {
        (true, _) => values::path(text),
        (false, [only]) => values::path(&format!("/{text}"))
            .filter(|_| !text.is_empty())
            .map(|path| only.join(path.strip_prefix("/").expect("it was put before it")).components().collect()),
        (false, _) => return Err("an absolute path, because the step has several"),
    };
    let path = path.ok_or("a path below the step's, without \"..\"")?;
    let Some(root) = paths.iter().find(|root| path.starts_with(root)) else {
        return Err("a path below one of the step's");
    };
    if is_excluded(&path, root, exclude) { Err("a path that `exclude` does not leave out") } else { Ok(path) }
}

/// Refuses a glob, saying what is wanted.
fn exclude(glob: &str) -> Result<(), String> {
    if glob.trim().is_empty() {
        return Err(r#"a glob such as "**/*.tmp""#.into());
    }
    if glob.starts_with('#') {
        return Err("a glob; this is a comment in gitignore syntax".into());
    }
    let parsed = GitignoreBuilder::new("/").add_line(None, glob).map(|_| ());
    parsed.map_err(|error| format!("a glob in gitignore syntax ({error})"))
}

/// True when the walk from `root` never enters `place`: an exclude matches it or a directory on the way there.
fn is_excluded(place: &Path, root: &Path, exclude: &[String]) -> bool {
    let mut builder = GitignoreBuilder::new("/");
    for glob in exclude {
        builder.add_line(None, glob).expect("each glob was parsed before");
    }
    // A set of good globs can still be too large to compile; then nothing is known to be excluded.
    let Ok(globs) = builder.build() else { return false };
    let on_the_way = place.ancestors().take_while(|ancestor| *ancestor != root);
    on_the_way.into_iter().any(|ancestor| globs.matched(ancestor, true).is_ignore())
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
fn agent_step(file: &Path) -> Step {
    let hours = Duration::from_hours;
    Step {
        name: "agent".into(),
        source: super::Source::Agent(Directory {
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
