//! WAL in the spool that is of another cluster than the stanza's. pgBackRest refuses it; it stops nothing that the repository waits for.

use std::collections::BTreeMap;
use std::path::Path;

use super::segment::Header;
use super::set_aside;
use crate::monitor::Problem;

/// The names of such files that one pass came across, by the system identifiers of their clusters.
#[derive(Debug, Default)]
pub(super) struct Foreign(BTreeMap<u64, Vec<String>>);

impl Foreign {
    /// A segment of a cluster that pgBackRest has refused in this pass: it is not asked again.
    pub fn takes(&mut self, header: &Header, name: &str) -> bool {
        let Some(names) = self.0.get_mut(&header.system_id) else { return false };
        names.push(name.to_owned());
        true
    }

    /// pgBackRest refuses a segment because of its cluster.
    pub fn begins(&mut self, header: &Header, name: &str) {
        self.0.entry(header.system_id).or_default().push(name.to_owned());
    }

    /// What a cluster left that is not there any more is set aside. That of the cluster that is there, `live`, waits: somebody restores
    /// the other one, or adopts this one. What is said of each.
    pub fn settle(self, spool: &Path, step: &str, live: Option<u64>) -> Vec<Problem> {
        let told = self.0.into_iter().map(|(id, names)| {
            let files = match names.len() {
                1 => "1 file".to_owned(),
                files => format!("{files} files"),
            };
            if live.is_none_or(|live| live == id) {
                return Problem {
                    message: format!(
                        "WAL of another cluster (system id {id}) than that of the backups waits in {}, {files}",
                        spool.display()
                    ),
                    hint: Some(format!(
                        "an empty or foreign cluster? then restore: pi-agent restore {step} --in-place; if it is meant: pi-agent adopt {step}"
                    )),
                };
            }
            let moved = names.iter().map(|name| set_aside(&spool.join(name), &id.to_string()));
            match moved.collect::<Result<Vec<_>, _>>() {
                Ok(_) => Problem {
                    message: format!(
                        "WAL of another cluster was set aside, {files}: {}",
                        spool.join(format!("set-aside-{id}")).display()
                    ),
                    hint: Some(
                        "it belongs to a cluster that was here before, and is in no backup; delete it when that one is not needed"
                            .into(),
                    ),
                },
                Err(error) => (&error).into(),
            }
        });
        told.collect()
    }
}
