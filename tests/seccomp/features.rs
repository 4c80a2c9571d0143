//! All features of the monitor in few guests: those that a payload of a few instructions can use, and those that need Linux.

use super::harness::vsock::patient;
use super::harness::{Guest, Running, http, network, payload};
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Time that the other side of a socket may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Code that echoes input until a `q`, and then exits with status 3.
pub fn echo_until_q() -> Vec<u8> {
    let mut code = vec![
        0x66, 0xba, 0xfa, 0x03, 0xb0, 0x01,
        0xee, // mov dx, 0x3fa; mov al, 1; out dx, al: the FIFO
        0x66, 0xba, 0xfd, 0x03, // mov dx, 0x3fd
        0xec, 0xa8, 0x01, 0x74, 0xf7, // in al, dx; test al, 1; jz back to the second mov
        0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xec, 0x3c, 0x71, 0x74, 0x03, // in al, dx; cmp al, 'q'; je to the end
        0xee, 0xeb, 0xeb, // out dx, al; jmp to the second mov
    ];
    code.extend(payload::exit(3));
    code
}

/// Code that resets the machine by its keyboard controller.
fn reset() -> Vec<u8> {
    let mut code = payload::print("up ");
    code.extend([0xb0, 0xfe, 0xe6, 0x64, 0xeb, 0xfe]); // mov al, 0xfe; out 0x64, al; jmp $
    code
}

fn bare(dir: &Path, code: &[u8]) -> Guest {
    Guest::bare(&payload::write(dir, code)).mem_mib(32)
}

/// A guest with one device of each kind, on `tap0`, which it does not use.
fn furnished(guest: Guest) -> Guest {
    let dir = guest.dir().to_owned();
    let image = dir.join("data.img");
    File::create(&image).unwrap().set_len(32 << 20).unwrap();
    let limit = json!({"ops": {"size": 1000, "refill_time": 100}});
    guest
        .drive(
            "data",
            &image,
            json!({"cache_type": "Writeback", "discard": true}),
        )
        .interface_with("tap0", json!({"rx_rate_limiter": limit}))
        .entropy()
        .section(
            "balloon",
            json!({"amount_mib": 0, "deflate_on_oom": true, "stats_polling_interval_s": 1}),
        )
        .section(
            "vsock",
            json!({"guest_cid": 3, "uds_path": dir.join("v.sock")}),
        )
        .section(
            "mmds-config",
            json!({"network_interfaces": ["eth0"], "version": "V2"}),
        )
        .section("serial", json!({"socket": dir.join("console.sock")}))
        .section(
            "metrics",
            json!({
                "metrics_path": dir.join("metrics"), "prometheus_path": dir.join("prometheus"),
            }),
        )
}

/// Runs a guest from its file, and calls every operation of its API.
pub fn operated(command: Command) {
    network::enter(1);
    let dir = tempfile::tempdir().unwrap();
    let guest = furnished(bare(dir.path(), &echo_until_q())).api();
    let mut running = guest.start_under(command);
    let events = listen_to_events(&running);
    operate(&running);
    let mut console = patient(http::connect(&running.dir().join("console.sock")), PATIENCE);
    console.write_all(b"typed").unwrap();
    let mut got = [0; 5];
    console.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"typed");
    // A second client that disconnects while output is pending.
    drop(console);
    let mut console = patient(http::connect(&running.dir().join("console.sock")), PATIENCE);
    for text in [&b"more"[..], b"q"] {
        console.write_all(text).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    running.more_time();
    let ended = running.wait().expect(3);
    assert!(!ended.messages.contains("seccomp"), "{}", ended.messages);
    drop(events);
}

fn listen_to_events(running: &Running) -> UnixStream {
    let mut stream = patient(http::connect(&running.dir().join("api.sock")), PATIENCE);
    stream.write_all(b"GET /events HTTP/1.1\r\n\r\n").unwrap();
    let mut byte = [0];
    stream.read_exact(&mut byte).unwrap();
    stream
}

