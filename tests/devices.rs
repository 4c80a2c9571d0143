//! Devices besides disk and network: sockets, memory, metadata, rate limits; and operations on a running guest.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test may be blunt: a failed unwrap is a failed test"
)]

#[path = "harness/mod.rs"]
mod harness;

use harness::lifecycle::{After, ELSEWHERE};
use harness::vsock::{accept, dial, patient};
use harness::{Guest, Running, announce, image, needs_kvm, network, rounds};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Read and write timeout of sockets.
const PATIENCE: Duration = Duration::from_secs(60);

/// Loads modules that the initrd does not load.
const MODULES: &str = "modprobe -a vmw_vsock_virtio_transport virtio_balloon button evdev\n";

fn guest(script: &str) -> Guest {
    Guest::cloud()
        .root("cloud")
        .script(&format!("{MODULES}{script}"))
}

/// Reason why guests with connections are exempt from moves.
const CUT: &str = "vsock connections end when the guest continues in another process";

fn with_vsock(guest: Guest) -> (Guest, PathBuf) {
    let path = guest.dir().join("v.sock");
    let guest = guest.section("vsock", json!({"guest_cid": 3, "uds_path": path}));
    (guest, path)
}

/// Bytes with a pattern that shows a loss.
fn pattern(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn echoes(stream: &UnixStream, len: usize) {
    let sent = pattern(len);
    let mut writer = stream.try_clone().unwrap();
    let to_send = sent.clone();
    let sender = std::thread::spawn(move || {
        writer.write_all(&to_send).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut got = Vec::new();
    (&*stream).read_to_end(&mut got).unwrap();
    sender.join().unwrap();
    assert!(got == sent, "got {} of {len} bytes", got.len());
}

#[test]
fn vsock_carries_streams_both_ways() {
    needs_kvm();
    announce("vsock");
    let (guest, path) = with_vsock(guest(
        "bantam-vsock echo 5000 &
         until [ -e /tmp/go ] || bantam-vsock connect 2 6000 </dev/null 2>/dev/null; do sleep 1; done
         head -c 1000000 /dev/urandom >/tmp/sent
         bantam-vsock connect 2 6001 </tmp/sent >/tmp/back && cmp /tmp/sent /tmp/back && echo inside=same
         bantam-vsock connect 2 7777 </dev/null || echo nobody=refused
         exit 3",
    ).only_at_the_start(&ELSEWHERE, CUT));
    let mut running = guest.start();
    running.wait_for("vsock=listening");
    echoes(&dial(&path, 5000, PATIENCE), 1 << 20);
    echoes(&dial(&path, 5000, PATIENCE), 1);

    // Without a listener in the guest the connection ends without an OK.
    let mut refused = patient(UnixStream::connect(&path).unwrap(), PATIENCE);
    writeln!(refused, "CONNECT 4999").unwrap();
    assert_eq!(refused.read(&mut [0; 16]).unwrap(), 0);

    let echo = UnixListener::bind(path.with_file_name("v.sock_6001")).unwrap();
    let ready = UnixListener::bind(path.with_file_name("v.sock_6000")).unwrap();
    drop(accept(&ready, &running, PATIENCE));
    let stream = accept(&echo, &running, PATIENCE);
    let stream = patient(stream, PATIENCE);
    std::io::copy(&mut &stream, &mut &stream).unwrap();
    stream.shutdown(Shutdown::Both).unwrap();
    let ended = running.wait().expect(3);
    assert_eq!(ended.value("inside"), "same");
    assert_eq!(ended.value("nobody"), "refused");
}

#[test]
fn vsock_carries_a_thousand_connections_at_once() {
    needs_kvm();
    announce("vsock, a thousand");
    let (guest, path) = with_vsock(
        guest(
            "bantam-vsock echo 5000 &
         until bantam-vsock connect 2 6000 </dev/null 2>/dev/null; do sleep 1; done
         bantam-vsock many 6001 1000 && exit 3",
        )
        .only_at_the_start(&ELSEWHERE, CUT),
    );
    let mut running = guest.start();
    running.wait_for("vsock=listening");
    let mut streams: Vec<_> = (0..1000).map(|_| dial(&path, 5000, PATIENCE)).collect();
    for (n, stream) in streams.iter_mut().enumerate() {
        writeln!(stream, "{n}").unwrap();
    }
    for (n, stream) in streams.iter().enumerate() {
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        assert_eq!(line, format!("{n}\n"));
    }
    drop(streams);

    let echo = UnixListener::bind(path.with_file_name("v.sock_6001")).unwrap();
    let ready = UnixListener::bind(path.with_file_name("v.sock_6000")).unwrap();
    drop(accept(&ready, &running, PATIENCE));
    let mut held = Vec::new();
    for _ in 0..1000 {
        held.push(patient(accept(&echo, &running, PATIENCE), PATIENCE));
    }
    for stream in &mut held {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        stream.write_all(&byte).unwrap();
    }
    let ended = running.wait().expect(3);
    assert_eq!(ended.value("vsock"), "listening");
    assert!(ended.console.contains("vsock=many"));
}

/// Waits until `done` returns true.
fn eventually(running: &Running, what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}:\n{}", running.console());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_balloon_returns_memory_and_deflates_when_the_guest_needs_it() {
    needs_kvm();
    announce("balloon");
    let spared = |guest: Guest| {
        guest.only_at_the_start(
            &ELSEWHERE,
            "pages that the guest has not touched in the new process are not resident",
        )
    };
    gives_memory_back(spared, Running::resident_mib);
}

#[test]
fn the_balloon_of_a_forkable_guest_returns_memory() {
    needs_kvm();
    announce("balloon, forkable");
    let forkable = |guest: Guest| {
        let guest = guest.machine(json!({"forkable": true}));
        guest.not_after(
            &ELSEWHERE,
            "after a restore or a copy the memory is more than one file",
        )
    };
    gives_memory_back(forkable, |running| {
        // Resident memory is not all that the host keeps for the guest.
        let fds = fs::read_dir(format!("/proc/{}/fd", running.child.id())).unwrap();
        let mut fds = fds.map(|fd| fd.unwrap().path());
        let named = |fd: &PathBuf| {
            let to = fs::read_link(fd).unwrap_or_default();
            to.to_string_lossy().starts_with("/memfd:guest-memory")
        };
        let file = fds.find(named).unwrap();
        fs::metadata(file).unwrap().blocks() >> 11
    });
}

/// Checks that a guest configured by `also` returns memory, which `held` measures.
fn gives_memory_back(also: impl Fn(Guest) -> Guest, held: impl Fn(&Running) -> u64) {
    let balloon = json!({
        "amount_mib": 0, "deflate_on_oom": true, "stats_polling_interval_s": 1,
    });
    let guest = guest(
        "dd if=/dev/zero of=/dev/shm/fill bs=1M count=110 2>/dev/null; rm /dev/shm/fill; echo filled=yes
         until [ -e /dev/shm/go ] || dmesg | grep -q go-on; do sleep 1; done
         exit 3",
    );
    let mut running = also(guest).api().section("balloon", balloon).start();
    running.wait_for("filled=yes");
    let before = held(&running);
    running.api("PATCH", "/balloon", json!({"amount_mib": 120}));
    let stats = |running: &Running| -> Value {
        serde_json::from_str(&running.api("GET", "/balloon/statistics", Value::Null)).unwrap()
    };
    eventually(&running, "the balloon does not fill", || {
        stats(&running)["actual_mib"] == 120
    });
    let after = held(&running);
    assert!(before >= after + 80, "{before} MiB became {after} MiB");
    eventually(&running, "no statistics", || {
        stats(&running)["total_memory"].as_u64() > Some(100 << 20)
    });
    running.api("PATCH", "/balloon", json!({"amount_mib": 0}));
    eventually(&running, "the balloon does not empty", || {
        stats(&running)["actual_mib"] == 0
    });
    drop(running.kill());
}

#[test]
fn a_guest_short_of_memory_deflates_the_balloon() {
    needs_kvm();
    announce("balloon, out of memory");
    let balloon = json!({"amount_mib": 140, "deflate_on_oom": true});
    let ended = guest(
        "until [ $(awk '/MemFree/{print $2}' /proc/meminfo) -lt 80000 ]; do sleep 1; done; echo inflated=yes
         # What is here is not given up; a shell that is killed says so.
         dd if=/dev/zero of=/dev/shm/held bs=1M count=100 2>/dev/null
         wc -c </dev/shm/held | sed 's/^/held=/'
         dmesg | grep -c -i 'killed process' | sed 's/^/killed=/'
         exit 3",
    )
    .section("balloon", balloon)
    .run()
    .expect(3);
    assert_eq!(ended.value("inflated"), "yes");
    assert_eq!(ended.value("held"), "104857600");
    assert_eq!(ended.value("killed"), "0");
}

#[test]
fn fio_sees_the_limits_of_disks() {
    needs_kvm();
    announce("fio");
    // Eight requests at once, so that the limit and not the disk is the bottleneck.
    let guest = guest(
        "mount -o ro /dev/disk/by-id/virtio-fio /mnt
         fio() {
             echo $1=$(/mnt/fio --name=$1 --filename=/dev/disk/by-id/virtio-$1 --rw=$2 --bs=$3 --ioengine=io_uring \
                 --iodepth=8 --direct=1 --thread --time_based --runtime=8 \
                 --output-format=terse --terse-version=3 | cut -d ';' -f 5,8,48)
         }
         fio ops randread 4k
         fio bytes write 64k
         fio none randread 4k
         exit 3",
    );
    let disk = |guest: Guest, id: &str, limit: Value| {
        let path = guest.dir().join(format!("{id}.img"));
        std::fs::File::create(&path)
            .unwrap()
            .set_len(8 << 20)
            .unwrap();
        guest.drive(id, &path, json!({"rate_limiter": limit}))
    };
    let guest = guest.drive("fio", &image("fio.ext4"), json!({"is_read_only": true}));
    let guest = disk(
        guest,
        "ops",
        json!({"ops": {"size": 40, "refill_time": 1000}}),
    );
    let bytes = json!({"bandwidth": {"size": 1 << 20, "refill_time": 1000}});
    let guest = disk(guest, "bytes", bytes);
    let ended = disk(guest, "none", Value::Null).run().expect(3);
    // Errors, reads per second, KiB written per second.
    let seen = |id: &str| -> Vec<u64> {
        let values = ended.value(id).split(';').map(|n| n.parse().unwrap());
        values.collect()
    };
    let (ops, bytes, none) = (seen("ops"), seen("bytes"), seen("none"));
    assert_eq!((ops[0], bytes[0], none[0]), (0, 0, 0), "{}", ended.console);
    // In eight seconds: a full bucket and its refill, nine eighths of the rate. Requests in flight at the end are waited for
    // and counted, too.
    assert!((30..=52).contains(&ops[1]), "{}", ended.console);
    assert!((700..=1400).contains(&bytes[2]), "{}", ended.console);
    assert!(none[1] > 2 * ops[1], "{}", ended.console);
}

#[test]
fn limits_hold_on_disk_and_network_and_change_while_the_guest_runs() {
    needs_kvm();
    announce("limits");
    network::enter(1);
    let ops = json!({"ops": {"size": 20, "refill_time": 1000}});
    let mut guest = guest(
        "seconds() { read -r now _ </proc/uptime; echo ${now%.*}; }
         start=$(seconds)
         dd if=/dev/disk/by-id/virtio-limited of=/dev/null bs=4k count=80 iflag=direct 2>/dev/null
         echo limited=$(($(seconds) - start))
         echo change=now; until [ $(blockdev --getsize64 /dev/disk/by-id/virtio-limited) = 8388608 ]; do sleep 1; done
         start=$(seconds)
         dd if=/dev/disk/by-id/virtio-limited of=/dev/null bs=4k count=80 iflag=direct 2>/dev/null
         echo free=$(($(seconds) - start))
         start=$(seconds)
         head -c 3000000 /dev/zero | nc 10.99.0.1 7000 >/dev/null
         echo sent=$(($(seconds) - start))
         exit 3",
    )
    .api()
    .args(&network::guest_address(0));
    let image = guest.dir().join("limited.img");
    let file = std::fs::File::create(&image).unwrap();
    file.set_len(4 << 20).unwrap();
    guest = guest.drive("limited", &image, json!({"rate_limiter": ops}));
    let limit = json!({"bandwidth": {"size": 1_000_000, "refill_time": 1000}});
    let mut running = guest
        .interface_with("tap0", json!({"tx_rate_limiter": limit}))
        .start();
    let listener = std::net::TcpListener::bind((network::HOST, 7000)).unwrap();
    let sink = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::copy(&mut stream, &mut std::io::sink()).unwrap()
    });
    running.wait_for("change=now");
    running.api(
        "PATCH",
        "/drives/limited",
        json!({"drive_id": "limited", "rate_limiter": {"ops": {"size": 0, "refill_time": 0}}}),
    );
    // The guest waits for this signal.
    let file = std::fs::File::options().write(true).open(&image);
    file.unwrap().set_len(8 << 20).unwrap();
    running.api(
        "PATCH",
        "/drives/limited",
        json!({"drive_id": "limited", "path_on_host": image}),
    );
    running.more_time();
    let ended = running.wait().expect(3);
    assert_eq!(sink.join().unwrap(), 3_000_000);
    let seconds = |key: &str| -> u64 { ended.value(key).parse().unwrap() };
    // A bucket of 20, then 60 at 20 per second; a bucket of a million bytes, then two million at a million per second. The
    // uptime has whole seconds, and an emulated host may be slow, but not fast.
    assert!((2..=10).contains(&seconds("limited")), "{}", ended.console);
    assert!(seconds("free") < seconds("limited"), "{}", ended.console);
    // Actions on the guest take time, too.
    let most = if After::current().is_some() { 60 } else { 20 };
    assert!((1..=most).contains(&seconds("sent")), "{}", ended.console);
}

