//! Carries out commands: the one owner of the guest's configuration and of its machine.

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
