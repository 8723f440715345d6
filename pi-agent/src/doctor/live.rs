//! The live part of a directory step: there, and written to by the container that is kept quiet meanwhile.

use super::Finding;
use crate::config::{Live, Writer};
use crate::docker::{Container, Docker, State};
use crate::repository::Sources;

pub(super) fn examine(subject: &str, live: &Live) -> Vec<Finding> {
    let mut findings: Vec<_> = live.paths.iter().filter_map(|path| missing(subject, path)).collect();
    if let Writer::Pause(name) | Writer::Stop(name) = &live.writer {
        findings.extend(match Docker::open().and_then(|docker| docker.container(name)) {
            Ok(container) => look(subject, live, &container),
            Err(error) => vec![Finding::error(subject, &error, "docker ps --all shows what there is")],
        });
    }
    findings
}

fn missing(subject: &str, path: &std::path::Path) -> Option<Finding> {
    let error = Sources::look(path).err()?;
    Some(Finding::error(subject, &error, "correct the paths of `live`"))
}

fn look(subject: &str, live: &Live, container: &Container) -> Vec<Finding> {
    let name = &container.name;
    let still = |what, by_hand| {
        let message = format!("the container {name} is {what}, and stays so");
        Finding::note(subject, message, format!("unless that is meant: docker {by_hand} {name}"))
    };
    let mut findings = match container.state {
        State::Running => vec![],
        State::Paused => vec![still("paused", "unpause")],
        State::Stopped => vec![still("stopped", "start")],
    };
    for path in &live.paths {
        let part = || container.mounts.iter().any(|mount| mount.writable && mount.source.starts_with(path));
        if container.sees(path).is_none() && !part() {
            findings.push(Finding::warning(
                subject,
                format!(
                    "the container {name} does not see {}, so that it is not the one that writes there",
                    path.display()
                ),
                "name the one that does: docker inspect shows the Mounts of each",
            ));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(subject, format!("the container {name} writes to the live part")));
    }
    findings
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::docker::Mount;
    use crate::doctor::Severity;

    #[test]
    fn a_container_is_the_writer_when_it_sees_the_live_part() {
        let root = tempfile::tempdir().unwrap();
        let worlds = root.path().join("Data/worlds");
        std::fs::create_dir_all(&worlds).unwrap();
        let live =
            Live { paths: vec![worlds.clone()], writer: Writer::Pause("foundry".into()), at_most: Default::default() };
        let told = |source: &std::path::Path, writable, state| {
            let mount = Mount { source: source.into(), destination: "/data".into(), writable };
            let container = Container {
                id: "9c28".into(),
                name: "foundry".into(),
                state,
                pid: None,
                image: String::new(),
                mounts: vec![mount],
                environment: vec![],
                log_driver: "json-file".into(),
                log_options: vec![],
                log_path: None,
            };
            look("step foundry", &live, &container).into_iter().map(|finding| finding.severity).collect::<Vec<_>>()
        };
        let (above, below) = (root.path(), worlds.join("saltmarsh"));
        for source in [above, &worlds, &below] {
            assert_eq!(told(source, true, State::Running), [Severity::Ok], "{}", source.display());
        }
        assert_eq!(told(&root.path().join("other"), true, State::Running), [Severity::Warning]);
        assert_eq!(told(above, false, State::Running), [Severity::Warning]);
        assert_eq!(told(above, true, State::Paused), [Severity::Note]);
        assert!(missing("step foundry", &below).is_some_and(|finding| finding.severity == Severity::Problem));
        assert_eq!(missing("step foundry", &worlds), None);
    }
}
