//! The last runs side by side: how each step ended in each.

use crate::report::html::{Safe, outcome_class, put};
use crate::report::page::table;
use crate::report::{Status, words};
use crate::state::Night;
use crate::steps::Outcome;

const RUNS: usize = 30;

/// A section with a lane for each step and a column for each run, newest at the right.
pub(super) fn timeline(html: &mut String, status: &Status, nights: &[Night]) {
    html.push_str("<section><h2>Last runs</h2>");
    let mut runs: Vec<&Night> = Vec::new();
    for night in nights {
        if runs.last().is_none_or(|run| run.run_id != night.run_id) {
            runs.push(night);
        }
    }
    let runs = &runs[runs.len().saturating_sub(RUNS)..];
    let (Some(first), Some(last)) = (runs.first(), runs.last()) else {
        html.push_str(r#"<p class="muted">Nothing has run yet.</p></section>"#);
        return;
    };
    html.push_str(r#"<div class="lanes">"#);
    for step in &status.steps {
        lane(html, &step.name, runs, nights);
    }
    let day = |night: &Night| words::time(night.started_at)[..10].to_owned();
    put!(html, r#"<span></span><span class="axis">{} to {}</span></div>"#, day(first), day(last));
    html.push_str(
        r#"<p class="legend"><span><i class="good"></i>succeeded</span> <span><i class="warn"></i>degraded, unfinished</span>
<span><i class="bad"></i>failed, interrupted</span> <span><i class="none"></i>not run</span></p>"#,
    );
    let bad = nights.iter().rev().filter(|night| night.started_at >= first.started_at && is_trouble(night));
    let rows: Vec<_> = bad
        .map(|night| {
            let outcome = night.outcome.map_or("", Outcome::as_str).to_owned();
            [words::time(night.started_at), night.step.clone(), outcome, night.error.clone().unwrap_or_default()]
        })
        .collect();
    if !rows.is_empty() {
        table(html, "what went wrong", ["started", "step", "outcome", "why"], rows.into_iter());
    }
    html.push_str("</section>");
}

fn is_trouble(night: &Night) -> bool {
    !matches!(night.outcome, None | Some(Outcome::Succeeded | Outcome::Skipped))
}

fn lane(html: &mut String, step: &str, runs: &[&Night], nights: &[Night]) {
    let ended = |run: &Night| nights.iter().find(|night| night.run_id == run.run_id && night.step == step);
    let usable = runs.iter().filter_map(|run| ended(run)?.outcome).filter(|outcome| outcome.is_usable()).count();
    put!(
        html,
        r#"<span>{}</span><div class="cells" role="img" aria-label="{}: {usable} of the last {} runs made a restore point">"#,
        Safe(step),
        Safe(step),
        runs.len()
    );
    for run in runs {
        match ended(run) {
            Some(night) => {
                let outcome = night.outcome.map_or("running", Outcome::as_str);
                let class = outcome_class(night.outcome);
                put!(html, r#"<i class="{class}" title="{}: {outcome}"></i>"#, words::time(night.started_at));
            }
            None => html.push_str(r#"<i class="none"></i>"#),
        }
    }
    html.push_str("</div>");
}
