//! Validated settings. Every value here is complete, in range and typed; no later code knows a default.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Limits;
use crate::error::{Error, Result};

/// The whole configuration, validated.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// The file it was read from (absolute).
    pub file: PathBuf,
    /// `[host] name`: labels snapshots and reports.
    pub host: String,
    /// `[storage]`.
    pub storage: Storage,
    /// `[secrets] directory`.
    pub secrets: PathBuf,
    /// `[local]`.
    pub local: Local,
    /// `[notify]`.
    pub notify: Notify,
    /// `[alarms]`.
    pub alarms: Alarms,
    /// `[restore-test]`.
    pub restore_test: RestoreTest,
    /// Steps in run order, the implicit `agent` step last.
    pub steps: Vec<Step>,
    /// Others come first: a step has the lowest priority, and stands still in turns while they wait.
    pub gives_way: bool,
    /// What is accepted but has no effect in this version, as sentences for a person.
    pub warnings: Vec<String>,
}

/// Name of the implicit last step.
pub const AGENT: &str = "agent";

impl Settings {
    /// With the secrets and the directory that systemd handed to a service which runs as another user than root.
    #[must_use]
    pub fn handed_over(mut self, credentials: Option<OsString>, runtime: Option<OsString>) -> Self {
        if let Some(credentials) = credentials {
            self.secrets = credentials.into();
            if let Some(runtime) = runtime {
                self.local.runtime = runtime.into();
            }
        }
        self
    }

    /// With everything as fast as the machine and the line give, whoever else waits for them.
    #[must_use]
    pub fn without_limits(mut self) -> Self {
        self.storage.limits = Limits::default();
        self.gives_way = false;
        self
    }

    /// The step of that name.
    ///
    /// # Errors
    /// There is none: kind `Usage`, with the names there are.
    pub fn step(&self, name: &str) -> Result<&Step> {
        self.steps.iter().find(|step| step.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.steps.iter().map(|step| step.name.as_str()).collect();
            Error::usage(format!("there is no step \"{name}\"")).hint(format!("the steps are {}", known.join(", ")))
        })
    }

    /// The databases among the steps named; none named: all.
    ///
    /// # Errors
    /// There is no step of that name.
    pub fn databases(&self, names: &[String]) -> Result<Vec<(&Step, &Postgres)>> {
        for name in names {
            self.step(name)?;
        }
        let wanted = self.steps.iter().filter(|step| names.is_empty() || names.contains(&step.name));
        let databases = wanted.filter_map(|step| match &step.source {
            Source::Postgres(postgres) => Some((step, postgres)),
            Source::Directory(_) | Source::Agent(_) => None,
        });
        Ok(databases.collect())
    }
}

/// Where backups go and how patient to be with it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Storage {
    /// The root; each step gets `URL/STEP-NAME`.
    pub location: Location,
    /// A request with no byte moving either way for this long has failed (and is tried again).
    pub timeout: Duration,
    /// How long one request is tried again before its step fails.
    pub retry_for: Duration,
    /// `[limits]`.
    pub limits: Limits,
}

/// A place in storage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Location {
    /// `file:///ABSOLUTE/PATH`
    File(PathBuf),
    /// `s3://BUCKET/PREFIX`
    S3(S3Location),
}

/// A place in a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct S3Location {
    /// Bucket name.
    pub bucket: String,
    /// Key prefix without slashes at its ends; may be empty.
    pub prefix: String,
    /// Region as the endpoint expects it in signatures.
    pub region: String,
    /// `https://HOST[:PORT]`, no trailing slash; `None`: AWS.
    pub endpoint: Option<String>,
    /// `https://ENDPOINT/BUCKET/KEY` instead of `https://BUCKET.ENDPOINT/KEY`.
    pub path_style: bool,
    /// A private certificate authority (PEM) to trust besides the system's.
    pub ca_file: Option<PathBuf>,
}

impl S3Location {
    /// `https://HOST[:PORT]`: the configured one, else AWS's for the region.
    pub fn endpoint(&self) -> String {
        self.endpoint.clone().unwrap_or_else(|| format!("https://s3.{}.amazonaws.com", self.region))
    }

    /// The host that is asked, and its port.
    pub fn server(&self) -> (String, u16) {
        let endpoint = self.endpoint();
        let (scheme, authority) = endpoint.split_once("://").unwrap_or(("https", &endpoint));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
            _ => (authority, None),
        };
        let port = port.unwrap_or(if scheme == "http" { 80 } else { 443 });
        let host = host.trim_start_matches('[').trim_end_matches(']');
        (if self.path_style { host.into() } else { format!("{}.{host}", self.bucket) }, port)
    }
}

