//! The machine: its secrets, its units.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::Place;
use crate::alarms::memory::Memory;
use crate::config::{Location, Settings};
use crate::error::Result;
use crate::kit::Marks;
use crate::kit::record::{self, Standing, standing};
use crate::monitor::Problem;
use crate::process::Program;
use crate::secrets::Secrets;
use crate::systemd;

/// A unit whose failure the failure script told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// When it was told last; none: before the machine's last start.
    pub told: Option<Timestamp>,
    /// It did its work since; `None`: it is at work, or has not been since the machine's start, or nobody can tell.
    pub well: Option<bool>,
}

/// What is wrong with the secrets that this configuration needs.
pub(super) fn secrets(settings: &Settings) -> Option<Problem> {
    let secrets = Secrets::new(&settings.secrets);
    let look = || -> Result<()> {
        secrets.restic_key()?;
        if settings.steps.iter().any(|step| step.postgres().is_some()) {
            secrets.pgbackrest_key()?;
        }
        if matches!(settings.storage.location, Location::S3(_)) {
            secrets.aws()?;
        }
        Ok(())
    };
    look().err().map(|error| (&error).into())
}

/// While the secrets cannot be read, nobody can tell which keys a kit should hold.
pub(super) fn kit(place: Place<'_>) -> Option<Standing> {
    let marks = Marks::of(place.settings).ok()?;
    Some(standing(record::read(place.directory).ok()?.as_ref(), &marks))
}

/// The units whose failure was told since the machine's start, and those that are not known to be well since before.
pub(super) fn units(root: &Path, memory: &Memory) -> Vec<Unit> {
    let told = told(&root.join("run/pi-agent-failure"));
    let mut names: BTreeSet<&str> = told.keys().map(String::as_str).collect();
    names.extend(
        memory.incidents.iter().filter(|incident| incident.name == "unit").filter_map(|it| it.subject.as_deref()),
    );
    if names.is_empty() {
        return Vec::new();
    }
    let shown = if root.join("run/systemd/system").exists() { show(&names) } else { String::new() };
    let well = well(&shown);
    let unit = |name: &str| Unit {
        name: name.to_owned(),
        told: told.get(name).copied(),
        well: well.get(name).copied().flatten(),
    };
    names.into_iter().map(unit).collect()
}

/// What the failure script leaves behind: `UNIT.told`, with the seconds since 1970 in it.
fn told(folder: &Path) -> BTreeMap<String, Timestamp> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let Some(unit) = name.strip_suffix(".told") else { continue };
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let time = text.trim().parse().ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
        found.extend(time.map(|time| (unit.to_owned(), time)));
    }
    found
}

/// systemd about these units; nothing when it does not answer.
fn show(names: &BTreeSet<&str>) -> String {
    let properties = "--property=Id,ActiveState,Result,ExecMainExitTimestampMonotonic";
    let arguments = ["show", properties, "--"].into_iter().chain(names.iter().copied());
    let program = Program::new("systemctl", arguments).within(Duration::from_secs(15));
    program.run(&mut |_, _| ()).map(|output| output.stdout).unwrap_or_default()
}

/// Which of them are well, of what `systemctl show` says.
fn well(shown: &str) -> BTreeMap<String, Option<bool>> {
    let of = |block: &str| {
        let value = |key: &str| block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let ran = value("ExecMainExitTimestampMonotonic").is_some_and(|moment| moment != "0");
        let well = match (value("ActiveState")?, value("Result")?) {
            ("failed", _) => Some(false),
            // It is what is asking: it does its work.
            ("activating", "success") if value("Id") == Some(systemd::ALARMS) => Some(true),
            // A person may also have said `systemctl reset-failed`; after a start of the machine it has yet to show.
            ("inactive", "success") if ran => Some(true),
            _ => None,
        };
        Some((value("Id")?.to_owned(), well))
    };
    shown.split("\n\n").filter_map(of).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_the_failure_script_left_is_read() {
        let root = tempfile::tempdir().unwrap();
        let memory = Memory::default();
        assert_eq!(units(root.path(), &memory), []);
        let folder = root.path().join("run/pi-agent-failure");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("pi-agent-backup.service.told"), "1795230000\n").unwrap();
        std::fs::write(folder.join("pi-agent-wal.service.told"), "").unwrap();
        std::fs::write(folder.join("message.json"), "{}").unwrap();
        let name = "pi-agent-backup.service".to_owned();
        let told = Timestamp::from_second(1_795_230_000).ok();
        assert_eq!(units(root.path(), &memory), [Unit { name, told, well: None }]);
    }

    #[test]
    fn a_unit_is_well_once_it_has_done_its_work() {
        let shown = "Id=a.service\nActiveState=failed\nResult=exit-code\nExecMainExitTimestampMonotonic=5\n\n\
                     Result=success\nExecMainExitTimestampMonotonic=7\nId=b.service\nActiveState=inactive\n\n\
                     Id=c.service\nActiveState=inactive\nResult=success\nExecMainExitTimestampMonotonic=0\n\n\
                     Id=d.service\nActiveState=activating\nResult=success\nExecMainExitTimestampMonotonic=5\n\n\
                     Id=e.service\nActiveState=active\nResult=success\nExecMainExitTimestampMonotonic=5\n\n\
                     Id=pi-agent-alarms.service\nActiveState=activating\nResult=success\nExecMainExitTimestampMonotonic=5\n";
        let well = well(shown);
        let of = |name: &str| well[&format!("{name}.service")];
        assert_eq!([of("a"), of("b"), of("c")], [Some(false), Some(true), None]);
        assert_eq!([of("d"), of("e"), of("pi-agent-alarms")], [None, None, Some(true)], "those at work");
        assert!(super::well("").is_empty());
    }
}
