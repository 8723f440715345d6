//! The status on one screen of 80 columns.

use std::io::IsTerminal;

use console::Style;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::health;
use crate::notify::Tone;
use crate::report::{Status, StepStatus, restores, words};
use crate::systemd::NextRun;

const WIDTH: usize = 80;
const COLUMNS: usize = 9;

/// How plain the text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Plain ASCII: for files, mails and old terminals.
    Plain,
    /// Colours and Unicode.
    Fancy,
}

impl Look {
    /// Fancy where standard output is a terminal with a UTF-8 locale, and NO_COLOR is unset.
    pub fn of_stdout() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
        let utf8 = locale.to_lowercase().replace('-', "").ends_with("utf8");
        let fancy = utf8 && std::io::stdout().is_terminal() && set("NO_COLOR").is_none();
        if fancy { Self::Fancy } else { Self::Plain }
    }

    fn paint(self, tone: Tone, text: &str) -> String {
        let style = match tone {
            Tone::Good => Style::new().green(),
            Tone::Warning => Style::new().yellow(),
            Tone::Critical => Style::new().red().bold(),
        };
        match self {
            Self::Plain => text.into(),
            Self::Fancy => style.force_styling(true).apply_to(text).to_string(),
        }
    }

    fn mark(self, tone: Tone) -> String {
        let mark = match (self, tone) {
            (Self::Plain, Tone::Good) => "+",
            (Self::Fancy, Tone::Good) => "✓",
            (_, Tone::Warning) => "!",
            (Self::Plain, Tone::Critical) => "x",
            (Self::Fancy, Tone::Critical) => "✗",
        };
        self.paint(tone, mark)
    }
}

impl Status {
    /// For people.
    pub fn text(&self, look: Look) -> String {
        let (tone, verdict) = self.verdict();
        let mut text = format!("{} {}\n\n", look.mark(tone), look.paint(tone, &format!("{}: {verdict}", self.host)));
        text.push_str(&self.table(look));
        text.push('\n');
        for alarm in &self.alarms {
            let subject = alarm.step.as_ref().map_or_else(String::new, |step| format!("{step}: "));
            let line = format!("{subject}{} (since {})", alarm.message, short_time(alarm.since, self.generated_at));
            text.push_str(&told(&look.mark(alarm.tone), &line, alarm.hint.as_deref()));
        }
        if !text.ends_with("\n\n") {
            text.push('\n');
        }
        text.push_str(&self.footer());
        text
    }

