//! The process as clients see it: exit statuses, standard output, names, messages and metrics.

use crate::monitor::{Monitor, PATIENCE, kernel, said_by_guest, starts_with_time, wait_until};
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn pid(monitor: &Monitor) -> Pid {
    Pid::from_raw(monitor.child.id().try_into().unwrap())
}

#[test]
fn a_guest_that_resets_at_ctrl_alt_del_ends_with_0_and_the_expected_messages() {
    let monitor = Monitor::running();
    let body = r#"{"action_type": "SendCtrlAltDel"}"#;
    monitor.client().put("/actions", body).expect(204);
    let (status, stdout) = monitor.wait();
    assert_eq!(status, 0, "{stdout}");
    let mut rest = stdout.as_str();
    for text in [
        "Running Firecracker",
        "Vmm is stopping",
        "Firecracker exiting successfully",
    ] {
        let at = rest
            .find(text)
            .unwrap_or_else(|| panic!("no {text} where it should be in {stdout}"));
        rest = &rest[at..];
    }
    let said = said_by_guest(&stdout);
    assert!(said.contains("reset by the keyboard\n"), "{stdout}");
}

#[test]
fn fatal_signals_have_the_expected_statuses() {
    for (signal, status) in [
        (Signal::SIGHUP, 156),
        (Signal::SIGTERM, -15),
        (Signal::SIGINT, -2),
        (Signal::SIGQUIT, -3),
    ] {
        let monitor = Monitor::running();
        kill(pid(&monitor), signal).unwrap();
        assert_eq!(monitor.wait().0, status, "{signal}");
    }
}

#[test]
fn bad_arguments_end_with_153_and_a_bad_configuration_with_152() {
    for arguments in [
        &["--no-such-flag"][..],
        &["--id", "a_b"],
        &["--no-api"],
        &["--level", "loud"],
    ] {
        let monitor = Monitor::with(|command, _| {
            command.args(arguments);
        });
        assert_eq!(monitor.wait().0, 153, "{arguments:?}");
    }
    for config in [
        "{",
        "{}",
        r#"{"boot-source": {"kernel_image_path": "/nope"}, "drives": []}"#,
    ] {
        let monitor = Monitor::with(|command, dir| {
            fs::write(dir.join("vm.json"), config).unwrap();
            command.arg("--config-file").arg(dir.join("vm.json"));
        });
        assert_eq!(monitor.wait().0, 152, "{config}");
    }
}

#[test]
fn the_first_line_of_version_can_be_parsed_by_clients() {
    let output = Command::new(env!("CARGO_BIN_EXE_bantam"))
        .arg("--version")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let version = text
        .lines()
        .next()
        .unwrap()
        .strip_prefix("Firecracker v")
        .unwrap();
    let numbers: Vec<u32> = version.split('.').map(|n| n.parse().unwrap()).collect();
    assert!(numbers.len() == 3 && numbers >= vec![1, 16, 0], "{version}");
    assert!(
        text.lines().nth(1).unwrap().starts_with("Bantam v"),
        "{text}"
    );
    let monitor = Monitor::start();
    let answer = monitor.client().get("/version");
    assert_eq!(answer.json()["firecracker_version"], version);
}

#[test]
fn an_existing_socket_is_not_replaced() {
    let first = Monitor::start();
    first.client().get("/").expect(200);
    let socket = first.dir().join("api.sock");
    let second = Command::new(env!("CARGO_BIN_EXE_bantam"))
        .arg("--api-sock")
        .arg(socket)
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("api.sock"));
    first.client().get("/").expect(200);
}

#[test]
fn the_process_and_its_threads_have_the_expected_names() {
    let monitor = Monitor::running();
    let task = format!("/proc/{}/task", monitor.child.id());
    let mut names: Vec<String> = fs::read_dir(task)
        .unwrap()
        .map(|entry| {
            fs::read_to_string(entry.unwrap().path().join("comm"))
                .unwrap()
                .trim()
                .into()
        })
        .collect();
    names.sort();
    for name in ["firecracker", "fc_api", "fc_vcpu 0"] {
        assert!(names.iter().any(|n| n == name), "no {name} in {names:?}");
    }
}

#[test]
fn the_console_accepts_input() {
    let mut monitor = Monitor::with(|command, _| {
        command.stdin(Stdio::piped());
    });
    monitor.boot();
    let mut input = monitor.child.stdin.take().unwrap();
    input.write_all(b"ab").unwrap();
    monitor.wait_for("RX:a");
    monitor.wait_for("RX:b");
}

