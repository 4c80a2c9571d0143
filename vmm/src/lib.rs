//! The microVM monitor as a library, which the binary `bantam`, its tests and embedders use.
//!
//! One process is one guest. [`run::run`] is the whole life of it: commands, from the configuration file
//! or the [`api`], go to the [`controller`], which builds a [`machine::Machine`]; that runs on one
//! thread for each vCPU and one event loop for the devices, and ends with an
//! [`exit_status::Outcome`]. KVM's ioctls are issued in [`machine`] and [`vcpu`] only.

pub mod alarm;
pub mod allocator;
pub mod api;
pub mod boot_timer;
pub mod check;
pub mod cli;
pub mod command;
pub mod console;
pub mod controller;
pub mod device_config;
pub mod event_loop;
pub mod events;
pub mod exit_status;
pub mod logging;
pub mod machine;
pub mod metrics;
pub mod mmds;
pub mod progress;
pub mod run;
pub mod seccomp;
pub mod signals;
pub mod snapshot;
pub mod terminal;
#[cfg(test)]
mod testing;
pub mod vcpu;
