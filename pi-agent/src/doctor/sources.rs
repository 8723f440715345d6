//! The sources of a directory step: there, readable, and what they were when they were backed up last.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Finding, live};
use crate::config::{Directory, Settings};
use crate::health::answered;
use crate::monitor::Problem;
use crate::repository::Sources;
use crate::state::State;
use crate::steps::inside::{self, odd_excludes};
use crate::steps::{PLACE_OF, SOURCE};

pub(super) fn examine(settings: &Settings, step: &str, directory: &Directory, state: Option<&State>) -> Vec<Finding> {
    let subject = format!("step {step}");
    let facts = state.and_then(|state| state.facts(step).ok()).unwrap_or_default();
    let mut findings: Vec<_> = directory.paths.iter().filter_map(|path| wrong(&subject, step, path, &facts)).collect();
    if findings.is_empty() {
        let paths: Vec<_> = directory.paths.iter().map(|path| path.display().to_string()).collect();
        findings.push(Finding::ok(&subject, format!("{} can be read", paths.join(", "))));
        findings.extend(inside_of(settings, &subject, step, directory, &facts));
        findings.extend(directory.live.iter().flat_map(|live| live::examine(&subject, live)));
    }
    findings
}

/// What lies inside of the paths on mounts of its own, and what patterns do.
fn inside_of(
    settings: &Settings,
    subject: &str,
    step: &str,
    directory: &Directory,
    facts: &BTreeMap<String, String>,
) -> Vec<Finding> {
    let inside = match inside::look(&Sources::of(settings, directory), facts) {
        Ok(inside) => inside,
        Err(error) => return vec![Finding::error(subject, &error, "look at the paths")],
    };
    let advice = format!("look whether it is mounted: findmnt; if it is right so: pi-agent adopt {step}");
    let changed = inside.changes.iter().map(|change| Finding::problem(subject, change, &advice));
    let note = |problem: Problem| Finding::note(subject, problem.message, problem.hint.unwrap_or_default());
    changed
        .chain(inside.left_out().into_iter().map(note))
        .chain(odd_excludes(&inside, directory, facts).into_iter().map(note))
        .collect()
}

/// What is wrong with a source, if anything.
fn wrong(subject: &str, step: &str, path: &Path, facts: &BTreeMap<String, String>) -> Option<Finding> {
    let shown = path.display();
    let asked = path.to_owned();
    let now = match answered(move || Sources::look(&asked)) {
        Some(Ok(now)) => now,
        None => {
            let advice = format!("look what is mounted there: findmnt -T {shown}; then mount it again");
            return Some(Finding::problem(subject, format!("{shown} does not answer"), advice));
        }
        Some(Err(error)) => {
            let advice = format!("make, mount or repair it, or take it out of paths: ls -ld {shown}");
            return Some(Finding::error(subject, &error, &advice));
        }
    };
    let known = |begins: &str| facts.get(&format!("{begins}{shown}"));
    let changed = || now.change_since(known(SOURCE)?).map(str::to_owned);
    let change = changed().or_else(|| now.moved_since(known(PLACE_OF)?))?;
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
