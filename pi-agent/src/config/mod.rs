//! The configuration: file -> `raw` (spanned tables, every mistake noted) -> `validate` -> [`Settings`].

mod keys;
mod limits;
mod raw;
mod settings;
mod validate;
mod values;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::geteuid;
use toml::de::DeTable;

pub use keys::{Form, KEYS, Key, Missing};
pub use limits::{Limits, PartOfDay, Rates};
pub use settings::*;
pub use values::size;

/// Everything that is wrong with a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file.
    pub file: PathBuf,
    /// At least one, in the order of the file.
    pub mistakes: Vec<Mistake>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// From 1; `None` when the file could not be read at all.
    pub line: Option<usize>,
    /// From 1; only for what is not TOML at all.
    pub column: Option<usize>,
    /// Key, value found, value wanted.
    pub text: String,
}

/// An address that notices may be sent to: https, or http on loopback.
pub fn is_url(text: &str) -> bool {
    values::url(text).is_some()
}

/// A duration as the configuration writes it: `90s`, `30m`, `26h`, `7d`.
///
/// # Errors
/// It is none: what is wanted.
pub fn duration(text: &str) -> Result<Duration, String> {
    values::duration(text).ok_or_else(|| "wanted a duration like 90s, 30m, 26h or 7d".into())
}

/// Bytes of a configuration: of thousands of steps.
const MOST: u64 = 4 << 20;

/// Reads and validates the configuration file.
///
/// # Errors
/// The file cannot be read, or anything in it is wrong: all of it at once.
pub fn load(file: &Path) -> Result<Settings, ConfigErrors> {
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let whole =
        |text: String| ConfigErrors { file: file.clone(), mistakes: vec![Mistake { line: None, column: None, text }] };
    if file.to_str().is_none() {
        return Err(whole("the name of the file is not UTF-8: wanted a plain name".into()));
    }
    let read = || {
        let mut opened = File::open(&file)?;
        let mut bytes = Vec::new();
        let found = opened.metadata()?;
        opened.by_ref().take(MOST).read_to_end(&mut bytes)?;
        io::Result::Ok((bytes, found))
    };
    let (bytes, found) = read().map_err(|error| {
        whole(match error.kind() {
            io::ErrorKind::NotFound => "does not exist: sudo pi-agent setup writes it".into(),
            io::ErrorKind::PermissionDenied => "cannot be read: use sudo".into(),
            _ => format!("cannot be read: {error}"),
        })
    })?;
    // It names commands that are run, and places that are written to.
    if geteuid().is_root() && (found.uid() != 0 || found.mode() & 0o022 != 0) {
        let shown = file.display();
        let text = format!("others than root may write to it: chown root: {shown} && chmod go-w {shown}");
        return Err(whole(text));
    }
    match String::from_utf8(bytes) {
        Ok(text) => parse(&text, &file),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count() + 1;
            let mistake = Mistake { line: Some(line), column: None, text: "not UTF-8: wanted plain text".into() };
            Err(ConfigErrors { file, mistakes: vec![mistake] })
        }
    }
}

/// Validates the text of a configuration file; `file` (absolute) is what messages name.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(text: &str, file: &Path) -> Result<Settings, ConfigErrors> {
    let source = raw::Source::new(text);
    let refused = |mistakes| Err(ConfigErrors { file: file.to_owned(), mistakes });
    let document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => return refused(vec![syntax(&source, text, &error)]),
    };
    let settings = validate::settings(&source, document.get_ref(), file);
    let mistakes = source.mistakes();
    match settings {
        Some(settings) if mistakes.is_empty() => Ok(settings),
        _ => refused(mistakes),
    }
}

/// Later mistakes often only follow from the first, so one is told; with the line, because the column alone is hard to see.
fn syntax(source: &raw::Source<'_>, text: &str, error: &toml::de::Error) -> Mistake {
    let at = error.span().map_or(0, |span| span.start);
    let (line, column) = source.position(at);
    let start = text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1);
    let end = text.get(at..).and_then(|after| after.find('\n')).map_or(text.len(), |newline| at + newline);
    let what = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
    Mistake { line: Some(line), column: Some(column), text: format!("{what}: {}", source.shown(start..end)) }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "\n" })?;
            write!(f, "{}:", self.file.display())?;
            for number in [mistake.line, mistake.column].into_iter().flatten() {
                write!(f, "{number}:")?;
            }
            write!(f, " {}", mistake.text)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl From<ConfigErrors> for crate::Error {
    fn from(errors: ConfigErrors) -> Self {
        Self::usage(errors.to_string()).hint("correct the file; `pi-agent doctor` checks it and runs nothing")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example, with each line that is only shown there.
    #[test]
    fn no_configuration_panics() {
        const EXAMPLE: &str = include_str!("../../../packaging/config.toml");
        let all: String = EXAMPLE.lines().map(|line| format!("{}\n", line.trim_start_matches("# "))).collect();
        crate::fuzzed::fuzz_text(&[EXAMPLE, &all], |text| {
            if let Err(errors) = parse(text, Path::new("/etc/pi-agent/config.toml")) {
                drop(errors.to_string());
            }
        });
    }
}
