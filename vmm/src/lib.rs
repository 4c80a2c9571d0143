//! The microVM monitor as a library. The binary `bantam`, its tests and embedders use it.
//!
//! One process runs one guest, from [`run::run`] to its end. The configuration file, the command line and the [`api`] become
//! commands for the controller in [`control`], which builds a [`machine::Machine`]. The machine has a thread for each vCPU
//! and an event loop for its devices, and ends with a [`process::exit_status::Outcome`]. Only [`machine`] and [`vcpu`] call
//! KVM.

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
