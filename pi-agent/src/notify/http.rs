//! One request to a service, and what its answer means.

use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Client, RequestBuilder, StatusCode, Url};
use serde_json::Value;

use super::mask::Mask;
use crate::error::{Context, Error, Result};
use crate::secrets::Secret;

const CONNECT: Duration = Duration::from_secs(10);
const WHOLE: Duration = Duration::from_secs(30);
/// More than any answer of these services; a captive portal's page may be larger.
const LONGEST_ANSWER: usize = 64 << 10;

/// A POST.
#[derive(Debug)]
pub struct Post {
    /// Where to; whoever knows it can write there too, so it is in no message.
    pub url: Secret,
    /// `Authorization: Bearer …`
    pub token: Option<Secret>,
    /// What is sent.
    pub body: Body,
}

/// What is sent.
#[derive(Debug)]
pub enum Body {
    /// As `application/json`.
    Json(Value),
    /// As `text/plain`.
    Text(String),
}

/// How a service answered.
#[derive(Debug)]
pub enum Answer {
    /// It has it. Its answer, and for how long it wants to be left alone.
    Taken {
        /// The body.
        body: String,
        /// Rest.
        rest: Option<Duration>,
    },
    /// Too many: not before then.
    Wait(Duration),
    /// Not now: the network, the server.
    NotNow(String),
    /// Never this message (too long, malformed), in the server's words.
    Malformed(String),
    /// Nothing from us: the address is wrong or was revoked.
    Unknown(String),
}

/// The client.
pub struct Http {
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl Http {
    /// Ready to ask.
    ///
    /// # Errors
    /// No TLS, or no thread.
    pub fn new() -> Result<Self> {
        let client = Client::builder()
            .connect_timeout(CONNECT)
            .timeout(WHOLE)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("pi-agent/", env!("CARGO_PKG_VERSION")))
            .build()
            .context(|| "cannot prepare TLS".into())?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context(|| "cannot prepare the network".into())?;
        Ok(Self { client, runtime })
    }

    /// Sends it.
    pub fn post(&self, post: &Post) -> Answer {
        self.ask(&post.url, post.token.as_ref(), |url| {
            let mut request = self.client.post(url);
            if let Some(token) = &post.token {
                request = request.bearer_auth(token.reveal());
            }
            match &post.body {
                Body::Json(value) => request.header("Content-Type", "application/json").body(value.to_string()),
                Body::Text(text) => request.header("Content-Type", "text/plain; charset=utf-8").body(text.clone()),
            }
        })
    }

    /// Asks what is there.
    pub fn get(&self, url: &Secret) -> Answer {
        self.ask(url, None, |url| self.client.get(url))
    }

    fn ask(&self, url: &Secret, token: Option<&Secret>, request: impl FnOnce(Url) -> RequestBuilder) -> Answer {
        let url = match Url::parse(url.reveal()) {
            Ok(url) => url,
            Err(error) => return Answer::Unknown(format!("its address is not a URL: {error}")),
        };
        let told = Mask::told(&url, token);
        let answered = self.runtime.block_on(async {
            let mut response = request(url).send().await?;
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await? {
                body.extend_from_slice(&chunk);
                if body.len() > LONGEST_ANSWER {
                    break;
                }
            }
            Ok((response.status(), response.headers().clone(), String::from_utf8_lossy(&body).into_owned()))
        });
        match answered {
            // Whatever it says again of what it was told.
            Ok((status, headers, body)) => judge(status, &headers, told.cover(&body)),
            Err::<_, reqwest::Error>(error) => {
                Answer::NotNow(Error::new("no answer").caused_by(error.without_url()).chain())
            }
        }
    }
}

fn judge(status: StatusCode, headers: &HeaderMap, body: String) -> Answer {
    let said = || {
        let words: String = body.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect();
        if words.is_empty() { format!("HTTP {status}") } else { format!("HTTP {status}: {words}") }
    };
    match status.as_u16() {
        200..300 => {
            let used_up = header(headers, "x-ratelimit-remaining") == Some(0.0);
            let rest = header(headers, "x-ratelimit-reset-after").filter(|_| used_up).map(seconds);
            Answer::Taken { body, rest }
        }
        429 => {
            let told = serde_json::from_str::<Value>(&body).ok().and_then(|body| body["retry_after"].as_f64());
            Answer::Wait(seconds(told.or_else(|| header(headers, "retry-after")).unwrap_or(10.0)))
        }
        401 | 403 | 404 | 405 | 410 => Answer::Unknown(said()),
        400 | 413 | 415 | 422 => Answer::Malformed(said()),
        _ => Answer::NotNow(said()),
    }
}

fn header(headers: &HeaderMap, name: &str) -> Option<f64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// Whatever a server says: no less than a tenth of a second and no more than a day.
fn seconds(told: f64) -> Duration {
    Duration::from_secs_f64(if told.is_finite() { told.clamp(0.1, 86_400.0) } else { 60.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_obeyed_wherever_it_is_told() {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", "7".parse().expect("a value"));
        let wait = |body: &str| match judge(StatusCode::TOO_MANY_REQUESTS, &headers, body.into()) {
            Answer::Wait(time) => time.as_secs_f64(),
            other => panic!("{other:?}"),
        };
        assert_eq!(wait(r#"{"retry_after": 0.75, "global": true}"#).to_bits(), 0.75_f64.to_bits());
        assert_eq!(wait("<html>").to_bits(), 7.0_f64.to_bits());
        headers.insert("x-ratelimit-remaining", "0".parse().expect("a value"));
        headers.insert("x-ratelimit-reset-after", "1.5".parse().expect("a value"));
        let Answer::Taken { rest, .. } = judge(StatusCode::OK, &headers, String::new()) else { panic!("taken") };
        assert_eq!(rest, Some(Duration::from_millis(1500)));
    }

    #[test]
    fn what_can_pass_is_tried_again_and_what_cannot_is_not() {
        let judged =
            |status: u16| judge(StatusCode::from_u16(status).expect("a status"), &HeaderMap::new(), "x".into());
        assert!(matches!(judged(500), Answer::NotNow(_)) && matches!(judged(302), Answer::NotNow(_)));
        assert!(matches!(judged(404), Answer::Unknown(_)) && matches!(judged(400), Answer::Malformed(_)));
        assert!(matches!(judged(204), Answer::Taken { rest: None, .. }));
    }
}