/// Calls every operation of the API. Each must be answered, whether it succeeds or not.
pub fn operate(running: &Running) {
    let swapped = running.dir().join("swapped.img");
    File::create(&swapped).unwrap().set_len(2 << 20).unwrap();
    let off = json!({"ops": {"size": 0, "refill_time": 0}});
    let limit = json!({"ops": {"size": 1000, "refill_time": 100}});
    let action = |name: &str| json!({"action_type": name});
    for (method, path, body) in [
        ("GET", "/", Value::Null),
        ("GET", "/version", Value::Null),
        ("GET", "/vm/config", Value::Null),
        ("GET", "/machine-config", Value::Null),
        ("GET", "/balloon", Value::Null),
        ("GET", "/balloon/statistics", Value::Null),
        ("GET", "/balloon/hinting/status", Value::Null),
        ("GET", "/hotplug/memory", Value::Null),
        ("GET", "/metrics/prometheus", Value::Null),
        ("GET", "/nothing", Value::Null),
        (
            "PUT",
            "/mmds",
            json!({"latest": {"meta-data": {"name": "first"}}}),
        ),
        (
            "PATCH",
            "/mmds",
            json!({"latest": {"meta-data": {"name": "second"}}}),
        ),
        ("GET", "/mmds", Value::Null),
        ("PATCH", "/vm", json!({"state": "Paused"})),
        (
            "PATCH",
            "/drives/data",
            json!({"drive_id": "data", "path_on_host": swapped}),
        ),
        ("PATCH", "/vm", json!({"state": "Resumed"})),
        (
            "PATCH",
            "/drives/data",
            json!({"drive_id": "data", "rate_limiter": limit}),
        ),
        (
            "PATCH",
            "/drives/data",
            json!({"drive_id": "data", "rate_limiter": off}),
        ),
        (
            "PATCH",
            "/drives/data",
            json!({"drive_id": "data", "path_on_host": "/nonexistent"}),
        ),
        (
            "PATCH",
            "/network-interfaces/eth0",
            json!({"iface_id": "eth0", "tx_rate_limiter": limit}),
        ),
        (
            "PATCH",
            "/network-interfaces/eth0",
            json!({"iface_id": "eth0", "rx_rate_limiter": off}),
        ),
        ("PATCH", "/balloon", json!({"amount_mib": 1})),
        (
            "PATCH",
            "/balloon/statistics",
            json!({"stats_polling_interval_s": 2}),
        ),
        ("PATCH", "/balloon/hinting/start", json!({})),
        ("PATCH", "/balloon/hinting/stop", json!({})),
        ("PUT", "/actions", action("FlushMetrics")),
        ("PUT", "/actions", action("SendCtrlAltDel")),
        ("PUT", "/actions", action("PowerButton")),
        ("PUT", "/actions", action("InstanceStart")),
        (
            "PUT",
            "/snapshot/create",
            json!({"snapshot_path": "s", "mem_file_path": "m"}),
        ),
        (
            "PUT",
            "/snapshot/load",
            json!({"snapshot_path": "s", "mem_file_path": "m"}),
        ),
        (
            "PUT",
            "/boot-source",
            json!({"kernel_image_path": "/nonexistent"}),
        ),
        (
            "PUT",
            "/drives/more",
            json!({"drive_id": "more", "is_root_device": false, "path_on_host": swapped}),
        ),
        (
            "PUT",
            "/logger",
            json!({"log_path": running.dir().join("log")}),
        ),
        (
            "PUT",
            "/metrics",
            json!({"metrics_path": running.dir().join("m")}),
        ),
        (
            "PUT",
            "/vsock",
            json!({"guest_cid": 4, "uds_path": running.dir().join("w.sock")}),
        ),
        ("PUT", "/entropy", json!({})),
        ("PATCH", "/machine-config", json!({"vcpu_count": 2})),
        ("PATCH", "/hotplug/memory", json!({"requested_size_mib": 0})),
        ("DELETE", "/drives/data", Value::Null),
        ("DELETE", "/network-interfaces/eth0", Value::Null),
        ("DELETE", "/pmem/none", Value::Null),
    ] {
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let (status, answer) = running.ask(method, path, &body);
        assert!(
            (200..=404).contains(&status),
            "{method} {path}: {status} {answer}"
        );
    }
    // A slow client, and one that disconnects in the middle of a request.
    let mut slow = patient(http::connect(&running.dir().join("api.sock")), PATIENCE);
    slow.write_all(b"GET / HT").unwrap();
    std::thread::sleep(Duration::from_millis(50));
    slow.write_all(b"TP/1.1\r\n\r\n").unwrap();
    slow.read_exact(&mut [0; 16]).unwrap();
    drop(slow);
    let mut gone = http::connect(&running.dir().join("api.sock"));
    gone.write_all(b"PUT /mmds HTTP/1.1\r\nContent-Length: 1000\r\n\r\n{")
        .unwrap();
    gone.shutdown(Shutdown::Both).unwrap();
}

