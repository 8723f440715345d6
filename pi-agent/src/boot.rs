//! At the machine's start: was the last backup cut off? Then it is started again, now.
//!
//! A timer counts as fired once it has started its service, so a plug pulled at 03:05 is not a missed run for systemd.

use std::time::Duration;

use log::{info, warn};

use crate::config::StateDirectory;
use crate::error::{Kind, Result};
use crate::lock::RunLock;
use crate::state::{Opened, State};
use crate::{events, live, systemd};

/// A backup that was cut off so often in a row may be what brings the machine down: a weak power supply, heat.
pub(crate) const ENOUGH: u32 = 3;

/// Docker itself may still be starting.
const PATIENCE: Duration = Duration::from_secs(60);

/// Lets go on what was paused, settles the history, and starts the backup when the last one did not end by itself.
///
/// # Errors
/// Something paused does not go on, the history cannot be read or written, or systemd does not start the backup.
pub fn boot(directory: &StateDirectory) -> Result<()> {
    // First: somebody waits for it.
    let resumed = live::resume_left(directory, PATIENCE);
    settle(directory).and(resumed)
}

fn settle(directory: &StateDirectory) -> Result<()> {
    if !directory.database().exists() {
        return Ok(());
    }
    let lock = match RunLock::take(&directory.run_lock(), "boot") {
        Err(error) if error.kind() == Kind::Locked => {
            info!("a run is at work already");
            return Ok(());
        }
        lock => lock?,
    };
    let (Opened::Ready(mut state) | Opened::Fresh(mut state, _)) = State::open(&directory.database())?;
    for step in state.reconcile()? {
        warn!(MESSAGE_ID = events::RUN_CUT_OFF, STEP = step.as_str(); "the last run was cut off in step {step}");
    }
    let interrupted = state.interrupted_in_a_row(ENOUGH)?;
    // The backup needs the lock.
    drop(lock);
    match interrupted {
        0 => Ok(()),
        ENOUGH.. => {
            warn!(
                MESSAGE_ID = events::RUN_CUT_OFF;
                "the last {ENOUGH} backups were all cut off; not started again before its time: look at the power supply \
                 and the temperature (`vcgencmd get_throttled`), then: systemctl start {}", systemd::BACKUP
            );
            Ok(())
        }
        _ => {
            info!("the last backup was cut off; starting it again");
            systemd::start(systemd::BACKUP)
        }
    }
}
