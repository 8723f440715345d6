//! A kit read again, also one that was typed from paper: each mistake is told with its line, and what the eye does not see
//! in a key, its mark does.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::{Cluster, KitFile, Marks};
use crate::config::{self, Location, Settings};
use crate::error::{Error, Result};
use crate::secrets::Secret;

/// For programs; it goes nowhere.
const FACTS: &str = "facts.toml";
/// What else a kit may hold.
const FILES: [&str; 6] = ["restic.key", "pgbackrest.key", "aws.env", "discord.env", "ca.pem", "config.toml"];
/// The format that is written and understood.
const FORMAT: i64 = 1;

/// What a kit gives.
#[derive(Debug)]
pub struct Found {
    /// The configuration in it.
    pub settings: Settings,
    /// Its files, and where they belong.
    pub files: Vec<KitFile>,
    /// Which keys and which access they are.
    pub marks: Marks,
    /// When it was made, if it says so.
    pub made_at: Option<Timestamp>,
    /// What it tells of the databases.
    pub clusters: Vec<Cluster>,
}

/// Reads a kit. `config` is where its configuration belongs when it does not say.
///
/// # Errors
/// It is no kit or not whole: which line, and what is wanted there.
pub fn read(file: &Path, config: &Path) -> Result<Found> {
    /// Bytes of a kit: a configuration of hundreds of steps.
    const MOST: u64 = 4 << 20;
    let mut bytes = Vec::new();
    std::fs::File::open(file)
        .and_then(|opened| opened.take(MOST).read_to_end(&mut bytes))
        .map_err(|error| Error::usage(format!("read the recovery kit {}", file.display())).caused_by(error))?;
    let text = String::from_utf8(bytes).map_err(|_| {
        Error::usage(format!("the recovery kit {} is not plain text", file.display()))
            .hint("a printed one is typed as text: what stands between the BEGIN and END lines is enough")
    })?;
    understand(&Secret::new(text), file, config)
}

fn understand(text: &Secret, file: &Path, config: &Path) -> Result<Found> {
    let blocks = Blocks::read(text.reveal(), file)?;
    let facts = blocks.facts()?;
    let path = |text: &str| Some(PathBuf::from(text)).filter(|path| path.is_absolute());
    let config = facts.text(&["files", "config.toml"]).and_then(path).unwrap_or_else(|| config.to_owned());
    let settings = blocks.settings(&config)?;

    let has_databases = settings.steps.iter().any(|step| step.postgres().is_some());
    let (is_s3, ca) = match &settings.storage.location {
        Location::S3(s3) => (true, s3.ca_file.clone()),
        Location::File(_) => (false, None),
    };
    let needed =
        [("restic.key", true), ("pgbackrest.key", has_databases), ("aws.env", is_s3), ("ca.pem", ca.is_some())];
    for (name, _) in needed.iter().filter(|(_, needed)| *needed) {
        blocks.required(name)?;
    }
    let place = |name: &str| match name {
        "config.toml" => Some(config.clone()),
        "ca.pem" => ca.clone(),
        _ => Some(settings.secrets.join(name)),
    };
    let files: Vec<_> = FILES
        .into_iter()
        .filter_map(|name| {
            Some(KitFile { name, path: place(name)?, content: Secret::new(blocks.files.get(name)?.content.clone()) })
        })
        .collect();
    let marks =
        Marks::from(&settings, |name| Ok(blocks.files.get(name).map(|block| Secret::new(block.content.clone()))))?;
    blocks.are_marked(&facts, &marks)?;
    Ok(Found {
        clusters: facts.clusters(),
        made_at: facts.text(&["made-at"]).and_then(|text| text.parse().ok()),
        settings,
        files,
        marks,
    })
}

/// A file in the text.
#[derive(Debug, Default)]
struct Block {
    content: String,
    /// The line of its BEGIN.
    begun: usize,
    /// The line of the kit that each of its own begins in.
    lines: Vec<usize>,
}

/// What is between the markers.
struct Blocks<'a> {
    kit: &'a Path,
    files: BTreeMap<&'static str, Block>,
}

