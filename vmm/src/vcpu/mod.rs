//! vCPUs: creating them, setting them up, and the thread that runs each.

mod buses;
mod call;
mod coalesced;
mod context;
mod cpuid;
mod create;
mod error;
mod exits;
mod flush_timer;
mod gate;
mod guest_end;
mod metrics;
mod msrs;
mod raw;
mod registers;
mod state;
mod threads;

pub use buses::Buses;
pub use call::install_signal;
pub use coalesced::Coalesced;
pub use context::VmContext;
pub use cpuid::Topology;
pub use create::{Vcpu, create, restore};
pub use error::VcpuError;
pub use flush_timer::FlushTimer;
pub use gate::{Errand, Gate, Vcpus};
pub use guest_end::End;
pub use metrics::VcpuMetrics;
pub use raw::{Raw, RawList};
pub use state::{VcpuState, indices as msr_indices, save};
pub use threads::{Confining, start};
