//! The configuration as it was last saved. No kit is made anew for each change of it, and a step that came later is not in
//! the kit: its files would be forgotten without a word.

use std::path::Path;

use jiff::Timestamp;

use crate::config::{self, AGENT, Settings};
use crate::kit::Found;
use crate::monitor::Monitor;
use crate::restore::{self, At, Request};
use crate::secrets::Secret;

/// Has the kit hold the configuration that was saved after it was made, when there is one of the same place and the same
/// secrets; when that was. `trial` are settings that reach the storage, `aside` is a directory to work in.
pub fn configuration(kit: &mut Found, trial: &Settings, aside: &Path, at: &At) -> Option<Timestamp> {
    let file = kit.settings.file.clone();
    let to = aside.join("agent");
    let request =
        Request { to: to.clone(), at: at.clone(), paths: vec![file.clone()], overwrite: false, privileges: false };
    // Without one, the kit's own is the best there is.
    let restored = restore::restore(trial, AGENT, &request, &Monitor::silent()).ok()?;
    // A kit tells its second only: what was saved within the same one was saved before it was made.
    let later = kit.made_at.is_some_and(|made| made.as_second() < restored.time.as_second());
    let text = std::fs::read_to_string(to.join(file.strip_prefix("/").ok()?)).ok()?;
    let own = kit.files.iter_mut().find(|own| own.name == "config.toml")?;
    if !later || text == own.content.reveal() {
        return None;
    }
    let newest = config::parse(&text, &file).ok()?;
    if newest.storage.location != kit.settings.storage.location || newest.secrets != kit.settings.secrets {
        return None;
    }
    own.content = Secret::new(text);
    kit.settings = newest;
    Some(restored.time)
}
