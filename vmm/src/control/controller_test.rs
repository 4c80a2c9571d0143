use super::super::command::{Configure, Operate, Pluggable, Query};
use super::*;
use crate::event_loop::MainLoop;
use crate::process::options::SeccompMode;
use resources::{
    Balloon, BalloonUpdate, BootSource, CpuConfig, Drive, DriveUpdate, Logger, MachineConfig,
    MachineConfigUpdate, MmdsConfig, NetworkInterface, Pmem, SnapshotCreate, SnapshotLoad, Vsock,
};
use serde_json::json;

/// A controller without a guest, and its event loop.
struct Bench {
    controller: Controller,
    _main_loop: MainLoop,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let main_loop = MainLoop::new().unwrap();
        let process = Process {
            id: "test".into(),
            event_loop: main_loop.endpoint(),
            timed_from: None,
            metrics: Arc::default(),
            mmds: Mmds::new(100).unwrap(),
            events: Events::default(),
            seccomp: Arc::new(Filters::load(&SeccompMode::Off).unwrap()),
        };
        Self {
            controller: Controller::new(process),
            _main_loop: main_loop,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, [0; 512]).unwrap();
        path
    }

    fn set(&mut self, part: Configure) {
        let done = self.controller.apply(Command::Configure(Box::new(part)));
        assert_eq!(done.unwrap(), Reply::Done);
    }

    fn refused(&mut self, command: Command) -> String {
        match self.controller.apply(command) {
            Err(e) => e.to_string(),
            Ok(reply) => panic!("{reply:?}"),
        }
    }

    fn refused_section(&mut self, part: Configure) -> String {
        self.refused(Command::Configure(Box::new(part)))
    }

    fn ask(&mut self, query: Query) -> serde_json::Value {
        match self.controller.apply(Command::Query(query)).unwrap() {
            Reply::Json(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?}"),
        }
    }
}

fn drive(id: &str, path: &std::path::Path) -> Drive {
    Drive {
        drive_id: id.into(),
        path_on_host: Some(path.into()),
        ..Drive::default()
    }
}

#[test]
fn operations_before_the_start_are_refused() {
    let mut bench = Bench::new();
    for operation in [
        Operate::Pause,
        Operate::Resume,
        Operate::FlushMetrics,
        Operate::SendCtrlAltDel,
        Operate::PowerButton,
        Operate::Balloon(BalloonUpdate { amount_mib: 1 }),
        Operate::Drive(DriveUpdate {
            drive_id: "a".into(),
            path_on_host: None,
            rate_limiter: None,
        }),
        Operate::CreateSnapshot(SnapshotCreate {
            snapshot_path: "s".into(),
            mem_file_path: "m".into(),
            snapshot_type: Default::default(),
            version: None,
        }),
        Operate::Unplug(Pluggable::Drive, "a".into()),
    ] {
        let text = bench.refused(Command::Operate(operation));
        assert!(text.contains("not supported before starting"), "{text}");
    }
    for query in [
        Query::BalloonStats,
        Query::HintingStatus,
        Query::MemoryHotplug,
    ] {
        let text = bench.refused(Command::Query(query));
        assert!(text.contains("not supported before starting"), "{text}");
    }
    assert_eq!(bench.ask(Query::Instance)["state"], "Not started");
    assert_eq!(bench.controller.state(), State::NotStarted);
}

#[test]
fn the_configuration_is_shown_as_set() {
    let mut bench = Bench::new();
    let (kernel, image) = (bench.file("kernel"), bench.file("image"));
    bench.set(Configure::BootSource(BootSource {
        kernel_image_path: kernel.clone(),
        boot_args: Some("console=ttyS0".into()),
        ..BootSource::default()
    }));
    bench.set(Configure::Drive(drive("a", &image)));
    bench.set(Configure::MachineConfig(MachineConfig {
        vcpu_count: 2,
        ..MachineConfig::default()
    }));
    bench.set(Configure::Balloon(Balloon {
        amount_mib: 64,
        deflate_on_oom: true,
        ..Balloon::default()
    }));
    let shown = bench.ask(Query::Vm);
    assert_eq!(shown["boot-source"]["boot_args"], "console=ttyS0");
    assert_eq!(shown["drives"][0]["cache_type"], "Unsafe");
    assert_eq!(shown["drives"][0]["socket"], json!(null));
    assert_eq!(shown["machine-config"]["vcpu_count"], 2);
    assert_eq!(shown["balloon"]["amount_mib"], 64);
    assert_eq!(shown["logger"], json!(null));

    // The same id again is a change, not another.
    bench.set(Configure::Drive(Drive {
        is_read_only: true,
        ..drive("a", &image)
    }));
    let drives = bench.ask(Query::Vm)["drives"].clone();
    assert_eq!(drives.as_array().unwrap().len(), 1);
    assert_eq!(drives[0]["is_read_only"], true);
}

