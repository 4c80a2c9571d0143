//! The process: command line, `--check`, signals, messages and exit status.
//!
//! `main.rs` and `run.rs` use it first; every other room uses its messages and exit status. It dispatches no command and
//! knows no guest.

pub mod allocator;
pub mod check;
pub mod cli;
pub mod confined_thread;
pub mod exit_status;
pub mod logging;
pub mod messages;
pub mod options;
pub mod output_file;
pub mod progress;
mod signal_handler;
pub mod signals;
pub mod snapshot_cli;
pub mod terminal;
