//! The only place that starts pgBackRest, and the rule for its user.
//!
//! Since 2.59 it refuses to run as root, except for `restore`, `help` and `version`: root would leave files in the repository
//! that the server's user cannot read. We have the same rule for every release, and want no exception for `restore`.

use nix::unistd::Uid;

use crate::process::{Program, User};
use crate::{Error, Result};

const PROGRAM: &str = "pgbackrest";

/// `pgbackrest version`, which needs no user but ours: it reads and writes nothing.
pub(super) fn version() -> Program {
    Program::new(PROGRAM, ["version"])
}

/// `pgbackrest COMMAND ARGUMENTS` as that user. When we are not root we cannot become another, and it runs as ours.
///
/// # Errors
/// That user is root, whatever the name.
pub(super) fn command(command: &str, arguments: &[String], user: &User) -> Result<Program> {
    allowed(command, Uid::effective().as_raw(), user)?;
    let arguments = std::iter::once(command).chain(arguments.iter().map(String::as_str));
    Ok(Program::new(PROGRAM, arguments).as_user(user))
}

/// The rule, for a process of ours with that uid.
fn allowed(command: &str, ours: u32, user: &User) -> Result<()> {
    let uid = if ours == 0 { user.uid } else { ours };
    if uid != 0 {
        return Ok(());
    }
    Err(Error::new(format!("pgbackrest {command} would run as root, whose files the server's user cannot read"))
        .hint("make the data directory belong to the server's user: chown -R it to that one"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, uid: u32) -> User {
        User { name: name.into(), uid, gid: 7, groups: vec![7] }
    }

    #[test]
    fn no_command_runs_as_root_whatever_root_is_called() {
        for command in ["archive-get", "archive-push", "backup", "expire", "info", "repo-ls", "restore", "verify"] {
            let refused = |name| allowed(command, 0, &user(name, 0)).expect_err("root").to_string();
            assert!(refused("root").starts_with(&format!("pgbackrest {command} would run as root")));
            // A container's user may have no name on this machine.
            assert!(refused("0").starts_with(&format!("pgbackrest {command} would run as root")));
            // By name nobody, by number root: the kernel looks at the number.
            assert!(refused("postgres").starts_with(&format!("pgbackrest {command} would run as root")));
            assert!(allowed(command, 0, &user("70", 70)).is_ok());
        }
        // Who is not root stays who he is.
        assert!(allowed("info", 1000, &user("0", 0)).is_ok());
        assert!(allowed("info", 1000, &user("postgres", 70)).is_ok());
    }

    #[test]
    fn a_user_without_a_name_is_the_one_that_it_runs_as() {
        let mut program = command("info", &[], &user("7654", 7654)).expect("not root");
        program.program = "sh".into();
        program.arguments = ["-c", "id -u"].map(Into::into).into();
        let output = program.run(&mut |_, _| ()).expect("it runs");
        let ours = Uid::effective();
        let expected = if ours.is_root() { 7654 } else { ours.as_raw() };
        assert_eq!(output.stdout.trim(), expected.to_string());
    }
}
