//! Who writes day and night is kept quiet for a moment, and let go on whatever happens.
//!
//! * [`writer`]: how that is done, for containers and by commands.
//! * [`guard`]: a process of its own does both. It lets go on when it is told to, when the pipe to the step closes, at
//!   SIGTERM and when `at-most` is over; kill -9 of step or supervisor does not touch it.
//! * [`note`]: before anything is paused, a file says so. Who finds one that no guard holds lets go on: the next run, the
//!   machine's start, and the end of the backup's unit.

mod guard;
mod note;
mod writer;

pub use guard::{Quiet, main};
pub use note::resume_left;
