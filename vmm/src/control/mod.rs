//! The controller: the one owner of the guest's configuration and of its machine, and the commands it carries out.
//!
//! The API, the configuration file and the command line send it commands. It runs on the main thread, serves no device and
//! parses no request.

mod brake;
pub mod command;
mod configure;
pub mod controller;
mod fork_child;
mod fork_parent;
pub mod lifecycle;
mod operate;
mod query;
mod reboot;
mod restart;
mod save_restore;
