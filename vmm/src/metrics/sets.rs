//! The counters of the process itself.

use super::requests::ApiMetrics;
use crate::process::logging::LoggerMetrics;
use crate::vcpu::VcpuMetrics;
use devices::metric_set;
use devices::util::metrics::{Counter, Gauge, MetricSet};
use std::sync::Arc;

metric_set! {
    /// The process as a server of its API.
    pub struct ServerMetrics = "api_server" {
        /// From the jailer's start, or ours, to a socket that listens, in microseconds.
        process_startup_time_us: Gauge,
        /// The CPU time of that.
        process_startup_time_cpu_us: Gauge,
        /// How long requests took, from their last byte to the answer.
        request_agg: devices::util::metrics::Latency,
    }
}

metric_set! {
    /// Use of what should not be used any more.
    pub struct DeprecatedMetrics = "deprecated_api" {
        /// Requests.
        deprecated_http_api_calls: Counter,
    }
}

metric_set! {
    /// How long operations took last, in microseconds.
    pub struct LatencyMetrics = "latencies_us" {
        /// A full snapshot, as its client saw it.
        full_create_snapshot: Gauge,
        /// One of differences.
        diff_create_snapshot: Gauge,
        /// The loading of one.
        load_snapshot: Gauge,
        /// Pause.
        pause_vm: Gauge,
        /// Resume.
        resume_vm: Gauge,
        /// A full snapshot without the API.
        vmm_full_create_snapshot: Gauge,
        /// One of differences.
        vmm_diff_create_snapshot: Gauge,
        /// The loading of one.
        vmm_load_snapshot: Gauge,
        /// Pause.
        vmm_pause_vm: Gauge,
        /// Resume.
        vmm_resume_vm: Gauge,
    }
}

metric_set! {
    /// System calls that the filter refused; a process that made one has ended.
    pub struct SeccompMetrics = "seccomp" {
        /// Always 0 in a process that still reports.
        num_faults: Gauge,
    }
}

metric_set! {
    /// Signals; a process that got one has ended, but for the last.
    pub struct SignalMetrics = "signals" {
        /// Always 0 in a process that still reports, as the others.
        sigbus: Gauge,
        /// See above.
        sigsegv: Gauge,
        /// See above.
        sigxfsz: Gauge,
        /// See above.
        sigxcpu: Gauge,
        /// Always 0: it is ignored.
        sigpipe: Counter,
        /// See above.
        sighup: Gauge,
        /// See above.
        sigill: Gauge,
    }
}

metric_set! {
    /// The monitor itself.
    pub struct VmmMetrics = "vmm" {
        /// Always 0: a panic ends the process.
        panic_count: Gauge,
    }
}

metric_set! {
    /// Interrupts of devices on a PCI bus, of which there is none.
    pub struct InterruptMetrics = "interrupts" {
        /// Signals.
        triggers: Counter,
        /// Changes of where they go.
        config_updates: Counter,
    }
}

/// The counters of the process, made once.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Of requests.
    pub api: ApiMetrics,
    /// Of the API's server.
    pub server: Arc<ServerMetrics>,
    /// Of what is deprecated.
    pub deprecated: Arc<DeprecatedMetrics>,
    /// Of the machine's operations.
    pub latencies: Arc<LatencyMetrics>,
    /// Of messages.
    pub logger: Arc<LoggerMetrics>,
    /// Of the vCPUs.
    pub vcpu: Arc<VcpuMetrics>,
    constant: Constant,
}

/// What a process that still reports never counts.
#[derive(Debug, Default)]
struct Constant {
    seccomp: Arc<SeccompMetrics>,
    signals: Arc<SignalMetrics>,
    vmm: Arc<VmmMetrics>,
    interrupts: Arc<InterruptMetrics>,
}

impl Metrics {
    /// All sets of the process itself.
    pub fn sets(&self) -> Vec<Arc<dyn MetricSet>> {
        vec![
            self.server.clone(),
            self.deprecated.clone(),
            self.api.get.clone(),
            self.api.patch.clone(),
            self.api.put.clone(),
            self.latencies.clone(),
            self.logger.clone(),
            self.vcpu.clone(),
            self.constant.seccomp.clone(),
            self.constant.signals.clone(),
            self.constant.vmm.clone(),
            self.constant.interrupts.clone(),
        ]
    }
}
