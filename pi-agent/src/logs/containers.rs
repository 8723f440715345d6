//! What each container's logging driver keeps.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::families;
use crate::docker::Container;

/// The log of one container.
#[derive(Debug, Serialize)]
pub(super) struct ContainerLog {
    pub container: String,
    pub driver: String,
    /// With the older files, when the driver writes files.
    pub bytes: Option<u64>,
    /// Bytes a day, by size and age.
    pub growth: Option<u64>,
    pub limit: Limit,
}

/// What keeps it from growing for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Limit {
    /// The driver, at this size (and number of files) each.
    Driver(String),
    /// Whoever gets it: journald, a server, nobody.
    Elsewhere,
    /// Nothing.
    None,
}

impl ContainerLog {
    pub(super) fn of(container: Container) -> Self {
        let limit = limit(&container.log_driver, &container.log_options);
        // Its files lie in the container's own directory: not ours to list, only to weigh.
        let log = container.log_path.as_deref().map(weigh);
        let growth = log.and_then(|(bytes, born)| super::a_day(bytes, born));
        let bytes = log.map(|(bytes, _)| bytes);
        Self { container: container.name, driver: container.log_driver, bytes, growth, limit }
    }
}

fn weigh(log: &Path) -> (u64, Option<std::time::SystemTime>) {
    let folder: PathBuf = log.parent().map(Path::to_owned).unwrap_or_default();
    let families = families::below(&folder, &mut Vec::new());
    let family = families.into_iter().find(|family| family.path == log);
    family.map_or((0, None), |family| (family.all_bytes, family.born.filter(|_| family.older == 0)))
}

fn limit(driver: &str, options: &[(String, String)]) -> Limit {
    let option = |name: &str| options.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let files = |default: &'static str| option("max-file").unwrap_or(default).to_owned();
    match (driver, option("max-size")) {
        ("json-file", None | Some("-1")) => Limit::None,
        ("json-file", Some(size)) => Limit::Driver(format!("{size} x {}", files("1"))),
        ("local", size) => Limit::Driver(format!("{} x {}", size.unwrap_or("20m"), files("5"))),
        _ => Limit::Elsewhere,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_without_a_size_grows_for_ever() {
        let of = |driver: &str, options: &[(&str, &str)]| {
            let options: Vec<_> = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            limit(driver, &options)
        };
        assert_eq!(of("json-file", &[]), Limit::None);
        assert_eq!(of("json-file", &[("max-file", "3")]), Limit::None);
        assert_eq!(of("json-file", &[("max-size", "10m"), ("max-file", "3")]), Limit::Driver("10m x 3".into()));
        assert_eq!(of("local", &[]), Limit::Driver("20m x 5".into()));
        assert_eq!(of("journald", &[]), Limit::Elsewhere);
    }
}
