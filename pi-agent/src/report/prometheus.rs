//! The status for node_exporter's textfile collector: gauges in base units, named by Prometheus' conventions.

use jiff::Timestamp;

use crate::report::html::put;
use crate::report::{Status, StepStatus};
use crate::steps::Outcome;

/// The text of a `.prom` file.
#[allow(clippy::cast_precision_loss)] // Prometheus has no other numbers
pub fn metrics(status: &Status) -> String {
    let mut text = String::new();
    let seconds = |time: Timestamp| time.as_millisecond() as f64 / 1000.0;
    let mut one = |name: &str, help: &str, value: Option<f64>| {
        family(&mut text, name, help, value.map(|value| (String::new(), value)));
    };
    one("status_timestamp_seconds", "When this was written.", Some(seconds(status.generated_at)));
    one("healthy", "1 when no alarm is raised.", Some(f64::from(u8::from(status.alarms.is_empty()))));
    one("next_run_timestamp_seconds", "When the timer starts the next run.", status.next_run.time().map(seconds));
    one("notices_waiting", "Notices that were not delivered yet.", status.waiting_notices.map(|count| count as f64));

    type Get<'a> = &'a dyn Fn(&StepStatus) -> Option<f64>;
    let count = |value: Option<u64>| value.map(|value| value as f64);
    let families: [(&str, &str, Get<'_>); 17] = [
        ("last_success_timestamp_seconds", "End of the last usable backup.", &|step| step.last_success.map(seconds)),
        ("last_usable", "1 when the last backup made a restore point.", &|step| {
            Some(f64::from(u8::from(step.last_outcome.is_some_and(Outcome::is_usable))))
        }),
        ("duration_seconds", "How long the last usable backup took.", &|step| {
            step.duration.map(|took| took.as_secs_f64())
        }),
        ("processed_bytes", "Size of the source in the last usable backup.", &|step| {
            count(step.figures.bytes_processed)
        }),
        ("added_bytes", "Bytes that the last usable backup added, before compression.", &|step| {
            count(step.figures.bytes_added)
        }),
        ("stored_bytes", "Size of the repository.", &|step| count(step.figures.bytes_stored)),
        ("written_here_bytes", "Bytes that the last usable backup wrote to this machine's disks.", &|step| {
            count(step.figures.bytes_written_here)
        }),
        ("skipped_files", "Files that the last usable backup could not read.", &|step| {
            count(step.figures.files_skipped)
        }),
        ("restore_points", "Restore points of this host.", &|step| count(step.figures.restore_points)),
        ("deduplication_ratio", "Bytes of all restore points over bytes stored.", &StepStatus::deduplication_ratio),
        ("success_ratio", "Usable backups among those of the last 30 days.", &|step| step.success_rate_30d),
        ("wal_safe_timestamp_seconds", "Until when every change is in the repository.", &|step| {
            step.wal.as_ref()?.safe_until(status.generated_at).map(seconds)
        }),
        ("wal_waiting_files", "Files of WAL that are not in the repository yet.", &|step| {
            Some(step.wal.as_ref()?.files as f64)
        }),
        ("restore_test_timestamp_seconds", "End of the last restore test.", &|step| {
            step.tests.first().map(|test| seconds(test.finished_at))
        }),
        ("restore_test_good", "1 when the last restore test did not fail.", &|step| {
            step.tests.first().map(|test| f64::from(u8::from(test.outcome.is_usable())))
        }),
        ("restore_seconds", "How long a restore of all of it takes, by the last restore test.", &|step| {
            count(step.tests.first().and_then(|test| Some(test.tested.as_ref()?.projected))).map(|took| took / 1000.0)
        }),
        ("running", "1 while the step is at work.", &|step| Some(f64::from(u8::from(step.running)))),
    ];
    for (name, help, get) in families {
        let label = |step: &StepStatus| Some((format!("{{step=\"{}\"}}", Label(&step.name)), get(step)?));
        family(&mut text, &format!("backup_{name}"), help, status.steps.iter().filter_map(label));
    }
    let alarm = status.alarms.iter().map(|alarm| {
        let step = alarm.step.as_deref().unwrap_or_default();
        (format!("{{alarm=\"{}\",step=\"{}\"}}", Label(alarm.name), Label(step)), 1.0)
    });
    family(&mut text, "alarm", "1 for each alarm that is raised.", alarm);
    text
}

/// One metric with its samples; nothing without any.
fn family(text: &mut String, name: &str, help: &str, samples: impl IntoIterator<Item = (String, f64)>) {
    for (number, (labels, value)) in samples.into_iter().enumerate() {
        if number == 0 {
            put!(text, "# HELP pi_agent_{name} {help}\n# TYPE pi_agent_{name} gauge\n");
        }
        put!(text, "pi_agent_{name}{labels} {value}\n");
    }
}

/// A label's value, escaped.
struct Label<'a>(&'a str);

impl std::fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        assert_eq!(Label("a\\b\"c\nd").to_string(), r#"a\\b\"c\nd"#);
        let mut text = String::new();
        family(&mut text, "x", "Help.", [("{a=\"1\"}".to_owned(), 0.5), ("{a=\"2\"}".to_owned(), 2.0)]);
        assert_eq!(
            text,
            "# HELP pi_agent_x Help.\n# TYPE pi_agent_x gauge\npi_agent_x{a=\"1\"} 0.5\npi_agent_x{a=\"2\"} 2\n"
        );
        family(&mut text, "y", "Help.", None);
        assert!(!text.contains("pi_agent_y"), "nothing is said of what is not known");
    }
}
