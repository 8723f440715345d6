//! Lines for whoever listens: what is done does not end because a pipe is closed, or the disk of a log is full.
//!
//! `println!` and `eprintln!` panic then, in the middle of a backup; the lints of this crate refuse them.

use std::fmt::Arguments;
use std::io::Write;

/// A line on standard output, if somebody reads it.
macro_rules! say {
    ($($text:tt)*) => {{
        let text = $crate::shown::harmless(&format!($($text)*));
        $crate::said::line(&mut std::io::stdout().lock(), format_args!("{text}"))
    }};
}

/// A line on standard error, if somebody reads it.
macro_rules! tell {
    ($($text:tt)*) => { $crate::said::line(&mut std::io::stderr().lock(), format_args!($($text)*)) };
}

/// Writes a line. There is nowhere to complain to when that fails.
pub(crate) fn line(stream: &mut impl Write, text: Arguments<'_>) {
    let _ = writeln!(stream, "{text}");
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    #[test]
    fn nobody_need_listen() {
        let mut full = File::options().write(true).open("/dev/full").expect("every Linux has it");
        super::line(&mut full, format_args!("lost"));
    }
}
