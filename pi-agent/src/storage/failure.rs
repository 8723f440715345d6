//! What went wrong with an S3 request: may it pass, and what should a person do. No text here shows a key or a signature.

use std::error::Error as StdError;

use reqwest::StatusCode;
use serde::Deserialize;

use crate::Error;
use crate::error::Kind;

/// The body of an S3 error answer.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Answer {
    pub(super) code: String,
    pub(super) message: String,
}

impl Answer {
    pub(super) fn parse(body: &str) -> Self {
        quick_xml::de::from_str(body).unwrap_or_default()
    }
}

/// The error of a request that was answered with `status`; `what` is operation, object and bucket.
pub(super) fn answered(what: &str, status: StatusCode, answer: &Answer) -> Error {
    let said = match (answer.code.as_str(), answer.message.as_str()) {
        ("", _) => String::new(),
        (code, "") => format!(", {code}"),
        (code, message) => format!(", {code}: {message}"),
    };
    let error =
        Error::new(format!("{what}: the server answered {}{said}", status.as_u16())).kind_of(kind(status, answer));
    match advice(status, answer) {
        Some(advice) => error.hint(advice),
        None => error,
    }
}

/// What servers call an object that nobody can read at once; not all of them answer with 403.
const ARCHIVED: [&str; 3] = ["InvalidObjectState", "ObjectArchived", "BlobArchived"];

fn kind(status: StatusCode, answer: &Answer) -> Kind {
    const PASSING: [&str; 6] =
        ["SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "OperationAborted", "BadDigest"];
    match status {
        _ if ARCHIVED.contains(&answer.code.as_str()) => Kind::Refused,
        // A 404 that does not speak of the key (another server, a missing bucket) says nothing about the object.
        StatusCode::NOT_FOUND if answer.code == "NoSuchKey" => Kind::NotFound,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Kind::Transient,
        _ if status.is_server_error() || PASSING.contains(&answer.code.as_str()) => Kind::Transient,
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => Kind::Refused,
        _ => Kind::Permanent,
    }
}

fn advice(status: StatusCode, answer: &Answer) -> Option<&'static str> {
    const CLOCK: &str = "this machine's clock is wrong: check it with timedatectl";
    const REGION: &str = "the bucket lies in another region: correct [storage] region";
    const SIGNATURE: &str =
        "AWS_SECRET_ACCESS_KEY in aws.env is wrong, or [storage] region is, or this machine's clock is";
    const TO_RESTORE: &str = "the object is whole, but in an archive class, where nobody can read it at once: a lifecycle rule of the bucket \
                            moved it. Ask the provider to restore the objects of this repository, and take the rule away";
    let says = |word| answer.message.contains(word);
    Some(match (answer.code.as_str(), status) {
        ("NoSuchKey", _) => return None,
        (code, _) if ARCHIVED.contains(&code) => TO_RESTORE,
        ("BadDigest", _) => "what arrived was not what was sent: the line or this machine's memory damages data",
        ("NoSuchBucket", _) => "create the bucket, or correct [storage] url",
        ("SignatureDoesNotMatch", _) => SIGNATURE,
        // As Garage says it.
        ("AccessDenied", _) if says("signature") => SIGNATURE,
        ("RequestTimeTooSkewed" | "RequestExpired", _) => CLOCK,
        ("AccessDenied", _) if says("expired") || says("not yet valid") => CLOCK,
        ("InvalidAccessKeyId" | "InvalidToken" | "ExpiredToken", _) => "check the keys in aws.env",
        ("PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException", _) => REGION,
        (_, StatusCode::MOVED_PERMANENTLY | StatusCode::TEMPORARY_REDIRECT) => REGION,
        (_, StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED) => {
            "check aws.env, and that the bucket policy allows these keys to list, read, write and delete there"
        }
        (_, StatusCode::NOT_FOUND) => "check [storage] url, endpoint and path-style",
        _ => return None,
    })
}

/// The error of a request that got no answer, or half of one. `trouble`: why a relay could not reach the server, which the
/// client cannot know.
pub(super) fn unanswered(what: &str, error: reqwest::Error, trouble: Option<String>) -> Error {
    // The URL holds the signature.
    let error = error.without_url();
    let error: Box<dyn StdError + Send + Sync> = match trouble {
        Some(trouble) => trouble.into(),
        None => error.into(),
    };
    let text = causes(&*error);
    let wrapped = Error::new(format!("{what}: no answer"));
    if text.contains("certificate") {
        return wrapped.hint(certificate_advice(&text)).caused_by(error);
    }
    let wrapped = wrapped.kind_of(Kind::Transient);
    if text.contains("refused") {
        wrapped.hint("nothing listens there: check [storage] endpoint and that the server runs").caused_by(error)
    } else if text.contains("dns error") || text.contains("lookup address") {
        wrapped.hint("the name cannot be resolved: check the network and [storage] endpoint").caused_by(error)
    } else {
        wrapped.caused_by(error)
    }
}

