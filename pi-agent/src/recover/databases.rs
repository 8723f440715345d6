//! A database back into its data directory. It is restored and recovered beside it; only then the server is stopped, what it
//! had is moved aside, and the new one takes its place.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use super::aside::{There, is_mount_point, move_aside, on_its_way, there, with};
use super::note::{Notebook, Part};
use super::server::Server;
use super::{Back, Order};
use crate::config::{Postgres, Step};
use crate::error::{Context, Error, Result};
use crate::monitor::{Monitor, Problem};
use crate::pgbackrest;
use crate::process::User;
use crate::restore::Request;
use crate::restore::postgres::restore_original;
use crate::steps::postgres::container;

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
    let known = notes.part(&step.name).cloned();
    let is_there = home.data.join("PG_VERSION").exists();
    if let Some(part) = known.as_ref().filter(|part| part.in_place && is_there) {
        return Ok(Back::before(part.clone()));
    }
    // Cut off after it was put in place, before that was noted.
    let settled = is_there && known.is_some() && home.stage != home.data && !home.stage.exists();
    if !settled {
        home.is_free(order.overwrite)?;
    }

    // 1. Whole, beside its place: what an interrupted one left is gone on with.
    let mut problems = Vec::new();
    let part = match known.filter(|part| settled || (!part.in_place && home.stage.exists())) {
        Some(whole) => whole,
        None => {
            pgbackrest::directory(&home.stage, &home.user, 0o700)?;
            home.forget_cut_off_server()?;
            let (to, at) = (home.stage.clone(), order.at.clone());
            let request = Request { to, at, paths: Vec::new(), overwrite: true };
            let user = home.user.clone();
            let restored = restore_original(order.settings, step, postgres, user, &request, monitor)?;
            problems.clone_from(&restored.problems);
            let part = Part::whole(restored, &home.data, false);
            notes.keep(&step.name, part.clone())?;
            part
        }
    };

    // 2. Into its place.
    let server = Server::of(&home.data, postgres)?;
    let aside = match settled {
        true => None,
        false => server.stop().and_then(|()| home.settle())?,
    };
    let part = Part { in_place: true, aside, left: server.left(), ..part };
    notes.keep(&step.name, part.clone())?;

    // 3. It goes on archiving where the agent fetches.
    container::provide_spool(order.settings, postgres, &home.user)?;
    problems.extend(server.start().err().map(|error| Problem::from(&error)));
    Ok(Back { part, problems, was_there: false })
}

/// Where a cluster belongs, and to whom.
struct Home {
    data: PathBuf,
    user: User,
    /// It is restored there.
    stage: PathBuf,
}

impl Home {
    fn of(order: &Order<'_>, step: &Step, postgres: &Postgres) -> Result<Self> {
        let told = order.clusters.iter().find(|cluster| cluster.step == step.name);
        let data = container::data_on_this_machine(postgres).or_else(|| told?.data.clone());
        let data = data.ok_or_else(|| {
            let name = postgres.container.as_deref().unwrap_or_default();
            Error::new(format!("nobody knows where the data of the container {name} belongs")).hint(format!(
                "make the container without starting it (docker compose up --no-start {name}), then recover again"
            ))
        })?;
        let stage = if is_mount_point(&data) { data.clone() } else { on_its_way(&data) };
        let user = match &postgres.container {
            Some(_) => Self::user_in_container(&[&stage, &data], told.and_then(|told| told.owner))?,
            None => match User::owner_of(&data) {
                Ok(user) if user.uid != 0 => user,
                _ => User::named("postgres").map_err(|error| error.hint("apt install postgresql"))?,
            },
        };
        Ok(Self { data, user, stage })
    }

    /// Whom the data belongs to already, else whom it did.
    fn user_in_container(places: &[&Path], told: Option<(u32, u32)>) -> Result<User> {
        let owner =
            |path: &&Path| path.metadata().ok().map(|found| (found.uid(), found.gid())).filter(|(uid, _)| *uid != 0);
        // That of the official image.
        let (uid, gid) = places.iter().find_map(owner).or(told).unwrap_or((999, 999));
        let known = nix::unistd::User::from_uid(uid.into()).ok().flatten();
        Ok(User { name: known.map_or_else(|| uid.to_string(), |user| user.name), uid, gid, groups: vec![gid] })
    }

    /// A recovery that was cut off leaves PostgreSQL's note that it is at work, and pgBackRest believes it.
    fn forget_cut_off_server(&self) -> Result<()> {
        let note = self.stage.join("postmaster.pid");
        let Ok(text) = fs::read_to_string(&note) else { return Ok(()) };
        // In single-user mode the number is negative.
        let pid = text.lines().next().unwrap_or_default().trim_start_matches('-');
        if fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|at| at == self.stage) {
            return Err(Error::transient(format!(
                "process {pid} still recovers the database in {}",
                self.stage.display()
            ))
            .hint("wait until it has ended, then recover again"));
        }
        fs::remove_file(&note).context(|| format!("remove {}", note.display()))
    }

    /// Nothing is in the way, or it may be moved: a cluster that a package has just made is worth nothing.
    fn is_free(&self, overwrite: bool) -> Result<()> {
        let own_disk = self.stage == self.data;
        let in_the_way = match own_disk {
            // What an interrupted recovery left there is gone on with; a cluster could not be moved aside.
            true => self.data.join("PG_VERSION").exists(),
            false => there(&self.data)? == There::Something && !is_new(&self.data),
        };
        if !in_the_way || (overwrite && !own_disk) {
            return Ok(());
        }
        let data = self.data.display();
        let error = Error::usage(format!("bring back the database in {data}: another one is there"));
        Err(match own_disk {
            true => error.hint("it is a disk of its own: move what is on it to another place"),
            false => error.hint(format!("--overwrite keeps it as {data}.before-recovery")),
        })
    }

    /// From beside its place into it; what was there before, moved aside.
    fn settle(&self) -> Result<Option<PathBuf>> {
        if self.stage == self.data {
            return Ok(None);
        }
        let doing = || format!("put the database in place as {}", self.data.display());
        let aside = move_aside(&self.data)?;
        fs::rename(&self.stage, &self.data).context(doing)?;
        self.settle_tablespaces().context(doing)?;
        Ok(aside)
    }

    /// They lie beside it, and links lead to them.
    fn settle_tablespaces(&self) -> std::io::Result<()> {
        let (staged, settled) = (with(&self.stage, ".tablespaces"), with(&self.data, ".tablespaces"));
        if !staged.exists() {
            return Ok(());
        }
        fs::rename(&staged, &settled)?;
        for link in fs::read_dir(self.data.join("pg_tblspc"))? {
            let link = link?.path();
            if let Ok(old) = fs::read_link(&link)
                && let Ok(rest) = old.strip_prefix(&staged)
            {
                fs::remove_file(&link)?;
                symlink(settled.join(rest), &link)?;
            }
        }
        Ok(())
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
