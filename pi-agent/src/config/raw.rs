//! The configuration file as serde reads it.
