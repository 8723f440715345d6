//! What a backup needs of the server, looked at without changing anything: for the doctor.

use super::archiving::{self, SetUp, Style};
use super::container::{self, Seat, Spool};
use super::server::Server;
use super::{check_server, check_versions, dumps, user};
use crate::config::{Postgres, Settings, Step};
use crate::error::{Error, Result};
use crate::process::User;

/// How a server looks.
#[derive(Debug)]
pub struct Look {
    /// Its major version.
    pub version: u32,
    /// What would make a backup fail, or leave something out.
    pub problems: Vec<Error>,
    /// archive_command fills this spool, or has to be set to do so.
    pub spool: Option<Spool>,
    /// The server's user.
    pub user: User,
    /// What to tell the server before its WAL can be archived, if anything.
    pub set_up: Option<SetUp>,
    /// Why an idle server's last changes would be kept back for too long.
    pub late: Option<Error>,
    /// The WAL file that could not be archived, unless one could since.
    pub failing: Option<String>,
}

/// Asks the server.
///
/// # Errors
/// It does not answer, or we cannot become its user.
pub fn look(settings: &Settings, step: &Step, postgres: &Postgres) -> Result<Look> {
    container::at(settings, postgres, |seat| look_at(seat, settings, step))
}

fn look_at(Seat { postgres, spool }: &Seat, settings: &Settings, step: &Step) -> Result<Look> {
    let user = user(settings, step, postgres)?;
    let server = Server { postgres, user: &user };
    let identity = server.identity()?;
    let style = archiving::style(&identity, spool, settings.alarms.rpo);
    let set_up = style.is_err().then(|| archiving::set_up(&identity, &spool.there, settings.alarms.rpo));
    let uses_spool = !matches!(style, Ok(Style::Push));
    let dumps = dumps::check_tools(step, postgres, identity.version());
    let checks = [check_versions(&identity), check_server(postgres, &identity), style.map(drop), dumps];
    let problems = checks.into_iter().filter_map(Result::err).collect();
    let spool = uses_spool.then(|| spool.clone());
    let late = archiving::late(&identity, settings.alarms.rpo).filter(|_| set_up.is_none());
    let failing = server.archiver()?.failing;
    Ok(Look { version: identity.version(), problems, spool, user, set_up, late, failing })
}
