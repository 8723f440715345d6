//! The last lines of what a program says.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};

const STDERR_TAIL: usize = 16 << 10;

/// The last lines of a stream, up to [`STDERR_TAIL`] bytes.
#[derive(Default)]
pub(super) struct Tail {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Tail {
    pub fn of(pipe: impl Read) -> Self {
        let mut tail = Self::default();
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            tail.push(String::from_utf8_lossy(&line).into_owned());
            line.clear();
        }
        tail
    }

    pub fn push(&mut self, line: String) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.bytes > STDERR_TAIL && self.lines.len() > 1 {
            self.bytes -= self.lines.pop_front().map_or(0, |line| line.len());
        }
    }

    pub fn text(self) -> String {
        self.lines.into_iter().collect()
    }
}
