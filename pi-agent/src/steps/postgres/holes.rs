//! Holes in the archived WAL: segments that PostgreSQL gave up (`archive-push-queue-max`, an archive_command that lied,
//! a spool that was emptied by hand). No moment behind a hole can be reached from a backup before it.

use std::collections::BTreeSet;

use crate::wal::place;

/// The last segment before the first hole and the first after it, among those from `from` on.
/// `keys` are names of objects of one cluster's archive, `SEGMENT-CHECKSUM.zst` at their end.
pub(super) fn first<'a>(
    keys: impl Iterator<Item = &'a str>,
    from: &str,
    segment_size: u64,
) -> Option<(String, String)> {
    // Timelines overlap where one left the other, so a segment is its place in the stream of bytes.
    let from = place(from, segment_size)?;
    let there: BTreeSet<(u64, &str)> = keys
        // Not `.backup` and `.history`, which sort beside the segments.
        .filter_map(|key| key.rsplit('/').next()?.split_once('-'))
        .filter_map(|(segment, _)| Some((place(segment, segment_size)?, segment)))
        .filter(|(place, _)| *place >= from)
        .collect();
    let pairs = there.iter().zip(there.iter().skip(1));
    let hole = pairs.into_iter().find(|((before, _), (after, _))| after - before > 1);
    hole.map(|((_, before), (_, after))| ((*before).to_owned(), (*after).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 16 << 20;

    fn hole(names: &[&str], from: &str) -> Option<(String, String)> {
        let keys: Vec<_> = names.iter().map(|name| format!("archive/m/15-1/{}/{name}-0a1b.zst", &name[..16])).collect();
        first(keys.iter().map(String::as_str), from, SIZE)
    }

    #[test]
    fn a_missing_segment_is_found_across_logs_and_timelines() {
        let whole = ["0000000100000000000000FE", "0000000100000000000000FF", "000000010000000100000000"];
        assert_eq!(hole(&whole, whole[0]), None);
        let forked = [whole[0], whole[1], "0000000200000000000000FF", "000000020000000100000000"];
        assert_eq!(hole(&forked, whole[0]), None);
        assert_eq!(hole(&[whole[0], whole[2]], whole[0]), Some((whole[0].into(), whole[2].into())));
        assert_eq!(hole(&[whole[0], whole[2]], whole[1]), None, "only what comes after is asked");
        let notes = ["a/0000000100000000000000FE.00000028.backup", "a/00000002.history"];
        assert_eq!(first(notes.into_iter(), whole[0], SIZE), None);
    }
}
