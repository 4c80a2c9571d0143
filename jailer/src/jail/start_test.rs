//! A start that fails after any of its steps leaves nothing behind. Run as root: each attempt makes the real things in
//! a network of its own.

use super::*;
use crate::jail::lock;
use crate::jail::options::{DEFAULT_LIMITS, Process, exec_name};
use crate::sys::dir::Owner;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[path = "../bin/image_reader/test_image.rs"]
mod test_image;

const CONFIG: &str = r#"{
    "boot-source": {"kernel_image_path": "DIR/k", "initrd_path": "DIR/i"},
    "drives": [{"drive_id": "a", "is_root_device": true, "path_on_host": "DIR/a.img", "size_mib": 9, "template": "DIR/t"},
               {"drive_id": "b", "is_root_device": false, "path_on_host": "DIR/b.img", "size_mib": 1},
               {"drive_id": "c", "is_root_device": false, "path_on_host": "DIR/c.img", "is_read_only": true}],
    "network-interfaces": [{"iface_id": "n0", "host_dev_name": "tap0", "bridge": "br0"},
                           {"iface_id": "n1", "host_dev_name": "tap1", "bridge": "br1", "mtu": 1400}]
}"#;

/// A guest that boots the kernel in its image, and has a seed.
const IMAGE_CONFIG: &str = r#"{
    "boot-source": {"image_drive": "a"},
    "drives": [{"drive_id": "a", "is_root_device": true, "path_on_host": "DIR/a.img", "template": "DIR/t"}],
    "host": {"seed": {"instance_id": "i"}}
}"#;

fn options(directory: &Path) -> Options {
    let program = std::env::current_exe().unwrap();
    Options {
        id: "g".into(),
        exec_name: exec_name(&program).unwrap(),
        exec_file: program,
        owner: Owner {
            uid: Uid::from_raw(31234),
            gid: Gid::from_raw(31235),
        },
        allot: None,
        base: directory.join("base"),
        base_given: true,
        netns: None,
        config_file: Some(directory.join("vm.json")),
        copy_of: None,
        limits: DEFAULT_LIMITS,
        cgroup: cgroup::Request::default(),
        process: Process::default(),
        pass_through: Vec::new(),
    }
}

fn world() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    std::fs::write(
        path.join("vm.json"),
        CONFIG.replace("DIR", path.to_str().unwrap()),
    )
    .unwrap();
    std::fs::write(path.join("t"), vec![7; 5 << 20]).unwrap();
    for name in ["k", "i", "c.img"] {
        std::fs::write(path.join(name), name).unwrap();
    }
    std::fs::create_dir(path.join("base")).unwrap();
    directory
}

/// Returns all names below `path` with mode and owner.
fn tree(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        let m = path.symlink_metadata().unwrap();
        found.push(format!(
            "{} {:o} {}:{}",
            path.display(),
            m.mode(),
            m.uid(),
            m.gid()
        ));
        if m.is_dir() {
            found.extend(tree(&path));
        }
    }
    found.sort();
    found
}

/// Returns the network devices and the mount points that this thread sees.
fn links_and_mounts() -> (Vec<String>, Vec<String>) {
    let links = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let links = links.lines().skip(2);
    let links = links.map(|line| line.split(':').next().unwrap().trim().to_owned());
    let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let mounts = mounts.lines();
    let mounts = mounts.map(|line| line.split(' ').nth(4).unwrap().to_owned());
    let mut mounts: Vec<_> = mounts.collect();
    mounts.sort();
    (links.collect(), mounts)
}

/// Makes everything, but stops after `steps` steps; returns the outcome, and how many steps it made.
fn attempt(directory: &Path, steps: usize) -> (Result<(), String>, usize) {
    let options = options(directory);
    let thread = std::thread::spawn(move || {
        // A process that another test starts has descriptors of this test's taps until exec.
        let _alone = crate::sys::tool::STARTING.write();
        unshare(CloneFlags::CLONE_NEWNET).expect("this test makes network devices: run it as root");
        let before = links_and_mounts();
        let plan = check::check(&options).map_err(|e| e.to_string()).unwrap();
        let made = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&made);
        let mut undo = Undo::new(move || {
            if count.fetch_add(1, Ordering::SeqCst) >= steps {
                return Err(Error::Stopped(Signal::SIGTERM));
            }
            Ok(())
        });
        let outcome = make(&options, Started::now(), plan, None, &mut undo);
        let outcome = outcome.map(drop).map_err(|e| e.to_string());
        drop(undo);
        assert_eq!(links_and_mounts(), before, "after step {steps}");
        (outcome, made.load(Ordering::SeqCst))
    });
    thread.join().unwrap()
}

#[test]
fn a_start_that_fails_after_any_step_leaves_nothing() {
    fails_after_any_step(&world(), 30);
}

#[test]
fn a_start_from_an_image_that_fails_after_any_step_leaves_nothing() {
    let directory = world();
    let path = directory.path();
    let config = b"menuentry a { linux /k\n initrd /i }";
    let contents: &[(&str, &[u8])] = &[
        ("/boot/grub/grub.cfg", config),
        ("/k", &[7; 1 << 20]),
        ("/i", b"i"),
    ];
    let image = test_image::ext4(path, 8, contents);
    std::fs::rename(image, path.join("t")).unwrap();
    let config = IMAGE_CONFIG.replace("DIR", path.to_str().unwrap());
    std::fs::write(path.join("vm.json"), config).unwrap();
    fails_after_any_step(&directory, 20);
}

fn fails_after_any_step(directory: &tempfile::TempDir, least: usize) {
    let before = tree(directory.path());
    let mut ended = None;
    for steps in 0..200 {
        let (outcome, made) = attempt(directory.path(), steps);
        assert_eq!(tree(directory.path()), before, "after step {steps}");
        if outcome.is_ok() {
            ended = Some(made);
            break;
        }
    }
    let steps = ended.expect("no attempt succeeded");
    assert!(steps > least, "only {steps} steps could fail");
}

#[test]
fn an_existing_jail_is_restored() {
    let directory = world();
    let program = std::env::current_exe().unwrap();
    let name = program.file_name().unwrap();
    let root = directory.path().join("base").join(name).join("g/root");
    std::fs::create_dir_all(&root).unwrap();
    std::os::unix::fs::chown(&root, Some(77), Some(78)).unwrap();
    std::fs::write(root.join("client"), "its own").unwrap();
    let before = tree(directory.path());
    for steps in [0, 5, 20, 1000] {
        let _ = attempt(directory.path(), steps);
        assert_eq!(tree(directory.path()), before, "after step {steps}");
    }
}

#[test]
fn the_jail_of_a_running_guest_is_refused_and_not_changed() {
    let directory = world();
    let options = options(directory.path());
    let mut undo = Undo::uninterrupted();
    let _jail = Jail::claim(&options, &mut undo).unwrap();
    assert!(lock::is_running(&options));
    let before = tree(directory.path());
    let mut second = Undo::uninterrupted();
    let error = Jail::claim(&options, &mut second).unwrap_err();
    drop(second);
    assert!(error.to_string().contains("choose another --id"), "{error}");
    assert_eq!(tree(directory.path()), before);
    drop(undo);
}
