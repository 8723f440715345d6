//! What is told: the report of a run, and the status. Pure but for [`write_all`]: values in, text, JSON or a page out.

mod calendar;
mod charts;
pub mod digest;
mod files;
mod history;
mod html;
mod page;
mod prometheus;
mod restores;
mod run;
mod screen;
mod status;
mod table;
mod timeline;
pub mod words;

pub use files::write_all;
pub use history::History;
pub use page::page;
pub use prometheus::metrics;
pub use run::{RunReport, StepReport, short};
pub use screen::Look;
pub use status::{Status, StepStatus};
pub use table::table;

/// Of every JSON document at its top level. Keys are added, never renamed.
pub const SCHEMA: u32 = 1;
