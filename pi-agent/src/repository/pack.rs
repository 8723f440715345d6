//! A pack, as restic's format has it: pieces one after the other, each sealed, and behind them a header, sealed too, that says
//! what they are.

use std::hash::{DefaultHasher, Hash, Hasher};

use rustic_core::repofile::{BlobType, IndexBlob};
use serde_json::{Value, json};
use zstd::bulk::Decompressor;

use super::cipher::{self, Cipher};
use crate::error::{Context, Result};

/// An entry of the header: type, length, length before compression, id.
const PLAIN_ENTRY: usize = 37;
const COMPRESSED_ENTRY: usize = 41;
/// Of the number at the end, which says how long the header is.
pub(super) const LENGTH: usize = 4;

/// The first byte of an index that is compressed.
pub(super) const COMPRESSED: u8 = 2;

/// What the header says of a piece.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    tree: bool,
    offset: u32,
    pub length: u32,
    pub uncompressed: Option<u32>,
    /// 64 hexadecimal digits: of its content's checksum.
    id: String,
}

impl Entry {
    /// The piece itself.
    pub fn of<'a>(&self, pack: &'a [u8]) -> Option<&'a [u8]> {
        pack.get(self.offset as usize..)?.get(..self.length as usize)
    }

    /// As the header says it.
    pub fn in_header(&self) -> Vec<u8> {
        let mut entry = vec![u8::from(self.tree) | u8::from(self.uncompressed.is_some()) << 1];
        entry.extend(self.length.to_le_bytes());
        entry.extend(self.uncompressed.into_iter().flat_map(u32::to_le_bytes));
        entry.extend(bytes_of(&self.id));
        entry
    }

    /// As the index says it.
    pub fn json(&self) -> Value {
        let Self { tree, offset, length, uncompressed, id } = self;
        let mut blob =
            json!({ "id": id, "type": if *tree { "tree" } else { "data" }, "offset": offset, "length": length });
        if let Some(uncompressed) = uncompressed {
            blob["uncompressed_length"] = (*uncompressed).into();
        }
        blob
    }
}

impl From<&IndexBlob> for Entry {
    fn from(blob: &IndexBlob) -> Self {
        Self {
            tree: blob.tpe == BlobType::Tree,
            offset: blob.location.offset,
            length: blob.location.length,
            uncompressed: blob.location.uncompressed_length.map(Into::into),
            id: blob.id.to_hex().as_str().to_owned(),
        }
    }
}

/// The pieces of an opened header; `None`: it is none.
pub(super) fn entries(mut header: &[u8]) -> Option<Vec<Entry>> {
    let mut offset: u32 = 0;
    let mut blobs = Vec::new();
    while let Some(kind) = header.first().copied() {
        let compressed = kind & 2 != 0;
        let (entry, rest) = header.split_at_checked(if compressed { COMPRESSED_ENTRY } else { PLAIN_ENTRY })?;
        header = rest;
        let length = number(&entry[1..])?;
        let uncompressed = if compressed { Some(number(&entry[5..])?) } else { None };
        let id = cipher::hexadecimal(&entry[entry.len() - 32..]);
        blobs.push(Entry { tree: kind & 1 != 0, offset, length, uncompressed, id });
        offset = offset.checked_add(length)?;
    }
    Some(blobs)
}

/// An entry of the header for a directory: its sealed length, that before compression, and its id.
pub(super) fn header_entry(sealed: usize, uncompressed: Option<usize>, id: &str) -> Vec<u8> {
    let mut entry = vec![if uncompressed.is_some() { 3 } else { 1 }];
    entry.extend(length(sealed));
    entry.extend(uncompressed.into_iter().flat_map(length));
    entry.extend(bytes_of(id));
    entry
}

/// From hexadecimal digits.
fn bytes_of(id: &str) -> impl Iterator<Item = u8> + '_ {
    (0..id.len()).step_by(2).filter_map(|at| u8::from_str_radix(id.get(at..at + 2)?, 16).ok())
}

/// A length as the header has it.
pub(super) fn length(bytes: usize) -> [u8; LENGTH] {
    u32::try_from(bytes).expect("a directory is smaller than 4 GiB").to_le_bytes()
}

/// The header's length, from the end of a pack.
pub(super) fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// What a pack holds, in few bytes: to see whether the index and the pack say the same.
pub(super) fn summary(mut entries: Vec<Entry>) -> u64 {
    entries.sort_by_key(|entry| entry.offset);
    let mut hasher = DefaultHasher::new();
    entries.hash(&mut hasher);
    hasher.finish()
}

/// Opens packs, one after the other, with the memory of one decompressed piece.
pub(super) struct Opener<'a> {
    cipher: &'a Cipher,
    decompressor: Decompressor<'static>,
    piece: Vec<u8>,
}

