//! What runs in Docker.

use std::fs;
use std::path::PathBuf;

use super::postgres::PORT;
use super::{Cluster, Root};
use crate::docker::{Container, Docker};
use crate::steps::postgres::container::port_and_data;

/// Every container; none where Docker does not answer, because most machines have none.
pub fn containers() -> Vec<Container> {
    Docker::open().and_then(|docker| docker.containers()).unwrap_or_default()
}

/// Those in which a PostgreSQL server runs.
pub(super) fn clusters(containers: &[Container]) -> Vec<Cluster> {
    let cluster = |container: &Container| {
        let (port, data) = port_and_data(container)?;
        let data_directory = data.unwrap_or_default();
        Some(Cluster {
            version: fs::read_to_string(data_directory.join("PG_VERSION")).unwrap_or_default().trim().to_owned(),
            name: container.name.clone(),
            container: Some(container.name.clone()),
            data_directory,
            socket_directory: None,
            port: Some(port).filter(|port| *port != PORT),
        })
    };
    containers.iter().filter_map(cluster).collect()
}

/// The only container that can write to all of these directories.
pub(super) fn writer(root: &Root<'_>, directories: &[PathBuf], containers: &[Container]) -> Option<String> {
    let sees = |container: &&Container| directories.iter().all(|path| container.sees(&root.at(path)).is_some());
    let mut writers = containers.iter().filter(sees).filter(|_| !directories.is_empty());
    writers.next().filter(|_| writers.next().is_none()).map(|container| container.name.clone())
}
