//! The units of a recovered machine: it is to back up by itself again.

use std::path::Path;

use super::Report;
use crate::config::Settings;
use crate::error::Result;
use crate::setup::units;
use crate::systemd;

/// Enables and starts the timers when that was asked for and all is back; else says what does it.
pub fn start(settings: &Settings, wanted: bool, report: &mut Report) {
    let later = "enable the timers: pi-agent setup";
    if !systemd::is_manager() {
        let lines = ["start `pi-agent run` and `pi-agent wal push` in another way: systemd does not run here"];
        report.left.extend(lines.map(String::from));
    } else if !wanted {
        report.left.push(later.into());
    } else if report.any_failed() {
        // A night over half of a machine would be a night of failures.
        report.left.push(format!("{later} (not done: something is not back yet)"));
    } else if let Err(error) = enable(settings) {
        report.problems.push((&error).into());
        report.left.push(later.into());
    } else {
        report.timers = true;
    }
}

fn enable(settings: &Settings) -> Result<()> {
    let watched = units::write_drop_ins(Path::new("/"), settings)?;
    units::commands(settings, watched).iter().try_for_each(|command| units::systemctl(command))
}