/// Configures and starts a guest through the API.
pub fn configured_by_api(mut command: Command, dir: &Path) {
    let kernel = payload::write(dir, &payload::exit(3));
    let socket = dir.join("api.sock");
    let mut child = command
        .arg("--api-sock")
        .arg(&socket)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    for (path, body) in [
        (
            "/logger",
            json!({"log_path": dir.join("log"), "level": "Debug"}),
        ),
        (
            "/machine-config",
            json!({"vcpu_count": 1, "mem_size_mib": 32}),
        ),
        ("/boot-source", json!({"kernel_image_path": kernel})),
        ("/actions", json!({"action_type": "InstanceStart"})),
    ] {
        let (status, answer) = http::ask(&socket, "PUT", path, &body.to_string());
        assert_eq!(status, 204, "{path}: {answer}");
    }
    assert_eq!(wait(&mut child), Some(3));
}

/// Runs a guest whose drivers enable no queue of any device, and then reset it.
pub fn idle_drivers(command: Command) {
    network::enter(1);
    let dir = tempfile::tempdir().unwrap();
    // Disk, network card, entropy, balloon and vsock.
    let guest = furnished(bare(dir.path(), &payload::idle_drivers(5)));
    drop(guest.start_under(command).wait().expect(0xf));
}

/// Runs a guest that resets and starts again several times.
pub fn restarted(command: Command) {
    network::enter(1);
    let dir = tempfile::tempdir().unwrap();
    let guest = furnished(bare(dir.path(), &reset()))
        .vcpus(2)
        .api()
        .machine(json!({"on_reboot": "restart", "huge_pages": "Transparent"}));
    let mut running = guest.start_under(command);
    running.wait_for("up up up up");
    drop(running.kill());
}

/// Runs the monitor on a terminal until `end` ends it.
pub fn on_terminal(command: &Command, end: impl FnOnce(&mut File, &Child)) {
    let dir = tempfile::tempdir().unwrap();
    let guest = bare(dir.path(), &echo_until_q());
    let pty = openpty(None, None).unwrap();
    let (mut master, slave) = (File::from(pty.master), File::from(pty.slave));
    let mut child = Command::new("setsid")
        .arg("-c")
        .arg(command.get_program())
        .args(command.get_args())
        .args(["--no-api", "--config-file"])
        .arg(guest.write_config())
        .stdin(slave.try_clone().unwrap())
        .stdout(slave.try_clone().unwrap())
        .stderr(slave)
        .spawn()
        .unwrap();
    // Input that comes back once is the guest's echo, so the terminal is raw.
    std::thread::sleep(Duration::from_secs(1));
    master.write_all(b"a").unwrap();
    let mut echoed = [0];
    master.read_exact(&mut echoed).unwrap();
    end(&mut master, &child);
    wait(&mut child);
}

/// Ends one monitor by its keys, and another by a signal.
pub fn terminals(quit: &Command, signalled: &Command) {
    on_terminal(quit, |master, _| {
        master.write_all(b"\x01\x01\x01x").unwrap()
    });
    on_terminal(signalled, |_, child| {
        // The monitor is strace's child, or the child itself.
        let pid = child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let own = children.unwrap_or_default();
        let own = own
            .split_whitespace()
            .next()
            .and_then(|pid| pid.parse().ok());
        let pid = own.unwrap_or_else(|| i32::try_from(pid).unwrap());
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    });
}

