//! Work on files with the rights of another user.

use std::panic::resume_unwind;

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

use super::User;
use crate::error::{Error, Result};

/// Does the work in a thread that reaches files as that user does. In that user's directories each name may be a link to anywhere: it
/// leads to nothing that the user could not change anyhow.
///
/// # Errors
/// The kernel does not allow it; what the work returns.
pub fn acting_as<T: Send>(user: &User, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    if !Uid::effective().is_root() {
        return work();
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
            setfsgid(gid);
            setfsuid(uid);
            // Neither tells of a failure, only what was in force before: here what is.
            if (setfsuid(uid), setfsgid(gid)) != (uid, gid) {
                return Err(Error::new(format!("act as user {}", user.name)).hint("run pi-agent as root"));
            }
            work()
        });
        // A panic goes on as one.
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn what_the_user_may_not_do_is_not_done_and_what_is_made_is_the_users() {
        assert!(Uid::effective().is_root(), "as root");
        let user = User { name: "4711".into(), uid: 4711, gid: 4712, groups: vec![4712] };
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
        let [theirs, ours] = ["theirs", "ours"].map(|name| root.path().join(name));
        fs::create_dir(&ours).unwrap();
        fs::create_dir(&theirs).unwrap();
        std::os::unix::fs::chown(&theirs, Some(4711), None).unwrap();
        let write = |path: &std::path::Path| acting_as(&user, || Ok(fs::write(path.join("file"), "").is_ok())).unwrap();
        assert!(write(&theirs) && !write(&ours));
        let made = fs::metadata(theirs.join("file")).unwrap();
        assert_eq!((made.uid(), made.gid()), (4711, 4712));
        // Nobody else became that user.
        fs::write(ours.join("file"), "").unwrap();
    }
}
