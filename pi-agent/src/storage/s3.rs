//! A bucket as storage. rust-s3 signs; the requests are ours, over one client, because its `put_object` copies and
//! hashes each body twice (117 MiB and 39 CPU seconds in a first backup of 1.5 GB, against 76 and 25 so) and its timeout
//! covers a whole transfer, so that a slow line fails. Here only a line on which nothing moves fails.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures_util::stream;
use jiff::{SignedDuration, Timestamp};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, DATE, RANGE};
use reqwest::{Body, Client, Method, RequestBuilder, Response, StatusCode};
use s3::creds::Credentials;
use s3::serde_types::ListBucketResult;
use s3::{Bucket, Region};
use tokio::runtime::Runtime;

use super::certificate;
use super::failure::{Answer, answered, unanswered};
use super::meter::{Meter, Operation};
use super::retry::retrying;
use super::shaper::Relay;
use crate::config::{self, S3Location};
use crate::error::{Context, Kind};
use crate::secrets::{AwsCredentials, Secret};
use crate::{Error, Result};

pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The same through a relay, where the greetings of TLS wait for their turn.
const RELAYED_CONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// All servers know it, and unlike the checksums of newer ones it need not be signed.
const CONTENT_MD5: &str = "content-md5";

/// How long a signature is good for; it must be valid when a request starts, not when it ends.
const SIGNATURE_SECONDS: u32 = 3600;

/// Bodies are handed over in pieces of this size, so that progress on a slow line is seen.
const PIECE: usize = 16 * 1024;

/// The slowest line whose unsent rest (in the kernel's buffers, at most so much) we wait for, in bytes per second.
const SLOWEST: f64 = 10_000.0;
const MOST_BUFFERED: usize = 4 << 20;