impl<'a> Opener<'a> {
    /// For pieces of so many bytes at most, decompressed.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn new(cipher: &'a Cipher, largest: usize) -> Result<Self> {
        let decompressor = Decompressor::new().context(|| "open packs".into())?;
        Ok(Self { cipher, decompressor, piece: Vec::with_capacity(largest) })
    }

    /// Why this is not the pack of that name, or does not hold what the index says. Its pieces are opened where they are.
    pub fn trouble(&mut self, pack: &mut [u8], name: &str, summed_up: u64) -> Option<&'static str> {
        if cipher::name(pack) != name {
            return Some("its bytes are not those that were stored");
        }
        let Some(entries) = self.header(pack) else { return Some("its header is damaged") };
        let whole = entries.iter().all(|entry| self.is_whole(entry, pack));
        if !whole {
            return Some("a piece in it is damaged");
        }
        (summary(entries) != summed_up).then_some("it holds other pieces than the index says")
    }

    /// What a whole pack holds.
    pub fn header(&self, pack: &[u8]) -> Option<Vec<Entry>> {
        let (before, length) = pack.split_at_checked(pack.len().checked_sub(LENGTH)?)?;
        let header = before.len().checked_sub(number(length)? as usize)?;
        entries(&self.cipher.open(&before[header..])?)
    }

    /// Whether a piece can be read, and is what it is called.
    pub fn is_whole(&mut self, entry: &Entry, pack: &mut [u8]) -> bool {
        self.checksum(entry, pack).is_some_and(|sum| sum == entry.id)
    }

    /// Of a piece's content; `None`: it has none that can be read.
    fn checksum(&mut self, entry: &Entry, pack: &mut [u8]) -> Option<String> {
        let from = entry.offset as usize;
        let content = self.cipher.open_in_place(pack.get_mut(from..from + entry.length as usize)?)?;
        let Some(length) = entry.uncompressed else { return Some(cipher::name(content)) };
        let written = self.decompressor.decompress_to_buffer(content, &mut self.piece).ok()?;
        (written == length as usize).then(|| cipher::name(&self.piece))
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn a_header_names_its_pieces() {
        let plain = [&[0][..], &5_u32.to_le_bytes(), &[0xaa; 32]].concat();
        let compressed = [&[3][..], &7_u32.to_le_bytes(), &9_u32.to_le_bytes(), &[0xbb; 32]].concat();
        let blobs = entries(&[plain.clone(), compressed].concat()).expect("whole");
        let blobs: Vec<_> = blobs.iter().map(Entry::json).collect();
        assert_eq!(blobs[0]["type"], "data");
        assert_eq!(blobs[0]["id"], "aa".repeat(32));
        assert_eq!((&blobs[1]["type"], &blobs[1]["offset"]), (&"tree".into(), &5.into()));
        assert_eq!((&blobs[1]["length"], &blobs[1]["uncompressed_length"]), (&7.into(), &9.into()));
        assert_eq!(entries(&plain[..20]), None);
    }

    /// Two pieces, one of them compressed, and what the index says of them.
    fn pack(cipher: &Cipher) -> (Vec<u8>, u64) {
        let (text, long) = (b"a piece".to_vec(), vec![7; 100_000]);
        let first = cipher.seal(&text).expect("sealed");
        let second = cipher.seal(&zstd::encode_all(long.as_slice(), 0).expect("compressed")).expect("sealed");
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("short").to_le_bytes();
        let mut header = [&[0][..], &length(&first), &Sha256::digest(&text)].concat();
        header.extend([&[2][..], &length(&second), &length(&long), &Sha256::digest(&long)].concat());
        let said = summary(entries(&header).expect("whole"));
        let header = cipher.seal(&header).expect("sealed");
        ([&first[..], &second, &header, &length(&header)].concat(), said)
    }

    #[test]
    fn whatever_is_not_as_it_was_is_told() {
        let cipher = Cipher::new(&[1; 32], &[2; 16], &[3; 16]);
        let (whole, said) = pack(&cipher);
        let name = cipher::name(&whole);
        let mut opener = Opener::new(&cipher, 100_000).expect("made");
        assert_eq!(opener.trouble(&mut whole.clone(), &name, said), None);
        assert_eq!(
            opener.trouble(&mut whole.clone(), &name, said + 1),
            Some("it holds other pieces than the index says")
        );
        for at in [0, 30, whole.len() - 40, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            let told = opener.trouble(&mut damaged, &name, said);
            assert_eq!(told, Some("its bytes are not those that were stored"));
            // Damaged before it was stored: its name is right.
            let name = cipher::name(&damaged);
            assert!(opener.trouble(&mut damaged, &name, said).is_some(), "{at}");
        }
        let other = Cipher::new(&[1; 32], &[4; 16], &[3; 16]);
        let mut others = Opener::new(&other, 100_000).expect("made");
        assert_eq!(others.trouble(&mut whole.clone(), &name, said), Some("its header is damaged"));
        assert_eq!(opener.trouble(&mut [], &cipher::name(&[]), said), Some("its header is damaged"));
    }

    #[test]
    fn no_header_panics() {
        let plain = [&[0][..], &5_u32.to_le_bytes(), &[0xaa; 32]].concat();
        let compressed = [&[3][..], &7_u32.to_le_bytes(), &9_u32.to_le_bytes(), &[0xbb; 32]].concat();
        crate::fuzzed::fuzz(&[&plain, &compressed], |header| {
            drop(entries(header).map(|blobs| blobs.iter().map(Entry::json).collect::<Vec<_>>()));
        });
    }
}
