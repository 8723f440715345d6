//! The test of a directory step: its newest snapshot, or the share of it whose turn it is.

use std::cell::Cell;
use std::path::Path;
use std::time::Instant;

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use jiff::Timestamp;

use super::{Sheet, Work, critical};
use crate::config::Source;
use crate::error::{Context, Error, Kind, Result};
use crate::health::judge_by_others;
use crate::monitor::Problem;
use crate::repository::{Order, Purpose, Repository, Share};
use crate::secrets::Secrets;
use crate::shown;
use crate::steps::directory::{lost_points, newest};
use crate::storage::Store;

/// So many are named; the rest is counted.
const NAMED: usize = 20;

pub(super) fn test(work: &Work<'_>, sheet: &mut Sheet) -> Result<()> {
    let Work { step, place, monitor, .. } = work;
    let (settings, test) = (&place.settings, &place.settings.restore_test);
    let began = Instant::now();

    // 1. With the keys alone, and no cache.
    monitor.phase("opening the repository");
    let secrets = Secrets::new(&settings.secrets);
    let store = Store::open(&settings.storage, &settings.storage.location, &secrets)?.join(&step.name);
    let nothing = |what: &str| Error::new(format!("{store} holds no {what}")).kind_of(Kind::NotFound);
    let repository =
        Repository::open(settings, &step.name, store.clone(), &secrets)?.ok_or_else(|| nothing("repository"))?;
    let clock = judge_by_others(Timestamp::now(), store.clock_ahead(), None).is_none();
    let lock = repository.lock(Purpose::Read, clock, None, monitor)?;
    let snapshots = repository.snapshots()?;
    let newest = newest(&snapshots, step, store.clock_ahead());
    let (snapshot, remark) = newest.ok_or_else(|| nothing("complete snapshot"))?;
    sheet.remark(remark);
    sheet.restore_point = Some(snapshot.id.clone());
    let opened = began.elapsed();
    // What would make the next restore another one than this, or impossible.
    if let Some(trouble) = repository.key_trouble()? {
        sheet.problem("keys", Problem::from(&trouble));
    }
    if let Some(lost) = lost_points(work.job, step, &snapshots, &store) {
        sheet.problem("restore points", lost);
    }

    // 2. Restored, and each byte compared.
    let globs = globs(&test_globs(work))?;
    let is_critical = |path: &Path| globs.iter().any(|(_, glob)| glob.matched(path, false).is_ignore());
    let to = place.fresh("restored")?;
    let chosen = Cell::new(None);
    let proven = repository.prove(
        &Order {
            snapshot,
            to: &to,
            share: &|whole| {
                let share = share(whole, test.budget, test.months, work.earlier.turns);
                chosen.set(Some(share));
                share
            },
            always: &is_critical,
            room: &|bytes| work.fits(bytes),
        },
        monitor,
    );
    // Whatever became of it: the next test has the next share, or one that is damaged would keep the others from their turn.
    sheet.tested.share = chosen.get().filter(|share| share.of > 1).map(|share| (share.part, share.of));
    drop(lock);
    let proven = proven?;
    sheet.files = Some(proven.files);
    told(sheet, "content", proven.content, format!("every byte of {} files compared", proven.files));
    let devices = match proven.devices {
        0 => String::new(),
        count => format!("; {count} device files were not made"),
    };
    let not_held = match proven.not_held {
        nothing if nothing.is_nothing() => String::new(),
        some => format!("; {some} were not tested, because this test cannot set them here"),
    };
    told(sheet, "owners, modes, times", proven.metadata, format!("as they were{devices}{not_held}"));

    // 3. What must not be missing.
    for (text, glob) in &globs {
        if !proven.always.iter().any(|path| glob.matched(path, false).is_ignore()) {
            sheet.failed("critical files", format!("the snapshot holds no {text}"));
        }
    }
    monitor.phase("reading the critical files");
    let broken = proven.always.iter().filter_map(|path| {
        let there = to.join(path.strip_prefix("/").unwrap_or(path));
        let what = critical::broken(&there)?;
        Some(Problem { message: format!("{} {what}", shown(path)), hint: None })
    });
    let broken: Vec<_> = broken.collect();
    if !globs.is_empty() && !proven.always.is_empty() {
        told(sheet, "critical files", broken, format!("{} are there and can be read", proven.always.len()));
    }

    // 4. How long, and up to when.
    sheet.requests = store.meter().requests();
    sheet.timed(opened + proven.took, proven.bytes, proven.whole);
    sheet.newest(snapshot.time, work.began, None);
    Ok(())
}

/// The agent's own history is what the next machine begins with.
fn test_globs(work: &Work<'_>) -> Vec<String> {
    match work.step.source {
        Source::Agent(_) => vec!["state.db".into()],
        _ => work.step.test.critical.clone(),
    }
}

/// Each with its text. One that does not begin at the root holds anywhere.
fn globs(texts: &[String]) -> Result<Vec<(String, Gitignore)>> {
    let one = |text: &String| {
        let anywhere = if text.starts_with('/') { text.clone() } else { format!("**/{text}") };
        let doing = || format!("understand the glob {text}");
        let mut builder = GitignoreBuilder::new("/");
        builder.add_line(None, &anywhere).context(doing)?;
        Ok((text.clone(), builder.build().context(doing)?))
    };
    texts.iter().map(one).collect()
}

/// As few shares as keep to the budget, and never more than there are months: all of it comes back in that time.
fn share(whole: u64, budget: u64, months: u32, turn: u32) -> Share {
    let of = u32::try_from(whole.div_ceil(budget.max(1))).unwrap_or(u32::MAX).clamp(1, months.max(1));
    Share { part: turn % of, of }
}

/// A check with all that was wrong in it.
fn told(sheet: &mut Sheet, name: &str, mut problems: Vec<Problem>, well: String) {
    if problems.is_empty() {
        return sheet.passed(name, well);
    }
    let more = problems.len().saturating_sub(NAMED);
    problems.truncate(NAMED);
    for problem in problems {
        sheet.problem(name, problem);
    }
    if more > 0 {
        sheet.failed(name, format!("{more} more"));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn all_shares_have_their_turn() {
        assert_eq!(share(5, 10, 3, 7), Share { part: 0, of: 1 });
        let parts: Vec<_> = (0..3).map(|turn| share(25, 10, 6, turn)).collect();
        assert_eq!(parts, [0, 1, 2].map(|part| Share { part, of: 3 }));
        assert_eq!(share(1000, 10, 6, 6), Share { part: 0, of: 6 }, "in six months, whatever the budget");
    }

    #[test]
    fn globs_hold_anywhere_unless_they_begin_at_the_root() {
        let texts = ["Data/worlds/*/world.json", "/etc/passwd", "*.db"].map(String::from);
        let globs = globs(&texts).unwrap();
        let matches = |index: usize, path: &str| globs[index].1.matched(path, false).is_ignore();
        assert!(matches(0, "/srv/foundry/Data/worlds/a/world.json") && !matches(0, "/srv/worlds/a/world.json"));
        assert!(matches(1, "/etc/passwd") && !matches(1, "/old/etc/passwd"));
        assert!(matches(2, "/a/b.db") && !matches(2, "/a/b.dbx"));
    }
}
