//! How guests end and which status the shell sees; the console with and without a terminal.

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

use harness::{Guest, announce, bantam, needs_kvm, payload};
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use serde_json::json;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn ends(script: &str, status: i32) -> harness::Ended {
    needs_kvm();
    announce(script);
    Guest::cloud().script(script).run().expect(status)
}

#[test]
fn power_off_ends_with_status_0() {
    ends("poweroff -f; sleep 60", 0);
}

#[test]
fn reboot_ends_with_status_0() {
    ends("reboot -f; sleep 60", 0);
}

#[test]
fn a_triple_fault_is_a_reset() {
    // lidt with an empty table, then int3.
    let code = [0x0f, 0x01, 0x1c, 0x25, 0, 0, 0, 0, 0xcc];
    bare(&code).expect(0);
}

#[test]
fn the_status_of_a_script_is_the_monitor_s() {
    ends("exit 99", 99);
}

#[test]
fn a_panic_ends_with_status_160() {
    let ended = ends("echo c >/proc/sysrq-trigger; sleep 60", 160);
    assert!(ended.console.contains("Kernel panic"), "{}", ended.console);
}

fn bare(code: &[u8]) -> harness::Ended {
    let dir = tempfile::tempdir().unwrap();
    let kernel = payload::write(dir.path(), code);
    Guest::bare(&kernel).mem_mib(32).run()
}

#[test]
fn a_payload_sets_statuses_from_3_to_127_only() {
    for status in [3, 42, 127] {
        bare(&payload::exit(status)).expect(status.into());
    }
    // Other statuses are ignored, so the next one counts.
    let mut code = Vec::new();
    for status in [0, 2, 128, 152, 255] {
        code.extend([0xb0, status, 0xe6, 0xf4]);
    }
    code.extend(payload::exit(5));
    bare(&code).expect(5);
}

#[test]
fn code_kvm_cannot_run_is_an_internal_error() {
    // mov eax, 0xd0000000; jmp rax: an address without memory or device.
    let ended = bare(&[0xb8, 0, 0, 0, 0xd0, 0xff, 0xe0]).expect(162);
    assert!(
        ended.messages.contains("internal error"),
        "{}",
        ended.messages
    );
}

#[test]
fn output_reaches_a_pipe_and_no_input_is_needed() {
    let mut code = payload::print("hello\n");
    code.extend(payload::exit(9));
    assert_eq!(bare(&code).expect(9).console, "hello\n");
}

/// A payload that echoes its input: waits for LSR bit 0, in, out.
fn echo() -> Vec<u8> {
    vec![
        0x66, 0xba, 0xfd, 0x03, // mov dx, 0x3fd
        0xec, 0xa8, 0x01, 0x74, 0xf7, // in al, dx; test al, 1; jz back to the mov
        0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xec, 0xee, // in al, dx; out dx, al
        0xeb, 0xef, // jmp to the start
    ]
}

#[test]
fn input_from_a_pipe_reaches_the_guest_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let guest = Guest::bare(&payload::write(dir.path(), &echo())).mem_mib(32);
    let mut child = Command::new(bantam())
        .args(["--no-api", "--config-file"])
        .arg(guest.write_config())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let sent = b"typed \x01x ahead";
    child.stdin.take().unwrap().write_all(sent).unwrap();
    let mut got = vec![0; sent.len()];
    child.stdout.as_mut().unwrap().read_exact(&mut got).unwrap();
    assert_eq!(got, sent);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The monitor on a terminal of its own.
struct OnTerminal {
    child: std::process::Child,
    master: File,
    slave: File,
    _guest: Guest,
}

impl OnTerminal {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let guest = Guest::bare(&payload::write(dir.path(), &echo())).mem_mib(32);
        let config = guest.write_config();
        let pty = openpty(None, None).unwrap();
        let (master, slave) = (File::from(pty.master), File::from(pty.slave));
        // `setsid -c` makes the terminal the session's, with the monitor in the foreground.
        let child = Command::new("setsid")
            .args(["-c", bantam(), "--no-api", "--config-file"])
            .arg(config)
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(slave.try_clone().unwrap())
            .spawn()
            .unwrap();
        let this = Self {
            child,
            master,
            slave,
            _guest: guest,
        };
        this.wait_raw(true);
        this
    }

    fn is_raw(&self) -> bool {
        let flags = tcgetattr(&self.slave).unwrap().local_flags;
        !flags.contains(LocalFlags::ICANON)
    }

    fn wait_raw(&self, raw: bool) {
        let start = Instant::now();
        while self.is_raw() != raw {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "raw is not {raw}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn type_keys(&mut self, keys: &[u8]) {
        self.master.write_all(keys).unwrap();
    }
}

