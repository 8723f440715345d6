//! Tests on real parts.
#![allow(clippy::unwrap_used)]

mod doctor;
mod documents;
mod history;
mod postgres;
