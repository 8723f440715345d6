//! Tests on real parts.
#![allow(clippy::unwrap_used)]

mod directory;
mod directory_s3;
mod doctor;
mod documents;
mod history;
mod postgres;