impl<'a> Blocks<'a> {
    fn read(text: &str, kit: &'a Path) -> Result<Self> {
        let mut this = Self { kit, files: BTreeMap::new() };
        let mut open: Option<(&'static str, Block)> = None;
        for (number, line) in (1..).zip(text.lines()) {
            // What mail and editors add in front; what is behind belongs to the file.
            let line = line.trim_start().trim_end_matches('\r');
            open = match open.take() {
                None => match marker(line, "BEGIN") {
                    Some((name, _)) => Some((this.known(name, number)?, Block { begun: number, ..Block::default() })),
                    None => None,
                },
                Some((name, mut block)) => match marker(line, "END") {
                    Some((ended, rest)) if ended == name => {
                        if rest.contains("no line end") {
                            block.content.pop();
                        }
                        this.files.insert(name, block);
                        None
                    }
                    Some((ended, _)) => {
                        return Err(
                            this.wrong(number, &format!("END {ended}, but {name} was begun in line {}", block.begun))
                        );
                    }
                    None => {
                        block.add(line, number).map_err(|what| this.wrong(number, &format!("{what} (in {name})")))?;
                        Some((name, block))
                    }
                },
            };
        }
        if let Some((name, block)) = open {
            return Err(this.wrong(block.begun, &format!("{name} has no END: the text is cut off")));
        }
        if this.files.is_empty() {
            return Err(Error::usage(format!(
                "{} is no recovery kit: it has no ----- BEGIN … ----- lines",
                kit.display()
            ))
            .hint("pi-agent recovery-kit wrote it; its first line is \"pi-agent recovery kit\""));
        }
        Ok(this)
    }

    fn known(&self, name: &str, number: usize) -> Result<&'static str> {
        let known = FILES.into_iter().chain([FACTS]).find(|known| *known == name);
        let known = known.ok_or_else(|| self.wrong(number, &format!("{name} is no file of a kit")))?;
        match self.files.get(known) {
            Some(first) => {
                Err(self.wrong(number, &format!("{name} a second time: the first is in line {}", first.begun)))
            }
            None => Ok(known),
        }
    }

    fn wrong(&self, line: usize, what: &str) -> Error {
        Error::usage(format!("{}:{line}: {what}", self.kit.display())).hint(
            "compare that line with the kit; each line of a file begins with \"| \", or with \"+ \" when it goes on",
        )
    }

    fn required(&self, name: &str) -> Result<&Block> {
        self.files.get(name).ok_or_else(|| {
            Error::usage(format!("the recovery kit {} holds no {name}", self.kit.display()))
                .hint(format!("everything from ----- BEGIN {name} ----- to its END is needed"))
        })
    }

    fn facts(&self) -> Result<Facts> {
        let Some(block) = self.files.get(FACTS) else { return Ok(Facts(toml::Table::new())) };
        let facts = block.content.parse::<toml::Table>();
        let facts = facts.map_err(|_| self.wrong(block.begun, "facts.toml cannot be understood"))?;
        match facts.get("kit-format").and_then(toml::Value::as_integer) {
            Some(format) if format > FORMAT => {
                Err(Error::usage(format!("the recovery kit {} is of a newer format ({format})", self.kit.display()))
                    .hint("install the newest pi-agent"))
            }
            _ => Ok(Facts(facts)),
        }
    }

    /// A mistake in it is told with the kit's line, not with its own.
    fn settings(&self, config: &Path) -> Result<Settings> {
        let block = self.required("config.toml")?;
        config::parse(&block.content, config).map_err(|mut errors| {
            for mistake in &mut errors.mistakes {
                mistake.line = mistake.line.and_then(|line| block.lines.get(line - 1).copied());
            }
            errors.file = self.kit.to_owned();
            Error::from(errors).hint("compare these lines with the kit")
        })
    }

    /// Typed keys are those that the kit was made of, or a character is wrong.
    fn are_marked(&self, facts: &Facts, found: &Marks) -> Result<()> {
        let line = |name: &str| self.files.get(name).map_or(0, |block| block.begun);
        if facts.text(&["keys"]).is_some_and(|keys| keys != found.keys) {
            return Err(
                self.wrong(line("restic.key"), "restic.key or pgbackrest.key is not as it was: a character differs")
            );
        }
        if facts.text(&["access"]).is_some_and(|access| access != found.access) {
            let name = if line("aws.env") > 0 { "aws.env or the storage in config.toml" } else { "config.toml" };
            let at = line("aws.env").max(line("config.toml"));
            return Err(self.wrong(at, &format!("{name} is not as it was: a character differs")));
        }
        Ok(())
    }
}

impl Block {
    fn add(&mut self, line: &str, number: usize) -> Result<(), &'static str> {
        if let Some(rest) = line.strip_prefix('|') {
            self.content.push_str(rest.strip_prefix(' ').unwrap_or(rest));
            self.lines.push(number);
        } else if let Some(rest) = line.strip_prefix('+') {
            if self.content.pop().is_none() {
                return Err("a file does not begin with +");
            }
            self.content.push_str(rest.strip_prefix(' ').unwrap_or(rest));
        } else if line.is_empty() || line == "\u{c}" {
            // The end of a page.
            return Ok(());
        } else {
            return Err("wanted | or + in front");
        }
        self.content.push('\n');
        Ok(())
    }
}

/// The name in `----- BEGIN NAME -----`, and what stands behind.
fn marker<'a>(line: &'a str, word: &str) -> Option<(&'a str, &'a str)> {
    let rest = line.strip_prefix("-----")?.trim_start_matches('-').trim_start().strip_prefix(word)?;
    let (name, rest) = rest.trim_start().split_once(' ')?;
    Some((name, rest.trim_start().strip_prefix("-----")?))
}

/// `facts.toml`.
struct Facts(toml::Table);

impl Facts {
    fn text(&self, keys: &[&str]) -> Option<&str> {
        let (last, tables) = keys.split_last()?;
        let table = tables.iter().try_fold(&self.0, |table, key| table.get(*key)?.as_table())?;
        table.get(*last)?.as_str()
    }

