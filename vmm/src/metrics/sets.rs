//! The metrics of the process itself.

use super::requests::ApiMetrics;
use crate::process::logging::LoggerMetrics;
use crate::vcpu::VcpuMetrics;
use devices::metric_set;
use devices::util::metrics::{Counter, Gauge, MetricSet};
use std::sync::Arc;

metric_set! {
    /// Metrics of the API's server.
    pub struct ServerMetrics = "api_server" {
        /// Time from the start of the jailer, or of this process, to a listening socket, in microseconds.
        process_startup_time_us: Gauge,
        /// CPU time of the same start, in microseconds.
        process_startup_time_cpu_us: Gauge,
        /// Times of requests, from the last byte to the answer.
        request_agg: devices::util::metrics::Latency,
    }
}

metric_set! {
    /// Use of deprecated requests.
    pub struct DeprecatedMetrics = "deprecated_api" {
        /// Deprecated requests.
        deprecated_http_api_calls: Counter,
    }
}

metric_set! {
    /// Times of the last operations, in microseconds.
    pub struct LatencyMetrics = "latencies_us" {
        /// Full snapshot, measured at the API.
        full_create_snapshot: Gauge,
        /// Diff snapshot, measured at the API.
        diff_create_snapshot: Gauge,
        /// Snapshot load, measured at the API.
        load_snapshot: Gauge,
        /// Pause, measured at the API.
        pause_vm: Gauge,
        /// Resume, measured at the API.
        resume_vm: Gauge,
        /// Full snapshot, without the API.
        vmm_full_create_snapshot: Gauge,
        /// Diff snapshot, without the API.
        vmm_diff_create_snapshot: Gauge,
        /// Snapshot load, without the API.
        vmm_load_snapshot: Gauge,
        /// Pause, without the API.
        vmm_pause_vm: Gauge,
        /// Resume, without the API.
        vmm_resume_vm: Gauge,
    }
}

metric_set! {
    /// System calls that a filter refused. Such a call ends the process.
    pub struct SeccompMetrics = "seccomp" {
        /// Always 0 in a process that still reports.
        num_faults: Gauge,
    }
}

metric_set! {
    /// Signals. All are fatal except SIGPIPE.
    pub struct SignalMetrics = "signals" {
        /// Always 0 in a process that still reports, like all fatal signals.
        sigbus: Gauge,
        /// Always 0.
        sigsegv: Gauge,
        /// Always 0.
        sigxfsz: Gauge,
        /// Always 0.
        sigxcpu: Gauge,
        /// Always 0, because SIGPIPE is ignored.
        sigpipe: Counter,
        /// Always 0.
        sighup: Gauge,
        /// Always 0.
        sigill: Gauge,
    }
}

metric_set! {
    /// Metrics of the monitor.
    pub struct VmmMetrics = "vmm" {
        /// Always 0: a panic ends the process.
        panic_count: Gauge,
    }
}

metric_set! {
    /// Interrupts of devices on a PCI bus, which this version does not have.
    pub struct InterruptMetrics = "interrupts" {
        /// Interrupts.
        triggers: Counter,
        /// Changes of an interrupt's route.
        config_updates: Counter,
    }
}

/// The metrics of the process.
#[derive(Debug, Default)]
pub struct Metrics {
    /// API requests.
    pub api: ApiMetrics,
    /// The API's server.
    pub server: Arc<ServerMetrics>,
    /// Deprecated requests.
    pub deprecated: Arc<DeprecatedMetrics>,
    /// Times of operations.
    pub latencies: Arc<LatencyMetrics>,
    /// Messages and metrics.
    pub logger: Arc<LoggerMetrics>,
    /// vCPUs.
    pub vcpu: Arc<VcpuMetrics>,
    constant: Constant,
}

/// Sets whose values are always 0 in a process that still reports.
#[derive(Debug, Default)]
struct Constant {
    seccomp: Arc<SeccompMetrics>,
    signals: Arc<SignalMetrics>,
    vmm: Arc<VmmMetrics>,
    interrupts: Arc<InterruptMetrics>,
}

impl Metrics {
    /// Returns all sets of the process.
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
