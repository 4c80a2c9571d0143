//! vCPUs: creating, saving and restoring them, and the thread that runs each.
//!
//! `machine` uses it. Only these two rooms call KVM. It passes the guest's accesses to buses and knows no device.

mod buses;
mod coalesced;
mod context;
mod cpuid;
mod create;
mod error;
mod exits;
mod flush_timer;
mod gate;
mod guest_end;
mod kick;
mod metrics;
mod msrs;
mod raw;
mod registers;
mod state;
mod threads;

pub use buses::Buses;
pub use coalesced::Coalesced;
pub use context::VmContext;
pub use cpuid::Topology;
pub use create::{Vcpu, create, restore};
pub use error::VcpuError;
pub use flush_timer::FlushTimer;
pub use gate::{Gate, Job, Vcpus};
pub use guest_end::GuestEnd;
pub use kick::install_signal;
pub use metrics::VcpuMetrics;
pub use raw::{Raw, RawList};
pub use state::{VcpuState, indices as msr_indices, save};
pub use threads::{Confining, start};
