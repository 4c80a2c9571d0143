use super::reporter::line_of;
use super::*;
use devices::block::BlockMetrics;
use devices::vsock::VsockMetrics;
use std::sync::Arc;
use std::time::Duration;

fn sources(metrics: &Metrics, disks: &[(&str, Arc<BlockMetrics>)]) -> Vec<Source> {
    let process = metrics.sets().into_iter();
    let mut sources: Vec<_> = process.map(|set| Source { id: None, set }).collect();
    for (id, set) in disks {
        sources.push(Source {
            id: Some((*id).into()),
            set: set.clone(),
        });
    }
    sources
}

#[test]
fn a_line_has_every_group_with_counts_since_the_last_line() {
    let metrics = Metrics::default();
    let (a, b) = (
        Arc::<BlockMetrics>::default(),
        Arc::<BlockMetrics>::default(),
    );
    let disks = [("a", a.clone()), ("b", b.clone())];
    let mut before = Default::default();
    a.read_bytes.add(512);
    b.read_bytes.add(1024);
    b.read_agg.record(Duration::from_micros(7));
    metrics.vcpu.exit_io_in.increment();
    let line = line_of(&mut before, &sources(&metrics, &disks));
    for group in [
        "api_server",
        "balloon",
        "block",
        "block_a",
        "block_b",
        "deprecated_api",
        "get_api_requests",
        "i8042",
        "latencies_us",
        "logger",
        "net",
        "patch_api_requests",
        "put_api_requests",
        "seccomp",
        "signals",
        "uart",
        "vcpu",
        "vmm",
        "vsock",
        "entropy",
        "pmem",
        "interrupts",
        "memory_hotplug",
    ] {
        assert!(line.contains_key(group), "{group}");
    }
    assert_eq!(line["block"]["read_bytes"], 1536);
    assert_eq!(line["block_a"]["read_bytes"], 512);
    assert_eq!(line["block"]["read_agg"]["sum_us"], 7);
    assert_eq!(line["block"]["read_agg"]["min_us"], 7);
    assert_eq!(line["vcpu"]["exit_io_in"], 1);
    assert_eq!(line["net"]["rx_bytes_count"], 0);

    a.read_bytes.add(1);
    let line = line_of(&mut before, &sources(&metrics, &disks));
    assert_eq!(line["block"]["read_bytes"], 1);
    assert_eq!(line["block_b"]["read_bytes"], 0);
    assert_eq!(line["vcpu"]["exit_io_in"], 0);
}

#[test]
fn counts_of_a_device_without_an_id_are_relative_to_the_last_line() {
    let vsock = Arc::<VsockMetrics>::default();
    let sources = [Source {
        id: None,
        set: vsock.clone(),
    }];
    let mut before = Default::default();
    vsock.rx_bytes_count.add(7);
    assert_eq!(line_of(&mut before, &sources)["vsock"]["rx_bytes_count"], 7);
    vsock.rx_bytes_count.add(2);
    assert_eq!(line_of(&mut before, &sources)["vsock"]["rx_bytes_count"], 2);
    assert_eq!(line_of(&mut before, &sources)["vsock"]["rx_bytes_count"], 0);
}

#[test]
fn prometheus_text_has_each_name_once_with_all_samples() {
    let metrics = Metrics::default();
    let disk = Arc::<BlockMetrics>::default();
    disk.read_bytes.add(5);
    let disks = [("a", disk.clone()), ("b", disk)];
    let text = text("vm\"1", &sources(&metrics, &disks));
    let expected = "# TYPE bantam_block_read_bytes_total counter\n\
        bantam_block_read_bytes_total{instance=\"vm\\\"1\",id=\"a\"} 5\n\
        bantam_block_read_bytes_total{instance=\"vm\\\"1\",id=\"b\"} 5\n";
    assert!(text.contains(expected), "{text}");
    let types: Vec<_> = text.lines().filter(|l| l.starts_with("# TYPE")).collect();
    let mut unique = types.clone();
    unique.dedup();
    assert_eq!(types.len(), unique.len());
}

#[test]
fn requests_are_counted_by_path_and_result() {
    let api = ApiMetrics::default();
    api.count("PUT", "drives", true);
    api.count("PUT", "drives", false);
    api.count("GET", "", true);
    api.count("BREW", "coffee", true);
    assert_eq!(
        (api.put.drive_count.get(), api.put.drive_fails.get()),
        (2, 1)
    );
    assert_eq!(api.get.instance_info_count.get(), 1);
}