#[test]
fn a_configuration_file_starts_the_guest_with_an_api() {
    let monitor = Monitor::with(|command, dir| {
        let config = json!({
            "boot-source": {"kernel_image_path": kernel(), "boot_args": "console=ttyS0 of-the-file"},
            "drives": [],
            "network-interfaces": null,
            "mmds-config": null,
            "surplus": 1,
        });
        fs::write(dir.join("vm.json"), config.to_string()).unwrap();
        fs::write(dir.join("metadata"), r#"{"a": 1}"#).unwrap();
        command.arg("--config-file").arg(dir.join("vm.json"));
        command.arg("--metadata").arg(dir.join("metadata"));
        command.args(["--id", "web-1"]);
    });
    monitor.wait_for("of-the-file");
    let mut client = monitor.client();
    let instance = client.get("/").json();
    assert_eq!(
        (&instance["id"], &instance["state"]),
        (&json!("web-1"), &json!("Running"))
    );
    assert_eq!(client.get("/mmds").json(), json!({"a": 1}));
}

/// Fails unless `line` is `YYYY-MM-DDTHH:MM:SS.nnnnnnnnn [ID:THREAD:LEVEL:FILE:LINE] text`, with as many of the last three
/// parts as are `shown`.
fn check_message(line: &str, id: &str, shown: usize) {
    let form = || format!("a message of another form: {line:?}");
    let (time, rest) = line
        .split_at_checked(29)
        .unwrap_or_else(|| panic!("{}", form()));
    assert!(starts_with_time(time), "{}", form());
    let place = rest
        .strip_prefix(" [")
        .and_then(|rest| rest.split_once("] "));
    let (place, text) = place.unwrap_or_else(|| panic!("{}", form()));
    let parts: Vec<&str> = place.split(':').collect();
    assert_eq!((parts[0], parts.len()), (id, 2 + shown), "{}", form());
    assert!(
        ["main", "fc_api", "fc_vcpu 0"].contains(&parts[1]),
        "{}",
        form()
    );
    if shown > 0 {
        assert!(
            ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&parts[2]),
            "{}",
            form()
        );
    }
    if shown > 1 {
        assert!(
            parts[3].ends_with(".rs") && parts[4].parse::<u32>().is_ok(),
            "{}",
            form()
        );
    }
    assert!(!text.is_empty(), "{}", form());
}

/// Creates a FIFO and opens it for reading before it has a writer.
fn fifo(path: &Path) -> File {
    mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    open(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty())
        .unwrap()
        .into()
}

/// Waits for `count` complete lines from `fifo` and returns them.
fn lines_of(fifo: &mut File, count: usize) -> Vec<String> {
    let mut text = String::new();
    wait_until("lines in a FIFO", || {
        let mut chunk = [0; 65536];
        match fifo.read(&mut chunk) {
            Ok(len) => text.push_str(std::str::from_utf8(&chunk[..len]).unwrap()),
            Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::WouldBlock),
        }
        (text.ends_with('\n') && text.lines().count() >= count).then_some(())
    });
    text.lines().map(ToOwned::to_owned).collect()
}

#[test]
fn messages_have_the_format_that_clients_parse() {
    let monitor = Monitor::with(|command, _| {
        command.args(["--id", "web-1"]);
    });
    let mut client = monitor.client();
    client.get("/").expect(200);
    for line in monitor.read("stdout").lines() {
        check_message(line, "web-1", 0);
    }
    let log = monitor.path("log");
    let logger =
        json!({"log_path": log, "level": "Info", "show_level": true, "show_log_origin": true});
    client.put("/logger", &logger.to_string()).expect(204);
    client.get("/version").expect(200);
    client.get("/nope").expect(400);
    // Some messages arrive after the answer.
    wait_until("messages", || {
        (monitor.read("log").lines().count() >= 4).then_some(())
    });
    let text = monitor.read("log");
    for line in text.lines() {
        check_message(line, "web-1", 3);
    }
    assert!(
        text.contains("received a GET request on \"/version\""),
        "{text}"
    );

    let monitor = Monitor::with(|command, dir| {
        command
            .arg("--log-path")
            .arg(dir.join("log"))
            .args(["--show-level", "--level", "Debug"]);
    });
    monitor.client().get("/").expect(200);
    wait_until("messages", || {
        (monitor.read("log").lines().count() >= 3).then_some(())
    });
    monitor
        .read("log")
        .lines()
        .for_each(|line| check_message(line, "anonymous-instance", 1));
    assert_eq!(monitor.read("stdout"), "");
}

