//! Who is told: Discord, ntfy, any JSON endpoint, and services that miss us when nothing comes (healthchecks.io's way).

use std::time::Duration;

use jiff::Timestamp;
use reqwest::Url;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::http::{Answer, Body, Http, Post};
use super::text::{printable, shorten};
use super::{Kind, Notice, Tone, discord};
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::report::{SCHEMA, words};
use crate::secrets::{Secret, Secrets};

/// One of those that are told.
#[derive(Clone, Debug)]
pub enum Service {
    /// `discord.env`.
    Discord(Secret),
    /// `[notify] ntfy-urls`, with the token of `ntfy.env` where there is one.
    Ntfy(Secret, Option<Secret>),
    /// `[notify] webhooks`.
    Webhook(Secret),
    /// `[notify] ping-urls`.
    Ping(Secret),
}

/// A start that is told later than this would only confuse whoever counts the minutes.
const START_MATTERS: Duration = Duration::from_mins(10);
/// ntfy turns longer ones into attachments.
const NTFY_LONGEST: usize = 3500;
/// healthchecks.io keeps that much.
const PING_LONGEST: usize = 10_000;

impl Service {
    /// All that are configured.
    ///
    /// # Errors
    /// A secret cannot be read, or others can read it.
    pub fn all(settings: &Settings) -> Result<Vec<Self>> {
        let secrets = Secrets::new(&settings.secrets);
        let urls = |urls: &[String]| urls.iter().map(Secret::new).collect::<Vec<_>>();
        let mut services: Vec<Self> = secrets.discord()?.into_iter().map(Self::Discord).collect();
        if !settings.notify.ntfy_urls.is_empty() {
            let token = secrets.ntfy()?;
            services.extend(urls(&settings.notify.ntfy_urls).into_iter().map(|url| Self::Ntfy(url, token.clone())));
        }
        services.extend(urls(&settings.notify.webhooks).into_iter().map(Self::Webhook));
        services.extend(urls(&settings.notify.ping_urls).into_iter().map(Self::Ping));
        Ok(services)
    }

