//! PostgreSQL clusters of the host, as Debian lays them out; what `pg_lsclusters` reads too.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::walk::children;
use super::{Cluster, Root};

const SOCKETS: [&str; 2] = ["/var/run/postgresql", "/run/postgresql"];
pub(super) const PORT: u16 = 5432;

/// Those that have a configuration in `/etc/postgresql/VERSION/NAME`, then others in `/var/lib/postgresql/VERSION/NAME`.
pub(super) fn clusters(root: &Root<'_>) -> Vec<Cluster> {
    let mut found: Vec<Cluster> = Vec::new();
    for folder in two_below(root, "/etc/postgresql") {
        let Ok(text) = fs::read_to_string(folder.join("postgresql.conf")) else { continue };
        let Some(data) = setting(&text, "data_directory") else { continue };
        let data = PathBuf::from(data);
        if root.at(&data).join("PG_VERSION").is_file() {
            found.push(cluster(root, &data, Some(&text), name_of(&folder)));
        }
    }
    for folder in two_below(root, "/var/lib/postgresql") {
        let data = root.named(&folder);
        if folder.join("PG_VERSION").is_file() && found.iter().all(|known| known.data_directory != data) {
            found.push(cluster(root, &data, None, name_of(&folder)));
        }
    }
    found
}

/// The cluster in a data directory that a person named.
pub fn cluster_at(root: &Path, data: &Path) -> Cluster {
    let root = Root(root);
    let known = clusters(&root).into_iter().find(|cluster| cluster.data_directory == data);
    known.unwrap_or_else(|| cluster(&root, data, None, None))
}

fn two_below(root: &Root<'_>, folder: &str) -> Vec<PathBuf> {
    children(&root.at(folder)).iter().flat_map(|version| children(version)).collect()
}

fn name_of(folder: &Path) -> Option<String> {
    folder.file_name().and_then(|name| name.to_str()).map(str::to_owned)
}

/// What a running server wrote into `postmaster.pid` is truer than its configuration.
fn cluster(root: &Root<'_>, data: &Path, conf: Option<&str>, name: Option<String>) -> Cluster {
    let real = root.at(data);
    let own = fs::read_to_string(real.join("postgresql.conf")).unwrap_or_default();
    let conf = conf.unwrap_or(&own);
    let pid = fs::read_to_string(real.join("postmaster.pid")).unwrap_or_default();
    let running = |line: usize| pid.lines().nth(line).map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
    let first = |list: String| list.split(',').next().map(|socket| socket.trim().to_owned());
    let port = running(3).or_else(|| setting(conf, "port"));
    let socket = running(4).or_else(|| setting(conf, "unix_socket_directories").and_then(first));
    Cluster {
        version: fs::read_to_string(real.join("PG_VERSION")).unwrap_or_default().trim().to_owned(),
        name: name.unwrap_or_else(|| "main".into()),
        container: None,
        data_directory: data.to_owned(),
        socket_directory: socket
            .filter(|socket| socket.starts_with('/') && !SOCKETS.contains(&socket.as_str()))
            .map(PathBuf::from),
        port: port.and_then(|port| port.parse().ok()).filter(|port| *port != PORT),
    }
}

/// The value of a setting in the text of a `postgresql.conf`; the last one counts.
fn setting(conf: &str, name: &str) -> Option<String> {
    conf.lines().rev().find_map(|line| {
        let rest = line.trim_start().strip_prefix(name)?;
        if !rest.starts_with([' ', '\t', '=']) {
            return None; // another setting, whose name begins so
        }
        // The equals sign may be left out.
        let rest = rest.trim_start();
        let value = rest.strip_prefix('=').unwrap_or(rest).trim_start();
        let Some(quoted) = value.strip_prefix('\'') else {
            let end = value.find(|c: char| c == '#' || c.is_whitespace()).unwrap_or(value.len());
            return Some(value[..end].to_owned()).filter(|value| !value.is_empty());
        };
        // A doubled quote is one.
        let whole = quoted.replace("''", "\u{0}");
        let end = whole.find('\'')?;
        Some(whole[..end].replace('\u{0}', "'"))
    })
}

#[cfg(test)]
mod tests {
    use super::setting;

    #[test]
    fn settings_are_read_as_the_server_reads_them() {
        let conf = "#port = 1\n  port 5433\t# x\nport_range = 9\nsocket = 'it''s' # y\nempty =\nport=5434#z\n";
        assert_eq!(setting(conf, "port").as_deref(), Some("5434"));
        assert_eq!(setting("  port 5433\t# x", "port").as_deref(), Some("5433"));
        assert_eq!(setting(conf, "socket").as_deref(), Some("it's"));
        assert_eq!(setting(conf, "empty"), None);
        assert_eq!(setting(conf, "missing"), None);
    }
}
