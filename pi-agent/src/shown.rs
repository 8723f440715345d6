//! Names and lines from elsewhere, harmless wherever they are read: on a terminal, in a journal, on a page or in a notice.
//!
//! A file may be called `a⏎! all is well` or hold sequences that clear a screen, and whoever may write below a path that is backed
//! up chooses the names in its reports.

use std::fmt::{self, Display, Formatter, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A path in a message: as it is, or in quotes and with escapes where it holds what is no visible text.
pub fn shown(path: &(impl AsRef<Path> + ?Sized)) -> impl Display {
    Shown(path.as_ref())
}

struct Shown<'a>(&'a Path);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let plain = self.0.to_str().filter(|text| !text.chars().any(misleads));
        if let Some(text) = plain {
            return f.write_str(text);
        }
        f.write_char('"')?;
        for chunk in self.0.as_os_str().as_bytes().utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '"' | '\\' => write!(f, "\\{c}")?,
                    c if misleads(c) => write!(f, "{}", c.escape_default())?,
                    c => f.write_char(c)?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        f.write_char('"')
    }
}

/// A path as a person types it into a shell: as it is, in quotes, or, where it holds what is no visible text, in the quotes of bash that
/// know escapes.
pub fn typed(path: &Path) -> String {
    let Some(text) = path.to_str().filter(|text| !text.chars().any(misleads)) else { return escaped(path) };
    let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
    if is_plain { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

fn escaped(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes().iter().map(|byte| match byte {
        b'\'' | b'\\' => format!("\\{}", char::from(*byte)),
        b' '..=b'~' => char::from(*byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    });
    format!("$'{}'", bytes.collect::<String>())
}

/// A text of one line or several without anything that moves a cursor or turns the direction of writing.
pub fn harmless(text: &str) -> String {
    let mut harmless = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => harmless.push(c),
            c if misleads(c) => harmless.extend(c.escape_default()),
            c => harmless.push(c),
        }
    }
    harmless
}

/// The same JSON, in which such characters are escaped.
pub fn harmless_json(json: &str) -> String {
    let mut harmless = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            // None is outside of the first plane, and none but an end of a line stands outside of a text.
            c if misleads(c) && c != '\n' => harmless.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => harmless.push(c),
        }
    }
    harmless
}

/// Control characters, ends of lines, and what turns the direction of writing.
fn misleads(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn an_ordinary_name_stays_as_it_is() {
        for name in ["/srv/Bücher & \"Filme\"/a b.txt", "/", "C:\\x"] {
            assert_eq!(shown(name).to_string(), name);
        }
    }

    #[test]
    fn what_is_no_visible_text_is_escaped() {
        assert_eq!(shown("/a\n! all is well\u{1b}[2J").to_string(), r#""/a\n! all is well\u{1b}[2J""#);
        assert_eq!(shown("a\"\\\t").to_string(), r#""a\"\\\t""#);
        assert_eq!(shown("txt.\u{202e}exe").to_string(), r#""txt.\u{202e}exe""#);
        assert_eq!(shown(OsStr::from_bytes(b"a\xff\xc3b")).to_string(), r#""a\xff\xc3b""#);
    }

    #[test]
    fn a_text_keeps_its_lines_and_nothing_worse() {
        assert_eq!(harmless("a\n\tb\r\u{1b}[2J\u{9b}"), "a\n\tb\\r\\u{1b}[2J\\u{9b}");
    }

    #[test]
    fn json_means_the_same() {
        let value = serde_json::json!({"host": "x\u{1b}[2J\u{9b}1m\u{202e}\u{7f}\n", "plain": "Bücher 😀"});
        let harmless = harmless_json(&format!("{value:#}"));
        assert!(!harmless.chars().any(|c| misleads(c) && c != '\n'), "{harmless}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&harmless).expect("JSON"), value);
    }

    #[test]
    fn a_shell_reads_what_was_typed_as_the_path_it_was() {
        for name in
            [&b"/srv/a b's"[..], b"/a\x1b[2J\n1'\\x", b"caf\xe9f", "/Bücher\u{202e}".as_bytes(), b"/plain-1.txt"]
        {
            let typed = typed(Path::new(OsStr::from_bytes(name)));
            assert!(!typed.chars().any(misleads), "{typed}");
            let mut bash = std::process::Command::new("bash");
            let output = bash.arg("-c").arg(format!("printf %s {typed}")).output().expect("bash is there");
            assert_eq!(output.stdout, name, "{typed}");
        }
    }
}
