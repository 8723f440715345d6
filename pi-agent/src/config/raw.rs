//! Reading tables of the file without giving up at the first mistake: every reader notes what is wrong, where, and goes on.
//!
//! Not serde: it stops at the first error, and its errors do not know what would have been right.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, Form, Key, Missing};
use super::{Mistake, values};

/// Why a value is refused: `None` is "not what its key wants".
type Read<T> = Result<T, Option<String>>;

/// The text of the file and what was found wrong with it.
pub(super) struct Source<'t> {
    text: &'t str,
    mistakes: RefCell<Vec<(usize, String)>>,
}

impl<'t> Source<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, mistakes: RefCell::default() }
    }

    /// Notes what is wrong at that byte.
    pub(super) fn mistake(&self, at: usize, what: impl Into<String>) {
        self.mistakes.borrow_mut().push((at, what.into()));
    }

    /// Line and column (in characters), both from 1.
    pub(super) fn position(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// Everything noted, in the order of the file.
    pub(super) fn mistakes(&self) -> Vec<Mistake> {
        let mut noted = self.mistakes.take();
        noted.sort();
        noted.into_iter().map(|(at, text)| Mistake { line: Some(self.position(at).0), column: None, text }).collect()
    }

    /// The source of a value on one line, shortened, harmless to a terminal, without user and password of a URL.
    pub(super) fn shown(&self, span: Range<usize>) -> String {
        const LONGEST: usize = 60;
        let source = self.text.get(span).unwrap_or_default();
        let mut line = source.split_whitespace().collect::<Vec<_>>().join(" ");
        if let (Some(start), Some(end)) = (line.find("://"), line.rfind('@'))
            && start < end
        {
            line.replace_range(start + 3..end, "…");
        }
        let short: String = line.chars().take(LONGEST).flat_map(printable).collect();
        if line.chars().count() > LONGEST { short + "…" } else { short }
    }
}

fn printable(c: char) -> impl Iterator<Item = char> {
    let escaped = c.is_control().then(|| c.escape_default());
    let plain = escaped.is_none().then_some(c);
    escaped.into_iter().flatten().chain(plain)
}

