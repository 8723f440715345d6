//! Who is told when something is wrong, and whether they can be reached.

use super::Finding;
use crate::config::{Settings, StateDirectory};
use crate::notify;

const SUBJECT: &str = "notices";

pub(super) fn examine(settings: &Settings, directory: &StateDirectory) -> Vec<Finding> {
    let services = match notify::Service::all(settings) {
        Ok(services) => services,
        Err(error) => return vec![Finding::error(SUBJECT, &error, "look at the file")],
    };
    if services.is_empty() {
        let advice = format!("put DISCORD_WEBHOOK_URL=… into {}", settings.secrets.join("discord.env").display());
        return vec![Finding::note(SUBJECT, "nobody is told when a backup fails", advice)];
    }
    let mut findings: Vec<Finding> = services
        .iter()
        .map(|service| match service.reach() {
            Ok(()) => Finding::ok(SUBJECT, format!("{} is told; `pi-agent notify test` shows how", service.name())),
            Err(error) => Finding::error(SUBJECT, &error, "pi-agent notify test"),
        })
        .collect();
    let waiting = notify::waiting(settings, directory);
    if waiting > 0 {
        let message = format!("{waiting} messages wait to be sent");
        findings.push(Finding::warning(SUBJECT, message, "`pi-agent alarms` tries again and says why not"));
    }
    findings
}
