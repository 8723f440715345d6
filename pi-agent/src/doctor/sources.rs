//! The sources of a directory step: there, readable, and what they were when they were backed up last.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Finding, live};
use crate::config::Directory;
use crate::repository::Sources;
use crate::state::State;

pub(super) fn examine(step: &str, directory: &Directory, state: Option<&State>) -> Vec<Finding> {
    let subject = format!("step {step}");
    let facts = state.and_then(|state| state.facts(step).ok()).unwrap_or_default();
    let mut findings: Vec<_> = directory.paths.iter().filter_map(|path| wrong(&subject, step, path, &facts)).collect();
    if findings.is_empty() {
        let paths: Vec<_> = directory.paths.iter().map(|path| path.display().to_string()).collect();
        findings.push(Finding::ok(&subject, format!("{} can be read", paths.join(", "))));
        findings.extend(directory.live.iter().flat_map(|live| live::examine(&subject, live)));
    }
    findings
}

/// What is wrong with a source, if anything.
fn wrong(subject: &str, step: &str, path: &Path, facts: &BTreeMap<String, String>) -> Option<Finding> {
    let shown = path.display();
    let now = match Sources::look(path) {
        Ok(now) => now,
        Err(error) => {
            let advice = format!("make, mount or repair it, or take it out of paths: ls -ld {shown}");
            return Some(Finding::error(subject, &error, &advice));
        }
    };
    let before = facts.get(&format!("source:{shown}"))?;
    let change = now.change_since(before)?;
    let advice = format!("look whether it is mounted: findmnt -T {shown}; if it is right so: pi-agent adopt {step}");
    Some(Finding::problem(subject, format!("{shown} {change}"), advice))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_source_is_there_and_what_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let device = Sources::look(path).unwrap().file_system;
        let told = |path: &Path, fact: Option<String>| {
            let facts = fact.map(|fact| (format!("source:{}", path.display()), fact)).into_iter().collect();
            wrong("step d", "d", path, &facts).map(|finding| (finding.message, finding.advice.unwrap()))
        };
        assert_eq!(told(path, None), None);
        assert_eq!(told(path, Some(format!("{device}:empty"))), None);
        let (message, advice) = told(path, Some(format!("{device}:filled"))).unwrap();
        assert!(message.contains("is empty") && advice.contains("pi-agent adopt d"), "{message} {advice}");

        std::fs::write(path.join("file"), "x").unwrap();
        assert_eq!(told(path, Some(format!("{device}:filled"))), None);
        assert!(told(path, Some("elsewhere:filled".into())).unwrap().0.contains("another disk"));
        assert_eq!(told(&path.join("file"), None), None);

        assert!(told(&path.join("missing"), None).unwrap().0.contains("missing"));
        symlink(path.join("missing"), path.join("link")).unwrap();
        assert!(told(&path.join("link"), None).unwrap().0.contains("symbolic link"));
    }
}