#[test]
fn metadata_is_served_to_curl() {
    needs_kvm();
    announce("metadata");
    network::enter(1);
    let config = json!({"network_interfaces": ["eth0"], "version": "V2"});
    let mut running = guest(
        "ip link set eth0 up; ip route add 169.254.169.254 dev eth0
         service=http://169.254.169.254/latest
         until curl -s -o /dev/null $service; do sleep 1; done; echo service=up
         echo without=$(curl -s -o /dev/null -w '%{http_code}' $service/meta-data/name)
         token=$(curl -s -X PUT -H 'X-metadata-token-ttl-seconds: 60' $service/api/token)
         get() { curl -s -H \"X-metadata-token: $token\" \"$@\"; }
         echo name=$(get $service/meta-data/name)
         echo keys=$(get $service/meta-data/)
         echo json=$(get -H 'Accept: application/json' $service/meta-data)
         echo missing=$(get -o /dev/null -w '%{http_code}' $service/nothing)
         until [ \"$(get $service/meta-data/name)\" = second ]; do sleep 1; done
         ping -c 1 -W 20 10.99.0.1 >/dev/null && echo network=still-there
         exit 3",
    )
    .only_at_the_start(&ELSEWHERE, "metadata and its tokens belong to the process")
    .api()
    .args(&network::guest_address(0))
    .interface("tap0")
    .section("mmds-config", config)
    .start();
    running.wait_for("service=up");
    let data = json!({"latest": {"meta-data": {"name": "first", "list": {"a": 1}}}});
    running.api("PUT", "/mmds", data);
    running.wait_for("missing=");
    let patch = json!({"latest": {"meta-data": {"name": "second"}}});
    running.api("PATCH", "/mmds", patch);
    running.more_time();
    let ended = running.wait().expect(3);
    assert_eq!(ended.value("without"), "401");
    assert_eq!(ended.value("name"), "first");
    assert_eq!(ended.value("keys"), "list/ name");
    assert_eq!(ended.value("json"), r#"{"list":{"a":1},"name":"first"}"#);
    assert_eq!(ended.value("missing"), "404");
    assert_eq!(ended.value("network"), "still-there");
}

fn can_be_locked(path: &Path) -> bool {
    let file = std::fs::File::options().read(true).write(true).open(path);
    let whole = nix::libc::flock {
        l_type: i16::try_from(nix::libc::F_WRLCK).unwrap(),
        l_whence: i16::try_from(nix::libc::SEEK_SET).unwrap(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    nix::fcntl::fcntl(file.unwrap(), nix::fcntl::FcntlArg::F_OFD_SETLK(&whole)).is_ok()
}

#[test]
fn a_drive_s_file_can_be_replaced() {
    needs_kvm();
    announce("drive swap");
    let guest = guest(
        "disk=/dev/disk/by-id/virtio-data
         head -c 5 $disk | sed 's/^/was=/'; echo
         echo swap=now; until [ $(blockdev --getsize64 $disk) -eq 2097152 ]; do sleep 1; done
         echo 3 >/proc/sys/vm/drop_caches
         head -c 6 $disk | sed 's/^/is=/'; echo
         exit 3",
    )
    .api();
    let image = |name: &str, text: &str, len: u64| {
        let path = guest.dir().join(name);
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.set_len(len).unwrap();
        path
    };
    let (first, second) = (image("a", "first", 1 << 20), image("b", "second", 2 << 20));
    let mut running = guest.drive("data", &first, json!({})).start();
    running.wait_for("swap=now");
    let missing = json!({"drive_id": "data", "path_on_host": "/nonexistent"}).to_string();
    let (status, answer) = running.ask("PATCH", "/drives/data", &missing);
    assert_eq!(status, 400);
    assert!(answer.contains("/nonexistent"), "{answer}");
    let change = json!({"drive_id": "data", "path_on_host": second});
    running.api("PATCH", "/drives/data", change);
    assert!(can_be_locked(&first), "it is not in use any more");
    assert!(!can_be_locked(&second));
    let ended = running.wait().expect(3);
    assert_eq!(ended.value("was"), "first");
    assert_eq!(ended.value("is"), "second");
}

#[test]
fn a_pause_stops_the_guest_and_nothing_is_lost() {
    needs_kvm();
    announce("pause");
    network::enter(1);
    let (guest, path) = with_vsock(
        guest(
            "bantam-vsock echo 5000 &
             i=0; until bantam-vsock connect 2 6000 </dev/null 2>/dev/null; do i=$((i + 1)); echo \"count $i\"
             dd if=/dev/urandom of=/dev/disk/by-id/virtio-data bs=4k seek=$((i % 100)) count=1 conv=fsync 2>/dev/null; done
             echo last=$i
             dmesg | grep -c -i 'soft lockup' | sed 's/^/lockups=/'
             ping -c 1 -W 20 10.99.0.1 >/dev/null && echo network=up
             exit 3",
        )
        .only_at_the_start(&ELSEWHERE, CUT)
        .api()
        .vcpus(2)
        .entropy()
        .args(&network::guest_address(0))
        .interface("tap0")
        .scratch("data", 1 << 20),
    );
    let mut running = guest.start();
    running.wait_for("count 5");
    let stream = dial(&path, 5000, PATIENCE);
    for round in 0..rounds(5, 50) {
        running.api("PATCH", "/vm", json!({"state": "Paused"}));
        running.api("PATCH", "/vm", json!({"state": "Paused"}));
        std::thread::sleep(Duration::from_millis(100));
        let before = running.console();
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(running.console(), before, "the guest runs on");
        let info = running.api("GET", "/", Value::Null);
        assert!(info.contains("\"Paused\""), "{info}");
        (&stream).write_all(b"across a pause\n").unwrap();
        running.api("PATCH", "/vm", json!({"state": "Resumed"}));
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        assert_eq!(line, "across a pause\n", "round {round}");
        running.more_time();
    }
    let enough = UnixListener::bind(path.with_file_name("v.sock_6000")).unwrap();
    drop(accept(&enough, &running, PATIENCE));
    let ended = running.wait().expect(3);
    let counts = ended
        .console
        .lines()
        .filter_map(|line| line.strip_prefix("count "));
    let counts: Vec<u32> = counts.map(|n| n.trim_end().parse().unwrap()).collect();
    let last = ended.value("last").parse().unwrap();
    let all: Vec<_> = (1..=last).collect();
    assert_eq!(counts, all, "lines were lost or repeated");
    assert_eq!(ended.value("lockups"), "0");
    assert_eq!(ended.value("network"), "up");
}

#[test]
fn the_power_button_shuts_the_guest_down() {
    needs_kvm();
    announce("power button");
    let mut running = guest(
        "for device in /sys/class/input/event*; do
             grep -q 'Power Button' $device/device/name && event=/dev/input/${device##*/}
         done
         echo button=${event:-none}
         dd if=$event of=/dev/null bs=24 count=1 2>/dev/null; echo button=pressed
         poweroff -f; sleep 60",
    )
    .api()
    .start();
    running.wait_for("button=/dev/input");
    running.run_for(Duration::from_secs(1));
    running.api("PUT", "/actions", json!({"action_type": "PowerButton"}));
    let ended = running.wait().expect(0);
    assert!(
        ended.console.contains("button=pressed"),
        "{}",
        ended.console
    );
}

#[test]
fn ctrl_alt_del_reaches_a_stock_kernel() {
    needs_kvm();
    announce("ctrl-alt-del");
    // The generic kernel has a keyboard driver. No init listens, so the kernel itself reboots.
    let mut running = Guest::new("generic", "vmlinuz")
        .root("generic")
        .script(
            "modprobe -a i8042 atkbd; echo 1 >/proc/sys/kernel/ctrl-alt-del
             until grep -q -i keyboard /proc/bus/input/devices; do sleep 1; done
             echo keyboard=there; sleep 100; exit 9",
        )
        .api()
        .start();
    running.wait_for("keyboard=there");
    running.api("PUT", "/actions", json!({"action_type": "SendCtrlAltDel"}));
    running.wait().expect(0);
}

#[test]
fn a_reboot_boots_the_guest_again_in_the_same_process() {
    needs_kvm();
    announce("reboot in place");
    network::enter(1);
    let (guest, path) = with_vsock(
        guest(
            "disk=/dev/disk/by-id/virtio-data
             bantam-vsock echo 5000 &
             ping -c 1 -W 20 10.99.0.1 >/dev/null && echo network=up
             boots=$(head -c 1 $disk | tr -d '\\000'); echo boots=${boots:-0}
             [ \"$boots\" != 2 ] || { sleep 2; exit 42; }
             echo $((${boots:-0} + 1)) | dd of=$disk conv=fsync 2>/dev/null
             reboot -f; sleep 60",
        )
        .only_at_the_start(&ELSEWHERE, "the guest must start again in the same process")
        .api()
        .machine(json!({"on_reboot": "restart"}))
        .args(&network::guest_address(0))
        .interface("tap0")
        .scratch("data", 1 << 20),
    );
    let mut running = guest.start();
    running.wait_for("boots=1");
    let pid = running.child.id();
    running.more_time();
    running.wait_for("boots=2");
    echoes(&dial(&path, 5000, PATIENCE), 1000);
    assert_eq!(running.child.id(), pid);
    let ended = running.wait().expect(42);
    assert_eq!(ended.console.matches("network=up").count(), 3);
}

#[test]
fn clients_attach_to_the_console() {
    needs_kvm();
    announce("console socket");
    let guest = guest("echo before=attached; read -r line </dev/console; echo got=$line; exit 3")
        .not_after(&ELSEWHERE, "the console's socket belongs to the process");
    let socket = guest.dir().join("console.sock");
    let mut running = guest.section("serial", json!({"socket": socket})).start();
    running.wait_for("before=attached");
    let mut stream = patient(UnixStream::connect(&socket).unwrap(), PATIENCE);
    let mut seen = String::new();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while !seen.contains("before=attached") {
        assert!(reader.read_line(&mut seen).unwrap() > 0, "{seen}");
    }
    stream.write_all(b"typed there\n").unwrap();
    while !seen.contains("got=typed there") {
        assert!(reader.read_line(&mut seen).unwrap() > 0, "{seen}");
    }
    running.wait().expect(3);
}