/// Bytes of a page of a listing: a thousand names, each of a KiB, of which each byte may be six in XML.
const LISTING: usize = 8 << 20;
/// Bytes of an answer that says whether something was done.
const SHORT: usize = 64 << 10;
/// Characters of what the server says of an error.
const MOST_WORDS: usize = 500;
/// Objects of a listing: of a repository of 3 TB, in packs of our size. Their names take 130 MB of memory.
const MOST_OBJECTS: usize = 1_000_000;
/// Pages of a listing, one after the other, in which there is nothing.
const MOST_EMPTY: u32 = 100;
/// Bytes per second of an answer, besides the time that may pass without any.
const SLOWEST_ANSWER: f64 = 1000.0;

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
            client: client(location, storage.timeout, relay.as_ref())?,
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

    pub(super) fn list(&self, prefix: &str, after: &str) -> Result<Vec<(String, u64)>> {
        let (mut found, mut empty, mut token) = (Vec::new(), 0, None);
        loop {
            let page = self.request(Operation::List, prefix, async |what, prefix, _| {
                let mut queries =
                    HashMap::from([("list-type".to_owned(), "2".to_owned()), ("prefix".to_owned(), prefix.to_owned())]);
                if let Some(token) = &token {
                    queries.insert("continuation-token".into(), String::clone(token));
                } else if !after.is_empty() {
                    queries.insert("start-after".into(), format!("{}{after}", self.prefix));
                }
                let request = self.inner.signed(Method::GET, "/", Some(queries)).await?;
                let response = self.inner.send(what, request).await?;
                let body = self.inner.body(what, response, LISTING).await?;
                // What is not a whole listing may be half an answer: it is asked for again.
                let text = std::str::from_utf8(&body)
                    .map_err(|error| Error::transient(format!("{what}: the answer is no listing")).caused_by(error))?;
                quick_xml::de::from_str::<ListBucketResult>(text)
                    .map_err(|error| Error::transient(format!("{what}: the answer is no listing")).caused_by(error))
            })?;
            empty = if page.contents.is_empty() { empty + 1 } else { 0 };
            for object in page.contents {
                let key = object.key.strip_prefix(&self.prefix).ok_or_else(|| {
                    Error::new(format!(
                        "list {}{prefix}: the server answered with the foreign key {:?}",
                        self.prefix, object.key
                    ))
                })?;
                // Some consoles make "folders": empty objects whose names end so. And some servers begin at the beginning.
                if !key.is_empty() && !key.ends_with('/') && key > after {
                    found.push((key.to_owned(), object.size));
                }
            }
            token = match (page.is_truncated, page.next_continuation_token) {
                (false, _) => return Ok(found),
                (true, Some(next))
                    if token.as_ref() != Some(&next) && found.len() < MOST_OBJECTS && empty < MOST_EMPTY =>
                {
                    Some(next)
                }
                (true, Some(_)) => {
                    let message = format!(
                        "list {}{prefix}: the server's listing has no end after {} objects",
                        self.prefix,
                        found.len()
                    );
                    return Err(Error::new(message).hint("is that the right server and bucket? check [storage]"));
                }
                (true, None) => {
                    return Err(Error::new(format!("list {}{prefix}: the server cut the listing short", self.prefix)));
                }
            };
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

impl Inner {
    async fn signed(
        &self,
        method: Method,
        object: &str,
        queries: Option<HashMap<String, String>>,
    ) -> Result<RequestBuilder> {
        let url = match method {
            Method::PUT => self.bucket.presign_put(object, SIGNATURE_SECONDS, None, queries).await,
            Method::DELETE => self.bucket.presign_delete(object, SIGNATURE_SECONDS).await,
            _ => self.bucket.presign_get(object, SIGNATURE_SECONDS, queries).await,
        };
        let url = url.context(|| format!("cannot sign a request for {object}"))?;
        Ok(self.client.request(method, url))
    }

    /// A successful answer's head.
    async fn send(&self, what: &str, request: RequestBuilder) -> Result<Response> {
        let response = self.answer(what, request, self.timeout).await?;
        self.good(what, response).await
    }

    async fn answer(&self, what: &str, request: RequestBuilder, within: Duration) -> Result<Response> {
        let sent = Timestamp::now();
        match tokio::time::timeout(within, request.send()).await {
            Ok(answer) => {
                let answer = answer.map_err(|error| self.unanswered(what, error))?;
                let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok());
                if let Some(ahead) = date.and_then(|date| ahead(date, sent, Timestamp::now())) {
                    *self.clock_ahead.lock().unwrap_or_else(PoisonError::into_inner) = Some(ahead);
                }
                Ok(answer)
            }
            Err(_) => Err(self.silence(what)),
        }
    }

    async fn good(&self, what: &str, response: Response) -> Result<Response> {
        self.certificate_end.get_or_init(|| {
            let tls = response.extensions().get::<reqwest::tls::TlsInfo>()?;
            certificate::end(tls.peer_certificate()?)
        });
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        // Half an answer does not say whether the object is missing or something else is.
        let body = self.body(what, response, SHORT).await?;
        let mut answer = Answer::parse(&String::from_utf8_lossy(&body));
        for text in [&mut answer.code, &mut answer.message] {
            let covered = self.keys.iter().fold(std::mem::take(text), |text, key| text.replace(key, "…"));
            *text = covered.chars().take(MOST_WORDS).collect();
        }
        Err(answered(what, status, &answer))
    }

    /// Reads a body, of so many bytes at most, into one buffer of its size.
    async fn body(&self, what: &str, response: Response, most: usize) -> Result<Bytes> {
        let expected = response.content_length().and_then(|length| usize::try_from(length).ok());
        let buffer = Vec::with_capacity(expected.unwrap_or(0).min(most));
        let read = self.body_into(what, response, buffer, most + 1).await?;
        match read.len() <= most {
            true => Ok(read.into()),
            false => Err(Error::new(format!(
                "{what}: the server's answer does not end after {most} bytes, and none is longer"
            ))
            .hint("is that the right server? check [storage] endpoint")),
        }
    }

    /// Reads a body, or as much of it. That is done by the runtime's thread, to which its pieces come: each that is passed on to
    /// another wakes it, which takes longer than to read it.
    async fn body_into(&self, what: &str, mut response: Response, mut buffer: Vec<u8>, most: usize) -> Result<Vec<u8>> {
        let (meter, patience, started) = (self.meter.clone(), self.timeout, Instant::now());
        let read = tokio::spawn(async move {
            while buffer.len() < most {
                let allowed = patience + Duration::from_secs_f64(buffer.len() as f64 / SLOWEST_ANSWER);
                let left = allowed.saturating_sub(started.elapsed()).min(patience);
                match tokio::time::timeout(left, response.chunk()).await {
                    Ok(Ok(Some(chunk))) => {
                        meter.down(chunk.len());
                        buffer.extend_from_slice(&chunk[..chunk.len().min(most - buffer.len())]);
                    }
                    Ok(Ok(None)) => break,
                    Ok(Err(error)) => return Err(Some(error)),
                    Err(_) => return Err(None),
                }
            }
            Ok(buffer)
        });
        let read = read.await.context(|| format!("{what}: the answer was not read"))?;
        read.map_err(|failed| match failed {
            Some(error) => self.unanswered(what, error),
            None => self.silence(what),
        })
    }

    /// Sends a body. It fails when for `timeout` none of it is accepted, however long all of it takes.
    async fn upload(
        &self,
        what: &str,
        request: RequestBuilder,
        parts: &[Bytes],
        length: usize,
        number: u32,
    ) -> Result<()> {
        let started = Instant::now();
        let taken = Arc::new(Taken::default());
        let pieces: Vec<Bytes> = parts.iter().flat_map(pieces).collect();
        let body = {
            let (taken, meter) = (taken.clone(), self.meter.clone());
            stream::iter(pieces.into_iter().map(move |piece| {
                taken.add(started, piece.len());
                meter.up(piece.len());
                Ok::<_, std::convert::Infallible>(piece)
            }))
        };
        let mut sending = std::pin::pin!(request.body(Body::wrap_stream(body)).send());
        let response = loop {
            let allowed = if taken.bytes() < length { self.timeout } else { self.timeout + self.drain(length, number) };
            let left = (taken.at(started) + allowed).saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, &mut sending).await {
                Ok(answer) => break answer.map_err(|error| self.unanswered(what, error))?,
                Err(_) if taken.at(started).elapsed() >= allowed => return Err(self.silence(what)),
                // Something moved while we waited.
                Err(_) => {}
            }
        };
        let response = self.good(what, response).await?;
        self.body(what, response, SHORT).await?;
        if length >= 1 << 16 {
            let rate = length as f64 / started.elapsed().as_secs_f64().max(0.001);
            self.upload_rate.store(rate as u64, Relaxed);
        }
        Ok(())
    }

    /// How long the rest of a body may take to leave the kernel's buffers after we handed over the last piece. The first
    /// try trusts the last upload's speed; a second one is as patient as the slowest line needs.
    fn drain(&self, length: usize, number: u32) -> Duration {
        let seen = self.upload_rate.load(Relaxed) as f64 / 4.0;
        let rate = if number == 0 { seen.max(SLOWEST) } else { SLOWEST };
        // The limit may have changed since.
        let share = self.relay.as_ref().and_then(Relay::upload_share);
        Duration::from_secs_f64(length.min(MOST_BUFFERED) as f64 / share.map_or(rate, |share| share.min(rate)))
    }

    fn unanswered(&self, what: &str, error: reqwest::Error) -> Error {
        unanswered(what, error, self.relay.as_ref().and_then(Relay::trouble))
    }

    fn silence(&self, what: &str) -> Error {
        Error::transient(format!("{what}: nothing moved for {} s, or hardly anything", self.timeout.as_secs()))
    }
}

