//! The PostgreSQL servers: a place for their WAL, and what they must be told so that it gets there.

use crate::config::{Postgres, Settings, Step};
use crate::error::Result;
use crate::pgbackrest;
use crate::process::User;
use crate::steps::postgres::{SetUp, container, look};
use crate::wal;

/// Makes each server's spool, as the server's user.
///
/// # Errors
/// There is no such user, or the directory cannot be made.
pub fn prepare(settings: &Settings) -> Result<()> {
    for step in &settings.steps {
        if let Some(postgres) = step.postgres() {
            let user = container::user(settings, step, postgres)?;
            container::provide_spool(settings, postgres, &user)?;
        }
    }
    Ok(())
}

/// What to do about a server, or that nothing is to do.
pub fn text(settings: &Settings, step: &Step, postgres: &Postgres) -> String {
    let spool = wal::spool_directory(settings, postgres);
    match look(settings, step, postgres, false) {
        Ok(look) => match look.set_up {
            None => format!("PostgreSQL {} archives its WAL already.\n", look.version),
            Some(set_up) => to_paste(settings, step, postgres, &set_up),
        },
        Err(error) => {
            let paste = to_paste(settings, step, postgres, &SetUp::unseen(&spool, settings.alarms.rpo));
            format!("It cannot be asked: {}\nOnce it runs:\n\n{paste}", error.chain())
        }
    }
}

fn to_paste(settings: &Settings, step: &Step, postgres: &Postgres, set_up: &SetUp) -> String {
    let user =
        pgbackrest::server_user(settings, step, postgres).map_or_else(|_| "postgres".into(), |user: User| user.name);
    let role = postgres.user.as_ref().map(|role| format!(" -U {role}")).unwrap_or_default();
    let statements: String = set_up.statements.iter().map(|statement| format!("    {statement}\n")).collect();
    let (psql, restart) = match &postgres.container {
        Some(container) => {
            let role = if role.is_empty() { " -U postgres" } else { &role };
            (format!("docker exec -it {container} psql{role} postgres"), format!("docker restart {container}"))
        }
        None => (
            format!(
                "sudo -u {user} psql -h {} -p {}{role} postgres",
                postgres.socket_directory.display(),
                postgres.port
            ),
            "systemctl restart postgresql".into(),
        ),
    };
    let then = if set_up.restart { format!("\nThen restart it, for example with: {restart}\n") } else { String::new() };
    format!("It must hand its WAL over. Start\n\n    {psql}\n\nand paste\n\n{statements}{then}")
}
