//! Histories to look at: the state database of a household after a month of nights, without any of the backups.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use pi_agent::monitor::Problem;
use pi_agent::state::{Opened, State};
use pi_agent::steps::points::{POINTS, told};
use pi_agent::steps::{Figures, Maintenance, Outcome, StepResult};

use crate::{Agent, Config, Random, Scratch};

/// What kind of month it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Month {
    /// Nothing has ever run.
    None,
    /// Every night went well.
    Good,
    /// Nights failed, were cut off or degraded; one step has had no good one for days; errors hold what breaks markup.
    Bad,
}

/// The steps: name, kind, bytes of the source, seconds a night takes.
const STEPS: [(&str, &str, u64, u64); 5] = [
    ("database", "postgres", 1_400_000_000, 190),
    ("foundry", "directory", 5_200_000_000, 75),
    ("logs", "directory", 310_000_000, 12),
    ("configs", "directory", 1_900_000, 3),
    ("agent", "agent", 260_000, 2),
];

const NIGHTS: i64 = 30;

/// A text that is markup, an escape sequence and not short.
pub const HOSTILE: &str = "cannot read /srv/<script>alert(\"1\")</script>&amp;'x'\u{1b}[31m\u{7}/a-very-long-name-without-any-place-to-break-a-line-at-all-in-it.db: Permission denied";

impl Month {
    /// A host with that past, in `scratch`.
    pub fn write(self, scratch: &Scratch) -> Agent {
        let source = scratch.directory("srv");
        let postgres = "name = \"database\"\nkind = \"postgres\"\ndata-directory = \"/var/lib/postgresql/none\"";
        let keep = "keep = { daily = 30, monthly = \"forever\" }";
        let agent = Config::local(scratch.path())
            .step(postgres)
            .directory("foundry", &[&source], keep)
            .directory("logs", &[&source], "")
            .directory("configs", &[&source], "keep = { daily = 14, weekly = 8, monthly = 12, yearly = 5 }")
            .write();
        if self != Self::None {
            std::fs::create_dir_all(agent.state()).expect("our own directory");
            let Opened::Fresh(mut state, _) = State::open(&agent.state().join("state.db")).expect("a new database")
            else {
                panic!("there is one already");
            };
            self.fill(&mut state);
        }
        if self == Self::Good {
            // Somebody saved the kit.
            agent.ok(["recovery-kit", "--to", scratch.join("kit.txt").to_str().expect("an ordinary path")]);
            let record = agent.state().join("recovery-kit.json");
            let mut saved: serde_json::Value =
                serde_json::from_slice(&std::fs::read(&record).expect("it was made")).expect("JSON");
            saved["saved_at"] = saved["made_at"].clone();
            std::fs::write(&record, saved.to_string()).expect("our own file");
        }
        agent
    }

    fn fill(self, state: &mut State) {
        let mut random = Random::new(4);
        let last = Timestamp::now() - SignedDuration::from_hours(6);
        for night in 0..NIGHTS {
            let mut clock = last - SignedDuration::from_hours(24 * (NIGHTS - 1 - night));
            let run = format!("run-{night:02}");
            state.begin_run(&run, Some("timer"), clock).expect("our own database");
            for (position, (step, kind, bytes, seconds)) in (0..).zip(STEPS) {
                let outcome = self.outcome(step, night);
                state.begin_step(&run, position, step, kind, "backup", clock).expect("our own database");
                let took = if outcome == Outcome::Failed { 1 } else { seconds * random.within(80..140) / 100 };
                clock += SignedDuration::from_secs(i64::try_from(took).expect("short"));
                let points = points(step, clock);
                let result = result(outcome, bytes, u64::try_from(night).expect("positive"), &points);
                state.finish_step(&run, position, step, &result, clock).expect("our own database");
            }
            state.finish_run(&run, Outcome::Succeeded, &[], clock).expect("our own database");
        }
    }

    fn outcome(self, step: &str, night: i64) -> Outcome {
        match (self, step, night) {
            (Self::Bad, "foundry", 26..) | (Self::Bad, "database", 11) => Outcome::Failed,
            (Self::Bad, "logs", 29 | 17 | 5) => Outcome::Degraded,
            (Self::Bad, "foundry", 3 | 4) => Outcome::Unfinished,
            (Self::Bad, "logs", 20) => Outcome::Interrupted,
            (Self::Bad, _, 20) if step != "database" && step != "foundry" => Outcome::Skipped,
            _ => Outcome::Succeeded,
        }
    }
}

fn result(outcome: Outcome, bytes: u64, night: u64, points: &[(Timestamp, String)]) -> StepResult {
    let bad = !matches!(outcome, Outcome::Succeeded | Outcome::Skipped);
    let hint = Some("look at <the> disk: `dmesg`, and then \"smartctl\"".to_owned());
    let grown = bytes + bytes / 200 * night;
    let count = points.len() as u64;
    let mut result = StepResult {
        error: bad.then(|| Problem { message: HOSTILE.into(), hint }),
        figures: Figures {
            bytes_processed: Some(grown),
            bytes_added: Some(bytes / 200),
            bytes_stored: Some(grown * 9 / 2 + bytes / 300 * night),
            files_skipped: Some(u64::from(outcome == Outcome::Degraded)),
            restore_points: Some(count),
            bytes_restorable: Some(grown * count),
            ..Figures::default()
        },
        ..StepResult::of(outcome)
    };
    if night == 25 {
        result.maintenance.push(Maintenance { what: "check".into(), problem: None, note: String::new() });
    }
    if outcome.is_usable() {
        result.facts.insert(POINTS.into(), told(points.iter().map(|(time, id)| (*time, id.as_str(), false))));
    }
    result
}

/// What the repository holds then: thirty days and the months before (logs: only days), for databases weekly chains.
fn points(step: &str, newest: Timestamp) -> Vec<(Timestamp, String)> {
    let back = |days: i64| newest - SignedDuration::from_hours(24 * days);
    let id = |time: Timestamp| format!("{:08x}", time.as_second()).repeat(8);
    let mut points: Vec<_> = match step {
        "database" => {
            let label = |days: i64| {
                let stamp = |days: i64| back(days).strftime("%Y%m%d-%H%M%S").to_string();
                match days % 7 {
                    0 => format!("{}F", stamp(days)),
                    since => format!("{}F_{}I", stamp(days + 7 - since), stamp(days)),
                }
            };
            (0..35).map(|days| (back(days), label(days))).collect()
        }
        _ => (0..30).map(|days| (back(days), id(back(days)))).collect(),
    };
    if step != "logs" {
        let zoned = newest.to_zoned(TimeZone::system());
        for months in 2..15_i64 {
            let month = zoned.checked_sub(months.months()).and_then(|then| then.last_of_month()).expect("recent");
            let time = month.timestamp();
            let label = format!("{}F", time.strftime("%Y%m%d-%H%M%S"));
            points.push((time, if step == "database" { label } else { id(time) }));
        }
    }
    points
}
