//! Decompressing.

use std::io::{self, Read};

use zstd_safe::{DCtx, InBuffer, OutBuffer, WriteBuf};

use crate::failed;

/// Room for what does not say how long it is, and more whenever that is full.
const ROOM: usize = 128 << 10;
/// Nobody's word is taken for more.
const MOST: u64 = 64 << 20;

/// The content of all frames.
///
/// # Errors
/// One is none, or not whole.
pub fn decode_all(data: &[u8]) -> io::Result<Vec<u8>> {
    let mut decoder = Decoder::new(data)?;
    let told = zstd_safe::get_frame_content_size(data).ok().flatten();
    let room = told.filter(|size| *size <= MOST).and_then(|size| usize::try_from(size).ok());
    let mut all = Vec::with_capacity(room.unwrap_or(ROOM));
    while !decoder.has_ended() {
        if all.len() == all.capacity() {
            all.reserve(ROOM);
        }
        let at = all.len();
        decoder.decode(&mut OutBuffer::around_pos(&mut all, at))?;
    }
    Ok(all)
}

/// Decompresses as it is read.
pub struct Decoder<'a> {
    context: DCtx<'a>,
    data: InBuffer<'a>,
    /// What was read are whole frames.
    between: bool,
}

impl<'a> Decoder<'a> {
    /// # Errors
    /// There is no memory for it.
    pub fn new(data: &'a [u8]) -> io::Result<Self> {
        let context = DCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { context, data: InBuffer::around(data), between: true })
    }

    fn has_ended(&self) -> bool {
        self.between && self.data.pos() == self.data.src.len()
    }

    /// As much as there is room for; there must be some. When there is room for all of it, that takes no buffer.
    fn decode(&mut self, to: &mut OutBuffer<'_, impl WriteBuf + ?Sized>) -> io::Result<()> {
        let before = to.pos();
        self.between = self.context.decompress_stream(to, &mut self.data).map_err(failed)? == 0;
        if !self.between && self.data.pos() == self.data.src.len() && to.pos() == before {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

impl Read for Decoder<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut to = OutBuffer::around(buffer);
        while to.pos() == 0 && to.capacity() > 0 && !self.has_ended() {
            self.decode(&mut to)?;
        }
        Ok(to.pos())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::bulk::Decompressor;
    use crate::{compression_level_range, copy_encode, encode_all};

    /// What compresses well, and what hardly does.
    fn contents() -> Vec<Vec<u8>> {
        let noise = |length: u32| (0..length).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        vec![vec![], vec![7], vec![7; 3_000_000], noise(1000), noise(1 << 20)]
    }

    #[test]
    fn what_was_compressed_comes_back() {
        assert!(compression_level_range().contains(&2));
        for content in contents() {
            for level in [-3, 0, 2, 3] {
                let frame = encode_all(&content, level).unwrap();
                assert_eq!(decode_all(&frame).unwrap(), content);
                let mut copied = vec![2];
                copy_encode(&content, &mut copied, level).unwrap();
                assert!(copied[0] == 2 && copied[1..] == frame[..]);
                let mut read = Vec::new();
                Decoder::new(&frame).unwrap().read_to_end(&mut read).unwrap();
                assert_eq!(read, content);
                let mut room = Vec::with_capacity(content.len());
                assert_eq!(
                    Decompressor::new().unwrap().decompress_to_buffer(&frame, &mut room).unwrap(),
                    content.len()
                );
                assert_eq!(room, content);
            }
        }
    }

    /// As restic and rustic write them.
    fn stream(content: &[u8]) -> Vec<u8> {
        let mut context = zstd_safe::CCtx::create();
        let mut frame = Vec::with_capacity(zstd_safe::compress_bound(content.len()) + 100);
        let mut to = OutBuffer::around(&mut frame);
        context.compress_stream(&mut to, &mut InBuffer::around(content)).unwrap();
        context.end_stream(&mut to).unwrap();
        frame
    }

    #[test]
    fn frames_that_do_not_say_how_long_they_are_and_several_in_a_row() {
        for content in contents() {
            let frame = stream(&content);
            assert_eq!(zstd_safe::get_frame_content_size(&frame).ok().flatten(), None);
            assert_eq!(decode_all(&frame).unwrap(), content);
            let both = [frame, encode_all(&content, 2).unwrap()].concat();
            assert_eq!(decode_all(&both).unwrap(), [&content[..], &content].concat());
        }
        assert!(decode_all(&[]).unwrap().is_empty());
    }

    #[test]
    fn what_is_damaged_is_told() {
        let content = vec![7; 3_000_000];
        for frame in [encode_all(&content, 2).unwrap(), stream(&content)] {
            for length in 1..frame.len() {
                decode_all(&frame[..length]).unwrap_err();
                Decoder::new(&frame[..length]).unwrap().read_to_end(&mut Vec::new()).unwrap_err();
            }
            let followed = [&frame[..], b"and more"].concat();
            decode_all(&followed).unwrap_err();
            let too_short = &mut vec![0; content.len() - 1][..];
            Decompressor::new().unwrap().decompress_to_buffer(&frame, too_short).unwrap_err();
        }
        decode_all(b"no frame at all").unwrap_err();
        // A header that promises 2^60 bytes, and nothing after it.
        decode_all(&[0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0x10]).unwrap_err();
    }
}
