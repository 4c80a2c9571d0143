//! Boots from a guest's image, the seed, hostile images, and killed starts; with payloads as kernels, on any
//! `/dev/kvm`.

use crate::harness::{payload, sh};
use crate::world::{GID, MIB, Running, UID, World, contains, expect, jailer, output, tree};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Time limit of a refusal; only a small part of any image is read.
const SOON: Duration = Duration::from_secs(30);

/// A configuration as grub-mkconfig writes it, without the graphics.
pub fn grub_cfg(kernel: &str, initrd: bool) -> String {
    let initrd = if initrd { "initrd /boot/initrd" } else { "" };
    format!(
        "set default=\"0\"\nif [ x\"${{feature_menuentry_id}}\" = xy ]; then menuentry_id_option=\"--id\"; fi\n\
         menuentry 'Linux' --class gnu-linux $menuentry_id_option 'gnulinux-simple-1' {{\n\
         \tsearch --no-floppy --fs-uuid --set=root 1\n\
         \tlinux\t/boot/{kernel} root=UUID=1 ro  quiet\n\t{initrd}\n}}\n"
    )
}

/// Writes a file to the directory that becomes the image's root file system.
pub fn write(world: &World, path: &str, bytes: impl AsRef<[u8]>) {
    let path = world.path("tree").join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Makes a GPT disk with an ext4 partition of the written files, owned by the guest's user.
pub fn image(world: &World) {
    let dir = world.dir.path().display();
    sh(&format!(
        "cd {dir}; rm -f part root.img; truncate -s 48M root.img; mke2fs -q -t ext4 -d tree part 40M; \
         printf 'label: gpt\\nstart=2048, size=81920, type=linux\\n' | sfdisk -q root.img; \
         dd status=none if=part of=root.img bs=1M seek=1 conv=notrunc,sparse; rm part; \
         chown {UID}:{GID} root.img"
    ));
}

fn config(world: &World, more: &Value) {
    let mut config = json!({
        "boot-source": {"image_drive": "root"},
        "drives": [world.drive("root", "root.img", &json!({"is_root_device": true}))],
    });
    let more = more.as_object().unwrap().clone();
    config.as_object_mut().unwrap().extend(more);
    world.config("exit", &config);
}

#[test]
fn a_guest_boots_the_kernel_in_its_image_and_a_new_one_after_an_update() {
    let world = World::new();
    let up = fs::read(world.path("up")).unwrap();
    write(&world, "boot/vmlinuz-1", &up);
    write(&world, "boot/initrd", "an initrd");
    write(&world, "boot/grub/grub.cfg", grub_cfg("vmlinuz-1", true));
    image(&world);
    config(&world, &json!({}));
    let guest = world.start("g1");
    let root = world.root("g1");
    for (name, bytes) in [("kernel", &up[..]), ("initrd", b"an initrd")] {
        let m = fs::metadata(root.join(name)).unwrap();
        assert_eq!((m.uid(), m.gid(), m.mode() & 0o7777), (0, GID, 0o440));
        assert_eq!(fs::read(root.join(name)).unwrap(), bytes, "{name}");
    }
    let jailed: Value = serde_json::from_slice(&fs::read(root.join("vm.json")).unwrap()).unwrap();
    let boot = &jailed["boot-source"];
    assert_eq!(boot["boot_args"], "root=UUID=1 ro quiet console=ttyS0");
    assert_eq!(boot["initrd_path"], "/initrd");
    assert_eq!(jailed["drives"][0]["is_root_device"], false);
    // The monitor has neither the reader as a child nor its descriptors.
    let children = format!("/proc/{0}/task/{0}/children", guest.0.id());
    assert_eq!(fs::read_to_string(children).unwrap(), "");
    guest.terminate();

    // The next start boots the kernel that the guest has installed.
    fs::rename(
        payload::write(world.dir.path(), &payload::exit(17)),
        world.path("k"),
    )
    .unwrap();
    write(&world, "boot/vmlinuz-2", fs::read(world.path("k")).unwrap());
    write(&world, "boot/grub/grub.cfg", grub_cfg("vmlinuz-2", false));
    image(&world);
    config(&world, &json!({}));
    expect(&world.run("g1"), 17);
    expect(&world.clean("g1"), 0);
    assert!(!world.path("base/bantam/g1").exists());
}

#[test]
fn an_image_is_made_from_a_template_and_booted_at_once() {
    let world = World::new();
    write(&world, "boot/k", fs::read(world.path("exit")).unwrap());
    write(&world, "boot/grub/grub.cfg", grub_cfg("k", false));
    image(&world);
    fs::rename(world.path("root.img"), world.path("template")).unwrap();
    let keys = json!({"template": world.path("template"), "size_mib": 64});
    config(
        &world,
        &json!({"drives": [world.drive("root", "root.img", &keys)],
                "boot-source": {"image_drive": "root", "boot_args": "console=hvc0"}}),
    );
    expect(&world.run("g1"), 42);
    let jailed = fs::read_to_string(world.root("g1").join("vm.json")).unwrap();
    contains(&jailed, &["\"root=UUID=1 ro quiet console=hvc0\""]);
    // A failed start removes the image that it made.
    fs::write(world.path("template"), vec![0; 1 << 20]).unwrap();
    fs::remove_file(world.path("root.img")).unwrap();
    expect(&world.clean("g1"), 0);
    let _ = fs::remove_dir(world.path("base/bantam"));
    let before = world.state();
    contains(&expect(&world.run("g1"), 152), &["no partition table"]);
    let _ = fs::remove_dir(world.path("base/bantam"));
    assert_eq!(world.state(), before);
}

#[test]
fn a_hostile_image_is_refused_quickly_and_leaves_nothing() {
    let world = World::new();
    config(&world, &json!({}));
    let path = world.path("root.img");
    let own = || std::os::unix::fs::chown(&path, Some(UID), Some(GID)).unwrap();
    let refused = |name: &str, parts: &[&str]| {
        own();
        let before = world.state();
        let started = Instant::now();
        let output = world.run("g1");
        let took = started.elapsed();
        let text = expect(&output, 152);
        contains(&text, &["boot-source.image_drive: no kernel was found in"]);
        contains(&text, parts);
        assert!(text.len() < 4096, "{text}");
        assert!(took < SOON, "{name}: {took:?}");
        assert_eq!(world.state(), before, "{name}");
    };
    // Disks that are too small, or of no known format.
    File::create(&path).unwrap();
    refused("empty", &["it has 0 bytes, which is no disk"]);
    let mut garbage = vec![0; 4 << 20];
    File::open("/dev/urandom")
        .unwrap()
        .read_exact(&mut garbage)
        .unwrap();
    garbage[510..512].copy_from_slice(&[0x55, 0xaa]);
    garbage[1080..1082].copy_from_slice(&[0x53, 0xef]);
    fs::write(&path, &garbage).unwrap();
    refused("garbage", &["the whole disk (ext4): "]);
    fs::remove_file(&path).unwrap();
    File::create(&path).unwrap().set_len(1 << 40).unwrap();
    refused("sparse", &["it has no partition table"]);

    let kernel = fs::read(world.path("exit")).unwrap();
    write(&world, "boot/k", &kernel);
    write(&world, "boot/grub/grub.cfg", grub_cfg("k", false));
    image(&world);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..1 << 20]).unwrap();
    refused(
        "a table alone",
        &["it has a partition table, but no partition"],
    );
    fs::write(&path, &whole[..2 << 20]).unwrap();
    refused(
        "truncated",
        &["in partition 1 (ext4): ", "no grub.cfg in /boot/grub"],
    );
    // A superblock with all numbers at their largest.
    fs::write(&path, &whole).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[0xff; 32], MIB + 1024).unwrap();
    refused("superblock", &["partition 1 (ext4): "]);

    // Files of wrong kinds and sizes.
    let tree = world.path("tree");
    let set = |name: &str, len: u64| {
        let path = tree.join(name);
        let _ = fs::remove_file(&path);
        File::create(&path).unwrap().set_len(len).unwrap();
    };
    set("boot/k", 4 << 30);
    image(&world);
    refused(
        "kernel",
        &["by /boot/grub/grub.cfg: /boot/k is longer than 268435456 bytes"],
    );
    set("boot/grub/grub.cfg", 100 << 20);
    image(&world);
    refused(
        "grub.cfg",
        &["/boot/grub/grub.cfg is longer than 1048576 bytes"],
    );
    fs::remove_file(tree.join("boot/grub/grub.cfg")).unwrap();
    for (a, b) in [("a", "b"), ("b", "a"), ("grub.cfg", "a")] {
        symlink(b, tree.join("boot/grub").join(a)).unwrap();
    }
    image(&world);
    refused("links", &["/boot/grub/grub.cfg: too many"]);
    // A link out of the image leads nowhere.
    fs::remove_file(tree.join("boot/grub/grub.cfg")).unwrap();
    symlink(world.path("outside"), tree.join("boot/grub/grub.cfg")).unwrap();
    fs::write(world.path("outside"), grub_cfg("k", false)).unwrap();
    image(&world);
    refused("outside", &["no grub.cfg in /boot/grub"]);
    // Control characters are not printed.
    fs::remove_file(tree.join("boot/grub/grub.cfg")).unwrap();
    write(&world, "boot/grub/grub.cfg", "linux /\x1b[2J\nbogus");
    image(&world);
    refused("escape", &["there is no file /?[2J"]);
}

