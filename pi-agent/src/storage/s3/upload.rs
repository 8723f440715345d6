//! Sending a body over a line that may be slow: only one on which nothing moves fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use reqwest::{Body, RequestBuilder};

use super::{Inner, SHORT};
use crate::Result;
use crate::storage::shaper::Relay;

/// Bodies are handed over in pieces of this size, so that progress on a slow line is seen.
const PIECE: usize = 16 * 1024;

/// The slowest line whose unsent rest (in the kernel's buffers, at most so much) we wait for, in bytes per second.
const SLOWEST: f64 = 10_000.0;
const MOST_BUFFERED: usize = 4 << 20;

impl Inner {
    /// Sends a body. It fails when for `timeout` none of it is accepted, however long all of it takes.
    pub(super) async fn upload(
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

fn pieces(part: &Bytes) -> impl Iterator<Item = Bytes> + use<> {
    let part = part.clone();
    (0..part.len()).step_by(PIECE).map(move |start| part.slice(start..(start + PIECE).min(part.len())))
}