#[test]
fn invalid_sections_are_refused_and_change_nothing() {
    let mut bench = Bench::new();
    let image = bench.file("image");
    let pooled = Drive {
        pool: Some("web".into()),
        ..drive("a", "volume".as_ref())
    };
    let text = bench.refused_section(Configure::Drive(pooled));
    assert!(text.contains("only the jailer"), "{text}");
    let text = bench.refused_section(Configure::Drive(drive("a", "/nonexistent".as_ref())));
    assert!(
        text.starts_with("Drive config error: Unable to create") && text.contains("/nonexistent")
    );
    let text = bench.refused_section(Configure::Drive(Drive {
        drive_id: "a".into(),
        ..Drive::default()
    }));
    assert!(text.ends_with("Invalid block config."), "{text}");
    let root = |id| Drive {
        is_root_device: true,
        ..drive(id, &image)
    };
    bench.set(Configure::Drive(root("a")));
    let text = bench.refused_section(Configure::Drive(root("b")));
    assert!(text.contains("root block device already exists"), "{text}");

    for config in [
        MachineConfig {
            vcpu_count: 0,
            ..MachineConfig::default()
        },
        MachineConfig {
            vcpu_count: 33,
            ..MachineConfig::default()
        },
        MachineConfig {
            vcpu_count: 3,
            smt: true,
            ..MachineConfig::default()
        },
        MachineConfig {
            mem_size_mib: 0,
            ..MachineConfig::default()
        },
    ] {
        let text = bench.refused_section(Configure::MachineConfig(config));
        assert!(text.starts_with("Machine config error: The "), "{text}");
    }
    let balloon = |mib| Balloon {
        amount_mib: mib,
        deflate_on_oom: true,
        ..Balloon::default()
    };
    let text = bench.refused_section(Configure::Balloon(balloon(4096)));
    assert!(
        text.contains("Amount of pages requested is too large"),
        "{text}"
    );
    bench.set(Configure::Balloon(balloon(100)));
    let smaller = MachineConfigUpdate {
        mem_size_mib: Some(64),
        ..MachineConfigUpdate::default()
    };
    let text = bench.refused(Command::UpdateMachine(smaller));
    assert!(text.contains("balloon"), "{text}");
    assert_eq!(bench.ask(Query::Machine)["mem_size_mib"], 128);

    let text = bench.refused_section(Configure::BootSource(BootSource {
        kernel_image_path: "/nonexistent".into(),
        ..BootSource::default()
    }));
    assert!(text.contains("kernel file cannot be opened"), "{text}");
    let text = bench.refused_section(Configure::Logger(Logger {
        log_path: Some("/nonexistent/log".into()),
        ..Logger::default()
    }));
    assert!(text.contains("/nonexistent/log"), "{text}");
}

