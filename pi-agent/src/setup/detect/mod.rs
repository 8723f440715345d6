//! What lies on this machine that one would back up. Everything is read below a root, so that tests are trees of files.

mod places;
mod postgres;
mod propose;

use std::path::{Path, PathBuf};

pub use postgres::cluster_at;
pub use propose::{databases, folders};

/// What was found, as paths of the machine (without the root).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// PostgreSQL clusters of this host.
    pub clusters: Vec<Cluster>,
    /// Data directories of servers that are not this host's: a container's.
    pub foreign_clusters: Vec<PathBuf>,
    /// Foundry's user data directories.
    pub foundry: Vec<PathBuf>,
    /// Directories of logs.
    pub logs: Vec<PathBuf>,
    /// Secrets and machine-local configuration.
    pub configs: Vec<PathBuf>,
}

/// A cluster of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Its major version, as `PG_VERSION` says; empty when it cannot be read.
    pub version: String,
    /// Its name among those of that version.
    pub name: String,
    /// Its `data_directory`.
    pub data_directory: PathBuf,
    /// Where its socket is, unless that is the default.
    pub socket_directory: Option<PathBuf>,
    /// Its port, unless that is the default.
    pub port: Option<u16>,
}

/// Looks for it; takes seconds at most. `config_directory` is the agent's own, which is always worth keeping.
pub fn look(root: &Path, config_directory: &Path) -> Found {
    let root = Root(root);
    let clusters = postgres::clusters(&root);
    let places = places::look(&root);
    let ours = |path: &PathBuf| clusters.iter().any(|cluster| cluster.data_directory == *path);
    let foreign_clusters = places.clusters.into_iter().filter(|path| !ours(path)).collect();
    let mut configs = places.configs;
    configs.push(config_directory.to_owned());
    Found { clusters, foreign_clusters, foundry: places.foundry, logs: places::logs(&root), configs }
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
        let found = look(root.path(), Path::new("/etc/pi-agent"));
        let second = Cluster {
            version: "17".into(),
            name: "second".into(),
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
        let found = look(root.path(), Path::new("/etc/pi-agent"));
        let expected = Found { logs: paths(&["/var/log"]), configs: paths(&["/etc/pi-agent"]), ..Found::default() };
        assert_eq!(found, expected);
        assert!(databases(&found.clusters).is_empty());
        assert_eq!(folders(&found)[0].exclude, ["/var/log/journal"]);
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
            data_directory: format!("/var/lib/postgresql/{version}/main").into(),
            socket_directory: None,
            port: None,
        };
        let named = databases(&[cluster("15"), cluster("17"), cluster("17")]);
        let names: Vec<_> = named.iter().map(|database| (&*database.name, &*database.stanza)).collect();
        assert_eq!(names, [("database", "main"), ("database-main", "main-17"), ("database-main-3", "main-17-3")]);
    }
}
