//! Telling people: a notice is first made durable in the outbox, then sent, in order, at least once.
//!
//! A notice can never fail a backup, and a backup's failure can never lose its notice.

mod deliver;
mod discord;
mod http;
mod mask;
mod notice;
mod outbox;
mod service;
mod text;

use std::time::Duration;

use log::warn;

use crate::config::{Settings, StateDirectory};
use crate::error::Result;

pub use deliver::{Delivery, deliver};
pub use notice::{Kind, Notice, Tone};
pub use service::Service;

/// Puts notices into the outbox, for each service that takes them. Durable when it returns; nothing is sent. Without a
/// service, nobody is to be told.
///
/// # Errors
/// A service's secret cannot be read, or the outbox cannot be written. The other services have it then all the same.
pub fn post(settings: &Settings, directory: &StateDirectory, notices: &[Notice]) -> Result<()> {
    if notices.is_empty() {
        return Ok(());
    }
    let mask = mask::Mask::of(settings);
    let mut first = None;
    for service in Service::all(settings)? {
        let queue = outbox::Queue::new(directory, &service.queue());
        for notice in notices.iter().filter(|notice| service.takes(notice.kind)) {
            if let Err(error) = queue.put(&masked(notice, &mask)) {
                first.get_or_insert(error);
            }
        }
    }
    first.map_or(Ok(()), Err)
}

/// How many messages wait to be sent, to all services together. What a service that is configured no more was to be told
/// stays where it is, in case it comes back.
pub fn waiting(settings: &Settings, directory: &StateDirectory) -> usize {
    // Services that cannot be read are told by whoever wants to tell them something.
    let services = Service::all(settings).unwrap_or_default();
    services.iter().map(|service| outbox::Queue::new(directory, &service.queue()).count()).sum()
}

/// Sends what waits; `true` when nothing waits any more. What could not be sent is in the journal and stays in the outbox:
/// it is no failure of whoever wanted it sent, and there is nobody whom that could be told.
///
/// # Errors
/// As [`deliver`].
pub fn flush(settings: &Settings, directory: &StateDirectory, patience: Duration) -> Result<bool> {
    let mut all = true;
    for delivery in deliver(settings, directory, patience)? {
        if let Some(error) = delivery.problem {
            warn!("{} ({} wait)", error.chain(), delivery.waiting);
            all = false;
        }
    }
    Ok(all)
}

fn masked(notice: &Notice, mask: &mask::Mask) -> Notice {
    Notice {
        title: mask.cover(&notice.title),
        text: mask.cover(&notice.text),
        hint: notice.hint.as_ref().map(|hint| mask.cover(hint)),
        facts: notice.facts.iter().map(|(name, value)| (name.clone(), mask.cover(value))).collect(),
        ..notice.clone()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Any notice.
    pub fn notice(kind: Kind, key: &str) -> Notice {
        Notice {
            incident: key.rsplit_once('.').unwrap().0.into(),
            key: key.into(),
            kind,
            tone: Tone::Critical,
            at: "2026-11-21T03:07:00Z".parse().unwrap(),
            host: "pi-hosting".into(),
            title: "foundry: the backup failed".into(),
            text: "read /srv/foundry: Input/output error".into(),
            hint: Some("look at the disk".into()),
            facts: vec![("last good restore point".into(), "2026-11-20 03:12, 1 d old".into())],
        }
    }
}
