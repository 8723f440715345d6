//! A server's last changes, brought into the repository now and not when a segment of WAL is full: for a person who wants
//! to restore up to this moment.

use log::info;

use super::archiving::{self, Way};
use super::container::{self, Seat};
use super::server::Server;
use super::{ARRIVAL, check_server, user};
use crate::config::{Postgres, Settings, Step};
use crate::error::{Error, Result};
use crate::monitor::Problem;
use crate::pgbackrest::PgBackRest;
use crate::report::words;
use crate::wal::{Hole, Record, Whose, tell};

/// Lets the servers of the steps named (none named: all) begin another segment, and follows the last one into the repository;
/// true when each is there. What goes wrong with one is told, and the others have their turn.
///
/// # Errors
/// A name that no step has, or no database among them.
pub fn switch(settings: &Settings, names: &[String], record: &Record) -> Result<bool> {
    let databases = settings.databases(names)?;
    if databases.is_empty() {
        return Err(Error::usage(format!("none of these steps is a database: {}", names.join(", "))));
    }
    let mut all_well = true;
    for (step, postgres) in databases {
        match switch_one(settings, step, postgres, record) {
            Ok(()) => info!(STEP = step.name.as_str(); "{}: all that was written until now is in storage", step.name),
            Err(error) => {
                tell(step, &Problem::from(&error));
                all_well = false;
            }
        }
    }
    Ok(all_well)
}

fn switch_one(settings: &Settings, step: &Step, postgres: &Postgres, record: &Record) -> Result<()> {
    container::at(settings, postgres, |Seat { postgres, spool }| {
        let user = user(settings, step, postgres)?;
        let server = Server { postgres, user: &user };
        let identity = server.identity()?;
        check_server(postgres, &identity)?;
        let style = archiving::style(&identity, spool, settings.alarms.rpo)?;
        let pgbackrest = &PgBackRest::prepare(settings, step, postgres, &user)?;
        let way = Way { settings, step, postgres, spool, server: &server, pgbackrest, whose: Whose::Unknown(record) };
        let _ = way.prove(&identity, style, ARRIVAL, &mut || Ok(()))?;
        // What is in storage leads nowhere behind that.
        Hole::read(&spool.here).map_or(Ok(()), |hole| {
            let hint = format!(
                "no moment since {} can be restored until there is a new backup: pi-agent run {}",
                words::time(hole.since),
                step.name
            );
            Err(Error::new(hole.to_string()).hint(hint))
        })
    })
}
