//! Event loops: the one of the main thread, and one for each disk, whose blocking operations must
//! stall neither the network nor the console.

mod alarm;
mod error;
mod handle;
mod main_loop;
mod spawned_loop;

pub use alarm::Alarm;
pub use error::EventLoopError;
pub use handle::{Added, add, wake};
pub use main_loop::MainLoop;
pub use spawned_loop::SpawnedLoop;
