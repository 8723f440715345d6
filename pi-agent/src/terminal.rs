//! Progress for a person at a terminal; nothing for a journal, which gets the log's lines.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::monitor::{Event, Monitor, Progress, Unit};
use crate::plan::PlannedStep;
use crate::report::StepReport;
use crate::run::Watcher;
use crate::steps::Outcome;

/// Draws to standard error, if that is a terminal.
pub struct Terminal {
    bar: ProgressBar,
    interactive: bool,
    step: String,
}

impl Terminal {
    /// `interactive`: standard error is a terminal.
    pub fn new(interactive: bool) -> Self {
        let target = if interactive { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target).with_style(style("{spinner} {msg}"));
        Self { bar, interactive, step: String::new() }
    }

    /// A monitor for work in this process.
    pub fn into_monitor(mut self, what: &str) -> Monitor {
        self.begin(what);
        Monitor::new(move |event| self.event(&event))
    }

    fn begin(&mut self, what: &str) {
        self.step = what.to_owned();
        self.bar.reset();
        self.bar.set_message(self.step.clone());
        self.bar.set_style(style("{spinner} {msg}"));
        if !self.bar.is_hidden() {
            self.bar.enable_steady_tick(Duration::from_millis(200));
        }
    }

    fn show(&self, progress: &Progress) {
        let message = format!("{}: {}", self.step, progress.phase);
        match (progress.total, progress.unit) {
            (Some(total), Unit::Bytes) => {
                self.bar.set_style(style("{spinner} {msg} {bar:24} {bytes}/{total_bytes} {bytes_per_sec} {eta} left"));
                self.bar.set_length(total);
            }
            (Some(total), Unit::Items) => {
                self.bar.set_style(style("{spinner} {msg} {bar:24} {pos}/{len} {eta} left"));
                self.bar.set_length(total);
            }
            (None, unit) => self.bar.set_style(style(match unit {
                _ if progress.done == 0 => "{spinner} {msg}",
                Unit::Bytes => "{spinner} {msg} {bytes} {bytes_per_sec}",
                Unit::Items => "{spinner} {msg} {pos}",
            })),
        }
        if self.bar.message() != message {
            // Another phase: its rate has nothing to do with the last one's.
            self.bar.reset_eta();
            self.bar.set_message(message);
        }
        self.bar.set_position(progress.done);
    }
}

impl Watcher for Terminal {
    fn started(&mut self, step: &PlannedStep) {
        self.begin(&step.name);
    }

    fn event(&mut self, event: &Event) {
        if let Event::Progress(progress) = event {
            self.show(progress);
        }
    }

    fn line(&mut self, line: &str) {
        self.bar.suspend(|| tell!("{}: {line}", self.step));
    }

    fn ended(&mut self, step: &StepReport) {
        self.bar.finish_and_clear();
        if self.interactive {
            let mark = match step.result.outcome {
                Outcome::Succeeded => console::style("✓").green(),
                Outcome::Degraded | Outcome::Unfinished | Outcome::Skipped => console::style("!").yellow(),
                Outcome::Failed | Outcome::Interrupted => console::style("✗").red(),
            };
            tell!("{} {:12} {}", mark.for_stderr(), step.name, step.in_words());
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are constants")
}
