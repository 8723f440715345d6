//! Compressing and decompressing what is in memory as a whole: what rustic_core and pi-agent use of the crate zstd, by its names.
//!
//! That one knows streams only. A piece of a file went through a buffer before and one behind the compressor, of a MiB and more for each
//! thread, into a vector that grew and was copied as it did; the frame did not say how long its content is, so that decompressing did it
//! all again, and the compressor's tables were as large for a file of a hundred bytes as for any. Here it is told both ends.

pub mod bulk;
mod decoder;

use std::io::{self, Write};
use std::ops::RangeInclusive;

pub use decoder::{Decoder, decode_all};
use zstd_safe::{CompressionLevel, ErrorCode};

/// By zstd's own modules.
pub mod stream {
    pub use super::{copy_encode, decode_all, encode_all};
}

/// The levels that there are.
#[must_use]
pub fn compression_level_range() -> RangeInclusive<CompressionLevel> {
    zstd_safe::min_c_level()..=zstd_safe::max_c_level()
}

/// A frame that says how long its content is.
///
/// # Errors
/// There is no memory for the compressor.
pub fn encode_all(data: &[u8], level: CompressionLevel) -> io::Result<Vec<u8>> {
    // What is not used of it is never memory.
    let mut frame = Vec::with_capacity(zstd_safe::compress_bound(data.len()));
    zstd_safe::compress(&mut frame, data, level).map_err(failed)?;
    Ok(frame)
}

/// The same, written there.
///
/// # Errors
/// As for [`encode_all`], or it cannot be written.
pub fn copy_encode(data: &[u8], mut to: impl Write, level: CompressionLevel) -> io::Result<()> {
    to.write_all(&encode_all(data, level)?)
}

fn failed(code: ErrorCode) -> io::Error {
    io::Error::other(zstd_safe::get_error_name(code))
}
