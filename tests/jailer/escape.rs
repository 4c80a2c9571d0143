//! Escapes from a jail, attempted by a program in the monitor's place (escape.c): as an ordinary user and as root, with
//! and without a user namespace, at a terminal and without Landlock.

use crate::harness::sh;
use crate::world::{GID, PATIENCE, UID, World, contains, expect, jailer, output};
use nix::libc;
use serde_json::json;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Another guest's user.
const OTHER: u32 = 31999;
const SOCKET: &str = "bantam-test-escape";
const KEY: &str = "bantam-test-secret";
/// Least number of attempts; fewer mean that the program ended early.
const ATTEMPTS: usize = 95;

/// A way in which the jailer starts the program.
#[derive(Clone, Copy, Debug)]
struct Way {
    uid: u32,
    flags: &'static [&'static str],
    /// Whether the jailer may use Landlock, if the kernel has it.
    landlock: bool,
    /// True to start the jailer at a terminal.
    terminal: bool,
}

const PLAIN: Way = Way {
    uid: UID,
    flags: &[],
    landlock: true,
    terminal: false,
};

impl Way {
    fn gid(&self) -> u32 {
        if self.uid == 0 { 0 } else { GID }
    }

    fn is_superuser_outside(&self) -> bool {
        self.uid == 0
    }

    /// Returns whether `attempt` may succeed: it reaches only the guest's own things, or only a newer Landlock than
    /// version `landlock` prevents it.
    fn is_harmless(&self, attempt: &str, landlock: i64) -> bool {
        let (what, whom) = attempt.rsplit_once('-').unwrap_or((attempt, ""));
        // Processes of the same user; with `--uid auto` no two guests have the same.
        let same = whom == "same" || whom == "init" && self.is_superuser_outside();
        match what {
            "kill" | "tgkill" | "pidfd-signal" if same => landlock < 6,
            "ptrace" | "read-memory" | "pidfd-getfd" if same => landlock < 1,
            "prlimit" | "renice" if same => true,
            "tcp" => landlock < 4,
            "abstract" => landlock < 6,
            "exec" => landlock < 1,
            // The jail's own names, its copy of the program, and a file that root does not trust.
            "own" => self.is_superuser_outside(),
            "write" => self.is_superuser_outside() && whom == "self",
            "write-pid" => self.is_superuser_outside(),
            // It is that user already, without privileges, here or in its namespace.
            "exec-set" => self.is_superuser_outside() || !self.flags.is_empty(),
            _ => false,
        }
    }
}

/// A process that ends with the test.
struct Victim(Child);