    fn clusters(&self) -> Vec<Cluster> {
        let Some(majors) = self.0.get("postgres").and_then(toml::Value::as_table) else { return Vec::new() };
        let owner = |text: &str| {
            let (uid, gid) = text.split_once(':')?;
            Some((uid.parse().ok()?, gid.parse().ok()?))
        };
        let cluster = |(step, major): (&String, &toml::Value)| Cluster {
            step: step.clone(),
            major: major.as_str().unwrap_or_default().to_owned(),
            data: self.text(&["data", step]).map(PathBuf::from).filter(|data| data.is_absolute()),
            owner: self.text(&["owner", step]).and_then(owner),
        };
        majors.iter().map(cluster).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// As a person types it: without the pages of explanations, without facts.
    const TYPED: &str = "\
----- BEGIN restic.key -----
| 3f2a
+ 77
----- END restic.key -----

  ----- BEGIN pgbackrest.key -----
  | geheim
  ----- END pgbackrest.key -----, no line end
----- BEGIN config.toml -----
| [host]
| name = \"pi\"
|
| [storage]
| url = \"file:///mnt/usb\"
| [[step]]
| name = \"logs\"
| kind = \"directory\"
| paths = [\"/var/log\"]
----- END config.toml -----
";

    fn read_text(text: &str) -> Result<Found> {
        understand(&Secret::new(text), Path::new("/root/kit.txt"), Path::new("/etc/pi-agent/config.toml"))
    }

    #[track_caller]
    fn refused(text: &str, what: &str) -> Error {
        let error = read_text(text).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Usage);
        assert!(error.to_string().contains(what), "{what}: {error}");
        assert!(!error.chain().contains("geheim") && !error.chain().contains("3f2a"), "a key is shown: {error}");
        error
    }

    #[test]
    fn what_is_typed_from_paper_is_enough() {
        let found = read_text(TYPED).unwrap();
        let content = |name: &str| {
            let file = found.files.iter().find(|file| file.name == name).unwrap();
            (file.path.display().to_string(), file.content.reveal().to_owned())
        };
        assert_eq!(content("restic.key"), ("/etc/pi-agent/secrets/restic.key".into(), "3f2a77\n".into()));
        assert_eq!(content("pgbackrest.key").1, "geheim");
        let (path, text) = content("config.toml");
        assert_eq!(path, "/etc/pi-agent/config.toml");
        assert!(text.starts_with("[host]\nname = \"pi\"\n\n[storage]\n") && text.ends_with("]\n"));
        assert_eq!((found.settings.host.as_str(), found.made_at, found.clusters.len()), ("pi", None, 0));
        assert_eq!(read_text(&TYPED.replace('\n', "\r\n")).unwrap().marks, found.marks);
    }

    #[test]
    fn each_mistake_is_told_with_its_line() {
        refused("hello\n", "/root/kit.txt is no recovery kit");
        refused(&TYPED.replace("| 3f2a\n", "3f2a\n"), "/root/kit.txt:2: wanted | or + in front (in restic.key)");
        refused(&TYPED.replace("| 3f2a\n", ""), "/root/kit.txt:2: a file does not begin with +");
        refused(
            &TYPED.replace("END restic.key", "END aws.env"),
            "/root/kit.txt:4: END aws.env, but restic.key was begun in line 1",
        );
        refused(&TYPED.replace("----- END config.toml -----\n", ""), "/root/kit.txt:9: config.toml has no END");
        refused(
            &TYPED.replace("pgbackrest.key", "pgbackrest.kay"),
            "/root/kit.txt:6: pgbackrest.kay is no file of a kit",
        );
        refused(
            &TYPED.replace("pgbackrest.key", "restic.key"),
            "/root/kit.txt:6: restic.key a second time: the first is in line 1",
        );
        refused(&TYPED.replace("restic.key", "discord.env"), "holds no restic.key");
        // The configuration's own mistakes, with the lines of the kit.
        refused(&TYPED.replace("kind = \"directory\"", "kind = \"directori\""), "/root/kit.txt:17:");
        refused(&TYPED.replace("file:///mnt/usb", "s3://bucket/pi"), "/root/kit.txt:1");
    }

    #[test]
    fn a_wrong_character_in_a_key_is_noticed() {
        let marks = read_text(TYPED).unwrap().marks;
        let facts = format!(
            "----- BEGIN facts.toml -----\n| keys = \"{}\"\n| access = \"{}\"\n| kit-format = 1\n----- END facts.toml -----\n",
            marks.keys, marks.access
        );
        let kit = facts.clone() + TYPED;
        read_text(&kit).unwrap();
        refused(&kit.replace("3f2a", "3f2b"), "/root/kit.txt:6: restic.key or pgbackrest.key is not as it was");
        refused(&kit.replace("/mnt/usb", "/mnt/usc"), "config.toml is not as it was");
        refused(&kit.replace("kit-format = 1", "kit-format = 2"), "newer format");
    }

    #[test]
    fn no_kit_panics() {
        crate::fuzzed::fuzz_text(&[TYPED], |text| drop(read_text(text)));
    }
}
