use super::*;
use devices::block::BlockMetrics;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::io::Read as _;

fn reporter(path: &Path) -> Reporter {
    let config = json!({ "metrics_path": path });
    let mut reporter = Reporter::new("vm", Arc::default());
    reporter.sink = Some(Sink::open(&serde_json::from_value(config).unwrap()).unwrap());
    reporter
}

fn disk() -> (Arc<BlockMetrics>, [Source; 1]) {
    let set = Arc::<BlockMetrics>::default();
    let id = Some("a".to_owned());
    (set.clone(), [Source { id, set }])
}

/// Reads everything that `fifo` contains.
fn drain(fifo: &mut File) -> String {
    let (mut text, mut chunk) = (Vec::new(), [0; 4096]);
    while let Ok(len) = fifo.read(&mut chunk) {
        text.extend_from_slice(&chunk[..len]);
    }
    String::from_utf8(text).unwrap()
}

/// Bytes read by `lines`.
fn read_bytes(lines: &str) -> Vec<u64> {
    let lines = lines.lines();
    let values = lines.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    values
        .map(|line| line["block_a"]["read_bytes"].as_u64().unwrap())
        .collect()
}

#[test]
fn a_line_cut_by_a_full_fifo_is_completed_before_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics");
    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
    let mut fifo: File = nix::fcntl::open(&path, flags, Mode::empty())
        .unwrap()
        .into();
    let mut reporter = reporter(&path);
    let (disk, sources) = disk();
    let missed = |reporter: &Reporter| reporter.metrics.logger.missed_metrics_count.get();

    let mut begun = 0;
    while reporter.sink.as_ref().unwrap().rest.is_empty() {
        assert!(begun < 100 && missed(&reporter) == 0, "no line was cut");
        disk.read_bytes.add(1);
        reporter.write(&sources).unwrap();
        begun += 1;
    }
    // Nothing more fits.
    for times in 1..=3 {
        disk.read_bytes.add(1);
        reporter.write(&sources).unwrap();
        assert_eq!(missed(&reporter), times);
    }
    let mut text = drain(&mut fifo);
    assert!(!text.ends_with('\n'));
    disk.read_bytes.add(1);
    reporter.write(&sources).unwrap();
    assert_eq!(missed(&reporter), 3);
    text += &drain(&mut fifo);
    assert!(text.ends_with('\n'));
    let mut expected = vec![1; begun];
    // With the counts of the missed lines.
    expected.push(4);
    assert_eq!(read_bytes(&text), expected);
}

#[test]
fn a_restart_resets_the_counts_of_devices_but_not_of_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics");
    let mut reporter = reporter(&path);
    let (old, sources) = disk();
    old.read_bytes.add(10);
    reporter.metrics.vcpu.exit_io_in.add(5);
    reporter.write(&sources).unwrap();
    reporter.forget_devices();

    let (new, sources) = disk();
    new.read_bytes.add(3);
    reporter.metrics.vcpu.exit_io_in.add(1);
    reporter.write(&sources).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(read_bytes(&text), [10, 3]);
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["vcpu"]["exit_io_in"], 1);
}
