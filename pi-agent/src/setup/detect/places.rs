//! Directories that look like something: Foundry's data, a container's database, compose files' secrets, logs.

use std::path::{Path, PathBuf};

use super::super::walk::{children, search};
use super::Root;

/// Where people put what they run.
const STARTS: [&str; 5] = ["/home", "/opt", "/root", "/srv", "/var/lib/docker/volumes"];
const COMPOSE: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];
/// Made for secrets, by its name.
const SECRETS: &str = "/srv/secrets";

#[derive(Debug, Default)]
pub(super) struct Places {
    pub foundry: Vec<PathBuf>,
    pub clusters: Vec<PathBuf>,
    pub configs: Vec<PathBuf>,
}

/// One search for all of them.
pub(super) fn look(root: &Root<'_>) -> Places {
    let mut places = Places::default();
    if root.at(SECRETS).is_dir() {
        places.configs.push(SECRETS.into());
    }
    search(&STARTS.map(|start| root.at(start)), &mut |directory| {
        if is_foundry(directory) {
            places.foundry.push(root.named(directory));
            return false;
        }
        if directory.join("PG_VERSION").is_file() && directory.join("global/pg_control").is_file() {
            places.clusters.push(root.named(directory));
            return false;
        }
        let secrets = directory.join(".env");
        if secrets.is_file() && COMPOSE.iter().any(|name| directory.join(name).is_file()) {
            places.configs.push(root.named(&secrets));
        }
        true
    });
    places.foundry.sort();
    places
}

/// Foundry's user data, whatever it is called.
fn is_foundry(directory: &Path) -> bool {
    directory.join("Data/worlds").is_dir() && directory.join("Config/options.json").is_file()
}

/// `/srv/logs`, the `logs` of each service, and the system's.
pub(super) fn logs(root: &Root<'_>) -> Vec<PathBuf> {
    let of_services = ["/opt", "/srv"].iter().flat_map(|folder| children(&root.at(folder)));
    let mut found: Vec<PathBuf> = [root.at("/srv/logs"), root.at("/var/log")].into();
    found.extend(of_services.map(|service| service.join("logs")));
    found.retain(|path| path.symlink_metadata().is_ok_and(|found| found.is_dir()));
    found.sort();
    found.iter().map(|path| root.named(path)).collect()
}
