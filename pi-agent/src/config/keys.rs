//! Every key of the configuration file: the one table that the readers, their messages and the reference's test share.

/// The shape of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A text; what exactly is wanted.
    Text(&'static str),
    /// An absolute path.
    Path,
    /// Absolute paths.
    Paths,
    /// Paths below another key's.
    PathsBelow,
    /// Globs in gitignore syntax.
    Globs,
    /// Names; what exactly is wanted of each.
    Names(&'static str),
    /// A program and its arguments.
    Command,
    /// Addresses.
    Urls,
    /// A number and a unit: s, m, h, d.
    Duration,
    /// Bytes, or a number and a unit: KiB, MiB, GiB, TiB.
    Size,
    /// A whole number; what exactly is wanted.
    Number(&'static str),
    /// A whole number of these, or "forever".
    Count(&'static str),
    /// true or false.
    Flag,
    /// HH:MM.
    Time,
    /// What is kept.
    Keep,
    /// A table with keys of its own.
    Table,
    /// Any number of tables.
    Tables,
}

impl Form {
    /// The word of the reference's "type" column.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Path => "path",
            Self::Paths => "list of paths",
            Self::PathsBelow => "list of paths",
            Self::Globs => "list of globs",
            Self::Names(_) => "list of names",
            Self::Command => "command",
            Self::Urls => "list of URLs",
            Self::Duration => "duration",
            Self::Size => "size",
            Self::Number(_) => "number",
            Self::Count(_) => "number or \"forever\"",
            Self::Flag => "true or false",
            Self::Time => "time",
            Self::Keep => "\"forever\" or table",
            Self::Table => "table",
            Self::Tables => "list of tables",
        }
    }

    /// What a message asks for.
    pub(super) fn wanted(self) -> String {
        match self {
            Self::Text(wanted) | Self::Number(wanted) | Self::Names(wanted) => wanted,
            Self::Path => r#"an absolute path such as "/srv/data", without "..""#,
            Self::Paths => r#"a list of absolute paths such as ["/srv/data"]"#,
            Self::PathsBelow => r#"a list of paths below the step's such as ["Data/worlds"]"#,
            Self::Globs => r#"a list of globs such as ["**/*.tmp"]"#,
            Self::Command => {
                r#"a program by its absolute path and its arguments such as ["/usr/bin/systemctl", "stop", "foundry"]"#
            }
            Self::Urls => r#"a list of URLs such as ["https://example.org/hook"] (http:// only on loopback)"#,
            Self::Duration => r#"a duration such as "90s", "30m", "26h" or "7d""#,
            Self::Size => r#"a size such as "512KiB" or "2MiB", or a number of bytes"#,
            Self::Count(what) => return format!(r#"a number of {what} or "forever""#),
            Self::Flag => "true or false",
            Self::Time => r#"a time of day such as "07:00""#,
            Self::Keep => r#""forever" or a table such as { daily = 30, monthly = "forever" }"#,
            Self::Table => "a table",
            Self::Tables => "a list of tables",
        }
        .to_owned()
    }
}

/// What holds when a key is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It must be given.
    Refused,
    /// This value, as TOML.
    Is(&'static str),
    /// What these words say; the reader works it out.
    Means(&'static str),
    /// Giving it is refused: a later version will know it.
    Later,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The table it belongs to, as the reference's headings name it; "" is the file itself.
    pub section: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// Its shape.
    pub form: Form,
    /// Its default.
    pub missing: Missing,
    /// For steps: the only kind that has it.
    pub only: Option<&'static str>,
}

const fn key(section: &'static str, name: &'static str, form: Form, missing: Missing) -> Key {
    Key { section, name, form, missing, only: None }
}

const fn of(kind: &'static str, name: &'static str, form: Form, missing: Missing) -> Key {
    Key { section: "[[step]]", name, form, missing, only: Some(kind) }
}

use Form::{
    Command, Count, Duration, Flag, Globs, Keep, Names, Number, Path, Paths, PathsBelow, Size, Table, Tables, Text,
    Time, Urls,
};
use Missing::{Is, Later, Means, Refused};

/// All of them, in the order of the reference.
pub const KEYS: &[Key] = &[
    key("", "host", Table, Refused),
    key("", "storage", Table, Refused),
    key("", "secrets", Table, Means("its defaults")),
    key("", "local", Table, Means("its defaults")),
    key("", "limits", Table, Means("no limits")),
    key("", "notify", Table, Means("its defaults")),
    key("", "alarms", Table, Means("its defaults")),
    key("", "restore-test", Table, Means("its defaults")),
    key("", "step", Tables, Refused),
    key(
        "[host]",
        "name",
        Text(r#"letters, digits, "-", "_" and ".", beginning with a letter or digit, such as "pi-hosting""#),
        Refused,
    ),
    key("[storage]", "url", Text(r#""file:///absolute/path" or "s3://bucket/prefix""#), Refused),
    key(
        "[storage]",
        "region",
        Text(r#"the bucket's region such as "ap-southeast-2""#),
        Means("`\"us-east-1\"` with an endpoint, else required for s3"),
    ),
    key(
        "[storage]",
        "endpoint",
        Text(r#"a server such as "https://garage.home:3900" (http:// only on loopback)"#),
        Means("AWS"),
    ),
    key("[storage]", "path-style", Flag, Means("`true` with an endpoint or a dot in the bucket's name, else `false`")),
    key("[storage]", "ca-file", Path, Means("the system's authorities only")),
    key("[storage]", "timeout", Duration, Is(r#""30s""#)),
    key("[storage]", "retry-for", Duration, Is(r#""2m""#)),
    key("[secrets]", "directory", Path, Is(r#""/etc/pi-agent/secrets""#)),
    key("[local]", "cache", Path, Is(r#""/var/cache/pi-agent""#)),
    key("[local]", "spool", Path, Is(r#""/var/spool/pgbackrest""#)),
    key("[local]", "runtime", Path, Is(r#""/run/pi-agent""#)),
    key("[local]", "prometheus", Path, Means("only in the state directory")),
    key("[local]", "staging", Path, Later),
    key("[local]", "max-size", Size, Is(r#""1GiB""#)),
    key("[limits]", "upload", Size, Means("no limit")),
    key("[limits]", "download", Size, Means("no limit")),
    key("[limits]", "read", Size, Means("no limit")),
    key("[limits]", "give-way", Flag, Is("true")),
    key("[limits]", "between", Tables, Means("the same all day")),
    key("[[limits.between]]", "from", Time, Refused),
    key("[[limits.between]]", "to", Time, Refused),
    key("[[limits.between]]", "upload", Size, Means("as all day")),
    key("[[limits.between]]", "download", Size, Means("as all day")),
    key("[[limits.between]]", "read", Size, Means("as all day")),
    key("[notify]", "summary", Text(r#""never" or "daily""#), Is(r#""never""#)),
    key("[notify]", "ping-urls", Urls, Is("[]")),
    key("[notify]", "ntfy-urls", Urls, Is("[]")),
    key("[notify]", "webhooks", Urls, Is("[]")),
    key("[alarms]", "backup-age", Duration, Is(r#""26h""#)),
    key("[alarms]", "rpo", Duration, Is(r#""30m""#)),
    key("[alarms]", "success-rate", Number("a percentage from 1 to 100"), Is("95")),
    key("[alarms]", "disk-used", Number("a percentage from 1 to 99"), Is("90")),
    key("[alarms]", "inodes-used", Number("a percentage from 1 to 99"), Is("90")),
    key("[alarms]", "size-change", Number("a percentage from 1 to 1000"), Is("50")),
    key("[alarms]", "check-age", Duration, Is(r#""21d""#)),
    key("[alarms]", "restore-test-age", Duration, Is(r#""45d""#)),
    key("[alarms]", "certificate-days", Duration, Is(r#""14d""#)),
    key("[alarms]", "remind-every", Duration, Is(r#""24h""#)),
    key("[alarms]", "temperature", Number("degrees Celsius from 40 to 110"), Is("80")),
    key("[alarms]", "rest-at-most", Duration, Is(r#""30m""#)),
    key("[restore-test]", "directory", Path, Means("the cache")),
    key("[restore-test]", "budget", Size, Is(r#""20GiB""#)),
    key("[restore-test]", "months", Number("a number of months from 1 to 120"), Is("3")),
    key("[restore-test]", "max-duration", Duration, Is(r#""12h""#)),
    key(
        "[[step]]",
        "name",
        Text(r#"lower-case letters, digits, "-" and "_", beginning with a letter or digit, such as "foundry""#),
        Refused,
    ),
    key("[[step]]", "kind", Text(r#""postgres" or "directory""#), Refused),
    key("[[step]]", "keep", Keep, Is(r#"{ daily = 30, monthly = "forever" }"#)),
    key("[[step]]", "max-duration", Duration, Means("no limit")),
    key("[[step]]", "stall", Duration, Is(r#""15m""#)),
    key("[[step]]", "restore-test", Table, Means("what holds for every step")),
    of("directory", "paths", Paths, Refused),
    of("directory", "exclude", Globs, Is("[]")),
    of("directory", "one-file-system", Flag, Is("true")),
    of("directory", "prune-every", Duration, Is(r#""30d""#)),
    of("directory", "check-every", Duration, Is(r#""7d""#)),
    of("directory", "read-all-months", Number("a number of months from 0 (never) to 120"), Is("3")),
    of("directory", "live", Table, Means("nothing is paused")),
    of("postgres", "data-directory", Path, Means("*required* without `container`")),
    of(
        "postgres",
        "container",
        Text(r#"a container's name such as "db""#),
        Means("the server runs on this machine itself"),
    ),
    of("postgres", "stanza", Text(r#"letters, digits, "-" and "_", such as "main""#), Means("the step's name")),
    of("postgres", "socket-directory", Path, Is(r#""/var/run/postgresql""#)),
    of("postgres", "port", Number("a port from 1 to 65535"), Is("5432")),
    of(
        "postgres",
        "user",
        Text(r#"a database role such as "postgres""#),
        Means("the owner of the data directory; of a container: its `POSTGRES_USER`, else `postgres`"),
    ),
    of("postgres", "full-every", Duration, Is(r#""7d""#)),
    of("postgres", "monthly-dump", Flag, Is("true")),
    key("[step.live]", "paths", PathsBelow, Refused),
    key(
        "[step.live]",
        "pause",
        Text(r#""docker:NAME" or "docker-stop:NAME" with a container's name"#),
        Means("`quiet` and `resume`"),
    ),
    key("[step.live]", "quiet", Command, Means("`pause`")),
    key("[step.live]", "resume", Command, Means("`pause`")),
    key("[step.live]", "at-most", Duration, Is(r#""30s""#)),
    key("[step.restore-test]", "critical", Globs, Is("[]")),
    key(
        "[step.restore-test]",
        "count",
        Names(r#"a list of tables as database.schema.table such as ["app.public.users"]"#),
        Is("[]"),
    ),
    key("[step.restore-test]", "assert", Tables, Means("none")),
    key("[[step.restore-test.assert]]", "database", Text(r#"a database such as "app""#), Refused),
    key("[[step.restore-test.assert]]", "sql", Text("a query whose result is true"), Refused),
    key("[step.keep]", "last", Count("points"), Is("0")),
    key("[step.keep]", "daily", Count("days"), Is("0")),
    key("[step.keep]", "weekly", Count("weeks"), Is("0")),
    key("[step.keep]", "monthly", Count("months"), Is("0")),
    key("[step.keep]", "yearly", Count("years"), Is("0")),
];

/// The key of that name, if there is one.
pub(super) fn find(section: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.section == section && key.name == name)
}

/// The name in that section a person most likely meant.
pub(super) fn nearest(section: &str, name: &str) -> Option<&'static str> {
    let name = name.to_lowercase().replace('_', "-");
    KEYS.iter()
        .filter(|key| key.section == section && key.missing != Later)
        .map(|key| (distance(&name, key.name), key.name))
        .filter(|(distance, known)| {
            *distance <= (known.len() / 2).min(2) || (name.len() > 2 && known.starts_with(&name))
        })
        .min()
        .map(|(_, known)| known)
}

/// How many characters must be put in, taken out or changed to make `a` into `b` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.chars().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.chars().count()]
}
