//! A guest's user swaps names in its jail for links to other files as fast as it can (swap.c), while jailers start
//! guests there and clean it: no other file is touched, whether a start succeeds or not.

use crate::harness::sh;
use crate::world::{GID, UID, World, jailer, output, tree};
use serde_json::json;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

const ROUNDS: u32 = 300;

struct Attacker(Child);

impl Drop for Attacker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn compile(to: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/jailer/swap.c");
    let mut command = Command::new("cc");
    command.args(["-static", "-O1", "-Wall", "-Werror", "-o"]);
    assert!(command.arg(to).arg(source).status().unwrap().success());
}

/// Makes files with every name that a jailer makes, writes, gives away or removes; none belongs to the guest.
fn victims(world: &World) -> PathBuf {
    let path = world.path("victims");
    sh(&format!(
        "mkdir {0}; cd {0}; for dir in . run drives dev dev/net images net; do mkdir -p $dir; \
         for name in kernel vm.json swap swap.pid initrd root fixed; do echo $dir > $dir/$name; done; \
         for name in kvm tun urandom userfaultfd; do mknod $dir/$name c 1 3; done; \
         python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' \
             $dir/firecracker.socket; done; \
         chmod -R a+rwX .; chmod 755 . run drives dev dev/net images net; chmod 600 kernel images/root",
        path.display()
    ));
    path
}

/// Returns the state of these files; more links to them do no harm.
fn of_victims(path: &Path) -> String {
    let mut text = tree(path);
    for line in text.clone() {
        let path = Path::new(line.split(' ').next().unwrap());
        let m = path.symlink_metadata().unwrap();
        let content = if m.is_file() {
            fs::read_to_string(path).unwrap()
        } else {
            String::new()
        };
        text.push(format!(
            "{} {} {} {content}",
            m.ino(),
            m.mtime(),
            m.mtime_nsec()
        ));
    }
    text.join("\n")
}

#[test]
fn links_that_are_swapped_in_during_a_start_are_not_followed() {
    let world = World::new();
    compile(&world.path("swap"));
    let victims = victims(&world);
    let before = of_victims(&victims);
    sh(&format!(
        "cd {}; chmod 755 . ; mkdir home home/images; chown -R {UID}:{GID} home",
        world.dir.path().display()
    ));
    let image = |name: &str, more| world.drive(name, &format!("home/images/{name}"), more);
    let drives = json!([
        image(
            "root",
            &json!({"size_mib": 1, "template": world.path("up")})
        ),
        image("fixed", &json!({"size_mib": 1})),
    ]);
    let base = world.path("base");
    let root = base.join("swap/g1/root");
    let mut attacker = Command::new(world.path("swap"));
    attacker.arg(&root).arg(&victims).arg(world.path("home"));
    let _attacker = Attacker(attacker.uid(UID).gid(GID).spawn().unwrap());
    let (mut started, mut cleaned) = (0, 0);
    let verbose = std::env::var("SHOW").is_ok();
    for round in 0..ROUNDS {
        // Half of the rounds have no images, so that later steps are reached more often.
        let more = if round % 2 == 0 {
            json!({})
        } else {
            json!({"drives": drives})
        };
        world.config("up", &more);
        let mut command = world.jailer_of("g1", &world.path("swap"));
        command.arg("--config-file").arg(world.path("vm.json"));
        let start = output(&mut command);
        let mut command = Command::new(jailer());
        command.args(["clean", "--id", "g1", "--exec-file", "swap"]);
        let clean = output(command.arg("--chroot-base-dir").arg(&base));
        started += u32::from(start.status.success());
        cleaned += u32::from(clean.status.success());
        let said = [&start, &clean].map(|ended| {
            assert!(ended.status.code().is_some(), "{ended:?}");
            String::from_utf8_lossy(&ended.stderr).into_owned()
        });
        let said = said.join("\n");
        assert_eq!(of_victims(&victims), before, "round {round}:\n{said}");
        if verbose {
            eprintln!("{:?} {:?}\n{said}", start.status, clean.status);
        }
        // Obstacles to a start stay until an operator removes them.
        let _ = fs::rename(&root, world.path(&format!("away-{round}")));
    }
    eprintln!("of {ROUNDS} starts {started} succeeded, and {cleaned} times all was cleaned");
    assert!(started > 0 && cleaned > 0, "{started} {cleaned}");
}
