//! The commands: each file has one command's arguments, its help, and what it does.
//! The command line calls them, after it has read the words.
//! They know how a guest or a pool is presented to a user, not how it is made.

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
