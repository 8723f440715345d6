//! An index file in parts.
//!
//! rustic lists up to 50,000 pieces in one file of the index, and reads such a file whole: 13 MiB of memory in every night that
//! follows. The same index in small files is as good to every reader. It is divided as it streams by: a first backup, which
//! writes the most of it, has no memory to spare.

use std::fmt;
use std::io::Read;

use rustic_core::{BytesList, Id};
use serde::Serialize;
use serde::de::{DeserializeSeed, Deserializer as _, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::cipher::{self, Cipher};
use super::pack::COMPRESSED;
use crate::error::{Context, Result};

/// Pieces in a part, at least, but for the last.
pub(super) const PIECES: usize = 2500;
/// What takes less than this has about as many pieces as a part: an id alone takes 32 bytes that nothing compresses.
const SMALL: usize = 64 * PIECES;

#[derive(Default, Serialize)]
struct Index {
    packs: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    packs_to_delete: Vec<Box<RawValue>>,
}

/// Hands the parts of that file to `write`, with their names. False: it is small, or no index that this knows, and is to be
/// written as it is. (So are the parts handed on before that was seen: they tell the truth.)
///
/// # Errors
/// `write` fails, or there is no randomness.
pub(super) fn split(file: &BytesList, cipher: &Cipher, write: impl FnMut(Id, Vec<u8>) -> Result<()>) -> Result<bool> {
    let slices = file.slice();
    if slices.iter().map(bytes::Bytes::len).sum::<usize>() < SMALL {
        return Ok(false);
    }
    let plain = match slices {
        [whole] => cipher.open(whole),
        many => cipher.open(&many.concat()),
    };
    let Some(plain) = plain else { return Ok(false) };
    let compressed = plain.first() == Some(&COMPRESSED);
    let mut divider = Divider { cipher, compressed, part: Index::default(), pieces: 0, write, failed: None };
    let read = if compressed {
        let json = zstd::Decoder::new(&plain[1..]).context(doing)?;
        divider.read(json)
    } else {
        divider.read(&*plain)
    };
    match divider.failed {
        Some(failed) => Err(failed),
        None => Ok(read.is_ok()),
    }
}

fn doing() -> String {
    "write the index in parts".into()
}

struct Divider<'a, W> {
    cipher: &'a Cipher,
    compressed: bool,
    part: Index,
    /// In the part.
    pieces: usize,
    write: W,
    failed: Option<crate::Error>,
}

impl<W: FnMut(Id, Vec<u8>) -> Result<()>> Divider<'_, W> {
    fn read(&mut self, json: impl Read) -> serde_json::Result<()> {
        let mut json = serde_json::Deserializer::from_reader(json);
        json.deserialize_map(Whole(self))?;
        json.end()?;
        self.cut().map_err(|failed| self.fails(failed))
    }

    fn take(&mut self, pack: Box<RawValue>, delete: bool) -> Result<()> {
        if self.pieces >= PIECES {
            self.cut()?;
        }
        // Each piece tells its type, and nothing else there does.
        self.pieces += pack.get().matches("\"type\":").count();
        if delete { &mut self.part.packs_to_delete } else { &mut self.part.packs }.push(pack);
        Ok(())
    }

    fn cut(&mut self) -> Result<()> {
        self.pieces = 0;
        let part = std::mem::take(&mut self.part);
        let mut plain = serde_json::to_vec(&part).context(doing)?;
        drop(part);
        if self.compressed {
            plain = [&[COMPRESSED], &*zstd::encode_all(plain.as_slice(), 0).context(doing)?].concat();
        }
        let content = self.cipher.seal(&plain)?;
        (self.write)(cipher::name(&content).parse().expect("64 hexadecimal digits"), content)
    }

    /// The reader's errors are its own; ours waits until it is done.
    fn fails<E: serde::de::Error>(&mut self, failed: crate::Error) -> E {
        self.failed = Some(failed);
        E::custom("a part was not written")
    }
}

/// The whole of an index.
struct Whole<'a, 'b, W>(&'a mut Divider<'b, W>);

impl<'de, W: FnMut(Id, Vec<u8>) -> Result<()>> Visitor<'de> for Whole<'_, '_, W> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an index")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            let delete = match key.as_str() {
                "packs" => false,
                "packs_to_delete" => true,
                _ => return Err(A::Error::custom("not known here")),
            };
            map.next_value_seed(Packs { divider: self.0, delete })?;
        }
        Ok(())
    }
}

/// One of its lists.
struct Packs<'a, 'b, W> {
    divider: &'a mut Divider<'b, W>,
    delete: bool,
}

impl<'de, W: FnMut(Id, Vec<u8>) -> Result<()>> DeserializeSeed<'de> for Packs<'_, '_, W> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, W: FnMut(Id, Vec<u8>) -> Result<()>> Visitor<'de> for Packs<'_, '_, W> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of packs")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut packs: A) -> Result<(), A::Error> {
        while let Some(pack) = packs.next_element()? {
            self.divider.take(pack, self.delete).map_err(|failed| self.divider.fails(failed))?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::Bytes;
    use rustic_core::repofile::{IndexFile, MasterKey};

    use super::*;

    /// Packs of 300 pieces, the last of them marked for removal.
    fn index(packs: usize) -> String {
        let id = |number: usize| cipher::name(&number.to_le_bytes());
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

    /// The parts as they are read, or `None` when it stays as it is.
    fn parts(file: &BytesList, cipher: &Cipher) -> Option<Vec<IndexFile>> {
        let mut parts = Vec::new();
        let split = split(file, cipher, |name, content| {
            assert_eq!(name.to_hex().as_str(), cipher::name(&content));
            let plain = cipher.open(&content).unwrap();
            parts.push(serde_json::from_slice(&zstd::decode_all(&plain[1..]).unwrap()).unwrap());
            Ok(())
        });
        split.unwrap().then_some(parts)
    }

    #[test]
    fn a_large_index_is_the_same_in_parts() {
        let cipher = Cipher::of(&MasterKey::new());
        let json = index(170);
        let whole: IndexFile = serde_json::from_str(&json).unwrap();
        let read = parts(&sealed(&cipher, &json), &cipher).unwrap();
        assert_eq!(read.len(), 19);
        for part in &read {
            let packs = part.packs.iter().chain(&part.packs_to_delete);
            let pieces: usize = packs.map(|pack| pack.blobs.len()).sum();
            assert!((600..2800).contains(&pieces), "{pieces}");
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
        assert!(parts(&sealed(&cipher, &index(5)), &cipher).is_none());
        let other = Cipher::of(&MasterKey::new());
        assert!(parts(&sealed(&other, &index(170)), &cipher).is_none());
        let newer = index(170).replace("\"packs_to_delete\"", "\"packs_of_the_future\"");
        assert!(parts(&sealed(&cipher, &newer), &cipher).is_none());
    }

    #[test]
    fn a_part_that_is_not_written_fails() {
        let cipher = Cipher::of(&MasterKey::new());
        let failed = split(&sealed(&cipher, &index(170)), &cipher, |_, _| Err(crate::Error::new("no space")));
        assert_eq!(failed.unwrap_err().chain(), "no space");
    }
}
