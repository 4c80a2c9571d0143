//! Lines of metrics as clients read them.

use crate::client::Client;
use crate::monitor::{Monitor, wait_until};
use serde_json::{Value, json};

/// The groups of every line of metrics, with the names that clients expect. A name that ends in `_agg` is a time in three
/// parts.
const NAMES: [(&str, &str); 22] = [
    (
        "api_server",
        "process_startup_time_us process_startup_time_cpu_us",
    ),
    (
        "balloon",
        "activate_fails inflate_count stats_updates_count stats_update_fails deflate_count event_fails \
         free_page_report_count free_page_report_freed free_page_report_fails free_page_hint_count \
         free_page_hint_freed free_page_hint_fails",
    ),
    (
        "block",
        "activate_fails cfg_fails no_avail_buffer event_fails execute_fails invalid_reqs_count \
         flush_count queue_event_count rate_limiter_event_count update_count update_fails read_bytes \
         write_bytes read_count write_count rate_limiter_throttled_events io_engine_throttled_events \
         remaining_reqs_count read_agg write_agg",
    ),
    ("deprecated_api", "deprecated_http_api_calls"),
    (
        "get_api_requests",
        "instance_info_count machine_cfg_count mmds_count vmm_version_count hotplug_memory_count",
    ),
    (
        "i8042",
        "error_count missed_read_count missed_write_count read_count reset_count write_count",
    ),
    (
        "latencies_us",
        "full_create_snapshot diff_create_snapshot load_snapshot pause_vm resume_vm \
         vmm_full_create_snapshot vmm_diff_create_snapshot vmm_load_snapshot vmm_pause_vm vmm_resume_vm",
    ),
    (
        "logger",
        "missed_metrics_count metrics_fails missed_log_count rate_limited_log_count",
    ),
    (
        "mmds",
        "rx_accepted rx_accepted_err rx_accepted_unusual rx_bad_eth rx_invalid_token rx_no_token rx_count \
         tx_bytes tx_count tx_errors tx_frames connections_created connections_destroyed",
    ),
    (
        "net",
        "activate_fails cfg_fails no_rx_avail_buffer no_tx_avail_buffer event_fails rx_queue_event_count \
         rx_event_rate_limiter_count rx_rate_limiter_throttled rx_tap_event_count rx_bytes_count \
         rx_packets_count rx_fails rx_count tap_read_fails tap_write_fails tx_bytes_count \
         tx_malformed_frames tx_fails tx_count tx_packets_count tx_queue_event_count \
         tx_rate_limiter_event_count tx_rate_limiter_throttled tx_spoofed_mac_count \
         tx_remaining_reqs_count tap_write_agg",
    ),
    (
        "patch_api_requests",
        "drive_count drive_fails network_count network_fails machine_cfg_count machine_cfg_fails \
         mmds_count mmds_fails hotplug_memory_count hotplug_memory_fails pmem_count pmem_fails",
    ),
    (
        "put_api_requests",
        "actions_count actions_fails boot_source_count boot_source_fails drive_count drive_fails \
         logger_count logger_fails machine_cfg_count machine_cfg_fails cpu_cfg_count cpu_cfg_fails \
         metrics_count metrics_fails network_count network_fails mmds_count mmds_fails vsock_count \
         vsock_fails pmem_count pmem_fails serial_count serial_fails hotplug_memory_count \
         hotplug_memory_fails",
    ),
    ("seccomp", "num_faults"),
    (
        "vcpu",
        "exit_io_in exit_io_out exit_mmio_read exit_mmio_write failures kvmclock_ctrl_fails \
         exit_io_in_agg exit_io_out_agg exit_mmio_read_agg exit_mmio_write_agg",
    ),
    ("vmm", "panic_count"),
    (
        "uart",
        "error_count flush_count missed_read_count missed_write_count read_count write_count \
         rate_limiter_dropped_bytes",
    ),
    (
        "signals",
        "sigbus sigsegv sigxfsz sigxcpu sigpipe sighup sigill",
    ),
    (
        "vsock",
        "activate_fails cfg_fails rx_queue_event_fails tx_queue_event_fails ev_queue_event_fails \
         muxer_event_fails conn_event_fails rx_queue_event_count tx_queue_event_count rx_bytes_count \
         tx_bytes_count rx_packets_count tx_packets_count conns_added conns_killed conns_removed \
         killq_resync tx_flush_fails tx_write_fails rx_read_fails",
    ),
    (
        "entropy",
        "activate_fails entropy_event_fails entropy_event_count entropy_bytes host_rng_fails \
         entropy_rate_limiter_throttled rate_limiter_event_count",
    ),
    ("interrupts", "triggers config_updates"),
    (
        "pmem",
        "activate_fails cfg_fails event_fails queue_event_count rate_limiter_throttled_events \
         rate_limiter_event_count",
    ),
    (
        "memory_hotplug",
        "activate_fails queue_event_fails queue_event_count plug_count plug_bytes plug_fails plug_agg \
         unplug_count unplug_bytes unplug_fails unplug_discard_fails unplug_agg state_count state_fails \
         state_agg unplug_all_count unplug_all_fails unplug_all_agg",
    ),
];