/// One table being read.
pub(super) struct Table<'a> {
    pub(super) source: &'a Source<'a>,
    /// As [`Key::section`].
    section: &'static str,
    /// What its messages begin with: `[storage] `, `step "foundry": keep.`.
    subject: String,
    /// Where a missing key is reported.
    pub(super) at: usize,
    entries: &'a DeTable<'a>,
    read: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Table<'a> {
    pub(super) fn root(source: &'a Source<'a>, entries: &'a DeTable<'a>) -> Self {
        Self::new(source, "", String::new(), 0, entries)
    }

    pub(super) fn new(
        source: &'a Source<'a>,
        section: &'static str,
        subject: String,
        at: usize,
        entries: &'a DeTable<'a>,
    ) -> Self {
        Self { source, section, subject, at, entries, read: RefCell::default() }
    }

    /// Replaces what messages begin with.
    pub(super) fn call(&mut self, subject: String) {
        self.subject = subject;
    }

    /// A text that `good` makes into something.
    pub(super) fn text<T>(&self, name: &'static str, good: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.value(name, |value| value.as_str().and_then(&good).ok_or(None))
    }

    pub(super) fn path(&self, name: &'static str) -> Option<PathBuf> {
        self.text(name, values::path)
    }

    pub(super) fn duration(&self, name: &'static str) -> Option<Duration> {
        self.text(name, values::duration)
    }

    pub(super) fn size(&self, name: &'static str) -> Option<u64> {
        self.value(name, |value| match value {
            DeValue::Integer(number) => values::size(&number.to_string()).ok_or(None),
            other => other.as_str().and_then(values::size).ok_or(None),
        })
    }

    pub(super) fn flag(&self, name: &'static str) -> Option<bool> {
        self.value(name, |value| value.as_bool().ok_or(None))
    }

    pub(super) fn number(&self, name: &'static str, range: Range<u32>) -> Option<u32> {
        self.value(name, |value| number(value).filter(|number| range.contains(number)).ok_or(None))
    }

    /// A number, or "forever" as `None`.
    pub(super) fn count(&self, name: &'static str) -> Option<Option<u32>> {
        self.value(name, |value| match value.as_str() {
            Some("forever") => Ok(None),
            _ => number(value).map(Some).ok_or(None),
        })
    }

    /// A list; each element is judged for itself, with the reason when it is not what the key wants.
    pub(super) fn list<T>(&self, name: &'static str, element: impl Fn(&str) -> Read<T>) -> Option<Vec<T>> {
        let items = self.value(name, |value| match value {
            DeValue::Array(items) => {
                Ok(items.iter().map(|item| (item.get_ref().as_str().map(str::to_owned), item.span())).collect())
            }
            _ => Err(None),
        });
        let items: Vec<(Option<String>, Range<usize>)> = items?;
        let mut good = Vec::new();
        for (text, span) in &items {
            match text.as_deref().map_or(Err(None), &element) {
                Ok(item) => good.push(item),
                Err(reason) => self.refuse(name, span.clone(), reason),
            }
        }
        (good.len() == items.len()).then_some(good)
    }

    /// A key whose value is a table of its own; `None` when it is not given (or not a table: noted).
    pub(super) fn table(&self, name: &'static str, section: &'static str) -> Option<Table<'a>> {
        let (at, value) = self.entry(name).or_else(|| {
            self.note_missing(name);
            None
        })?;
        match value.get_ref() {
            DeValue::Table(entries) => {
                let top = self.section.is_empty();
                let subject = if top { format!("{section} ") } else { format!("{}{name}.", self.subject) };
                Some(Self::new(self.source, section, subject, at, entries))
            }
            _ => {
                self.refuse(name, value.span(), None);
                None
            }
        }
    }

    /// A key whose value is a list of tables; empty when it is not given (or something else: noted).
    pub(super) fn tables(&self, name: &'static str, section: &'static str) -> Vec<Table<'a>> {
        let Some((at, value)) = self.entry(name) else {
            self.note_missing(name);
            return Vec::new();
        };
        let DeValue::Array(items) = value.get_ref() else {
            self.refuse(name, value.span(), Some(format!("a list of tables, written as {section}")));
            return Vec::new();
        };
        if items.is_empty() {
            self.refuse(name, value.span(), Some(format!("at least one table {section}")));
        }
        let mut tables = Vec::new();
        for item in items {
            match item.get_ref() {
                DeValue::Table(entries) => {
                    let at = if item.span().is_empty() { at } else { item.span().start };
                    tables.push(Self::new(self.source, section, format!("{section} "), at, entries));
                }
                _ => self.refuse(name, item.span(), Some("a table".into())),
            }
        }
        tables
    }

    /// Where that key and its value are, and the value; `None` when it is not given.
    pub(super) fn entry(&self, name: &'static str) -> Option<(usize, &'a Spanned<DeValue<'a>>)> {
        self.read.borrow_mut().insert(name);
        self.entries.get_key_value(name).map(|(key, value)| (key.span().start, value))
    }

    /// Says that this value is not what is wanted: the key's own form, unless a reason says it better.
    pub(super) fn refuse(&self, name: &'static str, span: Range<usize>, wanted: Option<String>) {
        let wanted = wanted.unwrap_or_else(|| self.key(name).form.wanted());
        let at = span.start;
        // Whoever knows such an address can write there.
        let shown = if self.key(name).form == Form::Urls { "…".into() } else { self.source.shown(span) };
        self.source.mistake(at, format!("{}{name} = {shown}: wanted {wanted}", self.subject));
    }

    /// Says something about the table as a whole.
    pub(super) fn mistake(&self, at: usize, what: &str) {
        self.source.mistake(at, format!("{}{what}", self.subject));
    }

    /// Refuses every key that no reader asked for.
    pub(super) fn finish(self) {
        let read = self.read.borrow();
        for (key, _) in self.entries.iter().filter(|(key, _)| !read.contains(key.get_ref().as_ref())) {
            let name = key.get_ref().as_ref();
            // The value is not shown: a key we do not know may hold anything, a password too.
            let verdict = match keys::find(self.section, name) {
                Some(Key { missing: Missing::Later, .. }) => "not supported by this version; remove it".to_owned(),
                Some(Key { only: Some(kind), .. }) => format!("only a step of kind \"{kind}\" has this key"),
                _ => match keys::nearest(self.section, name) {
                    Some(known) => format!("unknown key; did you mean `{known}`?"),
                    None => format!("unknown key; wanted one of {}", self.known(&read)),
                },
            };
            let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
            let name = if bare { name.to_owned() } else { format!("{name:?}") };
            self.source.mistake(key.span().start, format!("{}{name}: {verdict}", self.subject));
        }
    }

    fn known(&self, read: &BTreeSet<&str>) -> String {
        let names = keys::KEYS.iter().filter(|key| key.section == self.section && read.contains(key.name));
        names.map(|key| key.name).collect::<Vec<_>>().join(", ")
    }

    fn key(&self, name: &str) -> &'static Key {
        keys::find(self.section, name).expect("readers ask only for keys that KEYS lists")
    }

    /// Reads a value, or its default when it is not given. `None`: wrong (noted), or without default.
    fn value<T>(&self, name: &'static str, read: impl Fn(&DeValue<'_>) -> Read<T>) -> Option<T> {
        match self.entry(name) {
            Some((_, value)) => match read(value.get_ref()) {
                Ok(good) => Some(good),
                Err(reason) => {
                    self.refuse(name, value.span(), reason);
                    None
                }
            },
            None => match self.key(name).missing {
                Missing::Is(text) => {
                    let default = DeValue::parse(text).expect("defaults in KEYS are TOML");
                    Some(read(default.get_ref()).expect("defaults in KEYS are good values"))
                }
                _ => {
                    self.note_missing(name);
                    None
                }
            },
        }
    }

    fn note_missing(&self, name: &'static str) {
        let key = self.key(name);
        if key.missing == Missing::Refused {
            let wanted = match key.form {
                Form::Table => format!("a table [{name}]"),
                Form::Tables => format!("at least one table [[{name}]]"),
                form => form.wanted(),
            };
            self.mistake(self.at, &format!("{name} is missing: wanted {wanted}"));
        }
    }
}

fn number(value: &DeValue<'_>) -> Option<u32> {
    let number = value.as_integer()?;
    u32::from_str_radix(number.as_str(), number.radix()).ok()
}