impl Location {
    /// The place `self/name`.
    #[must_use]
    pub fn join(&self, name: &str) -> Self {
        match self {
            Self::File(path) => Self::File(path.join(name)),
            Self::S3(s3) => {
                let prefix = if s3.prefix.is_empty() { name.into() } else { format!("{}/{name}", s3.prefix) };
                Self::S3(S3Location { prefix, ..s3.clone() })
            }
        }
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "file://{}", path.display()),
            Self::S3(s3) if s3.prefix.is_empty() => write!(f, "s3://{}", s3.bucket),
            Self::S3(s3) => write!(f, "s3://{}/{}", s3.bucket, s3.prefix),
        }
    }
}

/// Directories on this machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Local {
    /// Safe to lose. Default `/var/cache/pi-agent`.
    pub cache: PathBuf,
    /// Bytes that the repositories' caches may take together. Default 1 GiB.
    pub max_size: u64,
    /// The WAL spool's parent. Default `/var/spool/pgbackrest`; a stanza's WAL lies in `SPOOL/STANZA`.
    pub spool: PathBuf,
    /// Locks and generated configurations. Default `/run/pi-agent`.
    pub runtime: PathBuf,
    /// Where node_exporter's textfile collector looks for `pi-agent.prom`.
    pub prometheus: Option<PathBuf>,
}

/// Who is told besides Discord, and what. Their addresses let anybody write there: they are shown to nobody.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Notify {
    /// `summary = "daily"`: a message after each night.
    pub daily_summary: bool,
    /// Services that miss us when nothing comes: `URL/start`, `URL`, `URL/fail`, `URL/log` (healthchecks.io's convention).
    pub ping_urls: Vec<String>,
    /// `https://SERVER/TOPIC`.
    pub ntfy_urls: Vec<String>,
    /// Get each notice as JSON.
    pub webhooks: Vec<String>,
}

/// Thresholds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Alarms {
    /// A step whose last good backup finished longer ago is alarming.
    pub backup_age: Duration,
    /// How old the newest archived WAL may be.
    pub rpo: Duration,
    /// Percent of the backups of the last seven days that must be usable.
    pub success_rate: u32,
    /// Percent of a volume that may be in use.
    pub disk_used: u32,
    /// Percent of a volume's inodes that may be in use.
    pub inodes_used: u32,
    /// Percent by which a backup's size must differ from its own history at least to be alarming.
    pub size_change: u32,
    /// How long ago the last good check of a repository may be.
    pub check_age: Duration,
    /// How long ago the last restore test may be.
    pub restore_test_age: Duration,
    /// How long before the end of the storage's certificate it is alarming.
    pub certificate: Duration,
    /// Time between reminders of what is still alarming.
    pub remind_every: Duration,
    /// Degrees Celsius of the processor from which on runs rest.
    pub temperature: u32,
    /// How long a run rests for heat or for want of voltage; then the step fails.
    pub rest_at_most: Duration,
}

/// How restores are tested.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RestoreTest {
    /// Where things are restored to, `DIRECTORY/pi-agent-restore-test`: emptied before and after. Default: in the cache.
    pub directory: PathBuf,
    /// Bytes of a directory step that one test restores. Default 20 GiB.
    pub budget: u64,
    /// Tests, one a month, that together restore all of a step. Default 3; it outweighs the budget.
    pub months: u32,
    /// After this long the test of a step is ended, and has failed. Default 12 hours.
    pub max_duration: Duration,
}

/// What a step's restore test looks at besides what it looks at anyway.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StepTest {
    /// Directories: globs (gitignore syntax) of files that must be there, whole and readable.
    pub critical: Vec<String>,
    /// PostgreSQL: `DATABASE.SCHEMA.TABLE` whose rows are counted, at each backup and in each test.
    pub count: Vec<String>,
    /// PostgreSQL: what must be true.
    pub assert: Vec<Assertion>,
}

/// A query whose result must be true.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Assertion {
    /// Where it is asked.
    pub database: String,
    /// The query.
    pub sql: String,
}

/// One thing to back up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    /// Unique; also the place in storage and the snapshots' label.
    pub name: String,
    /// What it is.
    pub source: Source,
    /// What is kept.
    pub keep: Keep,
    /// After this long the step stops as `unfinished`; `None`: no limit.
    pub max_duration: Option<Duration>,
    /// Without progress for this long the step is ended as stalled.
    pub stall: Duration,
    /// `[step.restore-test]`.
    pub test: StepTest,
}

