//! The microVM monitor as a library, which the binary `bantam`, its tests and embedders use.
//!
//! One process is one guest. [`run::run`] is the whole life of it: commands, from the configuration file
//! or the [`api`], go to the [`control`], which builds a [`machine::Machine`]; that runs on one
//! thread for each vCPU and one event loop for the devices, and ends with an
//! [`process::exit_status::Outcome`]. KVM's ioctls are issued in [`machine`] and [`vcpu`] only.

pub mod api;
pub mod console;
pub mod control;
pub mod event_loop;
pub mod fork;
pub mod machine;
pub mod metrics;
pub mod mmds;
pub mod process;
pub mod run;
pub mod seccomp;
pub mod snapshot;
#[cfg(test)]
mod testing;
pub mod vcpu;
