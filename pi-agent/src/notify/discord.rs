//! A notice as Discord's webhooks take it: an embed that reads well on a phone, inside the limits.
//!
//! Limits: <https://discord.com/developers/docs/resources/message#embed-object-embed-limits>.

use reqwest::Url;
use serde_json::{Value, json};

use super::http::{Body, Post};
use super::text::{printable, shorten, units};
use super::{Kind, Notice, Tone};
use crate::report::words;
use crate::secrets::Secret;

const CONTENT: usize = 2000;
const TITLE: usize = 256;
const DESCRIPTION: usize = 4096;
const NAME: usize = 256;
const VALUE: usize = 1024;
const FIELDS: usize = 25;
const FOOTER: usize = 2048;
/// Leaves room for the rest in what an embed may hold; nobody reads more on a phone.
const BLOCK: usize = 3000;
/// All texts of an embed together.
const TOGETHER: usize = 6000;

/// The message as an embed.
pub fn embed(webhook: &Secret, notice: &Notice) -> Post {
    let mut left = TOGETHER;
    let mut fit = |text: &str, limit: usize| {
        let text = shorten(&printable(text), limit.min(left));
        left -= units(&text);
        text
    };
    // The room is given away in the order of what must be there.
    let footer = fit(&footer(notice), FOOTER);
    let title = fit(&format!("{} {}", sign(notice), notice.title), TITLE);
    let description = fit(&block(&notice.text), DESCRIPTION);
    let hint = notice.hint.iter().map(|hint| (fit("What to do", NAME), fit(hint, VALUE))).collect::<Vec<_>>();
    let facts = notice.facts.iter().take(FIELDS - 1).map(|(name, value)| (fit(name, NAME), fit(value, VALUE)));
    let fields: Vec<Value> = facts
        .collect::<Vec<_>>()
        .into_iter()
        .chain(hint)
        // An empty one would be refused.
        .filter(|(name, value)| !name.trim().is_empty() && !value.trim().is_empty())
        .map(|(name, value)| json!({ "name": name, "value": value, "inline": units(&value) <= 24 }))
        .collect();
    let body = json!({
        "username": "pi-agent",
        "allowed_mentions": { "parse": [] },
        // What a phone shows before it is unlocked.
        "content": shorten(&printable(&format!("**{}**: {}", notice.host, notice.title)), 200),
        "embeds": [{
            "title": title,
            "description": description,
            "color": color(notice.tone),
            "timestamp": notice.at.to_string(),
            "fields": fields,
            "footer": { "text": footer },
        }],
    });
    post(webhook, body)
}

/// As plain as can be, for when the embed is refused: a message nobody foresaw must arrive all the same.
pub fn plain(webhook: &Secret, notice: &Notice) -> Post {
    let hint = notice.hint.as_ref().map_or_else(String::new, |hint| format!("\n{hint}"));
    let text = format!("{} {}: {}\n{}{hint}", sign(notice), notice.host, notice.title, notice.text);
    let footer = shorten(&printable(&footer(notice)), 300);
    let text = shorten(&printable(&text), CONTENT - units(&footer) - 1);
    post(webhook, json!({ "allowed_mentions": { "parse": [] }, "content": format!("{text}\n{footer}") }))
}

/// The id Discord gave the message. A 200 of something else in between (the login page of a hotel) has none.
pub fn message_id(answer: &str) -> Option<String> {
    Some(serde_json::from_str::<Value>(answer).ok()?.get("id")?.as_str()?.to_owned())
}

fn post(webhook: &Secret, body: Value) -> Post {
    // Waits until the message is stored, and answers with it.
    let url = Url::parse(webhook.reveal()).map_or_else(
        |_| webhook.clone(),
        |mut url| {
            url.query_pairs_mut().append_pair("wait", "true");
            Secret::new(url.as_str())
        },
    );
    Post { url, token: None, body: Body::Json(body) }
}

/// Figures in a block keep their columns and errors their asterisks; backquotes would end it.
fn block(text: &str) -> String {
    if text.trim().is_empty() {
        return String::new();
    }
    let text = shorten(&printable(text).replace("```", "'''"), BLOCK);
    format!("```\n{}\n```", text.trim_end())
}

