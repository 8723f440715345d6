//! pgBackRest's JSON and its progress lines, as values.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::failure::printable;
use super::timelines;
use crate::error::{Context, Error, Result};
use crate::retention::is_of_the_future;

/// What a repository holds of one stanza.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// Oldest first.
    pub backups: Vec<Backup>,
    /// Every cluster the stanza has had, the present one last. Empty: the stanza was never created.
    pub clusters: Vec<Cluster>,
    /// The newest WAL segment of the newest cluster that has any: archive id (`15-1`) and name.
    pub newest_wal: Option<(String, String)>,
}

/// One backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// pgBackRest's name for it.
    pub label: String,
    /// `full`, `diff` or `incr`.
    pub kind: String,
    /// From when on one can restore to it.
    pub stopped: Timestamp,
    /// Bytes of the cluster.
    pub size: u64,
    /// Bytes this backup copied, before compression.
    pub copied: u64,
    /// Bytes it added to the repository.
    pub stored: Option<u64>,
    /// Labels this one needs.
    pub needs: Vec<String>,
    /// Pages with wrong checksums were found.
    pub damaged_pages: bool,
    /// PostgreSQL's major version.
    pub version: u32,
    /// The cluster's archive: `15-1`.
    pub archive: String,
    /// The first WAL segment it needs.
    pub wal_start: Option<String>,
    /// Where in the WAL it begins,
    pub start_lsn: Option<u64>,
    /// and from where on the restored files are consistent.
    pub stop_lsn: Option<u64>,
    /// Since when moments before it are lost, as was found when it was made.
    pub lost_since: Option<Timestamp>,
}

impl Backup {
    /// Stands alone.
    pub fn is_full(&self) -> bool {
        self.kind == "full"
    }

    /// The timeline that it was made on.
    pub fn timeline(&self) -> Option<u32> {
        u32::from_str_radix(self.wal_start.as_ref()?.get(..8)?, 16).ok()
    }
}

/// A cluster that a stanza has backed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// PostgreSQL's system identifier.
    pub system_id: u64,
    /// PostgreSQL's major version.
    pub version: u32,
}

impl Info {
    /// The cluster that the stanza backs up now.
    pub fn cluster(&self) -> Option<Cluster> {
        self.clusters.last().copied()
    }

    /// The archive of the cluster that the stanza backs up now: `15-1`.
    pub fn archive(&self) -> Option<String> {
        self.cluster().map(|cluster| format!("{}-{}", cluster.version, self.clusters.len()))
    }

    /// The newest WAL segment of the cluster that the stanza backs up now; none while only earlier ones have any.
    pub fn newest_wal_of_cluster(&self) -> Option<&str> {
        let (archive, segment) = self.newest_wal.as_ref()?;
        // pgBackRest numbers the clusters of a stanza from 1, and forgets none.
        let number: usize = archive.rsplit('-').next()?.parse().ok()?;
        (number == self.clusters.len()).then_some(segment)
    }

    /// Bytes of a segment of WAL, where the names of the backups' first ones tell it.
    pub fn segment_size(&self) -> Option<u64> {
        timelines::segment_size(&self.backups.iter().collect::<Vec<_>>())
    }

    /// What backups found to be lost before them, since then: from, to.
    pub fn gaps(&self, since: Timestamp) -> Vec<(Timestamp, Timestamp)> {
        let found = self.backups.iter().filter(|backup| backup.stopped > since);
        found.filter_map(|backup| Some((backup.lost_since?.max(since), backup.stopped))).collect()
    }

    /// The newest backup that is not of the future; else the newest. pgBackRest dates them by the server's clock.
    pub fn newest(&self, now: Timestamp) -> Option<&Backup> {
        let possible = self.backups.iter().rfind(|backup| !is_of_the_future(backup.stopped, now));
        possible.or(self.backups.last())
    }
}

#[derive(Deserialize)]
struct RawStanza {
    name: String,
    status: RawStatus,
    #[serde(default)]
    archive: Vec<RawArchive>,
    #[serde(default)]
    backup: Vec<RawBackup>,
    #[serde(default)]
    db: Vec<RawDb>,
    #[serde(default)]
    repo: Vec<RawRepo>,
}

#[derive(Deserialize)]
struct RawStatus {
    code: u32,
    message: String,
}

#[derive(Deserialize)]
struct RawRepo {
    status: RawStatus,
}

#[derive(Deserialize)]
struct RawDatabase {
    id: u32,
}

