//! Questions to a file system that may never answer: a server that is gone, a program behind FUSE that hangs.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// A disk that slept needs some ten seconds to spin up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Asks in a thread of its own; `None`: there was no answer in time. The thread is left to its fate, which is the process's end.
pub fn answered<T: Send + 'static>(ask: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    answered_within(PATIENCE, ask)
}

fn answered_within<T: Send + 'static>(patience: Duration, ask: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (tell, told) = mpsc::channel();
    let asking = move || {
        // Nobody may be waiting any more.
        let _ = tell.send(ask());
    };
    thread::Builder::new().name("asking a file system".into()).spawn(asking).ok()?;
    told.recv_timeout(patience).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_answer_is_not_waited_for() {
        assert_eq!(answered(|| 1), Some(1));
        let (_end, ended) = mpsc::channel::<()>();
        assert_eq!(answered_within(Duration::from_millis(50), move || ended.recv().is_ok()), None);
    }
}