impl Step {
    /// Its cluster, when it backs up PostgreSQL.
    pub fn postgres(&self) -> Option<&Postgres> {
        match &self.source {
            Source::Postgres(postgres) => Some(postgres),
            Source::Directory(_) | Source::Agent(_) => None,
        }
    }
}

/// The kinds of source.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Source {
    /// A PostgreSQL cluster, by pgBackRest.
    Postgres(Postgres),
    /// Directories and files, in a restic-compatible repository.
    Directory(Directory),
    /// The agent's own configuration and history (the implicit last step).
    Agent(Directory),
}

impl Source {
    /// The word the configuration uses: `postgres`, `directory`; `agent` for the implicit step.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "postgres",
            Self::Directory(_) => "directory",
            Self::Agent(_) => "agent",
        }
    }
}

/// A PostgreSQL cluster, of this host or of a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Postgres {
    /// pgBackRest's name for the cluster.
    pub stanza: String,
    /// The container that the server runs in; `None`: it runs on this machine itself.
    pub container: Option<String>,
    /// The server's `data_directory`. Of a container both directories are empty until its server was found.
    pub data_directory: PathBuf,
    /// Default `/var/run/postgresql`.
    pub socket_directory: PathBuf,
    /// Default 5432.
    pub port: u16,
    /// Database role to connect as. Default: the operating-system owner of the data directory; of a container what its
    /// environment says.
    pub user: Option<String>,
    /// Age of the last full backup from which the next is full again.
    pub full_every: Duration,
    /// A logical dump a month, where points are kept for months. Default true.
    pub monthly_dump: bool,
}

/// Directories and files.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Directory {
    /// Absolute paths.
    pub paths: Vec<PathBuf>,
    /// Globs (gitignore syntax) of what is left out.
    pub exclude: Vec<String>,
    /// Do not cross into other file systems. Default true.
    pub one_file_system: bool,
    /// Time between prunes. Default 30 days.
    pub prune_every: Duration,
    /// Time between structure checks. Default 7 days.
    pub check_every: Duration,
    /// Months in which every byte of the repository is read once by the rotating data check. Default 3; 0: never.
    pub read_all_months: u32,
    /// What is written to day and night.
    pub live: Option<Live>,
}

/// The part of a directory step that must be read at one moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Live {
    /// Absolute, each below one of the step's, none inside another.
    pub paths: Vec<PathBuf>,
    /// Who writes there.
    pub writer: Writer,
    /// How long it may be kept quiet. Default 30 seconds, at most ten minutes.
    pub at_most: Duration,
}

/// How a writer is quieted, and let go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Writer {
    /// `pause = "docker:NAME"`: the container's processes are frozen.
    Pause(String),
    /// `pause = "docker-stop:NAME"`: the container is stopped, and started again.
    Stop(String),
    /// Programs by their absolute paths, each with arguments; no shell.
    Commands {
        /// Returns when nothing is written any more.
        quiet: Vec<String>,
        /// Lets it go on; may be called when it does already.
        resume: Vec<String>,
    },
}

/// How many points are kept. A point is kept when any rule keeps it.
/// Whatever the rules say, the newest is kept, and so is everything younger than [`Keep::GRACE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// `keep = "forever"`: every point.
    Forever,
    /// The newest of each of the last N local days, weeks, months, years that have a usable point; `last`: the last N points.
    Rules {
        /// The last N points.
        last: Count,
        /// One a day.
        daily: Count,
        /// One a week (ISO weeks).
        weekly: Count,
        /// One a month.
        monthly: Count,
        /// One a year.
        yearly: Count,
    },
}

impl Keep {
    /// A backup made before or after a risky change must not vanish the same night.
    pub const GRACE: Duration = Duration::from_hours(48);

    /// Thirty days, then one a month for good.
    pub const DEFAULT: Self = Self::Rules {
        last: Count::Of(0),
        daily: Count::Of(30),
        weekly: Count::Of(0),
        monthly: Count::Forever,
        yearly: Count::Of(0),
    };
}

/// How many of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Count {
    /// That many; 0 is "this rule keeps none".
    Of(u32),
    /// All there ever were.
    Forever,
}

/// Where the agent keeps its own things, from the command line and the environment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StateDirectory(pub PathBuf);

impl StateDirectory {
    /// The state database.
    pub fn database(&self) -> PathBuf {
        self.0.join("state.db")
    }

    /// The host-wide run lock.
    pub fn run_lock(&self) -> PathBuf {
        self.0.join("run.lock")
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }
}
