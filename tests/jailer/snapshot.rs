//! Guests that continue in a jail: from a snapshot, or as copies of other guests.

use crate::harness::fault_handler::Handler;
use crate::harness::{bantam, http, payload};
use crate::world::{PATIENCE, Running, World};
use serde_json::{Value, json};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Writes a kernel that prints again and again that it is up.
pub fn chatty(dir: &Path) {
    let mut code = payload::print("up\n");
    // mov ecx, 200000; loop $; jmp to the start.
    code.extend([0xb9, 0x40, 0x0d, 0x03, 0x00, 0xe2, 0xfe, 0xe9]);
    let back = -i32::try_from(code.len() + 4).unwrap();
    code.extend(back.to_le_bytes());
    fs::rename(payload::write(dir, &code), dir.join("chatty")).unwrap();
}

fn ask(socket: &Path, method: &str, path: &str, body: &Value) {
    let (status, answer) = http::ask(socket, method, path, &body.to_string());
    assert_eq!(status, 204, "{method} {path}: {answer}");
}

/// Starts a guest without a jail that can be copied; returns the path of its API.
fn parent(world: &World) -> (Running, PathBuf) {
    chatty(world.dir.path());
    let socket = world.path("api.sock");
    let child = Command::new(bantam())
        .arg("--api-sock")
        .arg(&socket)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn();
    let parent = Running(child.unwrap());
    let kernel = json!({"kernel_image_path": world.path("chatty")});
    ask(&socket, "PUT", "/boot-source", &kernel);
    let machine = json!({"vcpu_count": 1, "mem_size_mib": 32, "forkable": true});
    ask(&socket, "PUT", "/machine-config", &machine);
    let start = json!({"action_type": "InstanceStart"});
    ask(&socket, "PUT", "/actions", &start);
    (parent, socket)
}

/// Saves such a guest into `state` and `memory`.
fn save(world: &World) {
    let (parent, socket) = parent(world);
    ask(&socket, "PATCH", "/vm", &json!({"state": "Paused"}));
    let create =
        json!({"snapshot_path": world.path("state"), "mem_file_path": world.path("memory")});
    ask(&socket, "PUT", "/snapshot/create", &create);
    drop(parent);
}

/// Fails unless a guest writes to the file `said`.
fn runs_on(said: &Path) {
    let started = Instant::now();
    while !fs::read_to_string(said).unwrap().contains("up\n") {
        assert!(started.elapsed() < PATIENCE, "it does not go on");
        std::thread::yield_now();
    }
}

#[test]
fn a_guest_continues_in_a_jail_from_a_snapshot_on_the_command_line() {
    let world = World::new();
    save(&world);
    let snapshot = world.root("copy").join("snap");
    fs::create_dir_all(&snapshot).unwrap();
    for name in ["state", "memory"] {
        fs::copy(world.path(name), snapshot.join(name)).unwrap();
        fs::set_permissions(snapshot.join(name), Permissions::from_mode(0o644)).unwrap();
    }
    let said = world.path("said");
    let mut command = world.jailer("copy");
    command.args(["--", "--no-api", "--restore", "/snap"]);
    command.stdout(File::create(&said).unwrap());
    let jailed = Running(command.spawn().unwrap());
    runs_on(&said);
    jailed.terminate();
}

#[test]
fn a_jail_waits_for_a_copy_of_a_running_guest() {
    let world = World::new();
    let (parent, socket) = parent(&world);
    let said = world.path("said");
    let mut command = world.jailer("copy");
    command.args(["--", "--fork-socket", "/run/fork.sock"]);
    command.stdout(File::create(&said).unwrap());
    let jailed = Running(command.spawn().unwrap());
    let root = world.root("copy");
    let door = root.join("run/fork.sock");
    // The API answers when the fork socket exists.
    let api = root.join("run/firecracker.socket");
    ask(&api, "PUT", "/serial", &json!({}));
    let fork = json!({"children": [{"socket": door}]});
    let (status, answer) = http::ask(&socket, "PUT", "/vm/fork", &fork.to_string());
    assert_eq!(status, 200, "{answer}");
    runs_on(&said);
    assert!(!door.exists());
    drop(parent);
    // The copy is a normal guest, and can be saved.
    ask(&api, "PATCH", "/vm", &json!({"state": "Paused"}));
    let create = json!({"snapshot_path": "/run/again", "mem_file_path": "/run/again.memory"});
    ask(&api, "PUT", "/snapshot/create", &create);
    jailed.terminate();
}

#[test]
fn memory_is_passed_to_a_guest_in_its_jail() {
    let world = World::new();
    save(&world);
    let said = world.path("said");
    let mut command = world.jailer("copy");
    command.stdout(File::create(&said).unwrap());
    let jailed = Running(command.spawn().unwrap());
    let root = world.root("copy");
    let socket = root.join("run/firecracker.socket");
    drop(http::connect(&socket));
    assert!(root.join("dev/userfaultfd").exists());
    fs::copy(world.path("state"), root.join("state")).unwrap();
    fs::set_permissions(root.join("state"), Permissions::from_mode(0o644)).unwrap();
    let handler = Handler::start(&root.join("faults"), &world.path("memory"));
    fs::set_permissions(root.join("faults"), Permissions::from_mode(0o666)).unwrap();
    let load = json!({
        "snapshot_path": "state", "resume_vm": true,
        "mem_backend": {"backend_type": "Uffd", "backend_path": "faults"},
    });
    ask(&socket, "PUT", "/snapshot/load", &load);
    runs_on(&said);
    // Confined threads work on it: all memory is read.
    ask(&socket, "PATCH", "/vm", &json!({"state": "Paused"}));
    let create = json!({"snapshot_path": "/run/again", "mem_file_path": "/run/again.memory"});
    ask(&socket, "PUT", "/snapshot/create", &create);
    drop(jailed);
    assert_eq!(handler.finish().given.len(), (32 << 20) / 4096);
}