#[test]
fn the_seed_is_a_drive_with_the_guest_s_name_and_addresses() {
    let world = World::new();
    let network = json!([{"iface_id": "eth0", "host_dev_name": "tap0", "bridge": "br0",
        "guest_mac": "06:00:0a:58:00:05", "host": {"addresses": ["10.88.0.5/24"]}}]);
    let host = json!({"seed": {"instance_id": "i-1", "hostname": "web"}});
    world.config("up", &json!({"network-interfaces": network, "host": host}));
    let guest: Running = world.start("g1");
    let volume = world.root("g1").join("drives/seed");
    let m = fs::metadata(&volume).unwrap();
    assert_eq!((m.uid(), m.gid(), m.mode() & 0o7777), (0, GID, 0o440));
    let shown = volume.display();
    let label = sh(&format!("blkid -p -o export {shown}"));
    contains(&label, &["LABEL=CIDATA", "TYPE=vfat"]);
    let text = fs::read(&volume).unwrap();
    let text = String::from_utf8_lossy(&text);
    contains(
        &text,
        &[
            "\"local-hostname\":\"web\"",
            "06:00:0a:58:00:05",
            "10.88.0.5/24",
        ],
    );
    guest.terminate();
    expect(&world.clean("g1"), 0);
    assert!(!world.path("base/bantam/g1").exists());

    let mut network = network;
    network[0]["guest_mac"] = Value::Null;
    world.config("up", &json!({"network-interfaces": network, "host": host}));
    let text = expect(&world.run("g1"), 152);
    contains(
        &text,
        &["network-interfaces[0].guest_mac: is missing: with `host.seed`"],
    );
}

