//! What keeps a log from growing for ever: logrotate, its own program, journald.

use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use serde::Serialize;

use super::families::Family;

/// What rotates a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Rotation {
    /// A rule of logrotate names it.
    Logrotate,
    /// Its program does: older ones lie beside it.
    Itself,
    /// journald keeps its own limits.
    Journald,
    /// Nothing.
    None,
}

/// The files that logrotate's configuration names.
pub(super) struct LogRotate {
    globs: Gitignore,
}

impl LogRotate {
    /// Reads what Debian's logrotate would, below `root`. What cannot be read is put into `problems`.
    pub(super) fn read(root: &Path, problems: &mut Vec<String>) -> Self {
        let folder = root.join("etc/logrotate.d");
        let mut files = vec![root.join("etc/logrotate.conf")];
        files.extend(std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()));
        let mut globs = GitignoreBuilder::new("/");
        for file in files {
            match std::fs::read_to_string(&file) {
                Ok(text) => patterns(&text).for_each(|pattern| {
                    // One that this matcher does not understand names no log we could recognise.
                    let _ = globs.add_line(None, pattern);
                }),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => problems.push(format!("{}: {error}", file.display())),
            }
        }
        Self { globs: globs.build().unwrap_or_else(|_| Gitignore::empty()) }
    }

    pub(super) fn of(&self, family: &Family) -> Rotation {
        if family.path.file_name().is_some_and(|name| name == "journal") {
            Rotation::Journald
        } else if self.globs.matched(&family.path, false).is_ignore() {
            Rotation::Logrotate
        } else if family.older > 0 {
            Rotation::Itself
        } else {
            Rotation::None
        }
    }
}

/// The absolute paths and globs before each `{`. Nothing else in such a file begins with a slash or a quote, but
/// arguments of directives and scripts, which stand between the braces.
fn patterns(text: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    text.lines()
        .map(str::trim)
        .filter(move |line| {
            let before = inside;
            inside = (inside || line.ends_with('{')) && !line.starts_with('}');
            !before && !line.starts_with('#')
        })
        .flat_map(|line| line.trim_end_matches('{').split_whitespace())
        .map(|word| word.trim_matches('"'))
        .filter(|word| word.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_every_rule_are_found() {
        let text = "# see man\nweekly\n/var/log/nginx/*.log \"/srv/with.log\" {\n  daily\n  postrotate\n    /usr/bin/x /not/this\n  \
                    endscript\n}\n/var/log/mail.log\n/var/log/auth.log\n{\n rotate 4\n}\n";
        let found: Vec<_> = patterns(text).collect();
        assert_eq!(found, ["/var/log/nginx/*.log", "/srv/with.log", "/var/log/mail.log", "/var/log/auth.log"]);
    }

    #[test]
    fn a_rule_and_numbered_files_rotate() {
        let root = tempfile::tempdir().expect("a folder");
        let rules = root.path().join("etc/logrotate.d");
        std::fs::create_dir_all(&rules).expect("made");
        std::fs::write(rules.join("nginx"), "/var/log/nginx/*.log {\n}\n").expect("written");
        let mut problems = Vec::new();
        let rules = LogRotate::read(root.path(), &mut problems);
        let of = |path: &str, older| rules.of(&Family { path: path.into(), bytes: 1, all_bytes: 1, older, born: None });
        assert_eq!(of("/var/log/nginx/access.log", 0), Rotation::Logrotate);
        assert_eq!(of("/var/log/nginx/deep/access.log", 0), Rotation::None);
        assert_eq!(of("/srv/a.log", 2), Rotation::Itself);
        assert_eq!(of("/var/log/journal", 3), Rotation::Journald);
        assert_eq!(problems, [""; 0]);
    }
}
