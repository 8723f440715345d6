//! The sources of a directory step: there, readable, and what they were.

use std::path::Path;

use super::Finding;
use crate::config::Directory;
use crate::state::State;

pub(super) fn examine(step: &str, directory: &Directory, state: Option<&State>) -> Vec<Finding> {
    let _ = state;
    let subject = format!("step {step}");
    let mut findings: Vec<_> = directory.paths.iter().filter_map(|path| look(&subject, path)).collect();
    if findings.is_empty() {
        let paths: Vec<_> = directory.paths.iter().map(|path| path.display().to_string()).collect();
        findings.push(Finding::ok(&subject, format!("{} can be read", paths.join(", "))));
    }
    findings
}

/// What is wrong with a source, if anything.
fn look(subject: &str, path: &Path) -> Option<Finding> {
    let shown = path.display();
    let problem = |message: String, advice: String| Some(Finding::problem(subject, message, advice));
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => problem(
            format!("{shown} does not exist"),
            format!("mount or make it, or take it out of paths: ls -ld {shown}"),
        ),
        Err(error) => problem(format!("{shown} cannot be looked at: {error}"), format!("ls -ld {shown}")),
        Ok(_) if !path.exists() => problem(
            format!("{shown} is a link to what does not exist"),
            format!("ls -l {shown}; name its target in paths"),
        ),
        Ok(found) => {
            let opened = if found.is_dir() { path.read_dir().map(drop) } else { std::fs::File::open(path).map(drop) };
            let error = opened.err()?;
            problem(format!("{shown} cannot be read: {error}"), format!("look as root: ls -ld {shown}"))
        }
    }
}
