//! Questions on a terminal: a line of text, a default in brackets; secrets without echo.

use std::io::{BufRead, IsTerminal, Write};

use crate::error::{Context, Error, Result};
use crate::secrets::Secret;
use crate::shown::harmless;

/// A person at a terminal. Held as a value, so that only who has one can ask.
#[derive(Debug)]
pub struct Dialogue(());

impl Dialogue {
    /// `None` when nobody can answer.
    pub fn open() -> Option<Self> {
        (std::io::stdin().is_terminal() && std::io::stdout().is_terminal()).then_some(Self(()))
    }

    /// Asks until `accept` takes the answer; an empty one is the default.
    ///
    /// # Errors
    /// The terminal is closed.
    pub fn ask<T>(&self, question: &str, default: &str, accept: impl Fn(&str) -> Result<T, String>) -> Result<T> {
        let shown = if default.is_empty() { String::new() } else { format!(" [{default}]") };
        loop {
            let line = self.line(&format!("{question}{shown}: "))?;
            let answer = if line.is_empty() { default } else { &line };
            match accept(answer) {
                Ok(value) => return Ok(value),
                Err(wanted) => self.say(&format!("  {wanted}"))?,
            }
        }
    }

    /// Yes or no.
    ///
    /// # Errors
    /// The terminal is closed.
    pub fn yes(&self, question: &str, default: bool) -> Result<bool> {
        let shown = if default { "Y/n" } else { "y/N" };
        self.ask(&format!("{question} [{shown}]"), "", |text| match text.to_lowercase().as_str() {
            "" => Ok(default),
            "y" | "yes" => Ok(true),
            "n" | "no" => Ok(false),
            _ => Err("wanted y or n".into()),
        })
    }

    /// A secret, typed unseen; may be empty.
    ///
    /// # Errors
    /// The terminal is closed.
    pub fn secret(&self, question: &str) -> Result<Secret> {
        let terminal = console::Term::stdout();
        let asked = terminal.write_str(&format!("{question} (not shown): "));
        let line = asked.and_then(|()| terminal.read_secure_line()).context(|| "read the answer".into())?;
        Ok(Secret::new(line.trim()))
    }

    /// Tells something.
    ///
    /// # Errors
    /// The terminal is closed.
    pub fn say(&self, text: &str) -> Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", harmless(text)).and_then(|()| out.flush()).context(|| "write to the terminal".into())
    }

    fn line(&self, prompt: &str) -> Result<String> {
        let mut out = std::io::stdout().lock();
        write!(out, "{}", harmless(prompt)).and_then(|()| out.flush()).context(|| "write to the terminal".into())?;
        let mut line = String::new();
        match std::io::stdin().lock().read_line(&mut line).context(|| "read the answer".into())? {
            0 => {
                Err(Error::usage("no answer: the terminal was closed")
                    .hint("start it again: it goes on where it was left"))
            }
            _ => Ok(line.trim().to_owned()),
        }
    }
}
