//! From tables to [`Settings`]: what each section of the file means, and what must hold between them.

mod live;
mod step;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::raw::{Source, Table};
use super::{
    Alarms, Limits, Local, Location, Notify, PartOfDay, Rates, RestoreTest, S3Location, Settings, Storage, keys, values,
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
        let step = step::step(table, index, storage.as_ref(), &mut names, &mut stanzas);
        steps = steps.zip(step).map(|(mut steps, step)| {
            steps.push(step);
            steps
        });
    }
    root.finish();
    let mut steps = steps?;
    steps.push(step::of_the_agent(file));
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
            // AWS's certificates are good for one name before its own, and a dot makes two of it.
            let path_style = path_style.unwrap_or(endpoint.is_some() || s3.bucket.contains('.'));
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