fn wait(child: &mut Child) -> Option<i32> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs Linux, whose drivers use all features of the devices.
pub fn linux(command: Command) {
    network::enter(1);
    let guest = Guest::cloud()
        .root("cloud")
        .vcpus(2)
        .args(&network::guest_address(0))
        .api()
        // The balloon of a forkable guest frees memory differently.
        .machine(json!({"forkable": true}))
        .script(
            "modprobe -a vmw_vsock_virtio_transport virtio_balloon button evdev
             data=/dev/disk/by-id/virtio-data
             bantam-vsock echo 5000 &
             ping -c 3 -W 20 10.99.0.1 >/dev/null && echo network=up
             head -c 300000 /dev/zero | nc 10.99.0.1 7000 >/dev/null
             mkfs.ext4 -q -E lazy_itable_init=0 $data && mount -o discard $data /mnt && echo formatted=yes
             head -c 3000000 /dev/urandom >/mnt/x; sync; rm /mnt/x; sync; fstrim /mnt; umount /mnt
             blkdiscard $data
             head -c 100 /dev/hwrng >/dev/null
             service=http://169.254.169.254/latest; ip route add 169.254.169.254 dev eth0
             token=$(curl -s -X PUT -H 'X-metadata-token-ttl-seconds: 60' $service/api/token)
             echo name=$(curl -s -H \"X-metadata-token: $token\" $service/meta-data/name)
             echo said=hello >/tmp/hello; bantam-vsock connect 2 6001 </tmp/hello
             bantam-vsock connect 2 7777 </dev/null
             dd if=/dev/zero of=/dev/shm/fill bs=1M count=60 2>/dev/null; rm /dev/shm/fill
             echo all=done
             until [ $(blockdev --getsize64 $data) -eq 67108864 ]; do sleep 1; done; echo swapped=yes; sleep 1
             dd if=$data of=/dev/null bs=4k count=20 iflag=direct
             head -c 100000 /dev/zero | nc 10.99.0.1 7000 >/dev/null
             exit 3",
        );
    let guest = furnished(guest);
    let dir = guest.dir().to_owned();
    let sink = std::net::TcpListener::bind((network::HOST, 7000)).unwrap();
    std::thread::spawn(move || {
        for stream in sink.incoming() {
            std::io::copy(&mut stream.unwrap(), &mut std::io::sink()).unwrap();
        }
    });
    let outward = UnixListener::bind(dir.join("v.sock_6001")).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = outward.accept().unwrap();
        // Until its end, which the guest announces while it still listens.
        let mut text = Vec::new();
        stream.read_to_end(&mut text).unwrap();
        stream.write_all(&text).unwrap();
    });
    let mut running = guest.start_under(command);
    running.api(
        "PUT",
        "/mmds",
        json!({"latest": {"meta-data": {"name": "first"}}}),
    );
    running.wait_for("network=up");
    running.more_time();
    let mut inward = patient(UnixStream::connect(dir.join("v.sock")).unwrap(), PATIENCE);
    inward.write_all(b"CONNECT 5000\n").unwrap();
    let mut answer = [0; 3];
    inward.read_exact(&mut answer).unwrap();
    inward.write_all(&[7; 100_000]).unwrap();
    running.api("PATCH", "/balloon", json!({"amount_mib": 40}));
    running.wait_for("formatted=yes");
    running.api("PATCH", "/vm", json!({"state": "Paused"}));
    running.api("PATCH", "/vm", json!({"state": "Resumed"}));
    drop(inward);
    running.wait_for("all=done");
    running.api("PATCH", "/balloon", json!({"amount_mib": 0}));
    let other = dir.join("other.img");
    File::create(&other).unwrap().set_len(64 << 20).unwrap();
    for change in [
        json!({"drive_id": "data", "path_on_host": other}),
        json!({"drive_id": "data", "rate_limiter": {"ops": {"size": 5, "refill_time": 1000}}}),
    ] {
        running.api("PATCH", "/drives/data", change);
    }
    let limit = json!({"bandwidth": {"size": 20_000, "refill_time": 1000}});
    let change = json!({"iface_id": "eth0", "tx_rate_limiter": limit});
    running.api("PATCH", "/network-interfaces/eth0", change);
    running.more_time();
    let ended = running.wait().expect(3);
    for line in [
        "network=up",
        "formatted=yes",
        "name=first",
        "said=hello",
        "swapped=yes",
    ] {
        assert!(ended.console.contains(line), "{line}:\n{}", ended.console);
    }
}

/// Runs Linux with a restart in place.
pub fn linux_restarted(command: Command) {
    network::enter(1);
    let guest = Guest::cloud()
        .root("cloud")
        .api()
        .machine(json!({"on_reboot": "restart"}))
        .script("modprobe -a vmw_vsock_virtio_transport virtio_balloon; echo boot=up; reboot -f; sleep 60");
    let mut running = furnished(guest).start_under(command);
    let start = Instant::now();
    while running.console().matches("boot=up").count() < 2 {
        assert!(start.elapsed() < 2 * PATIENCE, "{}", running.console());
        assert_eq!(
            running.child.try_wait().unwrap(),
            None,
            "{}",
            running.console()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(running.kill());
}
