//! A database back into its data directory.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::note::{Notebook, Part};
use super::server::Server;
use super::{Back, Order};
use crate::config::{Postgres, Step};
use crate::error::{Error, Result};
use crate::monitor::{Monitor, Problem};
use crate::process::User;
use crate::restore::beside::Beside;
use crate::restore::outside::{self, Original};
use crate::restore::postgres::restore_original;
use crate::restore::tablespaces;
use crate::shown::shown;
use crate::steps::postgres::container;
use crate::theirs;
use crate::wal::{self, Record};

/// Brings it back, unless that was done before.
///
/// # Errors
/// It is not known where it belongs, another database is there, PostgreSQL's programs are missing, or the restore fails.
pub fn bring_back(
    order: &Order<'_>,
    notes: &mut Notebook<'_>,
    step: &Step,
    postgres: &Postgres,
    monitor: &Monitor,
) -> Result<Back> {
    let home = Home::of(order, step, postgres)?;
    let is_there = home.beside.place.join("PG_VERSION").exists();
    if let Some(part) = notes.part(&step.name).filter(|_| is_there) {
        return Back::before(part.clone(), Some(&home.beside));
    }
    let cut_off = home.beside.cut_off();
    if cut_off.is_none() {
        home.is_free(order)?;
    }

    let server = Server::of(&home.beside.place, postgres)?;
    if let Server::Unknown(_) = server {
        // Said before hours are spent.
        server.stop()?;
    }

    // 1. Whole, beside its place.
    let restored = match cut_off {
        Some(restored) => restored,
        None => home.beside.restore(&step.name, &order.at, &[], &mut |request| {
            theirs::make(&home.beside.stage, &home.user, 0o700)?;
            let settled = tablespaces::place(&home.beside);
            let container = postgres.container.as_ref();
            let there = Original { data: &home.beside.place, tablespaces: &settled, container };
            restore_original(order.settings, step, postgres, (home.user.clone(), there), request, monitor)
        })?,
    };

    // 2. Into its place.
    server.stop()?;
    let aside = home.beside.exchange()?;
    let mut problems: Vec<_> = restored.told().cloned().collect();
    let (kept, container) = (home.beside.kept(), postgres.container.as_ref());
    // The same recovery goes on there.
    let mut olds = outside::settle(&home.beside.place, kept.as_deref(), container)?;
    match tablespaces::settle(&home.beside, kept.as_deref(), container) {
        Ok(old) => olds.extend(old),
        Err(error) => problems.push(Problem::from(&error)),
    }
    let mut part = Part::new(&restored, &home.beside.place, aside);
    part.left.extend(server.left());
    part.left.extend(
        olds.iter().map(|old| format!("What belongs to the database that was there is kept in {}.", shown(old))),
    );
    notes.keep(&step.name, part.clone())?;
    home.beside.end()?;

    // 3. It goes on archiving where the agent fetches.
    container::provide_spool(order.settings, postgres, &home.user)?;
    // When its timeline began is known by when its history came. What fails here the server does itself.
    let record = Record::at_hand(order.directory);
    let _ = wal::drain_restored(order.settings, std::slice::from_ref(&step.name), &record);
    problems.extend(server.start().err().map(|error| Problem::from(&error)));
    Ok(Back { part, problems, was_there: false })
}

/// Where a cluster belongs, and to whom.
pub struct Home {
    pub beside: Beside,
    user: User,
}

impl Home {
    pub fn of(order: &Order<'_>, step: &Step, postgres: &Postgres) -> Result<Self> {
        let told = order.clusters.iter().find(|cluster| cluster.step == step.name);
        let data = container::data_on_this_machine(postgres).or_else(|| told?.data.clone());
        let data = data.ok_or_else(|| {
            let name = postgres.container.as_deref().unwrap_or_default();
            Error::new(format!("nobody knows where the data of the container {name} belongs")).hint(format!(
                "make the container without starting it (docker compose up --no-start {name}), then recover again"
            ))
        })?;
        let beside = Beside::of_database(&data)?;
        let user = match &postgres.container {
            Some(_) => Self::user_in_container(&[&beside.stage, &data], told.and_then(|told| told.owner))?,
            None => match User::owner_of(&data) {
                Ok(user) if user.uid != 0 => user,
                _ => User::named("postgres").map_err(|error| error.hint("apt install postgresql"))?,
            },
        };
        Ok(Self { beside, user })
    }

    /// Whom the data belongs to already, else whom it did.
    fn user_in_container(places: &[&Path], told: Option<(u32, u32)>) -> Result<User> {
        let owner =
            |path: &&Path| path.metadata().ok().map(|found| (found.uid(), found.gid())).filter(|(uid, _)| *uid != 0);
        // That of the official image.
        let (uid, gid) = places.iter().find_map(owner).or(told.filter(|(uid, _)| *uid != 0)).unwrap_or((999, 999));
        let known = nix::unistd::User::from_uid(uid.into()).ok().flatten();
        Ok(User { name: known.map_or_else(|| uid.to_string(), |user| user.name), uid, gid, groups: vec![gid] })
    }

    /// Nothing is in the way, or it may be moved: a cluster that a package has just made is worth nothing.
    pub fn is_free(&self, order: &Order<'_>) -> Result<()> {
        self.beside.may_take_a_database()?;
        if is_new(&self.beside.place) { Ok(()) } else { order.may_replace(&self.beside) }
    }
}

/// A cluster that nobody made a database in.
fn is_new(data: &Path) -> bool {
    /// PostgreSQL's own (`FirstNormalObjectId`).
    const FIRST_OF_A_USER: u32 = 16384;
    let Ok(databases) = fs::read_dir(data.join("base")) else { return false };
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
    databases.flatten().filter_map(number).all(|oid| oid < FIRST_OF_A_USER)
}
