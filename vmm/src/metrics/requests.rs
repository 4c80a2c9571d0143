//! Metrics of API requests by method and path.

use devices::metric_set;
use devices::util::metrics::Counter;
use std::sync::Arc;

metric_set! {
    /// GET requests.
    pub struct GetRequests = "get_api_requests" {
        /// Requests of `/`.
        instance_info_count: Counter,
        /// Requests of `/machine-config`.
        machine_cfg_count: Counter,
        /// Requests of `/mmds`.
        mmds_count: Counter,
        /// Requests of `/version`.
        vmm_version_count: Counter,
        /// Requests of `/hotplug/memory`.
        hotplug_memory_count: Counter,
    }
}

metric_set! {
    /// PUT requests by path: all, and those that failed.
    #[expect(missing_docs, reason = "the names are clear")]
    pub struct PutRequests = "put_api_requests" {
        actions_count: Counter,
        actions_fails: Counter,
        boot_source_count: Counter,
        boot_source_fails: Counter,
        drive_count: Counter,
        drive_fails: Counter,
        logger_count: Counter,
        logger_fails: Counter,
        machine_cfg_count: Counter,
        machine_cfg_fails: Counter,
        cpu_cfg_count: Counter,
        cpu_cfg_fails: Counter,
        metrics_count: Counter,
        metrics_fails: Counter,
        network_count: Counter,
        network_fails: Counter,
        mmds_count: Counter,
        mmds_fails: Counter,
        vsock_count: Counter,
        vsock_fails: Counter,
        pmem_count: Counter,
        pmem_fails: Counter,
        serial_count: Counter,
        serial_fails: Counter,
        hotplug_memory_count: Counter,
        hotplug_memory_fails: Counter,
    }
}

metric_set! {
    /// PATCH requests by path: all, and those that failed.
    #[expect(missing_docs, reason = "the names are clear")]
    pub struct PatchRequests = "patch_api_requests" {
        drive_count: Counter,
        drive_fails: Counter,
        network_count: Counter,
        network_fails: Counter,
        machine_cfg_count: Counter,
        machine_cfg_fails: Counter,
        mmds_count: Counter,
        mmds_fails: Counter,
        hotplug_memory_count: Counter,
        hotplug_memory_fails: Counter,
        pmem_count: Counter,
        pmem_fails: Counter,
    }
}

/// Metrics of all API requests.
#[derive(Debug, Default)]
pub struct ApiMetrics {
    /// GET requests.
    pub get: Arc<GetRequests>,
    /// PUT requests.
    pub put: Arc<PutRequests>,
    /// PATCH requests.
    pub patch: Arc<PatchRequests>,
}

impl ApiMetrics {
    /// Counts a request of `method` whose path begins with `first`.
    pub fn count(&self, method: &str, first: &str, failed: bool) {
        let (get, put, patch) = (&*self.get, &*self.put, &*self.patch);
        let (all, fails) = match (method, first) {
            ("GET", "") => (&get.instance_info_count, None),
            ("GET", "machine-config") => (&get.machine_cfg_count, None),
            ("GET", "mmds") => (&get.mmds_count, None),
            ("GET", "version") => (&get.vmm_version_count, None),
            ("GET", "hotplug") => (&get.hotplug_memory_count, None),
            ("PUT", "actions") => (&put.actions_count, Some(&put.actions_fails)),
            ("PUT", "boot-source") => (&put.boot_source_count, Some(&put.boot_source_fails)),
            ("PUT", "drives") => (&put.drive_count, Some(&put.drive_fails)),
            ("PUT", "logger") => (&put.logger_count, Some(&put.logger_fails)),
            ("PUT", "machine-config") => (&put.machine_cfg_count, Some(&put.machine_cfg_fails)),
            ("PUT", "cpu-config") => (&put.cpu_cfg_count, Some(&put.cpu_cfg_fails)),
            ("PUT", "metrics") => (&put.metrics_count, Some(&put.metrics_fails)),
            ("PUT", "network-interfaces") => (&put.network_count, Some(&put.network_fails)),
            ("PUT", "mmds") => (&put.mmds_count, Some(&put.mmds_fails)),
            ("PUT", "vsock") => (&put.vsock_count, Some(&put.vsock_fails)),
            ("PUT", "pmem") => (&put.pmem_count, Some(&put.pmem_fails)),
            ("PUT", "serial") => (&put.serial_count, Some(&put.serial_fails)),
            ("PUT", "hotplug") => (&put.hotplug_memory_count, Some(&put.hotplug_memory_fails)),
            ("PATCH", "drives") => (&patch.drive_count, Some(&patch.drive_fails)),
            ("PATCH", "network-interfaces") => (&patch.network_count, Some(&patch.network_fails)),
            ("PATCH", "machine-config") => {
                (&patch.machine_cfg_count, Some(&patch.machine_cfg_fails))
            }
            ("PATCH", "mmds") => (&patch.mmds_count, Some(&patch.mmds_fails)),
            ("PATCH", "hotplug") => (
                &patch.hotplug_memory_count,
                Some(&patch.hotplug_memory_fails),
            ),
            ("PATCH", "pmem") => (&patch.pmem_count, Some(&patch.pmem_fails)),
            _ => return,
        };
        all.increment();
        if let Some(fails) = fails.filter(|_| failed) {
            fails.increment();
        }
    }
}
