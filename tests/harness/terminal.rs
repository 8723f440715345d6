//! A terminal with a person at it who reads before typing.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A program on a terminal of its own, which `script` makes. Ended by force when dropped.
#[derive(Debug)]
pub struct TypedInto {
    child: Child,
    keyboard: ChildStdin,
    screen: Arc<Mutex<String>>,
    read: usize,
}

/// Nothing that is asked here takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

impl TypedInto {
    /// Starts the command with the terminal as its input and output.
    pub fn start(command: &Command) -> Self {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<_> = words.map(|word| format!("'{}'", word.to_str().expect("plain words"))).collect();
        let mut child = Command::new("script")
            .args(["--quiet", "--return", "--flush", "--command", &format!("exec {}", words.join(" ")), "/dev/null"])
            .env_remove("STATE_DIRECTORY")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script is part of every Debian");
        let keyboard = child.stdin.take().expect("is piped");
        let mut output = child.stdout.take().expect("is piped");
        let screen = Arc::new(Mutex::new(String::new()));
        let shared = screen.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).replace('\r', "");
                shared.lock().expect("nobody panics with it").push_str(&text);
            }
        });
        Self { child, keyboard, screen, read: 0 }
    }

    /// Waits until that is on the screen, below what was waited for before.
    #[track_caller]
    pub fn sees(&mut self, text: &str) -> &mut Self {
        let started = Instant::now();
        loop {
            let screen = self.screen();
            if let Some(at) = screen[self.read..].find(text) {
                self.read += at + text.len();
                return self;
            }
            assert!(started.elapsed() < PATIENCE, "{text:?} does not come:\n{screen}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Types a line.
    pub fn types(&mut self, line: &str) -> &mut Self {
        self.keyboard.write_all(format!("{line}\n").as_bytes()).expect("the terminal is open");
        self
    }

    /// Types a line that must not be seen: a moment later, when the program has stopped the echo.
    pub fn types_unseen(&mut self, line: &str) -> &mut Self {
        std::thread::sleep(Duration::from_millis(500));
        self.types(line)
    }

    /// Everything that was ever on the screen.
    pub fn screen(&self) -> String {
        self.screen.lock().expect("nobody panics with it").clone()
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("our own child")
    }
}

impl Drop for TypedInto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
