//! Where a file is cut into pieces: what rustic_core uses of the crate `rustic_cdc`, by its names.
//!
//! A Rabin fingerprint of the last 64 bytes: they are the coefficients of a polynomial over GF(2), and the fingerprint is its
//! remainder by another one, which is the repository's own. Where it ends in so many zeros, the file is cut. restic and rustic cut
//! the same.
//!
//! `rustic_cdc` makes its tables for each file anew, which takes as long as cutting 40 KiB: a sixth of the work for files of a
//! household, most of it where they are small. Here they are made once. And one byte takes a step less from one fingerprint to the next.

use std::sync::{Arc, Mutex, PoisonError};

/// A polynomial over GF(2): bit n is the coefficient of xⁿ.
pub type Polynom64 = u64;

/// What is calculated with polynomials.
pub trait Polynom {
    /// The highest power of x in it; −1 for 0.
    fn degree(&self) -> i32;

    /// The remainder of a division by `divisor`, which is not 0.
    #[must_use]
    fn modulo(&self, divisor: &Self) -> Self;
}

impl Polynom for Polynom64 {
    fn degree(&self) -> i32 {
        63 - self.leading_zeros().cast_signed()
    }

    fn modulo(&self, divisor: &Self) -> Self {
        let mut rest = *self;
        while rest.degree() >= divisor.degree() {
            rest ^= divisor << (rest.degree() - divisor.degree());
        }
        rest
    }
}

/// A fingerprint of the last bytes.
pub trait RollingHash64 {
    /// Begins anew, with all bytes of a window but one; how many there were.
    fn reset_and_prefill_window(&mut self, bytes: &mut impl Iterator<Item = u8>) -> usize;

    /// One byte further.
    fn slide(&mut self, byte: u8);
}

/// Bytes that the fingerprint is of.
const WINDOW: usize = 64;

/// The fingerprint by a polynomial.
#[derive(Clone, Debug)]
pub struct Rabin64 {
    tables: Arc<Tables>,
    /// A ring; `oldest` is replaced next.
    window: [u8; WINDOW],
    oldest: usize,
    /// As it stands.
    pub hash: Polynom64,
}

impl Rabin64 {
    /// Of a window of 2^`window_bits` bytes, by `modulus`.
    ///
    /// # Panics
    /// `window_bits` is not 6, the only value in use, or the degree of `modulus` is not 8 to 56.
    #[must_use]
    pub fn new_with_polynom(window_bits: u32, modulus: &Polynom64) -> Self {
        assert_eq!(1 << window_bits, WINDOW, "the window of the format");
        Self { tables: Tables::of(*modulus), window: [0; WINDOW], oldest: 0, hash: 0 }
    }
}

impl RollingHash64 for Rabin64 {
    fn reset_and_prefill_window(&mut self, bytes: &mut impl Iterator<Item = u8>) -> usize {
        (self.window, self.oldest, self.hash) = ([0; WINDOW], 0, 0);
        bytes.take(WINDOW - 1).map(|byte| self.slide(byte)).count()
    }

    #[inline]
    fn slide(&mut self, byte: u8) {
        let tables = &*self.tables;
        let old = std::mem::replace(&mut self.window[self.oldest % WINDOW], byte);
        self.oldest += 1;
        // What the old byte contributes is known before the fingerprint is.
        let change = tables.leaving[usize::from(old)] ^ u64::from(byte);
        let top = (self.hash >> tables.shift) & 0xff;
        self.hash = (self.hash << 8) ^ tables.carry[top as usize] ^ change;
    }
}

/// What the bytes of a fingerprint come to.
#[derive(Debug)]
struct Tables {
    modulus: Polynom64,
    /// The place of the highest eight bits of a fingerprint.
    shift: u32,
    /// For the highest eight bits, shifted out by a byte: their remainder, and themselves, so that they vanish.
    carry: [Polynom64; 256],
    /// For a byte that leaves the window.
    leaving: [Polynom64; 256],
}

/// Those of the last polynomial: a process works on one repository.
static LAST: Mutex<Option<Arc<Tables>>> = Mutex::new(None);

impl Tables {
    fn of(modulus: Polynom64) -> Arc<Self> {
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some(tables) if tables.modulus == modulus => tables.clone(),
            _ => last.insert(Arc::new(Self::new(modulus))).clone(),
        }
    }

    fn new(modulus: Polynom64) -> Self {
        let degree = modulus.degree().cast_unsigned();
        assert!((8..=56).contains(&degree), "a polynomial of degree {degree} cuts nothing");
        let carry = each_byte(|byte| {
            let shifted = byte << degree;
            shifted.modulo(&modulus) ^ shifted
        });
        let leaving = each_byte(|byte| (0..WINDOW).fold(byte, |rest, _| (rest << 8).modulo(&modulus)));
        Self { modulus, shift: degree - 8, carry, leaving }
    }
}

fn each_byte(value: impl Fn(u64) -> Polynom64) -> [Polynom64; 256] {
    std::array::from_fn(|byte| value(byte as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// restic's own, for tests.
    const MODULUS: Polynom64 = 0x003D_A335_8B4D_C173;

    fn bytes() -> impl Iterator<Item = u8> {
        let mut state = 23_u64;
        std::iter::repeat_with(move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
    }

    /// By the definition.
    fn fingerprint(window: &[u8]) -> Polynom64 {
        window.iter().fold(0, |rest: u64, byte| ((rest << 8) | u64::from(*byte)).modulo(&MODULUS))
    }

    #[test]
    fn a_degree_and_a_remainder() {
        assert_eq!((0_u64.degree(), 1_u64.degree(), MODULUS.degree()), (-1, 0, 53));
        // x⁴ + x = x·(x³ + x + 1) + x²
        assert_eq!(0b1_0010_u64.modulo(&0b1011), 0b100);
    }

    #[test]
    fn a_fingerprint_is_that_of_the_last_64_bytes() {
        let data: Vec<u8> = bytes().take(1000).collect();
        let mut rabin = Rabin64::new_with_polynom(6, &MODULUS);
        assert_eq!(rabin.reset_and_prefill_window(&mut data.iter().copied()), 63);
        assert_eq!(rabin.hash, fingerprint(&data[..63]));
        for end in 64..=data.len() {
            rabin.slide(data[end - 1]);
            assert_eq!(rabin.hash, fingerprint(&data[end - 64..end]), "after {end} bytes");
        }
        // Nothing of before is left.
        assert_eq!(rabin.reset_and_prefill_window(&mut data[..10].iter().copied()), 10);
        assert_eq!(rabin.hash, fingerprint(&data[..10]));
    }

    #[test]
    fn another_polynomial_has_other_tables() {
        let hash = |modulus: Polynom64| {
            let mut rabin = Rabin64::new_with_polynom(6, &modulus);
            rabin.reset_and_prefill_window(&mut bytes());
            rabin.hash
        };
        // The one of restic's tests, and another irreducible one.
        let (one, other) = (hash(MODULUS), hash(0x003B_6B13_5D1B_62C7));
        assert_ne!(one, other);
        assert_eq!(hash(MODULUS), one);
    }
}
