//! A request and its answer, within the time and the length that they may have.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use reqwest::header::DATE;
use reqwest::{Method, RequestBuilder, Response};

use super::{Inner, SHORT};
use crate::error::Context;
use crate::storage::certificate;
use crate::storage::failure::{Answer, answered, unanswered};
use crate::storage::shaper::Relay;
use crate::{Error, Result};

/// How long a signature is good for; it must be valid when a request starts, not when it ends.
const SIGNATURE_SECONDS: u32 = 3600;
/// Characters of what the server says of an error.
const MOST_WORDS: usize = 500;
/// Bytes per second of an answer, besides the time that may pass without any.
const SLOWEST_ANSWER: f64 = 1000.0;

impl Inner {
    pub(super) async fn signed(
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
    pub(super) async fn send(&self, what: &str, request: RequestBuilder) -> Result<Response> {
        let response = self.answer(what, request, self.timeout).await?;
        self.good(what, response).await
    }

    pub(super) async fn answer(&self, what: &str, request: RequestBuilder, within: Duration) -> Result<Response> {
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

    pub(super) async fn good(&self, what: &str, response: Response) -> Result<Response> {
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
    pub(super) async fn body(&self, what: &str, response: Response, most: usize) -> Result<Bytes> {
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
    pub(super) async fn body_into(
        &self,
        what: &str,
        mut response: Response,
        mut buffer: Vec<u8>,
        most: usize,
    ) -> Result<Vec<u8>> {
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

    pub(super) fn unanswered(&self, what: &str, error: reqwest::Error) -> Error {
        unanswered(what, error, self.relay.as_ref().and_then(Relay::trouble))
    }

    pub(super) fn silence(&self, what: &str) -> Error {
        Error::transient(format!("{what}: nothing moved for {} s, or hardly anything", self.timeout.as_secs()))
    }
}

/// By how much our clock is before the server's at least (negative: behind it): the server dated its answer, in whole
/// seconds, at some moment between the two.
fn ahead(date: &str, sent: Timestamp, received: Timestamp) -> Option<SignedDuration> {
    let date = jiff::fmt::rfc2822::parse(date).ok()?.timestamp();
    let early = sent.duration_since(date) - SignedDuration::from_secs(1);
    let late = received.duration_since(date);
    Some(early.max(SignedDuration::ZERO) + late.min(SignedDuration::ZERO))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

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
