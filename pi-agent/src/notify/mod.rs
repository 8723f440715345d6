//! Telling people: a notice is first made durable in the outbox, then sent, in order, at least once.

mod notice;

pub use notice::{Kind, Notice, Tone};
