//! The machine itself: can its clock be trusted, is there room on its disks, has it the voltage it needs, is it too hot.
//! Whatever touches the system takes a root.

mod answer;
mod clock;
mod file_system;
mod mounted;
mod room;
mod sensors;
mod trouble;
mod volumes;
mod watch;

pub(crate) use answer::answered;
pub use clock::{Doubt, clock_problem};
pub(crate) use clock::{is_confirmed, judge_by_others, judge_clock};
pub use file_system::FileSystem;
pub(crate) use file_system::uuid;
pub(crate) use mounted::{Mount, MountTable};
pub use room::{Room, room};
pub use sensors::{NEEDED_MEMORY, Reading, Sensors};
pub use trouble::{Trouble, What, in_words};
pub(crate) use volumes::mount_point;
pub use volumes::{Volume, volumes};
pub use watch::{Strain, Watch};
