//! Undoes a failed start or command: the list of its steps in memory, and the record of a jail on the host.
//! All code that creates something on the host records it here, before or as it is created.
//! It does not decide what is created, and removes nothing that a guest still uses.

mod list;
mod make;
pub mod record;
pub(crate) mod state;

pub use list::Undo;
pub use make::{directories, shared_directories};
