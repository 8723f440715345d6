//! The process of one step: takes its [`Job`] from standard input, tells [`Event`]s on standard output.
//!
//! Standard input stays open as long as the supervisor lives. When it closes (kill -9), or on SIGTERM,
//! everything this process started ends, and then it itself.

use std::io::{BufRead, Read, Write};
use std::time::Duration;

use crate::error::{Context, Result};
use crate::monitor::{Event, Monitor};
use crate::process;
use crate::repository::let_go;
use crate::steps::{Job, perform};

/// What programs get to end in peace; the supervisor waits a little longer before it kills us.
const GRACE: Duration = Duration::from_secs(4);
/// What it may take longer to remove our locks from storage. What is left there the next run removes.
const LOCKS_GRACE: Duration = Duration::from_millis(1500);

/// Runs the step that standard input asks for.
///
/// # Errors
/// Only when the job cannot be read: everything later is told as a result.
pub fn main() -> Result<()> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context(|| "read the job from the supervisor".into())?;
    let job: Job = serde_json::from_str(&line).context(|| "understand the job from the supervisor".into())?;
    process::adopt_orphans()?;
    end_with_the_supervisor()?;
    process::on_sigterm(|| end())?;
    process::survive_hangup()?;

    let monitor = Monitor::new(|event| {
        let Ok(mut line) = serde_json::to_string(&event) else { return };
        line.push('\n');
        // A supervisor that no longer reads is gone, and the other thread sees to that.
        let _ = std::io::stdout().lock().write_all(line.as_bytes());
    });
    let mut result = perform(&job, &monitor);
    result.figures.peak_memory = Some(process::peak_memory());
    monitor.send(Event::Finished(Box::new(result)));
    Ok(())
}

fn end_with_the_supervisor() -> Result<()> {
    spawn("supervisor-watch", || {
        let mut rest = [0; 64];
        while std::io::stdin().lock().read(&mut rest).is_ok_and(|length| length > 0) {}
        end();
    })
}

fn end() -> ! {
    let wait_for_locks = let_go();
    process::end_descendants(GRACE, None);
    wait_for_locks(LOCKS_GRACE);
    // 128 + SIGTERM, as a shell would say it.
    std::process::exit(143)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    std::thread::Builder::new().name(name.into()).spawn(work).map(drop).context(|| format!("start thread {name}"))
}
