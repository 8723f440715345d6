//! The status as files, renewed at the end of each run: a page, JSON, and Prometheus' text.

use std::path::Path;

use crate::config::{Settings, StateDirectory};
use crate::error::{Error, Result};
use crate::report::prometheus::metrics;
use crate::report::{History, Status, page};
use crate::secrets::write_shared;
use crate::state::State;

/// What Prometheus' file is called, wherever it lies.
const METRICS: &str = "pi-agent.prom";

/// Writes `status.html`, `status.json` and `pi-agent.prom` into the state directory, and the last also where node_exporter
/// looks for it. Each is whole or not there; one that cannot be written does not keep the others from it.
///
/// # Errors
/// The history cannot be read, or the first of what could not be written.
pub fn write_all(settings: &Settings, directory: &StateDirectory, state: &State, status: &Status) -> Result<()> {
    let write = |name: &str, text: &str| write_shared(&directory.path().join(name), text.as_bytes(), 0o600);
    let history = History::gather(settings, Some(state), status.generated_at)?;
    let html = write("status.html", &page(status, &history));
    drop(history);
    let json = write("status.json", &format!("{:#}\n", status.json()));
    let text = metrics(status);
    let prom = write(METRICS, &text);
    let shared = settings.local.prometheus.as_ref().map_or(Ok(()), |directory| collected(directory, &text));
    html.and(json).and(prom).and(shared)
}

/// The collector runs as another user; a missing directory is not made, since nobody would look into it.
fn collected(directory: &Path, text: &str) -> Result<()> {
    if !directory.is_dir() {
        return Err(Error::new(format!("there is no directory {} for Prometheus' file", directory.display()))
            .hint("install prometheus-node-exporter, or remove `prometheus` from [local]"));
    }
    write_shared(&directory.join(METRICS), text.as_bytes(), 0o644)
}
