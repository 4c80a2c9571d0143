//! The process: its command line, checks, signals, messages and exit status.

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
