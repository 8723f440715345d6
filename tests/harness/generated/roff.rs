//! The little of roff that the manual pages need.

/// Text as roff prints it, whatever is in it.
pub fn escape(text: &str) -> String {
    let mut roff = String::new();
    for character in text.chars() {
        match character {
            '\\' => roff.push_str("\\e"),
            '-' => roff.push_str("\\-"),
            '.' | '\'' if roff.is_empty() || roff.ends_with('\n') => {
                roff.push_str("\\&");
                roff.push(character);
            }
            _ if character.is_ascii() => roff.push(character),
            _ => roff.push_str(&format!("\\[u{:04X}]", u32::from(character))),
        }
    }
    roff
}

/// In bold.
pub fn bold(text: &str) -> String {
    format!("\\fB{}\\fR", escape(text))
}

/// The first line of a page.
pub fn title(name: &str, section: u8) -> String {
    format!(".TH {} {section} \"\" \"pi\\-agent {}\"\n", escape(&name.to_uppercase()), super::VERSION)
}

/// An entry of a list: what, and an indented text about it (both roff already).
pub fn entry(tag: &str, text: &str) -> String {
    format!(".TP\n{tag}\n{text}\n")
}
