//! The storage keys that pgBackRest is given, which a superuser of the database can read.

use super::Finding;
use crate::config::{AGENT, Location, Settings, Step};
use crate::error::Kind;
use crate::process::Program;
use crate::secrets::Secrets;
use crate::storage::Store;
use crate::{shown, systemd};

/// `reachable`: storage answers to the keys of this machine.
pub(super) fn examine(settings: &Settings, step: &Step, reachable: bool) -> Vec<Finding> {
    if matches!(settings.storage.location, Location::File(_)) {
        return Vec::new();
    }
    let subject = format!("step {}", step.name);
    let secrets = Secrets::new(&settings.secrets).for_the_user_of(&step.name);
    let (file, is_own) = secrets.own_aws(&step.name);
    let shown_file = shown(&file);
    if !is_own {
        return vec![Finding::note(
            subject,
            "pgBackRest is given the storage keys of all steps, and a superuser of the database can read them",
            format!(
                "make keys of its own, with the policy that `pi-agent setup` prints; write them to {shown_file}, 0600; pi-agent setup"
            ),
        )];
    }
    if let Err(error) = secrets.aws() {
        return vec![Finding::error(subject, &error, "make the file readable for root alone")];
    }
    let mut findings = Vec::new();
    if systemd::is_manager() && !is_handed_over(&file.to_string_lossy()) {
        let message = format!("systemd's push of WAL is not given {shown_file} yet");
        findings.push(Finding::warning(&subject, message, "pi-agent setup"));
    }
    // What the agent saves of itself is the least there is to list.
    let elsewhere = || Store::open(&settings.storage, &settings.storage.location, &secrets)?.join(AGENT).list("");
    if reachable {
        match elsewhere() {
            Err(error) if error.kind() == Kind::Refused => {}
            Ok(_) => findings.push(Finding::warning(
                &subject,
                format!("the storage keys in {shown_file} reach what other steps store"),
                "give them the policy that `pi-agent setup` prints",
            )),
            Err(error) => findings.push(Finding::error(&subject, &error, "look again")),
        }
    }
    findings
}

/// Whether the unit that pushes WAL, with what setup adds to it, loads the file.
fn is_handed_over(file: &str) -> bool {
    let unit = Program::new("systemctl", ["cat", "pi-agent-wal.service"]).run(&mut |_, _| ());
    unit.is_ok_and(|unit| unit.stdout.lines().any(|line| line.starts_with("LoadCredential=") && line.ends_with(file)))
}
