//! The key file of a new repository: its master key, encrypted with the password, as restic and rustic read it.
//!
//! rustic_core makes one itself, but with scrypt parameters that take 134 MB, here and wherever the password is used. These
//! take the same work in a quarter of the memory, as restic's do.

use rustic_core::jiff::Zoned;
use rustic_core::repofile::{KeyFile, MasterKey};

use super::cipher::{self, Cipher};
use crate::error::{Context, Error, Result};
use crate::secrets::{Secret, random};

/// scrypt's cost: N × r × 128 bytes, 32 MiB, gone through p times. The tests' program goes through it once: what they open would take
/// a fifth of their time.
const N: u32 = 1 << 15;
const R: u32 = 8;
const P: u32 = if cfg!(debug_assertions) { 1 } else { 4 };

/// Its name in the repository, and its content.
///
/// # Errors
/// There is no randomness to be had.
pub(super) fn key_file(master: &MasterKey, password: &Secret, host: &str) -> Result<(String, Vec<u8>)> {
    let doing = || "make the repository's key file".to_owned();
    let mut file = KeyFile {
        hostname: Some(host.to_owned()),
        username: None,
        created: Some(Zoned::now()),
        kdf: "scrypt".into(),
        n: N,
        r: R,
        p: P,
        data: Vec::new(),
        salt: random::<64>()?.to_vec(),
    };
    let derived = file.kdf_key(&password.reveal()).map_err(|error| Error::new(doing()).caused_by(error))?;
    let plain = serde_json::to_vec(master).context(doing)?;
    let (encrypt, k, r) = derived.to_keys();
    file.data = Cipher::new(&encrypt, &k, &r).seal(&plain)?;
    let bytes = serde_json::to_vec(&file).context(doing)?;
    Ok((cipher::name(&bytes), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_opens_it_and_no_other_does() {
        let master = MasterKey::new();
        let (name, bytes) = key_file(&master, &Secret::new("an apple"), "pi").expect("random bytes");
        assert_eq!(name.len(), 64);
        let file: KeyFile = serde_json::from_slice(&bytes).expect("its own format");
        let opened = file.key_from_password(&"an apple").expect("the password");
        assert_eq!(opened.to_keys().0, master.encrypt);
        assert!(file.key_from_password(&"a pear").is_err());
        assert!(!String::from_utf8(bytes).expect("JSON").contains("encrypt"));
    }
}
