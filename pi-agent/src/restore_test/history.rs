//! The history as it was saved in the storage: what is compared with must not come from this machine, either.

use super::Work;
use crate::config::AGENT;
use crate::error::Result;
use crate::repository::{Repository, Selection};
use crate::secrets::Secrets;
use crate::state::State;
use crate::steps::directory::newest;
use crate::storage::Store;

/// The newest; `None` when none was ever saved.
pub(super) fn saved(work: &Work<'_>) -> Result<Option<State>> {
    let settings = &work.place.settings;
    let secrets = Secrets::new(&settings.secrets);
    let store = Store::open(&settings.storage, &settings.storage.location, &secrets)?.join(AGENT);
    let Some(repository) = Repository::open(settings, AGENT, store, &secrets)? else { return Ok(None) };
    let snapshots = repository.snapshots()?;
    let ahead = repository.store().clock_ahead();
    let Some((snapshot, _)) = newest(&snapshots, settings.step(AGENT)?, ahead) else { return Ok(None) };
    let Some(path) = repository.find(snapshot, "state.db")? else { return Ok(None) };
    let to = work.place.fresh("history")?;
    let selection = Selection {
        snapshot: snapshot.clone(),
        to: to.clone(),
        paths: vec![path.clone()],
        fresh: true,
        privileges: false,
    };
    repository.restore(&selection, work.monitor)?;
    State::open_read_only(&to.join(path.strip_prefix("/").unwrap_or(&path)))
}
