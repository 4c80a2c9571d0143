//! Metrics of the vCPUs.

use devices::metric_set;
use devices::util::metrics::{Counter, Latency};

metric_set! {
    /// Metrics of all vCPUs together.
    pub struct VcpuMetrics = "vcpu" {
        /// Port reads served by the monitor.
        exit_io_in: Counter,
        /// Port writes served by the monitor.
        exit_io_out: Counter,
        /// Reads of memory-mapped registers.
        exit_mmio_read: Counter,
        /// Writes of memory-mapped registers.
        exit_mmio_write: Counter,
        /// vCPUs that failed.
        failures: Counter,
        /// Pauses that KVM could not report to the guest's clock.
        kvmclock_ctrl_fails: Counter,
        /// Times of port reads.
        exit_io_in_agg: Latency,
        /// Times of port writes.
        exit_io_out_agg: Latency,
        /// Times of register reads.
        exit_mmio_read_agg: Latency,
        /// Times of register writes.
        exit_mmio_write_agg: Latency,
    }
}
