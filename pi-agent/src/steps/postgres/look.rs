//! What a backup needs of the server: for the doctor. Where all is set up, it is proven: a segment is switched and
//! followed into the repository.

use std::time::{Duration, Instant};

use super::archiving::{self, SetUp, Style, Way};
use super::catalogue::Psql;
use super::container::{self, Seat, Spool};
use super::programs::Programs;
use super::server::Server;
use super::session::LIVE;
use super::{check_server, check_versions, dumps, user};
use crate::config::{Postgres, Settings, Step};
use crate::error::{Error, Result};
use crate::pgbackrest::PgBackRest;
use crate::process::User;
use crate::wal::Whose;

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
    /// Tables that `count` names for restore tests, of which no backup holds any rows, and why.
    pub uncountable: Vec<(String, &'static str)>,
    /// The WAL file that could not be archived, unless one could since.
    pub failing: Option<String>,
    /// How long a segment took into the repository; `None`: not tried, because there is no repository yet or not all is well.
    pub arrival: Option<Duration>,
}

/// A person waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks the server; with `prove` it has to show that its WAL arrives: only where the place in storage was seen to be this machine's.
///
/// # Errors
/// It does not answer, or we cannot become its user.
pub fn look(settings: &Settings, step: &Step, postgres: &Postgres, prove: bool) -> Result<Look> {
    container::at(settings, postgres, |seat| look_at(seat, settings, step, prove))
}

fn look_at(Seat { postgres, spool }: &Seat, settings: &Settings, step: &Step, prove: bool) -> Result<Look> {
    let user = user(settings, step, postgres)?;
    let server = Server { postgres, user: &user };
    let identity = server.identity()?;
    let style = archiving::style(&identity, spool, settings.alarms.rpo);
    let set_up = style.is_err().then(|| archiving::set_up(&identity, &spool.there, settings.alarms.rpo));
    let known = style.as_ref().map_or(Err(()), |style| Ok(*style));
    let uses_spool = !matches!(style, Ok(Style::Push));
    let dumps = dumps::check_tools(step, postgres, identity.version());
    let checks = [check_versions(&identity), check_server(postgres, &identity), style.map(drop), dumps];
    let mut problems: Vec<_> = checks.into_iter().filter_map(Result::err).collect();
    let mut arrival = None;
    if let (true, true, Ok(style)) = (prove, problems.is_empty(), known) {
        let way = |pgbackrest: &PgBackRest| {
            let way = Way { settings, step, postgres, spool, server: &server, pgbackrest, whose: Whose::Ours };
            let started = Instant::now();
            way.prove(&identity, style, PATIENCE, &mut || Ok(())).map(|_| Some(started.elapsed()))
        };
        let proven = PgBackRest::prepare(settings, step, postgres, &user).and_then(|pgbackrest| {
            // Without a stanza nothing can arrive; the first backup makes it.
            if pgbackrest.info()?.cluster().is_none() { Ok(None) } else { way(&pgbackrest) }
        });
        match proven {
            Ok(took) => arrival = took,
            Err(error) => problems.push(error),
        }
    }
    let spool = uses_spool.then(|| spool.clone());
    let late = archiving::late(&identity, settings.alarms.rpo).filter(|_| set_up.is_none());
    let failing = server.archiver()?.failing;
    let uncountable = uncountable(&server, &step.test.count);
    Ok(Look { version: identity.version(), problems, spool, user, set_up, late, uncountable, failing, arrival })
}

/// A table that cannot be asked about is named by the restore test.
fn uncountable(server: &Server<'_>, counted: &[String]) -> Vec<(String, &'static str)> {
    let programs = Programs::default();
    let psql = Psql { connection: server.connection(), user: server.user, programs: &programs, options: LIVE };
    let why = |name: &String| Some((name.clone(), psql.is_not_backed_up(name).ok()??));
    counted.iter().filter_map(why).collect()
}
