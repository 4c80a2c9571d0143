//! Event loops: the main thread's, and one for each device whose operations block, so that they stall neither the network
//! nor the console.
//!
//! `control`, `machine`, `api` and `metrics` add subscribers. The loops know neither devices nor commands.

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