#[derive(Deserialize)]
struct RawArchive {
    database: RawDatabase,
    id: String,
    max: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RawDb {
    id: u32,
    system_id: u64,
    version: String,
}

#[derive(Deserialize)]
struct RawBackup {
    archive: RawWal,
    lsn: Option<RawPositions>,
    label: String,
    #[serde(rename = "type")]
    kind: String,
    database: RawDatabase,
    timestamp: RawTimestamp,
    info: RawSizes,
    prior: Option<String>,
    reference: Option<Vec<String>>,
    error: Option<bool>,
    #[serde(default)]
    annotation: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct RawWal {
    start: Option<String>,
}

#[derive(Deserialize)]
struct RawPositions {
    start: Option<String>,
    stop: Option<String>,
}

#[derive(Deserialize)]
struct RawTimestamp {
    stop: i64,
}

#[derive(Deserialize)]
struct RawSizes {
    size: u64,
    delta: u64,
    repository: RawRepositorySizes,
}

#[derive(Deserialize)]
struct RawRepositorySizes {
    delta: Option<u64>,
}

/// The note at a backup that holds [`Backup::lost_since`].
pub(super) const LOST_SINCE: &str = "pi-agent-lost-since";

/// Status codes of pgBackRest's `info`: 0 ok, 1 no stanza, 2 no backups, 3 no stanza data; the rest are failures.
const OK: [u32; 4] = [0, 1, 2, 3];

pub(super) fn parse(json: &str, stanza: &str) -> Result<Info> {
    // With a wrong passphrase its messages hold undeciphered bytes, which it does not escape.
    let clean: String = json.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let stanzas: Vec<RawStanza> =
        serde_json::from_str(&clean).context(|| "understand pgbackrest info's output".into())?;
    let Some(raw) = stanzas.into_iter().find(|raw| raw.name == stanza) else { return Ok(Info::default()) };
    if !OK.contains(&raw.status.code) {
        let message = raw.repo.first().map_or(&raw.status.message, |repo| &repo.status.message);
        let message = printable(message.lines().next().unwrap_or_default());
        let error = Error::new(format!("pgbackrest info of stanza {stanza}: {message}"));
        return Err(if message.contains("FormatError") || message.contains("CryptoError") {
            error.hint("is pgbackrest.key the passphrase this repository was made with?")
        } else {
            error
        });
    }

    let versions: BTreeMap<u32, u32> = raw.db.iter().map(|db| (db.id, major(&db.version))).collect();
    let mut clusters: Vec<_> = raw.db.iter().collect();
    clusters.sort_by_key(|db| db.id);
    let clusters = clusters.into_iter().map(|db| Cluster { system_id: db.system_id, version: major(&db.version) });

    let archives: BTreeMap<u32, String> =
        raw.archive.iter().map(|archive| (archive.database.id, archive.id.clone())).collect();
    let newest_wal = raw
        .archive
        .into_iter()
        .filter_map(|archive| Some((archive.database.id, archive.id, archive.max?)))
        .max_by_key(|(database, ..)| *database)
        .map(|(_, id, segment)| (id, segment));

    let needs = needs(&raw.backup);
    let mut backups = raw
        .backup
        .into_iter()
        .map(|backup| {
            Ok(Backup {
                stopped: Timestamp::from_second(backup.timestamp.stop)
                    .context(|| format!("understand the time of backup {}", backup.label))?,
                needs: needs.get(&backup.label).cloned().unwrap_or_default().into_iter().collect(),
                label: backup.label,
                kind: backup.kind,
                size: backup.info.size,
                copied: backup.info.delta,
                stored: backup.info.repository.delta,
                damaged_pages: backup.error.unwrap_or(false),
                version: versions.get(&backup.database.id).copied().unwrap_or(0),
                archive: archives.get(&backup.database.id).cloned().unwrap_or_default(),
                wal_start: backup.archive.start,
                start_lsn: backup.lsn.as_ref().and_then(|lsn| timelines::lsn(lsn.start.as_ref()?)),
                stop_lsn: backup.lsn.as_ref().and_then(|lsn| timelines::lsn(lsn.stop.as_ref()?)),
                lost_since: backup.annotation.get(LOST_SINCE).and_then(|since| since.parse().ok()),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    backups.sort_by(|a, b| (a.stopped, &a.label).cmp(&(b.stopped, &b.label)));
    Ok(Info { backups, clusters: clusters.collect(), newest_wal })
}

fn major(version: &str) -> u32 {
    version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0)
}

/// What each backup needs: the chain of its priors (what `expire` follows) and whatever holds files it refers to.
fn needs(backups: &[RawBackup]) -> BTreeMap<String, BTreeSet<String>> {
    let mut needs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    // Labels sort by time, and a prior is always older.
    let mut sorted: Vec<_> = backups.iter().collect();
    sorted.sort_by(|a, b| a.label.cmp(&b.label));
    for backup in sorted {
        let mut all: BTreeSet<String> = backup.prior.iter().chain(backup.reference.iter().flatten()).cloned().collect();
        let inherited: Vec<_> = all.iter().filter_map(|label| needs.get(label)).flatten().cloned().collect();
        all.extend(inherited);
        all.remove(&backup.label);
        needs.insert(backup.label.clone(), all);
    }
    needs
}

/// Size and percentage of a progress line: `… DETAIL: backup file PATH (bundle 2/191904, 8KB, 100.00%) checksum …`.
pub(super) fn file_done(line: &str) -> Option<(u64, f64)> {
    let (_, detail) = line.split_once(" DETAIL: ")?;
    let (before, _) = detail.rsplit_once("%)")?;
    let (_, group) = before.rsplit_once('(')?;
    let mut parts = group.rsplit(", ");
    let percent = parts.next()?.parse().ok()?;
    Some((size(parts.next()?)?, percent))
}

fn size(text: &str) -> Option<u64> {
    let split = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(split);
    let power = ["B", "KB", "MB", "GB", "TB"].iter().position(|known| *known == unit)?;
    let number: f64 = number.parse().ok()?;
    Some((number * 1024_f64.powi(i32::try_from(power).ok()?)) as u64)
}

/// The newest modification time in the output of `repo-ls --output=json`.
pub(super) fn newest_time(json: &str) -> Result<Option<Timestamp>> {
    #[derive(Deserialize)]
    struct Entry {
        time: Option<i64>,
    }
    let entries: BTreeMap<String, Entry> =
        serde_json::from_str(json).context(|| "understand pgbackrest repo-ls's output".into())?;
    let newest = entries.into_values().filter_map(|entry| entry.time).max();
    newest.map(Timestamp::from_second).transpose().context(|| "understand the time of a WAL segment".into())
}

/// The names of WAL in the output of `repo-ls --output=json`, without the checksums.
pub(super) fn wal_names(json: &str) -> Result<BTreeSet<String>> {
    let entries: BTreeMap<String, IgnoredAny> =
        serde_json::from_str(json).context(|| "understand pgbackrest repo-ls's output".into())?;
    Ok(entries.keys().filter_map(|file| Some(file.split_once('-')?.0.to_owned())).collect())
}

/// The report of `verify`, or what is damaged.
pub(super) fn verified(text: &str) -> Result<String> {
    if text.lines().any(|line| line.trim() == "status: ok") {
        return Ok(text.trim().to_owned());
    }
    Err(Error::new(format!("pgbackrest verify found damage: {}", printable(text.trim())))
        .hint("make a full backup now: pi-agent run STEP; then look at the repository's disk or bucket"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAIN: &str = r#"[{"archive":[
        {"database":{"id":1,"repo-key":1},"id":"14-1","max":"000000010000000000000005","min":"000000010000000000000001"},
        {"database":{"id":2,"repo-key":1},"id":"15-2","max":"000000010000000000000003","min":"000000010000000000000001"}],
      "backup":[
        {"archive":{"start":"a","stop":"b"},"database":{"id":2,"repo-key":1},"error":false,"label":"20261122-025114F_20261124-030000I",
         "info":{"delta":10,"repository":{"delta":5},"size":30},"prior":"20261122-025114F_20261123-030000I",
         "reference":["20261122-025114F"],"timestamp":{"start":1,"stop":1795400000},"type":"incr"},
        {"archive":{"start":"a","stop":"b"},"database":{"id":1,"repo-key":1},"label":"20261121-025114F",
         "info":{"delta":22992399,"repository":{"delta":2828272,"size":2828272},"size":22992399},"prior":null,
         "reference":null,"timestamp":{"start":1795229474,"stop":1795229476},"type":"full"},
        {"annotation":{"pi-agent-lost-since":"2026-11-21T00:00:00Z","other":"x"},"archive":{"start":"a","stop":"b"},"database":{"id":2,"repo-key":1},"error":true,"label":"20261122-025114F",
         "info":{"delta":30,"repository":{},"size":30},"prior":null,"reference":null,
         "timestamp":{"start":1,"stop":1795300000},"type":"full"},
        {"archive":{"start":"a","stop":"b"},"database":{"id":2,"repo-key":1},"error":false,"label":"20261122-025114F_20261123-030000I",
         "info":{"delta":10,"repository":{"delta":5},"size":30},"prior":"20261122-025114F",
         "reference":["20261122-025114F"],"timestamp":{"start":1,"stop":1795350000},"type":"incr"}],
      "cipher":"aes-256-cbc","db":[{"id":2,"repo-key":1,"system-id":7710451772011988257,"version":"15"},
        {"id":1,"repo-key":1,"system-id":7710451772011988000,"version":"14"}],
      "name":"main","repo":[{"cipher":"aes-256-cbc","key":1,"status":{"code":0,"message":"ok"}}],
      "status":{"code":0,"lock":{"backup":{"held":false}},"message":"ok"}}]"#;

    #[test]
    fn backups_come_in_order_with_what_they_need() {
        let info = parse(CHAIN, "main").expect("readable");
        let labels: Vec<_> = info.backups.iter().map(|backup| backup.label.as_str()).collect();
        assert_eq!(
            labels,
            [
                "20261121-025114F",
                "20261122-025114F",
                "20261122-025114F_20261123-030000I",
                "20261122-025114F_20261124-030000I"
            ]
        );
        assert_eq!(info.backups[3].needs, ["20261122-025114F", "20261122-025114F_20261123-030000I"]);
        assert_eq!(info.backups[0].version, 14);
        assert!(info.backups[1].damaged_pages && info.backups[1].stored.is_none());
        let (lost, second) = ("2026-11-21T00:00:00Z".parse().expect("a time"), info.backups[1].stopped);
        assert_eq!(info.gaps(Timestamp::UNIX_EPOCH), [(lost, second)]);
        assert_eq!(info.gaps(second), []);
        assert_eq!(info.cluster(), Some(Cluster { system_id: 7_710_451_772_011_988_257, version: 15 }));
        assert_eq!(info.newest_wal, Some(("15-2".into(), "000000010000000000000003".into())));
        assert_eq!(info.newest_wal_of_cluster(), Some("000000010000000000000003"));
        assert_eq!(info.archive(), Some("15-2".into()));
        let adopted = Info { clusters: [&info.clusters[..], &info.clusters[..1]].concat(), ..info };
        assert_eq!(adopted.newest_wal_of_cluster(), None, "it has handed over nothing yet");
    }

    #[test]
    fn a_missing_stanza_is_empty_and_a_wrong_passphrase_an_error() {
        let missing = r#"[{"archive":[],"backup":[],"cipher":"none","db":[],"name":"main","repo":[{"cipher":"none","key":1,
            "status":{"code":1,"message":"missing stanza path"}}],"status":{"code":1,"message":"missing stanza path"}}]"#;
        assert_eq!(parse(missing, "main").expect("readable"), Info::default());
        let garbage = r#"[{"archive":[],"backup":[],"db":[],"name":"main","repo":[{"status":{"code":99,
            "message":"[FormatError] unable to load info file 'x':\nFormatError: \u0000\ufffd"}}],
            "status":{"code":99,"message":"other"}}]"#;
        let error = parse(garbage, "main").expect_err("unreadable");
        assert_eq!(error.to_string(), "pgbackrest info of stanza main: [FormatError] unable to load info file 'x':");
        assert!(error.advice().is_some_and(|hint| hint.contains("pgbackrest.key")));
    }

    #[test]
    fn progress_lines_give_sizes() {
        let line = |rest: &str| file_done(&format!("2026-11-21 02:51:16.258 P01 DETAIL: {rest}"));
        assert_eq!(
            line("backup file /d/global/pg_control (bundle 2/191904, 8KB, 100.00%) checksum b6"),
            Some((8192, 100.0))
        );
        assert_eq!(
            line("match file from prior backup /d/odd (name)/x (1.5MB, 3.25%) checksum b6"),
            Some((1_572_864, 3.25))
        );
        assert_eq!(line("store zero-length file /d/base/1/13394"), None);
        assert_eq!(file_done("P00   INFO: full backup size = 21.9MB, file total = 964"), None);
    }

    #[test]
    fn no_answer_of_pgbackrests_panics() {
        const LISTING: &str =
            r#"{".":{"type":"path"},"000000010000000000000001-abc.zst":{"type":"file","size":12,"time":1700000000}}"#;
        crate::fuzzed::fuzz_text(&[CHAIN, LISTING], |text| {
            let _ = parse(text, "main").map(|info| info.newest_wal_of_cluster().map(str::len));
            let _ = newest_time(text);
            let _ = verified(text);
        });
    }
}
