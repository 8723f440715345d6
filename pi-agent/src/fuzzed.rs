//! For tests of what reads others' bytes: valid ones, changed at random, of which none may cause a panic or take long.

use std::time::{Duration, Instant};

/// For so many seconds each instead of [`ROUNDS`].
const SECONDS: &str = "PI_AGENT_FUZZ_SECONDS";
/// Changed inputs of each example.
const ROUNDS: u64 = 2000;
/// Changes of an input at most, one upon the other.
const CHANGES: u64 = 8;
/// What numbers, lengths and names like to be in the wrong place.
const ODD: [&[u8]; 16] = [
    b"\0",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"-1",
    b"18446744073709551616",
    b"1e999",
    b"null",
    b"[]",
    b"{}",
    b"\"",
    b"\n",
    b"../",
    b"\x1b[2J",
    "\u{202e}ü".as_bytes(),
    b"<!--",
    b"&lt;",
];

/// Hands over what becomes of the examples, and the examples themselves: the same each time, unless it is given more time.
pub fn fuzz(examples: &[&[u8]], mut take: impl FnMut(&[u8])) {
    let seconds = std::env::var(SECONDS).ok().and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
    let begun = Instant::now();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0.. {
        if seconds.map_or(round >= ROUNDS, |seconds| begun.elapsed() >= seconds) {
            break;
        }
        for example in examples {
            let mut input = example.to_vec();
            for _ in 0..random.below(CHANGES + 1) {
                random.change(&mut input, examples);
            }
            let taken = Instant::now();
            take(&input);
            // Not a measurement: what is not over by then has no end that anybody would wait for.
            assert!(taken.elapsed() < Duration::from_secs(30), "it takes for ever: {}", input.escape_ascii());
        }
    }
}

/// The same as text, as far as it is text.
pub fn fuzz_text(examples: &[&str], mut take: impl FnMut(&str)) {
    let examples: Vec<_> = examples.iter().map(|example| example.as_bytes()).collect();
    fuzz(&examples, |input| take(&String::from_utf8_lossy(input)));
}

/// Sebastiano Vigna's SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> usize {
        usize::try_from(self.next() % end.max(1)).expect("an index")
    }

    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let from = self.below(length as u64 + 1);
        from..from + self.below((length - from).min(64) as u64 + 1)
    }

    fn change(&mut self, input: &mut Vec<u8>, examples: &[&[u8]]) {
        let at = self.below(input.len() as u64 + 1);
        match self.below(6) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 => drop(input.splice(at..at, ODD[self.below(ODD.len() as u64)].iter().copied())),
            2 => {
                let range = self.range(input.len());
                input.drain(range);
            }
            3 => {
                let range = self.range(input.len());
                let again = input[range].to_vec();
                input.splice(at..at, again);
            }
            4 => input.truncate(at),
            _ => {
                let other = examples[self.below(examples.len() as u64)];
                let range = self.range(other.len());
                input.splice(at..at, other[range].iter().copied());
            }
        }
    }
}
