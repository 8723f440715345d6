//! What a configuration is made of, before it is text: given by flags, found on the machine, or typed.

use std::path::PathBuf;

/// Everything that [`super::render`] writes down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    /// `[host] name`.
    pub host: String,
    /// `[storage]`.
    pub storage: StorageAnswer,
    /// `[secrets] directory`.
    pub secrets: PathBuf,
    /// `[local]`.
    pub local: LocalAnswer,
    /// `[limits] upload`, as given.
    pub upload: Option<String>,
    /// The clusters, first in the order of steps.
    pub databases: Vec<Database>,
    /// The directory steps, in their order.
    pub folders: Vec<Folder>,
}

/// `[storage]`, each as given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageAnswer {
    /// `url`
    pub url: String,
    /// `region`
    pub region: Option<String>,
    /// `endpoint`
    pub endpoint: Option<String>,
    /// `path-style`
    pub path_style: Option<bool>,
    /// `ca-file`
    pub ca_file: Option<PathBuf>,
}

impl StorageAnswer {
    /// It is a bucket, not a folder.
    pub fn is_s3(&self) -> bool {
        self.url.starts_with("s3://")
    }
}

/// `[local]`; `None` is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalAnswer {
    /// `cache`
    pub cache: Option<PathBuf>,
    /// `spool`
    pub spool: Option<PathBuf>,
    /// `runtime`
    pub runtime: Option<PathBuf>,
}

/// A PostgreSQL step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// `name`
    pub name: String,
    /// `stanza`
    pub stanza: String,
    /// `container`; then the directories are found.
    pub container: Option<String>,
    /// `data-directory`
    pub data_directory: PathBuf,
    /// `socket-directory`; `None` is the default.
    pub socket_directory: Option<PathBuf>,
    /// `port`; `None` is the default.
    pub port: Option<u16>,
}

/// A directory step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// `name`
    pub name: String,
    /// `paths`
    pub paths: Vec<PathBuf>,
    /// `exclude`
    pub exclude: Vec<String>,
    /// `live`
    pub live: Option<LivePart>,
}

/// What a container writes to day and night.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LivePart {
    /// `paths`
    pub paths: Vec<PathBuf>,
    /// The container that `pause` names.
    pub container: String,
}

impl Folder {
    /// A step whose name and paths are all there is to say.
    pub fn new(name: impl Into<String>, paths: Vec<PathBuf>) -> Self {
        Self { name: name.into(), paths, exclude: Vec::new(), live: None }
    }

    /// Logs are kept for good: what rotation removed is what one looks for later.
    pub fn keeps_everything(&self) -> bool {
        self.name == "logs"
    }
}
