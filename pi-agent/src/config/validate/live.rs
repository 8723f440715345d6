//! What of a directory step is left out, and the part of it that is written to day and night.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ignore::gitignore::GitignoreBuilder;

use crate::config::raw::Table;
use crate::config::{Live, Writer, values};

/// A longer night for the players than this is not what anybody means by quiet.
const LONGEST_QUIET: Duration = Duration::from_mins(10);

/// The part that is written to day and night; `around` are the step's paths and globs, when these are good.
pub(super) fn live(step: &Table<'_>, around: Option<(&[PathBuf], &[String])>) -> Option<Option<Live>> {
    if step.entry("live").is_none() {
        return Some(None);
    }
    let table = step.table("live", "[step.live]")?;
    let paths = table.list("paths", |text| match around {
        Some((paths, exclude)) => live_path(text, paths, exclude).map_err(|wanted| Some(wanted.into())),
        None => Ok(PathBuf::new()),
    });
    if let (Some([]), Some((_, value))) = (paths.as_deref(), table.entry("paths")) {
        table.refuse("paths", value.span(), Some("at least one path".into()));
    }
    let pause = table.text("pause", |text| {
        let (how, name) = text.split_once(':')?;
        // Docker's own rule for names.
        let good = name.len() >= 2 && values::word(name, "_.-");
        match how {
            "docker" if good => Some(Writer::Pause(name.to_owned())),
            "docker-stop" if good => Some(Writer::Stop(name.to_owned())),
            _ => None,
        }
    });
    let command = |name| {
        let words = table.list(name, |word| Ok(word.to_owned()));
        if let (Some(words), Some((_, value))) = (&words, table.entry(name))
            && (words.first().and_then(|program| values::path(program)).is_none()
                || words.iter().any(|word| word.contains('\0')))
        {
            table.refuse(name, value.span(), None);
            return None;
        }
        words
    };
    let (quiet, resume) = (command("quiet"), command("resume"));
    let at_most = table.duration("at-most");
    if let (Some(_), Some((_, value))) = (at_most.filter(|limit| *limit > LONGEST_QUIET), table.entry("at-most")) {
        table.refuse("at-most", value.span(), Some("at most ten minutes".into()));
        return None;
    }
    let given = ["pause", "quiet", "resume"].map(|name| table.entry(name).is_some());
    let writer = match given {
        [true, false, false] => pause,
        [false, true, true] => quiet.zip(resume).map(|(quiet, resume)| Writer::Commands { quiet, resume }),
        _ => {
            step.mistake(table.at, "live: wanted either `pause`, or `quiet` and `resume`");
            None
        }
    };
    table.finish();
    let mut paths = paths.filter(|paths| !paths.is_empty())?;
    paths.sort();
    let all = paths.clone();
    paths.retain(|path| !all.iter().any(|other| other != path && path.starts_with(other)));
    paths.dedup();
    Some(Some(Live { paths, writer: writer?, at_most: at_most? }))
}

/// A live path, made absolute; else what is wanted.
fn live_path(text: &str, paths: &[PathBuf], exclude: &[String]) -> Result<PathBuf, &'static str> {
    let path = match (Path::new(text).is_absolute(), paths) {
        (true, _) => values::path(text),
        (false, [only]) => values::path(&format!("/{text}"))
            .filter(|_| !text.is_empty())
            .map(|path| only.join(path.strip_prefix("/").expect("it was put before it")).components().collect()),
        (false, _) => return Err("an absolute path, because the step has several"),
    };
    let path = path.ok_or("a path below the step's, without \"..\"")?;
    let Some(root) = paths.iter().find(|root| path.starts_with(root)) else {
        return Err("a path below one of the step's");
    };
    if is_excluded(&path, root, exclude) { Err("a path that `exclude` does not leave out") } else { Ok(path) }
}

/// Refuses a glob, saying what is wanted.
pub(super) fn exclude(glob: &str) -> Result<(), String> {
    if glob.trim().is_empty() {
        return Err(r#"a glob such as "**/*.tmp""#.into());
    }
    if glob.starts_with('#') {
        return Err("a glob; this is a comment in gitignore syntax".into());
    }
    let parsed = GitignoreBuilder::new("/").add_line(None, glob).map(|_| ());
    parsed.map_err(|error| format!("a glob in gitignore syntax ({error})"))
}

/// True when the walk from `root` never enters `place`: an exclude matches it or a directory on the way there.
pub(super) fn is_excluded(place: &Path, root: &Path, exclude: &[String]) -> bool {
    let mut builder = GitignoreBuilder::new("/");
    for glob in exclude {
        builder.add_line(None, glob).expect("each glob was parsed before");
    }
    // A set of good globs can still be too large to compile; then nothing is known to be excluded.
    let Ok(globs) = builder.build() else { return false };
    let on_the_way = place.ancestors().take_while(|ancestor| *ancestor != root);
    on_the_way.into_iter().any(|ancestor| globs.matched(ancestor, true).is_ignore())
}