#[test]
fn interfaces_cannot_share_taps_or_addresses() {
    let mut bench = Bench::new();
    let interface = |id: &str, tap: &str, mac: Option<&str>| NetworkInterface {
        iface_id: id.into(),
        host_dev_name: tap.into(),
        guest_mac: mac.map(|mac| mac.parse().unwrap()),
        ..NetworkInterface::default()
    };
    let mac = Some("06:00:ac:10:00:02");
    bench.set(Configure::NetworkInterface(interface("a", "tap0", mac)));
    bench.set(Configure::NetworkInterface(interface("a", "tap0", mac)));
    for (other, part) in [
        (interface("b", "tap0", None), "tap0 is another"),
        (interface("b", "tap1", mac), "MAC address is already in use"),
        (
            interface("b", "averyverylongnamefortap", None),
            "Invalid interface name",
        ),
        (interface("b", "tap/1", None), "Invalid interface name"),
        (
            interface("b", "tap1", Some("01:00:00:00:00:00")),
            "guest_mac: is a multicast",
        ),
        (
            NetworkInterface {
                mtu: Some(67),
                ..interface("b", "tap1", None)
            },
            "mtu: must be from 68",
        ),
        (
            NetworkInterface {
                bridge: Some("b r".into()),
                ..interface("b", "tap1", None)
            },
            "bridge: `b r` is not the name",
        ),
    ] {
        let text = bench.refused_section(Configure::NetworkInterface(other));
        assert!(text.contains(part), "{text}");
    }
    let mmds = |id: &str| MmdsConfig {
        network_interfaces: vec![id.into()],
        ..serde_json::from_str(r#"{"network_interfaces":[]}"#).unwrap()
    };
    let text = bench.refused_section(Configure::MmdsConfig(mmds("nope")));
    assert!(text.starts_with("MMMDS config error: The list"), "{text}");
    bench.set(Configure::MmdsConfig(mmds("a")));
}

#[test]
fn a_vsock_is_bound_when_it_is_set_and_only_once() {
    let mut bench = Bench::new();
    let path = bench.dir.path().join("v.sock");
    let vsock = |path: &Path| Vsock {
        guest_cid: 3,
        uds_path: path.into(),
        vsock_id: None,
    };
    bench.set(Configure::Vsock(vsock(&path)));
    assert!(path.exists());
    bench.set(Configure::Vsock(vsock(&path)));
    let other = bench.dir.path().join("w.sock");
    bench.set(Configure::Vsock(vsock(&other)));
    assert!(
        other.exists() && !path.exists(),
        "the one before is removed"
    );
    let in_the_way = bench.file("file");
    let text = bench.refused_section(Configure::Vsock(vsock(&in_the_way)));
    assert!(text.contains("in the way"), "{text}");
    assert!(
        in_the_way.exists(),
        "a file that is not a socket of ours stays"
    );
}

#[test]
fn metadata_is_stored_merged_and_limited() {
    let mut bench = Bench::new();
    let put = |data| Command::Metadata(Metadata::Put(data));
    let patch = |data| Command::Metadata(Metadata::Patch(data));
    assert_eq!(bench.ask(Query::Metadata), json!({}));
    let text = bench.refused(patch(json!({"a": 1})));
    assert!(text.contains("not initialized"), "{text}");
    bench.controller.apply(put(json!({"a": {"b": 1}}))).unwrap();
    bench
        .controller
        .apply(patch(json!({"a": {"c": 2}})))
        .unwrap();
    assert_eq!(bench.ask(Query::Metadata), json!({"a": {"b": 1, "c": 2}}));
    let large = json!("a".repeat(200));
    let error = bench.controller.apply(put(large)).unwrap_err();
    assert!(
        matches!(error, CommandError::MetadataTooLarge(_)),
        "{error}"
    );
    assert_eq!(bench.ask(Query::Metadata), json!({"a": {"b": 1, "c": 2}}));
}

#[test]
fn a_snapshot_cannot_be_loaded_after_the_guest_is_configured() {
    let mut bench = Bench::new();
    let load = || {
        let load = SnapshotLoad::from_files("/nonexistent/s".into(), "/nonexistent/m".into());
        Command::LoadSnapshot(Box::new(load))
    };
    bench.set(Configure::CpuConfig(CpuConfig::default()));
    let text = bench.refused(load());
    assert!(text.contains("cannot read /nonexistent/s"), "{text}");
    bench.set(Configure::MachineConfig(MachineConfig::default()));
    let text = bench.refused(load());
    assert!(text.contains("not allowed after configuring"), "{text}");
}

#[test]
fn a_start_needs_a_kernel_and_only_supported_sections() {
    let mut bench = Bench::new();
    let text = bench.refused(Command::Start);
    assert!(text.contains("without kernel configuration"), "{text}");
    let kernel = bench.file("kernel");
    bench.set(Configure::BootSource(BootSource {
        kernel_image_path: kernel,
        ..BootSource::default()
    }));
    bench.set(Configure::Pmem(Pmem {
        id: "p".into(),
        path_on_host: "/x".into(),
        root_device: false,
        read_only: false,
        rate_limiter: None,
    }));
    let text = bench.refused(Command::Start);
    assert!(
        text.starts_with("Start microvm error: pmem: is not supported"),
        "{text}"
    );
    assert_eq!(bench.controller.state(), State::NotStarted);
}

#[test]
fn a_fifo_as_kernel_or_initrd_is_refused() {
    let mut bench = Bench::new();
    let fifo = bench.dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
    let kernel = bench.file("kernel");
    for (kernel_image_path, initrd_path) in [(&fifo, None), (&kernel, Some(fifo.clone()))] {
        let source = BootSource {
            kernel_image_path: kernel_image_path.clone(),
            initrd_path,
            ..BootSource::default()
        };
        let why = bench.refused_section(Configure::BootSource(source));
        assert!(why.contains("is not a regular file"), "{why}");
    }
}