#[test]
fn messages_and_metrics_go_to_fifos() {
    let mut ends = None;
    let monitor = Monitor::with(|command, dir| {
        ends = Some((fifo(&dir.join("log")), fifo(&dir.join("metrics"))));
        command.arg("--log-path").arg(dir.join("log"));
        command.arg("--metrics-path").arg(dir.join("metrics"));
    });
    let (mut log, mut metrics) = ends.unwrap();
    monitor.boot();
    for line in lines_of(&mut log, 3) {
        check_message(&line, "anonymous-instance", 0);
    }
    lines_of(&mut metrics, 1);
    monitor
        .client()
        .put("/actions", r#"{"action_type": "FlushMetrics"}"#)
        .expect(204);
    for line in lines_of(&mut metrics, 1) {
        assert!(serde_json::from_str::<Value>(&line).unwrap().is_object());
    }
    // Without a reader, no writer is delayed.
    drop((log, metrics));
    let mut client = monitor.client();
    client.get("/").expect(200);
    client.put("/actions", r#"{"action_type": "FlushMetrics"}"#);
    client.get("/").expect(200);
}

#[test]
fn an_unread_pipe_stops_the_guest_and_nothing_else() {
    let (mut output, end) = std::io::pipe().unwrap();
    // The pipe is soon full: the kernel says so when its second page is started.
    fcntl(&end, FcntlArg::F_SETPIPE_SZ(8192)).unwrap();
    let mut monitor = Monitor::with(|command, dir| {
        command
            .stdout(end.try_clone().unwrap())
            .stdin(Stdio::piped());
        command.arg("--metrics-path").arg(dir.join("metrics"));
    });
    let (mut client, mut listener) = (monitor.client(), monitor.client());
    listener.send(b"GET /events HTTP/1.1\r\n\r\n");
    assert_eq!(listener.head().0, 200);
    monitor.start_guest();

    let is_full = || {
        poll(
            &mut [PollFd::new(end.as_fd(), PollFlags::POLLOUT)],
            PollTimeout::ZERO,
        ) == Ok(0)
    };
    let mut count = || client.count("bantam_uart_write_count");
    let mut written = 0;
    wait_until("a guest that stands", || {
        let before = std::mem::replace(&mut written, count());
        std::thread::sleep(Duration::from_millis(100));
        (is_full() && written == before).then_some(())
    });
    let mut input = monitor.child.stdin.take().unwrap();
    // The input is lost, because the port waits with the guest, and nothing waits for the port.
    input.write_all(b"typed").unwrap();
    for state in ["Paused", "Resumed", "Paused", "Resumed"] {
        let body = json!({"state": state}).to_string();
        client.patch("/vm", &body).expect(204);
        let shown = client.get("/").json()["state"].clone();
        assert_eq!(
            shown,
            if state == "Paused" {
                "Paused"
            } else {
                "Running"
            }
        );
    }
    client
        .put("/actions", r#"{"action_type": "FlushMetrics"}"#)
        .expect(204);
    assert!(monitor.read("metrics").lines().count() >= 2);
    for event in ["started", "paused", "resumed", "paused", "resumed"] {
        let line: Value = serde_json::from_str(&listener.line()).unwrap();
        assert_eq!(line["event"], event, "{line}");
    }
    std::thread::sleep(Duration::from_secs(1));
    let after = client.count("bantam_uart_write_count");
    // One byte for each resume, and what KVM collected.
    assert!(after - written < 100, "{written} bytes, then {after}");

    // No output is lost, and the guest continues when somebody reads.
    let (mut text, mut said) = (Vec::new(), String::new());
    let deadline = Instant::now() + PATIENCE;
    while !said.contains("RX:!\n") {
        assert!(Instant::now() < deadline, "{said}");
        let mut chunk = [0; 4096];
        let len = output.read(&mut chunk).unwrap();
        text.extend_from_slice(&chunk[..len]);
        said = said_by_guest(&String::from_utf8_lossy(&text));
        if said.len() as u64 > after {
            input.write_all(b"!").unwrap();
        }
    }
    let ticks = said.lines().filter_map(|line| line.strip_prefix("tick "));
    let mut ticks: Vec<_> = ticks.map(|n| u64::from_str_radix(n, 16)).collect();
    // The output may end within a line.
    ticks.pop();
    let whole = (1..=ticks.len() as u64).map(Ok);
    assert!(ticks.into_iter().eq(whole), "{said}");
}
