//! What is told: the report of a run, and the status. Pure: values in, text or JSON out.

pub mod digest;
mod run;
mod status;
pub mod words;

pub use run::{RunReport, StepReport, short};
pub use status::{Status, StepStatus, table};

/// Of every JSON document at its top level. Keys are added, never renamed.
pub const SCHEMA: u32 = 1;