/// How much of a body was handed to the network, and when last.
#[derive(Debug, Default)]
struct Taken {
    bytes: AtomicU64,
    millis: AtomicU64,
}

impl Taken {
    fn add(&self, started: Instant, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Relaxed);
        self.millis.store(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    fn bytes(&self) -> usize {
        usize::try_from(self.bytes.load(Relaxed)).unwrap_or(usize::MAX)
    }

    fn at(&self, started: Instant) -> Instant {
        started + Duration::from_millis(self.millis.load(Relaxed))
    }
}

/// As `Content-MD5` has it.
fn checksum(parts: &[Bytes]) -> String {
    let mut sum = md5::Context::new();
    parts.iter().for_each(|part| sum.consume(part));
    BASE64.encode(sum.finalize().0)
}

fn pieces(part: &Bytes) -> impl Iterator<Item = Bytes> + use<> {
    let part = part.clone();
    (0..part.len()).step_by(PIECE).map(move |start| part.slice(start..(start + PIECE).min(part.len())))
}

/// By how much our clock is before the server's at least (negative: behind it): the server dated its answer, in whole
/// seconds, at some moment between the two.
fn ahead(date: &str, sent: Timestamp, received: Timestamp) -> Option<SignedDuration> {
    let date = jiff::fmt::rfc2822::parse(date).ok()?.timestamp();
    let early = sent.duration_since(date) - SignedDuration::from_secs(1);
    let late = received.duration_since(date);
    Some(early.max(SignedDuration::ZERO) + late.min(SignedDuration::ZERO))
}

fn client(location: &S3Location, timeout: Duration, relay: Option<&Relay>) -> Result<Client> {
    let mut builder = Client::builder()
        .connect_timeout(if relay.is_some() { RELAYED_CONNECT_TIMEOUT } else { CONNECT_TIMEOUT })
        .tcp_user_timeout(timeout)
        // A signature is good for one address only.
        .redirect(reqwest::redirect::Policy::none())
        .tls_info(true)
        .no_proxy();
    if let Some(relay) = relay {
        let proxy = reqwest::Proxy::all(format!("http://127.0.0.1:{}", relay.port()));
        builder = builder.proxy(proxy.context(|| "use the relay that limits the bandwidth".into())?);
    }
    if let Some(file) = &location.ca_file {
        let hint = "[storage] ca-file names a PEM file with one or more certificates";
        let pem = std::fs::read(file)
            .map_err(|error| Error::usage(format!("cannot read {}", file.display())).hint(hint).caused_by(error))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| {
            Error::usage(format!("no certificate in {}", file.display())).hint(hint).caused_by(error)
        })?;
        if certificates.is_empty() {
            return Err(Error::usage(format!("no certificate in {}", file.display())).hint(hint));
        }
        for certificate in certificates {
            builder = builder.add_root_certificate(certificate);
        }
    }
    builder.build().context(|| "cannot set up HTTPS".into())
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

    #[test]
    fn the_servers_date_tells_how_far_the_clocks_are_apart() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let (sent, received) = (at("2026-11-21T03:00:00.5Z"), at("2026-11-21T03:00:20Z"));
        let seconds = |date| ahead(date, sent, received).unwrap().as_secs();
        assert_eq!(seconds("Sat, 21 Nov 2026 03:00:00 GMT"), 0);
        assert_eq!(seconds("Sat, 21 Nov 2026 03:00:20 GMT"), 0, "an answer that took its time");
        assert_eq!(seconds("Sat, 21 Nov 2026 02:00:00 GMT"), 3599);
        assert_eq!(seconds("Sat, 21 Nov 2026 03:02:20 GMT"), -120);
        assert_eq!(ahead("yesterday", sent, received), None);
    }
}
