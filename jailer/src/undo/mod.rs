//! What a command or a start has made on the host, and how to take it back.
//! Everything that makes something records it here, before or as it is made.
//! It does not decide what is made, nor remove what a guest still uses.

mod list;
mod make;
pub mod record;
pub mod state;

pub use list::Undo;
pub use make::{directories, shared_directories};
