//! The configuration: file -> `raw` (shapes only) -> [`Settings`] (validated, complete).

mod raw;
mod settings;

pub use settings::*;
