//! What lies on this machine that one would back up. Everything is read below a root, so that tests are trees of files.

mod containers;
mod places;
mod postgres;
mod propose;

use std::path::{Path, PathBuf};

use crate::docker::Container;

pub use containers::containers;
pub use postgres::cluster_at;
pub use propose::{databases, folders};

/// What was found, as paths of the machine (without the root).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// PostgreSQL clusters of this host, and of containers that run.
    pub clusters: Vec<Cluster>,
    /// Data directories of other servers: of a container that does not run.
    pub foreign_clusters: Vec<PathBuf>,
    /// Foundry's user data directories.
    pub foundry: Vec<PathBuf>,
    /// The container that writes to them.
    pub foundry_writer: Option<String>,
    /// Directories of logs.
    pub logs: Vec<PathBuf>,
    /// Secrets and machine-local configuration.
    pub configs: Vec<PathBuf>,
}

/// A cluster of this host or of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Its major version, as `PG_VERSION` says; empty when it cannot be read.
    pub version: String,
    /// Its name among those of that version.
    pub name: String,
    /// The container that its server runs in.
    pub container: Option<String>,
    /// Its `data_directory`; of a container, where that lies on this machine.
    pub data_directory: PathBuf,
    /// Where its socket is, unless that is the default.
    pub socket_directory: Option<PathBuf>,
    /// Its port, unless that is the default.
    pub port: Option<u16>,
}

/// Looks for it; takes seconds at most. `config_directory` is the agent's own, which is always worth keeping.
pub fn look(root: &Path, config_directory: &Path, containers: &[Container]) -> Found {
    let root = Root(root);
    let mut clusters = postgres::clusters(&root);
    clusters.extend(containers::clusters(containers));
    let places = places::look(&root);
    let ours = |path: &PathBuf| clusters.iter().any(|cluster| cluster.data_directory == *path);
    let foreign_clusters = places.clusters.into_iter().filter(|path| !ours(path)).collect();
    let mut configs = places.configs;
    configs.push(config_directory.to_owned());
    let foundry_writer = containers::writer(&root, &places.foundry, containers);
    Found { clusters, foreign_clusters, foundry: places.foundry, foundry_writer, logs: places::logs(&root), configs }
}

/// Where the machine's `/` is.
#[derive(Clone, Copy)]
struct Root<'a>(&'a Path);

