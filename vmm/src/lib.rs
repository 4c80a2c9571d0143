//! The microVM monitor as a library, which the binary `bantam`, its tests and embedders use.
//!
//! One process is one guest. [`run::run`] is the whole life of it: the configuration becomes a
//! [`machine::Machine`], the machine runs on one thread for each vCPU and one event loop for the
//! devices, and ends with an [`exit_status::Outcome`]. KVM's ioctls are issued in [`machine`] and
//! [`vcpu`] only.

pub mod boot_timer;
pub mod cli;
pub mod console;
pub mod device_config;
pub mod event_loop;
pub mod exit_status;
pub mod logging;
pub mod machine;
pub mod mmds;
pub mod run;
pub mod terminal;
pub mod vcpu;