    /// The name of its queue: the same as long as its address is.
    pub fn queue(&self) -> String {
        let marked = |kind: &str, url: &Secret| {
            let digest = Sha256::digest(url.reveal());
            format!("{kind}-{:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3])
        };
        match self {
            // A new webhook gets what the old one did not take.
            Self::Discord(_) => "discord".into(),
            Self::Ntfy(url, _) => marked("ntfy", url),
            Self::Webhook(url) => marked("webhook", url),
            Self::Ping(url) => marked("ping", url),
        }
    }

    /// As a person knows it; never its whole address.
    pub fn name(&self) -> String {
        let host = |url: &Secret| Url::parse(url.reveal()).ok().and_then(|url| url.host_str().map(str::to_owned));
        match self {
            Self::Discord(_) => "Discord".into(),
            Self::Ntfy(url, _) | Self::Webhook(url) | Self::Ping(url) => {
                host(url).unwrap_or_else(|| "a service without host".into())
            }
        }
    }

    /// It wants to hear of this.
    pub fn takes(&self, kind: Kind) -> bool {
        let of_runs = matches!(kind, Kind::RunStarted | Kind::RunEnded);
        match self {
            Self::Ping(_) => of_runs || matches!(kind, Kind::Raised | Kind::Worse | Kind::Test),
            _ => !of_runs,
        }
    }

    /// What to send; `None`: too late to be of use.
    pub fn post(&self, notice: &Notice, now: Timestamp) -> Option<Post> {
        Some(match self {
            Self::Discord(webhook) => discord::embed(webhook, notice),
            Self::Ntfy(url, token) => ntfy(url, token.clone(), notice),
            Self::Webhook(url) => Post { url: url.clone(), token: None, body: Body::Json(document(notice)) },
            Self::Ping(url) => {
                if notice.kind == Kind::RunStarted && words::between(notice.at, now) > START_MATTERS {
                    return None;
                }
                let text = format!("{}\n{}", notice.title, notice.text);
                Post { url: ping(url, notice), token: None, body: Body::Text(shorten(&text, PING_LONGEST)) }
            }
        })
    }

    /// What to send when that was refused as malformed.
    pub fn plainer(&self, notice: &Notice) -> Option<Post> {
        match self {
            Self::Discord(webhook) => Some(discord::plain(webhook, notice)),
            _ => None,
        }
    }

    /// Asks whether the service knows us, where it can be asked without anybody noticing.
    ///
    /// # Errors
    /// It cannot be reached, or does not know us.
    pub fn reach(&self) -> Result<()> {
        let Self::Discord(webhook) = self else { return Ok(()) };
        match Http::new()?.get(webhook) {
            Answer::Taken { body, .. } if self.receipt(&body).is_some() => Ok(()),
            Answer::Unknown(why) | Answer::Malformed(why) => Err(Error::new(format!("ask Discord for the webhook: {why}"))
                .hint("it was deleted or mistyped: make a new one (Server Settings, Integrations) and put it into discord.env")),
            Answer::NotNow(why) => Err(Error::transient(format!("ask Discord for the webhook: {why}"))),
            Answer::Taken { .. } => Err(Error::transient("ask Discord for the webhook: something else answered")),
            // It knows us too well.
            Answer::Wait(_) => Ok(()),
        }
    }

    /// The service's name for the message; `None`: this is not its answer.
    pub fn receipt(&self, body: &str) -> Option<String> {
        match self {
            Self::Discord(_) | Self::Ntfy(..) => discord::message_id(body),
            Self::Webhook(_) | Self::Ping(_) => Some(body.chars().take(40).collect()),
        }
    }
}

/// For programs.
fn document(notice: &Notice) -> Value {
    let mut value = serde_json::to_value(notice).expect("plain texts");
    value["schema"] = SCHEMA.into();
    value
}

/// ntfy's JSON is sent to the server, with the topic inside: headers could not hold every text.
fn ntfy(url: &Secret, token: Option<Secret>, notice: &Notice) -> Post {
    let (server, topic) = url.reveal().trim_end_matches('/').rsplit_once('/').unwrap_or((url.reveal(), ""));
    let hint = notice.hint.as_ref().map_or_else(String::new, |hint| format!("\n\n{hint}"));
    let facts: String = notice.facts.iter().map(|(name, value)| format!("\n{name}: {value}")).collect();
    let (priority, tag) = match notice.tone {
        Tone::Good => (3, "white_check_mark"),
        Tone::Warning => (4, "warning"),
        Tone::Critical => (5, "rotating_light"),
    };
    let text = shorten(&printable(&format!("{}{hint}\n{facts}\n{}", notice.text, notice.incident)), NTFY_LONGEST);
    let body = json!({
        "topic": topic,
        "title": shorten(&printable(&format!("{}: {}", notice.host, notice.title)), 200),
        "message": text,
        "priority": priority,
        "tags": [tag],
    });
    Post { url: Secret::new(format!("{server}/")), token, body: Body::Json(body) }
}

/// `URL/start`, `URL`, `URL/fail`, `URL/log`; a query stays at the end.
fn ping(url: &Secret, notice: &Notice) -> Secret {
    let word = match (notice.kind, notice.tone) {
        (Kind::RunStarted, _) => "/start",
        (Kind::RunEnded, Tone::Critical) => "/fail",
        (Kind::RunEnded, _) => "",
        _ => "/log",
    };
    let (address, query) = url.reveal().split_once('?').map_or((url.reveal(), None), |(url, query)| (url, Some(query)));
    let query = query.map_or_else(String::new, |query| format!("?{query}"));
    Secret::new(format!("{}{word}{query}", address.trim_end_matches('/')))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::notify::tests::notice;

    #[test]
    fn pings_go_where_healthchecks_expects_them() {
        let url = Secret::new("https://hc-ping.com/uuid/?create=1");
        let of = |kind, tone| ping(&url, &Notice { tone, ..notice(kind, "run-1.end") }).reveal().to_owned();
        assert_eq!(of(Kind::RunStarted, Tone::Good), "https://hc-ping.com/uuid/start?create=1");
        assert_eq!(of(Kind::RunEnded, Tone::Warning), "https://hc-ping.com/uuid?create=1");
        assert_eq!(of(Kind::RunEnded, Tone::Critical), "https://hc-ping.com/uuid/fail?create=1");
        assert_eq!(of(Kind::Raised, Tone::Critical), "https://hc-ping.com/uuid/log?create=1");
    }

    #[test]
    fn a_start_that_is_told_too_late_is_not_told() {
        let service = Service::Ping(Secret::new("https://hc-ping.com/uuid"));
        let start = notice(Kind::RunStarted, "run-1.start");
        assert!(service.post(&start, start.at).is_some());
        assert!(service.post(&start, start.at + Duration::from_secs(3600)).is_none());
    }

    #[test]
    fn ntfy_gets_the_topic_inside() {
        let service = Service::Ntfy(Secret::new("https://ntfy.sh/attic-pi"), Some(Secret::new("tk_1")));
        let notice = notice(Kind::Raised, "x.raised");
        let post = service.post(&notice, notice.at).unwrap();
        let Body::Json(body) = post.body else { panic!("JSON") };
        assert_eq!(
            (post.url.reveal(), &body["topic"], &body["priority"]),
            ("https://ntfy.sh/", &json!("attic-pi"), &json!(5))
        );
        assert!(body["message"].as_str().unwrap().contains("look at the disk"));
    }

    #[test]
    fn names_and_queues_do_not_give_the_address_away() {
        let service = Service::Webhook(Secret::new("https://example.org/hook/s3cr3t"));
        assert_eq!(service.name(), "example.org");
        assert!(service.queue().starts_with("webhook-") && !service.queue().contains("s3cr3t"));
        assert!(!format!("{service:?}").contains("s3cr3t"));
    }
}
