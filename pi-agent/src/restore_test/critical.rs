//! Files that somebody named because nothing works without them: do they hold what their kind must?

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use serde::de::IgnoredAny;

/// What every SQLite database begins with.
const SQLITE: &[u8] = b"SQLite format 3\0";

/// What is wrong with it. The file is a copy: of a database, its log is taken in.
pub(super) fn broken(path: &Path) -> Option<String> {
    let mut beginning = Vec::new();
    let opened = File::open(path).and_then(|file| file.take(16).read_to_end(&mut beginning));
    if let Err(error) = opened {
        return Some(format!("cannot be read: {error}"));
    }
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_lowercase();
    if beginning == SQLITE {
        return sqlite(path);
    }
    match ending.as_str() {
        "json" => json(path),
        "sqlite" | "sqlite3" if !beginning.is_empty() => Some("is no SQLite database".into()),
        _ => None,
    }
}

fn json(path: &Path) -> Option<String> {
    let file = match File::open(path) {
        Ok(file) => BufReader::new(file),
        Err(error) => return Some(format!("cannot be read: {error}")),
    };
    serde_json::from_reader::<_, IgnoredAny>(file).err().map(|error| format!("is not JSON: {error}"))
}

/// What a journal ends with that names the journal of another database, which SQLite removes when it rolls this one back. What a backup
/// holds may name any file of ours.
const NAMES_ANOTHER: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];

fn names_another(database: &Path) -> bool {
    let mut journal = database.as_os_str().to_owned();
    journal.push("-journal");
    let end = || {
        let mut file = File::open(&journal)?;
        let mut end = [0; 8];
        file.seek(SeekFrom::End(-8))?;
        file.read_exact(&mut end)?;
        std::io::Result::Ok(end)
    };
    end().is_ok_and(|end| end == NAMES_ANOTHER)
}

fn sqlite(path: &Path) -> Option<String> {
    if names_another(path) {
        return Some("was backed up within a transaction that changes other databases, too".into());
    }
    let look = || -> rusqlite::Result<String> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.query_row("pragma integrity_check(1)", [], |row| row.get(0))
    };
    match look() {
        Ok(verdict) if verdict == "ok" => None,
        Ok(verdict) => Some(format!("is a damaged database: {verdict}")),
        Err(error) => Some(format!("is a damaged database: {error}")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn json_and_databases_are_read_and_others_are_only_there() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| {
            std::fs::write(folder.path().join(name), text).unwrap();
            broken(&folder.path().join(name))
        };
        assert_eq!(write("a.json", b"{\"a\": [1, 2]}"), None);
        assert!(write("b.json", b"{\"a\": [1, 2").unwrap().starts_with("is not JSON"));
        assert_eq!(write("c.txt", b"{"), None);
        assert!(write("d.sqlite", b"SQLite, no").unwrap().contains("no SQLite"));
        assert!(broken(&folder.path().join("none")).unwrap().starts_with("cannot be read"));
        let path = folder.path().join("e.db");
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch("create table t (x); insert into t values (zeroblob(100000));").unwrap();
        drop(connection);
        assert_eq!(broken(&path), None);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.truncate(8192);
        assert!(write("f.db", &bytes).unwrap().contains("damaged"));
    }

    #[test]
    fn a_journal_that_names_another_file_removes_none() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("x.db"), folder.path().join("other"));
        Connection::open(&path).unwrap().execute_batch("create table t (x)").unwrap();
        std::fs::write(&other, "of root's").unwrap();
        let name = other.to_str().unwrap().as_bytes();
        let sum: u32 = name.iter().map(|byte| u32::from(*byte)).sum();
        let length = u32::try_from(name.len()).unwrap().to_be_bytes();
        let journal =
            [&NAMES_ANOTHER[..], &[0; 504], &[0; 4], name, &length, &sum.to_be_bytes(), &NAMES_ANOTHER].concat();
        std::fs::write(folder.path().join("x.db-journal"), journal).unwrap();
        assert!(broken(&path).unwrap().contains("within a transaction"));
        assert!(other.exists());
    }
}
