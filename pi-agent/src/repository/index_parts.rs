//! An index file in parts.
//!
//! rustic lists up to 50,000 pieces in one file of the index, and reads such a file whole: 13 MiB of memory in every night that
//! follows. The same index in files of some ten thousand pieces each takes a fifth of that, and is as good to every reader.

use rustic_core::{BytesList, Id};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::cipher::{self, Cipher};
use crate::error::{Context, Result};

/// Pieces in a part, at least. A prune rewrites files with less than 10,000, all of them, each time.
const LEAST: usize = 11_000;
/// The first byte of what is compressed.
const COMPRESSED: u8 = 2;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Index<'a> {
    #[serde(borrow)]
    packs: Vec<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    packs_to_delete: Vec<&'a RawValue>,
}

/// One file of the index.
pub(super) struct Part {
    /// Its name in the repository.
    pub(super) name: Id,
    /// Its content.
    pub(super) content: Vec<u8>,
}

/// The parts of the file; none when it is small, or no index that this knows: then it may stay as it is.
///
/// # Errors
/// There is no randomness, or no memory to compress in.
pub(super) fn split(file: &BytesList, cipher: &Cipher) -> Result<Vec<Part>> {
    let Some(plain) = cipher.open(&file.slice().concat()) else { return Ok(Vec::new()) };
    let doing = || "write the index in parts".to_owned();
    let compressed = plain.first() == Some(&COMPRESSED);
    let json = if compressed { zstd::decode_all(&plain[1..]).context(doing)? } else { plain };
    let Ok(index) = serde_json::from_slice::<Index<'_>>(&json) else { return Ok(Vec::new()) };

    divide(index)
        .into_iter()
        .map(|part| {
            let mut plain = serde_json::to_vec(&part).context(doing)?;
            if compressed {
                plain = [&[COMPRESSED], &*zstd::encode_all(&*plain, 0).context(doing)?].concat();
            }
            let content = cipher.seal(&plain)?;
            let name = cipher::name(&content).parse().expect("64 hexadecimal digits");
            Ok(Part { name, content })
        })
        .collect()
}

/// Into parts with about as many pieces each.
fn divide(index: Index<'_>) -> Vec<Index<'_>> {
    // Each piece tells its type, and nothing else there does.
    let pieces = |pack: &RawValue| pack.get().matches("\"type\":").count();
    let all: usize = index.packs.iter().chain(&index.packs_to_delete).map(|pack| pieces(pack)).sum();
    let parts = all / LEAST;
    if parts < 2 {
        return Vec::new();
    }
    let mut divided = Vec::with_capacity(parts);
    let mut part = Index { packs: Vec::new(), packs_to_delete: Vec::new() };
    let mut so_far = 0;
    let packs = index.packs.into_iter().map(|pack| (pack, false));
    for (pack, delete) in packs.chain(index.packs_to_delete.into_iter().map(|pack| (pack, true))) {
        if so_far * parts >= all * (divided.len() + 1) {
            divided.push(std::mem::replace(&mut part, Index { packs: Vec::new(), packs_to_delete: Vec::new() }));
        }
        so_far += pieces(pack);
        if delete { &mut part.packs_to_delete } else { &mut part.packs }.push(pack);
    }
    divided.push(part);
    divided
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::Bytes;
    use rustic_core::repofile::{IndexFile, MasterKey};

    use super::*;

    /// Packs of 300 pieces, the last of them marked for removal.
    fn index(packs: usize) -> String {
        let id = |number: usize| format!("{number:064x}");
        let pack = |number: usize| {
            let pieces: Vec<_> = (0..300)
                .map(|piece| {
                    let (id, offset) = (id(number * 1000 + piece), piece * 100);
                    format!(r#"{{"id":"{id}","type":"data","offset":{offset},"length":100,"uncompressed_length":160}}"#)
                })
                .collect();
            format!(r#"{{"id":"{}","blobs":[{}]}}"#, id(number + 77_000_000), pieces.join(","))
        };
        let kept: Vec<_> = (1..packs).map(pack).collect();
        format!(r#"{{"packs":[{}],"packs_to_delete":[{}]}}"#, kept.join(","), pack(packs))
    }

    fn sealed(cipher: &Cipher, json: &str) -> BytesList {
        let plain = [&[COMPRESSED], &*zstd::encode_all(json.as_bytes(), 0).unwrap()].concat();
        Bytes::from(cipher.seal(&plain).unwrap()).into()
    }

    fn read(cipher: &Cipher, part: &Part) -> IndexFile {
        let plain = cipher.open(&part.content).unwrap();
        serde_json::from_slice(&zstd::decode_all(&plain[1..]).unwrap()).unwrap()
    }

    #[test]
    fn a_large_index_is_the_same_in_parts() {
        let cipher = Cipher::of(&MasterKey::new());
        let json = index(170);
        let parts = split(&sealed(&cipher, &json), &cipher).unwrap();
        assert_eq!(parts.len(), 4);
        let whole: IndexFile = serde_json::from_str(&json).unwrap();
        let read: Vec<_> = parts.iter().map(|part| read(&cipher, part)).collect();
        for part in &read {
            let packs = part.packs.iter().chain(&part.packs_to_delete);
            let pieces: usize = packs.map(|pack| pack.blobs.len()).sum();
            assert!((10_000..=14_000).contains(&pieces), "{pieces}");
        }
        let ids = |files: &[IndexFile], list: fn(&IndexFile) -> &[rustic_core::repofile::IndexPack]| -> Vec<_> {
            files.iter().flat_map(list).map(|pack| (pack.id, pack.blobs.clone())).collect()
        };
        let whole = [whole];
        assert_eq!(ids(&read, |file| &file.packs), ids(&whole, |file| &file.packs));
        assert_eq!(ids(&read, |file| &file.packs_to_delete), ids(&whole, |file| &file.packs_to_delete));
    }

    #[test]
    fn what_is_small_or_strange_stays_as_it_is() {
        let cipher = Cipher::of(&MasterKey::new());
        assert!(split(&sealed(&cipher, &index(70)), &cipher).unwrap().is_empty());
        let other = Cipher::of(&MasterKey::new());
        assert!(split(&sealed(&other, &index(170)), &cipher).unwrap().is_empty());
        let newer = index(170).replace("\"packs_to_delete\"", "\"packs_of_the_future\"");
        assert!(split(&sealed(&cipher, &newer), &cipher).unwrap().is_empty());
    }
}