impl Victim {
    fn of(uid: u32, gid: u32) -> Self {
        let mut command = Command::new("sleep");
        command.arg("600").uid(uid).gid(gid).stdin(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn compile(to: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/jailer/escape.c");
    let mut command = Command::new("cc");
    command.args(["-static", "-O1", "-Wall", "-Werror", "-Wno-unused-result"]);
    command.args(["-Wno-stringop-truncation", "-o"]).arg(to);
    assert!(command.arg(source).status().unwrap().success());
}

/// Adds a key to a new session keyring of this thread, as a login with a ticket does.
#[expect(unsafe_code, reason = "keyrings have no wrapper")]
fn plant_key() {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    const SESSION_KEYRING: libc::c_int = -3;
    let (kind, name) = (c"user", std::ffi::CString::new(KEY).unwrap());
    // SAFETY: the arguments are strings and a buffer that live until the calls return.
    let key = unsafe {
        let none = std::ptr::null::<libc::c_char>();
        libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, none);
        let (kind, name) = (kind.as_ptr(), name.as_ptr());
        libc::syscall(libc::SYS_add_key, kind, name, name, 6, SESSION_KEYRING)
    };
    assert!(key > 0, "{}", std::io::Error::last_os_error());
}

/// Runs the program; returns its output, a line for each attempt.
fn attempts(world: &World, way: Way) -> String {
    let (same, other) = (Victim::of(way.uid, way.gid()), Victim::of(OTHER, OTHER));
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = SocketAddr::from_abstract_name(SOCKET).unwrap();
    // A process that another test forked has the former listener open until its exec.
    let started = Instant::now();
    let _listening = loop {
        match UnixListener::bind_addr(&name) {
            Err(e) if started.elapsed() > PATIENCE => panic!("{e}"),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
            Ok(listener) => break listener,
        }
    };
    let root = root(world);
    let mut words: Vec<String> = Vec::new();
    if !way.landlock {
        let inject = "inject=landlock_create_ruleset:error=EOPNOTSUPP";
        let strace = [
            "strace",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=landlock_create_ruleset",
            "-e",
        ];
        words.extend(strace.map(str::to_owned));
        words.push(inject.into());
    }
    words.push(jailer().display().to_string());
    for (flag, value) in [
        ("--id", "g1".to_owned()),
        ("--exec-file", world.path("escape").display().to_string()),
        ("--uid", way.uid.to_string()),
        ("--gid", way.gid().to_string()),
        (
            "--chroot-base-dir",
            world.path("base").display().to_string(),
        ),
        ("--config-file", world.path("vm.json").display().to_string()),
    ] {
        words.extend([flag.to_owned(), value]);
    }
    words.extend(way.flags.iter().map(|&flag| flag.to_owned()));
    words.push("--".into());
    for (key, value) in [
        ("self", "escape".to_owned()),
        ("pid-file", "/escape.pid".into()),
        ("same", same.0.id().to_string()),
        ("other", other.0.id().to_string()),
        ("port", port.local_addr().unwrap().port().to_string()),
        ("socket", SOCKET.into()),
        ("key", KEY.into()),
    ] {
        words.push(format!("{key}={value}"));
    }
    // A client's setuid file.
    fs::create_dir_all(&root).unwrap();
    fs::copy(world.path("escape"), root.join("suid")).unwrap();
    fs::set_permissions(root.join("suid"), fs::Permissions::from_mode(0o4755)).unwrap();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    if way.terminal {
        command = Command::new("script");
        command.args(["-q", "-e", "-c", &words.join(" "), "/dev/null"]);
    }
    let ended = output(command.stdin(Stdio::null()));
    let said = String::from_utf8_lossy(&ended.stdout).replace('\r', "");
    expect(&ended, 0);
    contains(&said, &["done"]);
    said
}

fn root(world: &World) -> PathBuf {
    world.path("base/escape/g1/root")
}

/// Returns the state that the guest must not change: contents, modes, owners, times.
fn of_others(world: &World) -> String {
    let mut text = String::new();
    for name in ["escape", "up", "ro.img"] {
        let m = fs::metadata(world.path(name)).unwrap();
        let sum = sh(&format!("sha256sum {}", world.path(name).display()));
        text += &format!(
            "{sum} {:o} {} {} {}\n",
            m.mode(),
            m.uid(),
            m.gid(),
            m.mtime()
        );
    }
    text
}

fn try_out(ways: &[Way]) {
    let world = World::new();
    sh(&format!(
        "ip link set lo up; ip tuntap add other0 mode tap user {OTHER}"
    ));
    compile(&world.path("escape"));
    plant_key();
    fs::write(world.path("ro.img"), vec![1; 512]).unwrap();
    let before = of_others(&world);
    let mut wrong = Vec::new();
    for way in ways {
        let image = format!("{}.img", way.uid);
        world.config(
            "up",
            &json!({
                "drives": [world.drive("root", &image, &json!({"size_mib": 1})),
                           world.drive("fixed", "ro.img", &json!({"is_read_only": true}))],
                "network-interfaces": [
                    {"iface_id": "eth0", "host_dev_name": "tap0", "bridge": "br0"}],
            }),
        );
        let said = attempts(&world, *way);
        let (mut count, mut landlock) = (0, 0);
        for line in said.lines() {
            if let Some(version) = line.strip_prefix("landlock is ") {
                landlock = version.trim().parse().unwrap_or(-1).max(0);
                if !way.landlock {
                    landlock = 0;
                }
            }
            let words: Vec<_> = line.splitn(3, ' ').collect();
            match words[..] {
                [_, "refused", _] => count += 1,
                [attempt, "through", _] if way.is_harmless(attempt, landlock) => {
                    // Shows which attempts this kernel cannot refuse.
                    eprintln!("{way:?}: not refused by this kernel: {line}");
                    count += 1;
                }
                [_, "through", _] => wrong.push(format!("{way:?}: {line}")),
                _ => {}
            }
        }
        assert!(
            count + wrong.len() >= ATTEMPTS,
            "only {count} attempts:\n{said}"
        );
        assert_eq!(of_others(&world), before, "{way:?}");
        fs::remove_dir_all(world.path("base/escape")).unwrap();
    }
    assert!(wrong.is_empty(), "got through:\n{}", wrong.join("\n"));
}

#[test]
fn a_guest_s_user_cannot_escape() {
    try_out(&[
        PLAIN,
        Way {
            landlock: false,
            ..PLAIN
        },
    ]);
}

#[test]
fn root_without_privileges_cannot_escape() {
    let root = Way { uid: 0, ..PLAIN };
    try_out(&[
        root,
        Way {
            landlock: false,
            ..root
        },
    ]);
}

#[test]
fn root_of_a_user_namespace_cannot_escape() {
    let flags: &[&str] = &["--new-user-ns"];
    let inside = Way { flags, ..PLAIN };
    let both = Way { uid: 0, ..inside };
    try_out(&[
        inside,
        Way {
            landlock: false,
            ..inside
        },
        both,
        Way {
            landlock: false,
            ..both
        },
    ]);
}

#[test]
fn a_guest_cannot_insert_input_at_its_terminal() {
    try_out(&[
        Way {
            terminal: true,
            ..PLAIN
        },
        Way {
            terminal: true,
            landlock: false,
            ..PLAIN
        },
    ]);
}

#[test]
fn a_directory_as_a_standard_stream_is_refused() {
    let world = World::new();
    world.config("exit", &json!({}));
    let before = world.state();
    let mut command = world.jailer("g1");
    command.arg("--config-file").arg(world.path("vm.json"));
    let ended = command.stdin(File::open("/").unwrap()).output().unwrap();
    contains(&expect(&ended, 152), &["standard input: is a directory"]);
    assert_eq!(world.state(), before);
}
