//! Into memory that is used again.

use std::io;

use zstd_safe::{DCtx, WriteBuf};

use crate::failed;

/// Decompresses one frame after another.
pub struct Decompressor<'a> {
    context: DCtx<'a>,
}

impl Decompressor<'_> {
    /// # Errors
    /// There is no memory for it.
    pub fn new() -> io::Result<Self> {
        let context = DCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { context })
    }

    /// How many bytes it wrote.
    ///
    /// # Errors
    /// That is no whole frame, or there is no room for its content.
    pub fn decompress_to_buffer(&mut self, frame: &[u8], to: &mut (impl WriteBuf + ?Sized)) -> io::Result<usize> {
        self.context.decompress(to, frame).map_err(failed)
    }
}
