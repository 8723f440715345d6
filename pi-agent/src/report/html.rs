//! What every part of the page needs: text that cannot become markup, and the classes of outcomes.

use std::fmt;

use crate::notify::Tone;
use crate::steps::Outcome;

/// Text as it may stand between tags and in quoted attributes. Control characters, which no page may hold, become spaces.
pub(super) struct Safe<'a>(pub &'a str);

impl fmt::Display for Safe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => f.write_char(' ')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Adds formatted text to a string, which cannot fail.
macro_rules! put {
    ($to:expr, $($text:tt)*) => {{ use std::fmt::Write as _; let _ = write!($to, $($text)*); }};
}
pub(super) use put;

pub(super) fn tone_class(tone: Tone) -> &'static str {
    match tone {
        Tone::Good => "good",
        Tone::Warning => "warn",
        Tone::Critical => "bad",
    }
}

pub(super) fn outcome_class(outcome: Option<Outcome>) -> &'static str {
    match outcome {
        None => "run",
        Some(Outcome::Succeeded) => "good",
        Some(Outcome::Degraded) => "warn",
        Some(Outcome::Unfinished) => "warn part",
        Some(Outcome::Failed | Outcome::Interrupted) => "bad",
        Some(Outcome::Skipped) => "none",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_becomes_markup() {
        let shown = Safe("<script>alert(\"1\")</script> & 'x'\u{1b}[31m\u{0}").to_string();
        assert_eq!(shown, "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; &#39;x&#39; [31m ");
    }
}