/// What to do about a certificate that rustls does not take, by its words. Only an unknown authority is a question of trust.
fn certificate_advice(text: &str) -> &'static str {
    let text = text.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["not valid for name", "notvalidforname"]) {
        "the server shows a certificate of another name: check [storage] endpoint; for a bucket whose name is part of the address, \
         set [storage] path-style = true"
    } else if says(&["not valid yet", "notvalidyet", "expired"]) {
        "the server's certificate has expired or is not valid yet: check this machine's clock with timedatectl, then have the certificate renewed"
    } else if says(&[
        "unknownissuer",
        "unknown issuer",
        "self-signed",
        "selfsigned",
        "caused as end entity",
        "causedasendentity",
        "cause used as end entity",
        // An authority of the same name as one that is trusted, with another key.
        "badsignature",
    ]) {
        "the server's certificate is not trusted: set [storage] ca-file to the authority that signed it"
    } else {
        "the server's certificate is not accepted, for the reason above: check [storage] endpoint and what the server is set up with"
    }
}

fn causes(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn kind_of(status: u16, code: &str) -> Kind {
        let answer = Answer { code: code.into(), message: String::new() };
        answered("read x", StatusCode::from_u16(status).unwrap(), &answer).kind()
    }

    #[test]
    fn only_a_missing_key_is_not_found() {
        assert_eq!(kind_of(404, "NoSuchKey"), Kind::NotFound);
        assert_eq!(kind_of(404, "NoSuchBucket"), Kind::Permanent);
        assert_eq!(kind_of(404, ""), Kind::Permanent);
    }

    #[test]
    fn what_may_pass_is_transient_and_the_rest_is_not() {
        for (status, code) in [(500, ""), (503, "SlowDown"), (503, ""), (400, "RequestTimeout"), (429, ""), (408, "")] {
            assert_eq!(kind_of(status, code), Kind::Transient, "{status} {code}");
        }
        assert_eq!(kind_of(400, "InvalidArgument"), Kind::Permanent);
    }

    #[test]
    fn what_is_refused_is_not_damaged() {
        let denied = [(403, "AccessDenied"), (401, ""), (403, "InvalidAccessKeyId"), (403, "")];
        let archived = [(403, "InvalidObjectState"), (409, "BlobArchived"), (400, "ObjectArchived")];
        for (status, code) in denied.into_iter().chain(archived) {
            assert_eq!(kind_of(status, code), Kind::Refused, "{status} {code}");
        }
        let archived = Answer { code: "InvalidObjectState".into(), message: String::new() };
        let error = answered("read x", StatusCode::FORBIDDEN, &archived);
        assert!(error.is_unread() && error.advice().unwrap().contains("archive class"));
        let denied = Answer { code: "AccessDenied".into(), message: String::new() };
        assert!(answered("read x", StatusCode::FORBIDDEN, &denied).advice().unwrap().contains("aws.env"));
    }

    #[test]
    fn only_an_unknown_authority_is_a_question_of_trust() {
        let name = "invalid peer certificate: certificate not valid for name \"a.b.s3.example\"; certificate is only valid for DnsName(\"*.s3.example\")";
        assert!(certificate_advice(name).contains("path-style = true"));
        assert!(
            certificate_advice("invalid peer certificate: certificate expired: verification time 2")
                .contains("timedatectl")
        );
        assert!(certificate_advice("invalid peer certificate: UnknownIssuer").contains("ca-file"));
        let other = certificate_advice("invalid peer certificate: InvalidPurpose");
        assert!(!other.contains("ca-file") && !other.contains("path-style"));
    }

    #[test]
    fn the_servers_own_words_are_kept() {
        let body = "<?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code><Message>Bucket not found</Message><Resource>/b</Resource></Error>";
        let error = answered("list x in bucket b", StatusCode::NOT_FOUND, &Answer::parse(body));
        assert_eq!(error.chain(), "list x in bucket b: the server answered 404, NoSuchBucket: Bucket not found");
        assert!(error.advice().unwrap().contains("create the bucket"));
    }

    #[test]
    fn no_answer_panics() {
        const ANSWER: &str =
            "<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code><Message>gone &amp; away</Message></Error>";
        crate::fuzzed::fuzz_text(&[ANSWER], |body| {
            drop(answered("read x", StatusCode::FORBIDDEN, &Answer::parse(body)));
        });
    }
}
