//! What the vCPUs count.

use devices::metric_set;
use devices::util::metrics::{Counter, Latency};

metric_set! {
    /// What the vCPUs count, all together.
    pub struct VcpuMetrics = "vcpu" {
        /// Reads of ports that the monitor answered.
        exit_io_in: Counter,
        /// Writes to ports.
        exit_io_out: Counter,
        /// Reads of registers in memory.
        exit_mmio_read: Counter,
        /// Writes to them.
        exit_mmio_write: Counter,
        /// vCPUs that could not go on.
        failures: Counter,
        /// Times KVM did not tell a guest's clock of a pause.
        kvmclock_ctrl_fails: Counter,
        /// How long the answers took.
        exit_io_in_agg: Latency,
        /// The same of writes.
        exit_io_out_agg: Latency,
        /// The same of registers.
        exit_mmio_read_agg: Latency,
        /// The same of writes to them.
        exit_mmio_write_agg: Latency,
    }
}
