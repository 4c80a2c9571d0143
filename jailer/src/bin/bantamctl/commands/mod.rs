//! The commands of `bantamctl`: each file has one command's arguments, its help and its action.
//! `main.rs` calls them with the parsed command line.
//! They present guests and pools to a user; the library's rooms create them.

pub mod clean;
mod common;
pub mod console;
pub mod create;
pub mod destroy;
pub mod fork;
pub mod list;
pub mod pool;
pub mod run;
pub mod show;
pub mod start;
mod state;
pub mod stop;
mod summary;
pub mod undefine;
pub mod volume;