    fn table(&self, look: Look) -> String {
        let header = ["step", "last backup", "age", "took", "size", "dedup", "points", "30 d", "tested"];
        let mut rows = vec![header.map(String::from)];
        rows.extend(self.steps.iter().map(|step| cells(step, self.generated_at, look)));
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let mut widths: [usize; COLUMNS] = std::array::from_fn(width);
        // A long name is what can be shortened without loss.
        let rest = 2 + 2 * (COLUMNS - 1) + widths[1..].iter().sum::<usize>();
        widths[0] = widths[0].min(WIDTH.saturating_sub(rest).max(4));

        let mut text = String::new();
        for (number, row) in rows.iter().enumerate() {
            let mark = match number.checked_sub(1) {
                Some(step) => look.mark(self.tone_of(&self.steps[step])),
                None => " ".into(),
            };
            let name: String = row[0].chars().take(widths[0]).collect();
            let mut line = format!("{mark} {name:0$}  {1:2$}", widths[0], row[1], widths[1]);
            for (cell, width) in row[2..].iter().zip(&widths[2..]) {
                line.push_str(&format!("  {cell:>width$}"));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    fn footer(&self) -> String {
        let mut text = String::new();
        for step in &self.steps {
            if let Some(machine) = health::in_words(&step.machine) {
                text.push_str(&format!("{}\n", wrapped(&format!("{}: the machine: {machine}", step.name))));
            }
            for others in step.others_in_words() {
                text.push_str(&format!("{}\n", wrapped(&format!("{}: {others}", step.name))));
            }
            if let Some(safe) = step.safe_in_words(self.generated_at) {
                text.push_str(&format!("{}: every change is safe until {safe}\n", step.name));
            }
            if let Some(test) = step.test_in_words(self.generated_at) {
                text.push_str(&format!("{}\n", wrapped(&format!("{}: {test}", step.name))));
            }
        }
        text.push_str(&restores::everything_in_words(&self.steps).map_or_else(String::new, |line| line + "\n"));
        if let Some(bytes) = self.written_here() {
            text.push_str(&format!("the last backups wrote {} to this machine's disks\n", words::size(bytes)));
        }
        text.push_str(&self.next_in_words().map_or_else(String::new, |next| next + "\n"));
        if let Some(count) = self.waiting_notices.filter(|count| *count > 0) {
            let notices = if count == 1 { "1 notice waits".into() } else { format!("{count} notices wait") };
            text.push_str(&format!("{notices} to be sent\n"));
        }
        text
    }

    /// What the last backups wrote to this machine's disks; nothing when nobody knows.
    fn written_here(&self) -> Option<u64> {
        self.steps
            .iter()
            .map(|step| step.figures.bytes_written_here)
            .filter(Option::is_some)
            .sum::<Option<u64>>()
            .filter(|bytes| *bytes > 0)
    }

    /// "next run: Nov 22 03:00, in 17 h"; nothing, when nobody asked the timer.
    pub(super) fn next_in_words(&self) -> Option<String> {
        match self.next_run {
            NextRun::At(time) => Some(format!(
                "next run: {}, in {}",
                short_time(time, self.generated_at),
                words::rough(words::between(self.generated_at, time))
            )),
            NextRun::NotScheduled => Some("next run: not scheduled (pi-agent-backup.timer is not active)".into()),
            NextRun::Unknown => None,
        }
    }
}

fn cells(step: &StepStatus, now: Timestamp, look: Look) -> [String; COLUMNS] {
    let dash = || "-".to_owned();
    let times = if look == Look::Fancy { "×" } else { "x" };
    [
        step.name.clone(),
        match step.last_success {
            Some(time) => short_time(time, now),
            None if step.running => "running".into(),
            None => "never".into(),
        },
        step.last_success.map_or_else(dash, |then| words::rough(words::between(then, now))),
        step.duration.map_or_else(dash, words::rough),
        step.figures.bytes_processed.map_or_else(dash, words::size),
        step.deduplication_ratio().map_or_else(dash, |ratio| words::ratio(ratio) + times),
        step.figures.restore_points.map_or_else(dash, |points| points.to_string()),
        step.success_rate_30d.map_or_else(dash, words::percent),
        step.test_in_short(now),
    ]
}

/// `Nov 21 03:12`; another year's is `2025-11-21`.
pub(super) fn short_time(time: Timestamp, now: Timestamp) -> String {
    const NEAR: SignedDuration = SignedDuration::from_hours(24 * 300);
    let near = now.duration_since(time).abs() < NEAR;
    time.to_zoned(TimeZone::system()).strftime(if near { "%b %e %H:%M" } else { "%Y-%m-%d" }).to_string()
}

fn told(mark: &str, line: &str, hint: Option<&str>) -> String {
    let mut text = format!("{mark} {}\n", wrapped(line));
    for hint in hint.iter().flat_map(|hint| hint.lines()) {
        text.push_str(&format!("  {}\n", wrapped(&format!("hint: {hint}"))));
    }
    text
}

/// Lines of at most [`WIDTH`] columns, all but the first indented by two. What a terminal would obey is taken out.
fn wrapped(text: &str) -> String {
    let mut lines = String::new();
    let mut column = 2;
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        let length = word.chars().count();
        if column > 2 && column + 1 + length > WIDTH {
            lines.push_str("\n  ");
            column = 2;
        } else if column > 2 {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        column += length;
    }
    lines
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::alarms::Alarm;
    use crate::steps::{Figures, Outcome};

    /// On the machine's own clock, whatever zone that has.
    fn at(text: &str) -> Timestamp {
        text.parse::<jiff::civil::DateTime>().unwrap().to_zoned(TimeZone::system()).unwrap().timestamp()
    }

    fn step(name: &str, outcome: Outcome, last_success: Option<&str>) -> StepStatus {
        StepStatus {
            name: name.into(),
            kind: "directory",
            running: false,
            last_outcome: Some(outcome),
            last_success: last_success.map(at),
            duration: last_success.map(|_| Duration::from_secs(200)),
            figures: Figures {
                bytes_processed: Some(1_500_000_000),
                bytes_stored: Some(1_000_000_000),
                bytes_restorable: Some(12_345_000_000),
                restore_points: Some(41),
                ..Figures::default()
            },
            success_rate_30d: Some(29.0 / 30.0),
            machine: vec![],
            wal: None,
            tests: vec![],
        }
    }

    fn status(steps: Vec<StepStatus>, alarms: Vec<Alarm>) -> Status {
        Status {
            host: "pi-hosting".into(),
            generated_at: at("2026-11-21T09:00:00"),
            steps,
            alarms,
            next_run: NextRun::At(at("2026-11-22T03:00:00")),
            waiting_notices: Some(0),
        }
    }

    #[test]
    fn a_good_morning() {
        let steps = vec![
            step("database", Outcome::Succeeded, Some("2026-11-21T03:04:05")),
            step("foundry", Outcome::Succeeded, Some("2026-11-01T03:12:00")),
        ];
        let expected = "\
+ pi-hosting: safe: all 2 steps have a recent backup

  step      last backup    age   took     size  dedup  points  30 d    tested
+ database  Nov 21 03:04   5 h  3 min  1.3 GiB    12x      41  96 %  none yet
+ foundry   Nov  1 03:12  20 d  3 min  1.3 GiB    12x      41  96 %  none yet

next run: Nov 22 03:00, in 18 h
";
        assert_eq!(status(steps, vec![]).text(Look::Plain), expected);
    }

    #[test]
    fn a_bad_morning() {
        let mut first = step("a-name-that-is-rather-long", Outcome::Failed, Some("2025-01-02T03:04:05"));
        first.figures = Figures::default();
        first.running = true;
        let alarm = Alarm {
            name: "backup",
            step: Some("a-name-that-is-rather-long".into()),
            tone: Tone::Critical,
            since: at("2026-11-20T03:00:00"),
            message: "the backup failed: cannot read /srv/\u{1b}[31mred: Input/output error, and so on to the end"
                .into(),
            hint: Some("look at the disk:\n`dmesg`".into()),
        };
        let mut status = status(vec![first, step("logs", Outcome::Degraded, Some("2026-11-21T08:59:01"))], vec![alarm]);
        status.next_run = NextRun::NotScheduled;
        status.waiting_notices = Some(2);
        let expected = "\
x pi-hosting: not safe: 1 alarm

  step        last backup     age   took     size  dedup  points  30 d    tested
x a-name-tha  2025-01-02    688 d  3 min        -      -       -  96 %  none yet
! logs        Nov 21 08:59   59 s  3 min  1.3 GiB    12x      41  96 %  none yet

x a-name-that-is-rather-long: the backup failed: cannot read /srv/ [31mred:
  Input/output error, and so on to the end (since Nov 20 03:00)
  hint: look at the disk:
  hint: `dmesg`

next run: not scheduled (pi-agent-backup.timer is not active)
2 notices wait to be sent
";
        let shown = status.text(Look::Plain);
        assert_eq!(shown, expected);
        assert!(shown.is_ascii() && shown.lines().all(|line| line.len() <= WIDTH));
        let fancy = status.text(Look::Fancy);
        assert!(fancy.contains("\u{1b}[31m\u{1b}[1m✗\u{1b}[0m") && fancy.contains("12×"), "{fancy:?}");
        assert_eq!(console::strip_ansi_codes(&fancy).replace(['✗', '×'], "x"), expected);
    }

    #[test]
    fn what_never_ran_is_not_safe() {
        let step = StepStatus { last_outcome: None, ..step("logs", Outcome::Failed, None) };
        assert_eq!(
            status(vec![step], vec![]).verdict(),
            (Tone::Critical, "not safe: 1 of 1 steps have no backup yet".into())
        );
    }
}
