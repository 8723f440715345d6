//! Tests on real parts.
#![allow(clippy::unwrap_used)]

mod documents;
mod history;
