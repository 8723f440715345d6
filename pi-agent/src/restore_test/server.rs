//! A temporary server on what was restored: small, and reached through a socket in a directory of its own and by nothing else.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::postgres::ASKING;
use crate::error::{Context, Error, Result};
use crate::monitor::Monitor;
use crate::process::{Stop, User};
use crate::steps::postgres::catalogue::{ALWAYS_THERE, Psql};
use crate::steps::postgres::control::Control;
use crate::steps::postgres::programs::Programs;
use crate::steps::postgres::restored::{self, Configuration};
use crate::steps::postgres::session;

/// It has nothing to recover any more.
const STARTING: Duration = Duration::from_mins(3);
/// Longer than all that is asked of it.
const LONGEST: Duration = Duration::from_hours(24);
const PORT: u16 = 5432;

/// What a server is started with.
pub(super) struct Clone<'a> {
    /// PostgreSQL's programs of its version.
    pub programs: &'a Programs,
    /// The cluster.
    pub data: &'a Path,
    /// An empty directory.
    pub home: &'a Path,
    pub user: &'a User,
    /// Who may do everything in it.
    pub role: &'a str,
}

/// Waits until it answers.
fn ready(psql: &Psql<'_>, monitor: &Monitor, ended: impl Fn() -> bool) -> Result<()> {
    let began = Instant::now();
    loop {
        match psql.ask(ALWAYS_THERE, "select 1", Duration::from_secs(20)) {
            Ok(_) => return Ok(()),
            Err(error) if is_foreign(&error) || ended() || began.elapsed() > STARTING => return Err(error),
            Err(_) => {}
        }
        monitor.alive();
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A copy serves nobody but us: we get into every database, and wait for no transaction that was prepared and holds its locks. Nobody
/// has anything in `template0`.
fn make_ours(psql: &Psql<'_>) -> Result<()> {
    psql.system(
        ALWAYS_THERE,
        "update pg_database set datallowconn = true where not datallowconn and datname <> 'template0'",
        ASKING,
    )?;
    let prepared = psql.system(
        ALWAYS_THERE,
        "select coalesce(json_agg(json_build_array(database, format('rollback prepared %L', gid))), '[]') from pg_prepared_xacts",
        ASKING,
    )?;
    let prepared: Vec<(String, String)> =
        serde_json::from_str(&prepared).context(|| "understand the list of prepared transactions".into())?;
    prepared.iter().try_for_each(|(database, rollback)| psql.ask(database, rollback, ASKING).map(drop))
}

/// The databases' locale is one that this machine does not have.
pub(super) fn is_foreign(error: &Error) -> bool {
    is_foreign_text(&error.chain())
}

/// The same of what PostgreSQL said.
pub(super) fn is_foreign_text(said: &str) -> bool {
    said.contains("locale is incompatible")
}

impl Clone<'_> {
    /// Does the work while it runs.
    ///
    /// # Errors
    /// It does not start, with what it said; else what the work returns.
    pub fn running<T>(&self, monitor: &Monitor, work: impl FnOnce(&Psql<'_>) -> Result<T>) -> Result<T> {
        let control = Control::read(self.programs, self.user, self.data)?;
        let configuration = self.configure(&control)?;
        let psql = Psql {
            connection: [
                "--no-password".into(),
                format!("--host={}", self.home.display()),
                format!("--port={PORT}"),
                format!("--username={}", self.role),
            ],
            user: self.user,
            programs: self.programs,
            options: session::restored(control.version),
        };
        let (said, stop) = (&Mutex::new(String::new()), &Stop::default());
        std::thread::scope(|scope| {
            // It dies with the thread that started it, and so with this process, whatever ends that.
            let server = scope.spawn(|| {
                configuration.program(self.programs, self.data, None).within(LONGEST).stopped_by(stop).run(
                    &mut |_, line| {
                        if line.contains("FATAL") || line.contains("PANIC") {
                            *said.lock().unwrap_or_else(PoisonError::into_inner) = line.to_owned();
                        }
                    },
                )
            });
            let ready = ready(&psql, monitor, || server.is_finished());
            let done = ready.and_then(|()| make_ours(&psql)).and_then(|()| work(&psql));
            // At once, and well.
            stop.ask();
            let ended = server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let said = said.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match (done, ended) {
                (Err(error), Ok(ended)) if !ended.status.success() && !said.is_empty() => {
                    Err(Error::new(format!("start PostgreSQL on what was restored: {said}")).caused_by(error))
                }
                (done, Ok(_)) => done,
                (done, Err(error)) => done.and(Err(error)),
            }
        })
    }

    /// Small, and open to whoever reaches the socket.
    fn configure(&self, control: &Control) -> Result<Configuration<'_>> {
        let home = self.home;
        let doing = || format!("make a server's directory {}", home.display());
        if nix::unistd::Uid::effective().is_root() {
            chown(home, Some(self.user.uid), Some(self.user.gid)).context(doing)?;
        }
        fs::set_permissions(home, fs::Permissions::from_mode(0o700)).context(doing)?;
        let own = [
            ("unix_socket_directories", &*home.to_string_lossy()),
            ("port", &PORT.to_string()),
            ("shared_buffers", "16MB"),
            ("maintenance_work_mem", "32MB"),
            ("max_connections", "20"),
            ("max_parallel_workers", "0"),
            ("autovacuum", "off"),
            // A copy that is removed need not survive a power cut.
            ("fsync", "off"),
        ];
        let configuration = Configuration { directory: home, user: self.user };
        configuration.ours(control, &restored::lines(&own), "local all all trust\n")?;
        Ok(configuration)
    }
}
