//! How the repository format seals what it keeps: AES-256 in counter mode, with Poly1305-AES.

use std::fmt;

use aes256ctr_poly1305aes::aead::{Aead, AeadInPlace};
use aes256ctr_poly1305aes::{Aes256CtrPoly1305Aes, Key, Nonce, Tag};
use rustic_core::repofile::MasterKey;
use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::secrets::random;

/// The bytes before what is sealed.
const NONCE: usize = 16;
/// And those behind it.
const TAG: usize = 16;

/// The name of a file of the repository with that content.
pub(super) fn name(content: &[u8]) -> String {
    hexadecimal(&Sha256::digest(content))
}

/// As the format writes ids.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A key, as the format's files use it.
pub(super) struct Cipher(Aes256CtrPoly1305Aes);

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher")
    }
}

impl Cipher {
    /// Of the key for encrypting and the two for authenticating.
    pub(super) fn new(encrypt: &[u8], k: &[u8], r: &[u8]) -> Self {
        Self(Aes256CtrPoly1305Aes::new(Key::from_slice(&[encrypt, k, r].concat())))
    }

    pub(super) fn of(master: &MasterKey) -> Self {
        Self::new(&master.encrypt, &master.mac.k, &master.mac.r)
    }

    /// # Errors
    /// There is no randomness to be had.
    pub(super) fn seal(&self, plain: &[u8]) -> Result<Vec<u8>> {
        let nonce = random::<NONCE>()?;
        // It refuses only what is longer than the counter counts, 64 GiB.
        let sealed = self.0.encrypt(Nonce::from_slice(&nonce), plain).expect("far less than 64 GiB");
        Ok([&nonce[..], &sealed].concat())
    }

    /// `None`: it was sealed with another key, or is damaged.
    pub(super) fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE)?;
        self.0.decrypt(Nonce::from_slice(nonce), sealed).ok()
    }

    /// The same where it is.
    pub(super) fn open_in_place<'a>(&self, sealed: &'a mut [u8]) -> Option<&'a [u8]> {
        let (nonce, sealed) = sealed.split_at_mut_checked(NONCE)?;
        let (text, tag) = sealed.split_at_mut_checked(sealed.len().checked_sub(TAG)?)?;
        self.0.decrypt_in_place_detached(Nonce::from_slice(nonce), &[], text, Tag::from_slice(tag)).ok()?;
        Some(text)
    }
}
