//! A bucket as storage. rust-s3 signs; the requests are ours, over one client, because its `put_object` copies and
//! hashes each body twice (117 MiB and 39 CPU seconds in a first backup of 1.5 GB, against 76 and 25 so) and its timeout
//! covers a whole transfer, so that a slow line fails. Here only a line on which nothing moves fails.

mod client;
mod exchange;
mod listing;
mod upload;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use reqwest::{Client, Method, StatusCode};
use s3::creds::Credentials;
use s3::{Bucket, Region};
use tokio::runtime::Runtime;

use super::meter::{Meter, Operation};
use super::retry::retrying;
use super::shaper::Relay;
use crate::config::{self, S3Location};
use crate::error::{Context, Kind};
use crate::secrets::{AwsCredentials, Secret};
use crate::{Error, Result};
pub(super) use client::CONNECT_TIMEOUT;

/// All servers know it, and unlike the checksums of newer ones it need not be signed.
const CONTENT_MD5: &str = "content-md5";

/// Bytes of an answer that says whether something was done.
const SHORT: usize = 64 << 10;

/// A prefix in a bucket.
#[derive(Clone, Debug)]
pub struct S3 {
    inner: Arc<Inner>,
    /// Empty, or ending with `/`.
    prefix: String,
}

#[derive(Debug)]
struct Inner {
    bucket: Box<Bucket>,
    client: Client,
    /// What limits the bandwidth, if anything does.
    relay: Option<Relay>,
    runtime: Runtime,
    meter: Arc<Meter>,
    timeout: Duration,
    retry_for: Duration,
    /// What no message may show, whatever the server says.
    keys: Vec<String>,
    /// Bytes per second of the last larger upload, answer included; 0: none yet.
    upload_rate: AtomicU64,
    /// Until when the server's certificate is good, from its first answer.
    certificate_end: OnceLock<Option<Timestamp>>,
    /// By how much our clock is before the server's, from its last dated answer.
    clock_ahead: Mutex<Option<SignedDuration>>,
}

impl S3 {
    pub(super) fn open(
        storage: &config::Storage,
        location: &S3Location,
        keys: &AwsCredentials,
        meter: Arc<Meter>,
    ) -> Result<Self> {
        let credentials = Credentials::new(
            Some(keys.access_key.reveal()),
            Some(keys.secret_key.reveal()),
            None,
            keys.session_token.as_ref().map(Secret::reveal),
            None,
        )
        .context(|| "cannot use the keys of aws.env".into())?;
        let region = Region::Custom { region: location.region.clone(), endpoint: location.endpoint() };
        let mut bucket = Bucket::new(&location.bucket, region, credentials)
            .context(|| format!("cannot use bucket {}", location.bucket))?;
        if location.path_style {
            bucket.set_path_style();
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("storage")
            .enable_all()
            .build()
            .context(|| "cannot start the network thread".into())?;
        let relay = Relay::start(storage, location.server())?;
        let inner = Inner {
            bucket,
            client: client::client(location, storage.timeout, relay.as_ref())?,
            relay,
            runtime,
            meter,
            timeout: storage.timeout,
            retry_for: storage.retry_for,
            keys: [Some(&keys.access_key), Some(&keys.secret_key), keys.session_token.as_ref()]
                .into_iter()
                .flatten()
                .map(|key| key.reveal().to_owned())
                .collect(),
            upload_rate: AtomicU64::new(0),
            certificate_end: OnceLock::new(),
            clock_ahead: Mutex::new(None),
        };
        let prefix = if location.prefix.is_empty() { String::new() } else { format!("{}/", location.prefix) };
        Ok(Self { inner: Arc::new(inner), prefix })
    }

    pub(super) fn join(&self, name: &str) -> Self {
        Self { inner: self.inner.clone(), prefix: format!("{}{name}/", self.prefix) }
    }

    pub(super) fn meter(&self) -> &Arc<Meter> {
        &self.inner.meter
    }

    pub(super) fn certificate_end(&self) -> Option<Timestamp> {
        self.inner.certificate_end.get().copied().flatten()
    }

    pub(super) fn clock_ahead(&self) -> Option<SignedDuration> {
        *self.inner.clock_ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, key: &str, most: usize) -> Result<Bytes> {
        self.request(Operation::Get, key, async |what, object, _| {
            let request = self.inner.signed(Method::GET, object, None).await?;
            let response = self.inner.send(what, request).await?;
            self.inner.body(what, response, most).await
        })
    }

    pub(super) fn get_into(&self, key: &str, most: usize, mut buffer: impl FnMut() -> Vec<u8>) -> Result<Vec<u8>> {
        self.request(Operation::Get, key, async |what, object, _| {
            let request = self.inner.signed(Method::GET, object, None).await?;
            let response = self.inner.send(what, request).await?;
            // Whoever else waits for an answer does so in another thread.
            let buffer = buffer();
            self.inner.body_into(what, response, buffer, most).await
        })
    }

    pub(super) fn get_range(&self, key: &str, offset: u64, length: usize) -> Result<Bytes> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        let range = format!("bytes={offset}-{}", offset + length as u64 - 1);
        self.request(Operation::Get, key, async |what, object, _| {
            let request = self.inner.signed(Method::GET, object, None).await?.header(RANGE, &range);
            let response = self.inner.send(what, request).await?;
            if response.status() != StatusCode::PARTIAL_CONTENT {
                return Err(Error::new(format!("{what}: the server does not give parts of objects")));
            }
            let bytes = self.inner.body(what, response, length).await?;
            if bytes.len() == length {
                Ok(bytes)
            } else {
                Err(Error::transient(format!("{what}: got {} of {length} bytes", bytes.len())))
            }
        })
    }