impl Root<'_> {
    /// Where a path of the machine really is.
    fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The path as the machine names it.
    fn named(&self, real: &Path) -> PathBuf {
        real.strip_prefix(self.0).map_or_else(|_| real.to_owned(), |below| Path::new("/").join(below))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use super::*;
    use crate::docker::{Mount, State};

    /// A machine made of files: each line is a path, a directory when it ends with "/".
    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let real = Root(root.path()).at(path);
            if path.ends_with('/') {
                fs::create_dir_all(real).unwrap();
            } else {
                fs::create_dir_all(real.parent().unwrap()).unwrap();
                fs::write(real, text).unwrap();
            }
        }
        root
    }

    fn paths(paths: &[&str]) -> Vec<PathBuf> {
        paths.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn the_household_is_found() {
        let root = machine(&[
            (
                "/etc/postgresql/15/main/postgresql.conf",
                "data_directory = '/var/lib/postgresql/15/main'\t# here\nport = 5432\n\
                 unix_socket_directories = '/var/run/postgresql'\n",
            ),
            ("/var/lib/postgresql/15/main/PG_VERSION", "15\n"),
            (
                "/etc/postgresql/17/second/postgresql.conf",
                "data_directory='/mnt/fast/pg' # elsewhere\n#port = 1\nport = 5433 # next\nunix_socket_directories = '/run/it''s, /tmp'\n",
            ),
            ("/mnt/fast/pg/PG_VERSION", "17\n"),
            ("/srv/foundry/data/Data/worlds/saltmarsh/world.json", "{}"),
            ("/srv/foundry/data/Config/options.json", "{}"),
            ("/home/mira/.local/share/FoundryVTT/Data/worlds/", ""),
            ("/home/mira/.local/share/FoundryVTT/Config/options.json", "{}"),
            ("/home/mira/old/Data/worlds/", ""),
            ("/var/lib/docker/volumes/db/_data/PG_VERSION", "15\n"),
            ("/var/lib/docker/volumes/db/_data/global/pg_control", ""),
            ("/srv/logs/", ""),
            ("/srv/web/logs/", ""),
            ("/var/log/nginx/access.log", ""),
            ("/srv/secrets/token", ""),
            ("/srv/web/docker-compose.yml", ""),
            ("/srv/web/.env", "KEY=1"),
            ("/opt/other/.env", "not beside a compose file"),
            ("/opt/redis/compose.yaml", ""),
        ]);
        let found = look(root.path(), Path::new("/etc/pi-agent"), &[]);
        let second = Cluster {
            version: "17".into(),
            name: "second".into(),
            container: None,
            data_directory: "/mnt/fast/pg".into(),
            socket_directory: Some("/run/it's".into()),
            port: Some(5433),
        };
        assert_eq!(found.clusters[1], second);
        assert_eq!(found.clusters[0].data_directory, Path::new("/var/lib/postgresql/15/main"));
        assert_eq!((found.clusters.len(), found.clusters[0].port), (2, None));
        assert_eq!(found.foreign_clusters, paths(&["/var/lib/docker/volumes/db/_data"]));
        assert_eq!(found.foundry, paths(&["/home/mira/.local/share/FoundryVTT", "/srv/foundry/data"]));
        assert_eq!(found.logs, paths(&["/srv/logs", "/srv/web/logs", "/var/log"]));
        assert_eq!(found.configs, paths(&["/srv/secrets", "/srv/web/.env", "/etc/pi-agent"]));

        let (databases, folders) = (databases(&found.clusters), folders(&found));
        let names: Vec<_> = databases.iter().map(|database| (&*database.name, &*database.stanza)).collect();
        assert_eq!(names, [("database", "main"), ("database-second", "second")]);
        let names: Vec<_> = folders.iter().map(|folder| &*folder.name).collect();
        assert_eq!(names, ["foundry", "logs", "configs"]);
    }

    #[test]
    fn a_bare_machine_has_logs_and_our_own_configuration() {
        let root = machine(&[("/var/log/syslog", ""), ("/home/mira/", "")]);
        let found = look(root.path(), Path::new("/etc/pi-agent"), &[]);
        let expected = Found { logs: paths(&["/var/log"]), configs: paths(&["/etc/pi-agent"]), ..Found::default() };
        assert_eq!(found, expected);
        assert!(databases(&found.clusters).is_empty());
        assert_eq!(folders(&found)[0].exclude, ["/var/log/journal"]);
    }

    #[test]
    fn the_one_container_that_writes_is_paused() {
        let root = machine(&[("/srv/foundry/Data/worlds/", ""), ("/srv/foundry/Config/options.json", "{}")]);
        let container = |name: &str, source: &str, writable| Container {
            id: "9c28".into(),
            name: name.into(),
            state: State::Stopped,
            pid: None,
            image: String::new(),
            mounts: vec![Mount { source: root.path().join(source), destination: "/data".into(), writable }],
            environment: vec![],
            log_driver: "json-file".into(),
            log_options: vec![],
            log_path: None,
        };
        let foundry = container("foundry", "srv/foundry", true);
        let live = |containers: &[Container]| {
            let found = look(root.path(), Path::new("/etc/pi-agent"), containers);
            folders(&found).swap_remove(0).live.map(|live| (live.paths, live.container))
        };
        let expected = Some((paths(&["Data/worlds"]), "foundry".to_owned()));
        assert_eq!(live(&[foundry.clone(), container("db", "srv/db", true)]), expected);
        assert_eq!(live(&[foundry.clone(), container("web", "srv/foundry", false)]), expected);
        assert_eq!((live(&[]), live(&[foundry, container("files", "srv", true)])), (None, None));
    }

    #[test]
    fn a_running_server_tells_its_own_socket_and_port() {
        let root = machine(&[
            ("/tmp/server/data/PG_VERSION", "15\n"),
            ("/tmp/server/data/postgresql.conf", "port = 5433\n"),
            ("/tmp/server/data/postmaster.pid", "99\n/tmp/server/data\n17\n54321\n/tmp/server/socket\n\n 1 2\nready\n"),
        ]);
        let cluster = cluster_at(root.path(), Path::new("/tmp/server/data"));
        assert_eq!((cluster.port, cluster.socket_directory), (Some(54321), Some("/tmp/server/socket".into())));
        assert_eq!((&*cluster.version, &*cluster.name), ("15", "main"));
    }

    #[test]
    fn clusters_of_one_name_get_names_of_their_own() {
        let cluster = |version: &str| Cluster {
            version: version.into(),
            name: "main".into(),
            container: None,
            data_directory: format!("/var/lib/postgresql/{version}/main").into(),
            socket_directory: None,
            port: None,
        };
        let of_container = || Cluster { name: "db".into(), container: Some("db".into()), ..cluster("15") };
        let names = |clusters: &[Cluster]| {
            let named = databases(clusters).into_iter().map(|database| (database.name, database.stanza));
            named.map(|(name, stanza)| format!("{name} {stanza}")).collect::<Vec<_>>()
        };
        let three = names(&[cluster("15"), cluster("17"), cluster("17")]);
        assert_eq!(three, ["database main", "database-main main-17", "database-main-3 main-17-3"]);
        assert_eq!(names(&[of_container()]), ["database database"]);
        assert_eq!(names(&[cluster("15"), of_container()]), ["database main", "database-db database-db"]);
    }
}
