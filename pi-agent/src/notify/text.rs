//! Fitting a text into what a service takes.

/// At most `limit` units of UTF-16, as Discord and browsers count. The beginning says what happened and the end says why,
/// so the middle goes, and how much is said.
pub fn shorten(text: &str, limit: usize) -> String {
    let length = units(text);
    if length <= limit {
        return text.to_owned();
    }
    let note = |left_out: usize| format!(" […{left_out} more…] ");
    let room = limit.saturating_sub(units(&note(length)));
    let head = take(text.chars(), room * 2 / 3);
    let tail: String = take(text.chars().rev(), room - units(&head)).chars().rev().collect();
    let note = note(length - units(&head) - units(&tail));
    if units(&note) + units(&head) + units(&tail) <= limit { head + &note + &tail } else { take(text.chars(), limit) }
}

/// Length as Discord counts it.
pub fn units(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

fn take(text: impl Iterator<Item = char>, limit: usize) -> String {
    let mut used = 0;
    text.take_while(|c| {
        used += c.len_utf16();
        used <= limit
    })
    .collect()
}

/// For a terminal, a chat, a page: no control characters but line ends, and no direction marks that turn text around.
pub fn printable(text: &str) -> String {
    let bad = |c: char| c.is_control() && c != '\n' || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if bad(c) { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_beginning_and_the_end_stay() {
        let text = format!("pgBackRest failed: {} disk full", "x".repeat(5000));
        let short = shorten(&text, 200);
        assert!(short.starts_with("pgBackRest failed: xxx") && short.ends_with("xxx disk full"), "{short}");
        assert!(short.contains("more…]"));
        assert_eq!(shorten("short", 200), "short");
    }

    proptest! {
        #[test]
        fn nothing_is_ever_too_long(text in "\\PC*", limit in 0..100_usize) {
            prop_assert!(units(&shorten(&text, limit)) <= limit);
        }
    }
}