#[test]
fn clean_removes_all_that_a_killed_reader_of_an_image_leaves() {
    let world = World::new();
    write(&world, "boot/k", fs::read(world.path("exit")).unwrap());
    write(&world, "boot/initrd", "initrd");
    write(&world, "boot/grub/grub.cfg", grub_cfg("k", true));
    image(&world);
    config(&world, &json!({"host": {"seed": {"instance_id": "i"}}}));
    let before = world.state();
    let mut killed = 0;
    for call in [
        "clone", "read", "poll", "openat", "write", "fchown", "wait4", "chroot", "seccomp",
        "pread64",
    ] {
        for nth in 1..60 {
            let mut command = Command::new("strace");
            command.args(["-f", "-qq", "-o"]).arg(world.path("log"));
            command.arg("-e").arg(format!("trace=execve,{call}"));
            command
                .arg("-e")
                .arg(format!("inject={call}:signal=KILL:when={nth}"));
            command.arg(jailer()).args(world.jailer("g1").get_args());
            command.arg("--config-file").arg(world.path("vm.json"));
            command.args(["--", "--no-api"]);
            let ended = output(&mut command);
            let log = fs::read_to_string(world.path("log")).unwrap();
            fs::remove_file(world.path("log")).unwrap();
            expect(&world.clean("g1"), 0);
            let _ = fs::remove_dir(world.path("base/bantam"));
            assert_eq!(world.state(), before, "{call} {nth}");
            // The first execve is the jailer's own.
            let executed = log
                .lines()
                .filter(|line| line.contains("execve") && line.ends_with(" = 0"));
            if executed.count() > 1 {
                break;
            }
            // Either process was killed: without its reader the jailer ends by itself.
            killed += 1;
            assert_ne!(ended.status.code(), Some(42), "{call} {nth}");
        }
    }
    assert!(killed > 30, "only {killed} were killed");
    assert!(tree(Path::new("/run/bantam/empty")).is_empty());
}