    pub(super) fn put(&self, key: &str, parts: &[Bytes]) -> Result<()> {
        let length: usize = parts.iter().map(Bytes::len).sum();
        // The server refuses what the line changed; and a bucket with Object Lock refuses whatever comes without.
        let checksum = checksum(parts);
        self.request(Operation::Put, key, async |what, object, number| {
            let request = self.inner.signed(Method::PUT, object, None).await?;
            let request = request.header(CONTENT_LENGTH, length).header(CONTENT_MD5, &checksum);
            self.inner.upload(what, request, parts, length, number).await
        })
    }

    pub(super) fn delete(&self, key: &str) -> Result<()> {
        let deleted = self.request(Operation::Delete, key, async |what, object, _| {
            let request = self.inner.signed(Method::DELETE, object, None).await?;
            let response = self.inner.send(what, request).await?;
            self.inner.body(what, response, SHORT).await.map(drop)
        });
        match deleted {
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            result => result,
        }
    }

    /// By a GET of one byte: rust-s3 signs no HEAD.
    pub(super) fn size(&self, key: &str) -> Result<u64> {
        self.request(Operation::Get, key, async |what, object, _| {
            let request = self.inner.signed(Method::GET, object, None).await?.header(RANGE, "bytes=0-0");
            let response = match self.inner.answer(what, request, self.inner.timeout).await? {
                // An empty object has no first byte; the header still tells its size.
                response if response.status() == StatusCode::RANGE_NOT_SATISFIABLE => response,
                response => self.inner.good(what, response).await?,
            };
            let size = response
                .headers()
                .get(CONTENT_RANGE)
                .and_then(|range| range.to_str().ok()?.rsplit_once('/')?.1.parse().ok())
                .ok_or_else(|| Error::new(format!("{what}: the server does not tell sizes")))?;
            // Drained, so that the connection can be used again.
            let _ = self.inner.body(what, response, SHORT).await;
            Ok(size)
        })
    }

    /// Does a request, again if need be, from a thread that is not the runtime's.
    fn request<T>(
        &self,
        operation: Operation,
        key: &str,
        mut attempt: impl AsyncFnMut(&str, &str, u32) -> Result<T>,
    ) -> Result<T> {
        let inner = &self.inner;
        let object = format!("{}{key}", self.prefix);
        let what = format!("{} {object} in bucket {}", operation.verb(), inner.bucket.name);
        inner.runtime.block_on(retrying(inner.retry_for, &inner.meter, async |number| {
            inner.meter.request(operation);
            attempt(&what, &object, number).await
        }))
    }
}

/// As `Content-MD5` has it.
fn checksum(parts: &[Bytes]) -> String {
    let mut sum = md5::Context::new();
    parts.iter().for_each(|part| sum.consume(part));
    BASE64.encode(sum.finalize().0)
}

impl std::fmt::Display for S3 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "s3://{}/{}", self.inner.bucket.name, self.prefix.trim_end_matches('/'))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_of_all_parts() {
        // Of RFC 1321's own examples.
        assert_eq!(checksum(&[Bytes::from("message "), Bytes::from("digest")]), "+WtpfXy3k41SWi8xqvFh0A==");
        assert_eq!(checksum(&[]), "1B2M2Y8AsgTpgAmY7PhCfg==");
    }
}