fn footer(notice: &Notice) -> String {
    format!("{} · pi-agent {} · {}", notice.incident, env!("CARGO_PKG_VERSION"), words::time(notice.at))
}

fn sign(notice: &Notice) -> &'static str {
    match (notice.kind, notice.tone) {
        (Kind::Cleared, _) => "✅",
        (Kind::Heartbeat, Tone::Good) => "💚",
        (_, Tone::Good) => "🟢",
        (_, Tone::Warning) => "🟠",
        (_, Tone::Critical) => "🔴",
    }
}

fn color(tone: Tone) -> u32 {
    match tone {
        Tone::Good => 0x002e_a043,
        Tone::Warning => 0x00d2_9922,
        Tone::Critical => 0x00da_3633,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::notify::tests::notice;
    use proptest::prelude::*;

    fn body(post: &Post) -> &Value {
        let Body::Json(body) = &post.body else { panic!("JSON") };
        body
    }

    fn webhook() -> Secret {
        Secret::new("https://discord.com/api/webhooks/1/token?thread_id=7")
    }

    #[test]
    fn a_failure_reads_well() {
        let post = embed(&webhook(), &notice(Kind::Raised, "foundry-backup-1.raised"));
        assert_eq!(post.url.reveal(), "https://discord.com/api/webhooks/1/token?thread_id=7&wait=true");
        let embed = &body(&post)["embeds"][0];
        assert_eq!(body(&post)["content"], "**pi-hosting**: foundry: the backup failed");
        assert_eq!(embed["title"], "🔴 foundry: the backup failed");
        assert_eq!(embed["description"], "```\nread /srv/foundry: Input/output error\n```");
        assert_eq!(embed["fields"][0]["name"], "last good restore point");
        assert_eq!(embed["fields"][1], json!({ "name": "What to do", "value": "look at the disk", "inline": true }));
        assert!(embed["footer"]["text"].as_str().unwrap().starts_with("foundry-backup-1 · "));
    }

    #[test]
    fn a_block_cannot_be_left() {
        let mut notice = notice(Kind::Raised, "x.raised");
        notice.text = "``` @everyone".into();
        assert_eq!(body(&embed(&webhook(), &notice))["embeds"][0]["description"], "```\n''' @everyone\n```");
    }

    #[test]
    fn an_answer_without_an_id_is_none() {
        assert_eq!(message_id(r#"{"id": "42", "type": 0}"#).as_deref(), Some("42"));
        assert_eq!(message_id("<html>Welcome to our Wi-Fi</html>"), None);
    }

    proptest! {
        #[test]
        fn everything_fits(title in "\\PC{0,400}", text in "\\PC{0,9000}", hint in "\\PC{0,3000}",
                           facts in proptest::collection::vec(("\\PC{0,300}", "\\PC{0,2000}"), 0..30)) {
            let notice = Notice { title, text, hint: Some(hint), facts, ..notice(Kind::Raised, "x.raised") };
            let post = embed(&webhook(), &notice);
            let embed = &body(&post)["embeds"][0];
            let mut together = 0;
            let mut check = |value: &Value, limit: usize| {
                let length = value.as_str().map_or(0, |text| text.encode_utf16().count());
                together += length;
                length <= limit
            };
            prop_assert!(check(&embed["title"], TITLE) && check(&embed["description"], DESCRIPTION));
            prop_assert!(check(&embed["footer"]["text"], FOOTER));
            let fields = embed["fields"].as_array().unwrap();
            prop_assert!(fields.len() <= FIELDS);
            for field in fields {
                prop_assert!(check(&field["name"], NAME) && check(&field["value"], VALUE));
                prop_assert!(!field["value"].as_str().unwrap().trim().is_empty());
            }
            prop_assert!(together <= TOGETHER, "{together}");
            let plain = plain(&webhook(), &notice);
            prop_assert!(body(&plain)["content"].as_str().unwrap().encode_utf16().count() <= CONTENT);
        }
    }
}