/// Fails unless `group` has all of `names`.
fn check(name: &str, group: &Value, names: &str) {
    for key in names.split(' ') {
        let value = &group[key];
        let good = match key.ends_with("_agg") {
            true => ["min_us", "max_us", "sum_us"]
                .iter()
                .all(|part| value[part].is_u64()),
            false => value.is_u64(),
        };
        assert!(good, "{name}.{key}: {group}");
    }
}

#[test]
fn a_line_of_metrics_has_the_names_that_clients_expect() {
    let monitor = Monitor::start();
    let mut client = monitor.client();
    let put = |client: &mut Client, path: &str, body: Value| {
        client.put(path, &body.to_string()).expect(204);
    };
    put(
        &mut client,
        "/metrics",
        json!({"metrics_path": monitor.path("metrics")}),
    );
    put(
        &mut client,
        "/vsock",
        json!({"guest_cid": 3, "uds_path": monitor.path("v.sock"), "vsock_id": "v"}),
    );
    for (id, image) in [("a", "disk.img"), ("b", "other.img")] {
        let drive =
            json!({"drive_id": id, "is_root_device": false, "path_on_host": monitor.path(image)});
        put(&mut client, &format!("/drives/{id}"), drive);
    }
    monitor.boot();
    client
        .put("/actions", r#"{"action_type": "Nothing"}"#)
        .expect(400);
    put(
        &mut client,
        "/actions",
        json!({"action_type": "FlushMetrics"}),
    );

    let text = monitor.read("metrics");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "one at the start, one on request: {text}");
    for line in &lines {
        assert!(line["utc_timestamp_ms"].is_u64(), "{line}");
        for (group, names) in NAMES {
            let more: &[&str] = match group {
                "block" => &["block_a", "block_b"],
                _ => &[],
            };
            for group in more.iter().chain([&group]) {
                check(group, &line[group], names);
            }
        }
    }
    // A count is reported once: a line has the counts since the last line.
    let sum = |group: &str, name: &str| -> Vec<u64> {
        lines
            .iter()
            .map(|line| line[group][name].as_u64().unwrap())
            .collect()
    };
    assert_eq!(sum("deprecated_api", "deprecated_http_api_calls"), [1, 0]);
    assert_eq!(sum("put_api_requests", "drive_count"), [2, 0]);
    assert_eq!(sum("put_api_requests", "actions_fails"), [0, 1]);
}

#[test]
fn output_lost_by_a_rate_limited_console_is_counted() {
    let monitor = Monitor::start();
    let mut client = monitor.client();
    // A tick has 22 bytes. The bucket is soon empty, and takes a day to fill.
    let limit = json!({"rate_limiter": {"size": 200, "refill_time": 86_400_000}});
    client.put("/serial", &limit.to_string()).expect(204);
    monitor.start_guest();
    let lost = wait_until("lost bytes", || {
        Some(client.count("bantam_uart_rate_limiter_dropped_bytes")).filter(|lost| *lost > 0)
    });
    assert!(client.count("bantam_uart_write_count") >= 200 + lost);
}
