//! What the server's user may not do, where something depends on it: enter the spool, read the data directory.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::links::WAL;
use crate::error::Error;
use crate::monitor::Problem;
use crate::process::{Program, User};

/// PostgreSQL's own names in a data directory; others begin with `pg_`. What it cannot read of these, no backup may lack.
const ITS_OWN: [&str; 4] = ["base", "global", "PG_VERSION", "postgresql.auto.conf"];
/// Each file system of the ext family has it at its top, for root alone.
const LOST_AND_FOUND: &str = "lost+found";
/// More than anybody has beside PostgreSQL's own: then the rest is left to pgBackRest.
const MOST: usize = 10_000;

/// Why this user cannot put files there, and what opens the way; `None`: it can, or nobody knows.
pub(crate) fn obstacle(directory: &Path, user: &User) -> Option<Error> {
    let may = |what: &str, path: &Path| {
        let program = Program::new("test", [what.as_ref(), path.as_os_str()]).as_user(user);
        program.run(&mut |_, _| ()).is_ok_and(|output| output.status.success())
    };
    // A link may lead through other directories than its path names.
    let directory = directory.canonicalize().ok()?;
    let name = &user.name;
    let mut above: Vec<_> = directory.ancestors().collect();
    above.reverse();
    if let Some(closed) = above.iter().find(|path| !may("-x", path)) {
        return Some(
            Error::new(format!("the server's user {name} may not enter {}", closed.display()))
                .hint(format!("chmod o+x {}", closed.display())),
        );
    }
    (!may("-w", &directory)).then(|| {
        Error::new(format!("the server's user {name} may not write in {}", directory.display())).hint(format!(
            "chown {name}: {0} && chmod 750 {0}, and see whether what is mounted there is read-only",
            directory.display()
        ))
    })
}

/// What is in a data directory, is not PostgreSQL's, and cannot be read by its user: relative to it. pgBackRest would fail at it.
pub(super) fn unreadable(data: &Path, user: &User) -> Vec<PathBuf> {
    let (mut found, mut left) = (Vec::new(), MOST);
    // A disk may be mounted at each.
    for place in ["", "base", WAL] {
        look(data, Path::new(place), user, &mut left, &mut found);
    }
    found
}

fn look(data: &Path, place: &Path, user: &User, left: &mut usize, found: &mut Vec<PathBuf>) {
    let inside_its_own =
        place.components().next().is_some_and(|first| is_its_own(&first.as_os_str().to_string_lossy()));
    for entry in data.join(place).read_dir().into_iter().flatten().flatten() {
        let name = entry.file_name();
        let (name, path) = (name.to_string_lossy(), place.join(entry.file_name()));
        let is_foreign = !inside_its_own && !is_its_own(&name);
        if !is_foreign && name != LOST_AND_FOUND {
            continue;
        }
        let Ok(metadata) = entry.metadata() else { continue };
        if !metadata.is_symlink() && !may_read(&metadata, user) {
            found.push(path);
        } else if metadata.is_dir() && *left > 0 {
            *left -= 1;
            look(data, &path, user, left, found);
        }
    }
}

fn is_its_own(name: &str) -> bool {
    ITS_OWN.contains(&name) || name.starts_with("pg_") && !name.contains('.')
}

/// By its owner and mode; a directory must be entered, too.
fn may_read(metadata: &Metadata, user: &User) -> bool {
    let wanted = if metadata.is_dir() { 0o5 } else { 0o4 };
    let shift = match metadata {
        own if own.uid() == user.uid => 6,
        shared if user.groups.contains(&shared.gid()) || shared.gid() == user.gid => 3,
        _ => 0,
    };
    metadata.mode() >> shift & wanted == wanted
}

/// That it is not in the backup.
pub(super) fn left_out(data: &Path, path: &Path, user: &User) -> Problem {
    let (shown, name) = (data.join(path).display().to_string(), &user.name);
    let hint = match path.ends_with(LOST_AND_FOUND) {
        true => "it is the file system's, and a database lacks nothing without it; a data directory had better lie below a mount point".into(),
        false => format!("chown {name}: {shown}, or move it out of the data directory"),
    };
    Problem {
        message: format!("{shown} is not in the backup: the server's user {name} cannot read it"),
        hint: Some(hint),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;

    #[test]
    fn what_is_not_postgresqls_and_closed_to_it_is_found() {
        if !nix::unistd::Uid::effective().is_root() {
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path();
        let nobody = User { name: "nobody".into(), uid: 65534, gid: 65534, groups: vec![65534] };
        let directory = |name: &str, mode: u32| {
            fs::create_dir_all(data.join(name)).expect("made");
            fs::set_permissions(data.join(name), Permissions::from_mode(mode)).expect("ours");
        };
        let file = |name: &str, mode: u32| {
            fs::write(data.join(name), "x").expect("written");
            fs::set_permissions(data.join(name), Permissions::from_mode(mode)).expect("ours");
        };
        directory("lost+found", 0o700);
        directory("notes", 0o755);
        directory("base", 0o755);
        directory("base/lost+found", 0o700);
        directory("base/5", 0o755);
        file("notes/closed", 0o600);
        file("notes/open", 0o644);
        file("own", 0o600);
        chown(data.join("own"), Some(65534), None).expect("root may");
        // Of these no backup may lack anything.
        file("base/5/1259", 0o600);
        file("PG_VERSION", 0o600);
        let mut found = unreadable(data, &nobody);
        found.sort();
        assert_eq!(found, ["base/lost+found", "lost+found", "notes/closed"].map(PathBuf::from));
    }
}
