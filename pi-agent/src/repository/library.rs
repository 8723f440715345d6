//! What rustic says, in a line of ours: its errors are pages, with advice for another program.

use rustic_core::RusticError;

/// No more of it is told.
const LONGEST: usize = 300;

/// An error.
pub(super) fn error(error: &RusticError) -> String {
    let text = error.display_log();
    in_a_line(text.strip_prefix("Error: ").unwrap_or(&text))
}

/// What a check found, by its text: the type has no name outside of the library.
pub(super) fn finding(text: &str) -> String {
    let text = ["true", "false"].iter().fold(text.to_owned(), |text, answer| {
        text.replace(&format!(" marked to delete: {answer}:"), ":").replace(&format!(" marked to-delete: {answer}"), "")
    });
    let text = text.split_once(" Can be a parallel backup job").map_or(&*text, |(before, _)| before);
    in_a_line(text)
}

fn in_a_line(text: &str) -> String {
    let mut text = text.to_owned();
    if let Some((before, page)) = text.split_once("`rustic_core` experienced an error") {
        let message = page.split_once("Message:").map_or("", |(_, rest)| rest.trim_start());
        text = format!("{before}{}", message.split("\n\n").next().unwrap_or_default());
    }
    while let Some((before, (_, after))) =
        text.split_once(" (kind: related to ").and_then(|(before, rest)| Some((before, rest.split_once(')')?)))
    {
        text = format!("{before}{after}");
    }
    let text = text.split_once(" To repair:").map_or(&*text, |(before, _)| before);
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use rustic_core::ErrorKind;

    use super::*;

    #[test]
    fn a_page_is_a_line() {
        let source = RusticError::new(ErrorKind::Cryptography, "Data decryption failed, MAC check failed.")
            .attach_context("nonce", "[169, 174]");
        let page = RusticError::with_source(ErrorKind::Cryptography, "error processing Index:978f9a40", source);
        assert_eq!(
            error(&page),
            "error processing Index:978f9a40: caused by: Data decryption failed, MAC check failed."
        );
        let plain = RusticError::new(ErrorKind::Backend, "the storage is away");
        assert_eq!(error(&plain), "the storage is away");
    }

    #[test]
    fn findings_give_no_advice_for_another_program() {
        let cut = "pack c6 marked to delete: false: size computed by index: 4300, actual size: 1000. To repair: 'rustic repair index'.";
        assert_eq!(finding(cut), "pack c6: size computed by index: 4300, actual size: 1000.");
        let gone = "pack c6 marked to-delete: false is referenced by the index with size 43 but not present! To repair: 'rustic repair index'.";
        assert_eq!(finding(gone), "pack c6 is referenced by the index with size 43 but not present!");
        let left = "pack c6 not referenced in index. Can be a parallel backup job. To repair: 'rustic repair index'.";
        assert_eq!(finding(left), "pack c6 not referenced in index.");
    }
}