#[test]
fn a_terminal_is_raw_and_ctrl_a_x_quits() {
    let mut on = OnTerminal::start();
    on.type_keys(b"a\x01\x01b");
    let mut echoed = [0; 3];
    on.master.read_exact(&mut echoed).unwrap();
    assert_eq!(&echoed, b"a\x01b");
    on.type_keys(b"\x01x");
    assert_eq!(on.child.wait().unwrap().code(), Some(0));
    assert!(!on.is_raw(), "the terminal is left raw");
}

#[test]
fn a_signal_restores_the_terminal_and_ends_with_its_status() {
    use std::os::unix::process::ExitStatusExt as _;
    for (signal, status) in [
        (Signal::SIGTERM, None),
        (Signal::SIGINT, None),
        (Signal::SIGBUS, Some(149)),
        (Signal::SIGSEGV, Some(150)),
        (Signal::SIGXFSZ, Some(151)),
        (Signal::SIGXCPU, Some(154)),
        (Signal::SIGHUP, Some(156)),
        (Signal::SIGILL, Some(157)),
    ] {
        let mut on = OnTerminal::start();
        let pid = i32::try_from(on.child.id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
        let ended = on.child.wait().unwrap();
        assert_eq!(ended.code(), status, "{signal}");
        let killed = status.is_none().then_some(signal as i32);
        assert_eq!(ended.signal(), killed, "{signal}");
        assert!(!on.is_raw(), "{signal} leaves the terminal raw");
    }
}

#[test]
fn without_a_terminal_sigterm_kills() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = payload::write(dir.path(), &echo());
    let running = Guest::bare(&kernel).mem_mib(32).start();
    std::thread::sleep(Duration::from_millis(300));
    let pid = i32::try_from(running.child.id()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    running.wait().expect(-(Signal::SIGTERM as i32));
}

/// A guest that resets in a loop: each machine is freed before the next is built, and after five resets the next waits.
#[test]
fn a_guest_that_resets_in_a_loop_is_delayed_and_leaks_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut code = payload::print("x");
    // mov al, 0xfe; out 0x64, al; jmp $: a reset through the keyboard controller.
    code.extend([0xb0, 0xfe, 0xe6, 0x64, 0xeb, 0xfe]);
    let kernel = payload::write(dir.path(), &code);
    let mut running = Guest::bare(&kernel)
        .mem_mib(32)
        .scratch("data", 1 << 20)
        .machine(json!({"on_reboot": "restart"}))
        .api()
        .start();
    // Nothing is created or freed while the guest waits.
    let count = |running: &mut harness::Running, lives| {
        running.wait_for(&"x".repeat(lives));
        running.wait_for_messages(&format!("it starts again in {} s", 1 << (lives - 6)), 1);
        std::thread::sleep(Duration::from_millis(100));
        let count = |what| fs::read_dir(format!("/proc/{}/{what}", running.child.id()));
        ["fd", "task"].map(|what| count(what).map_or(0, Iterator::count))
    };
    let first = count(&mut running, 6);
    assert!(first[0] > 0 && first[1] > 0);
    assert_eq!(count(&mut running, 8), first, "descriptors and threads");
    assert_eq!(running.console(), "x".repeat(8));
    // The API answers meanwhile, and commands have an effect.
    running.api("PATCH", "/vm", json!({"state": "Paused"}));
    let update =
        json!({"drive_id": "data", "rate_limiter": {"ops": {"size": 1, "refill_time": 1}}});
    running.api("PATCH", "/drives/data", update);
    running.api("PATCH", "/vm", json!({"state": "Resumed"}));
    assert_eq!(running.console(), "x".repeat(8));
    running.api("PATCH", "/vm", json!({"state": "Paused"}));
    running.wait_for_messages("the guest was started", 9);
    assert_eq!(running.console(), "x".repeat(8));
    running.api("PATCH", "/vm", json!({"state": "Resumed"}));
    running.wait_for(&"x".repeat(9));
}
