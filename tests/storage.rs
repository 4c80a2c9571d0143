//! Pools and volumes on real file systems, volume groups, partition tables and an NFS server. Run as root. Each test
//! has mounts and a network of its own; most need no real KVM.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails"
)]

#[path = "harness/mod.rs"]
mod harness;
#[path = "storage/host.rs"]
mod host;
#[path = "storage/nfs.rs"]
mod nfs;
#[path = "jailer/world.rs"]
mod world;

use harness::sh;
use host::Host;
use serde_json::json;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;
use world::{MIB, UID, contains, expect, output, tree};

const GIB: u64 = 1 << 30;

/// Returns whether two files share their first extent.
fn share(a: &Path, b: &Path) -> bool {
    let extent = |path: &Path| {
        let text = sh(&format!("sync {0}; filefrag -v {0}", path.display()));
        let line = text
            .lines()
            .find(|line| line.trim_start().starts_with("0:"));
        let line = line.unwrap_or_else(|| panic!("no extent:\n{text}"));
        line.split(':').nth(2).unwrap().trim().to_owned()
    };
    extent(a) == extent(b)
}

#[test]
fn a_clone_of_20_gib_takes_no_space_and_shares_blocks_where_it_can() {
    let mut host = Host::new();
    for (kind, reflink) in [("ext4", false), ("xfs", true), ("btrfs", true)] {
        let target = host.file_system(kind, "600M");
        host.dir_pool(kind, &target);
        host.ok(&format!("volume create --pool {kind} one --size 20"));
        let one = target.join("one");
        File::options()
            .write(true)
            .open(&one)
            .unwrap()
            .write_all_at(&[7; 65536], 9 * GIB)
            .unwrap();
        sh("sync");
        let started = Instant::now();
        host.ok(&format!("volume clone --pool {kind} one two --size 21"));
        let took = started.elapsed().as_millis();
        let two = fs::metadata(target.join("two")).unwrap();
        assert_eq!(two.len(), 21 * GIB);
        assert!(
            two.blocks() * 512 <= 2 * 65536,
            "{kind}: {} blocks",
            two.blocks()
        );
        assert!(took < 5000, "{kind}: {took} ms");
        assert_eq!(share(&one, &target.join("two")), reflink, "{kind}");
        let mut read = [0; 2];
        File::open(target.join("two"))
            .unwrap()
            .read_exact_at(&mut read, 9 * GIB + 65535)
            .unwrap();
        assert_eq!(read, [7, 0], "{kind}");
    }
    let pools = host.json("pool list");
    let names: Vec<_> = pools
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["btrfs", "ext4", "xfs"]);
}

#[test]
fn a_pool_is_defined_started_listed_and_undefined() {
    let host = Host::new();
    host.ok("pool define web --type dir");
    let listed = host.ok("pool list");
    contains(&listed, &["web   inactive  no         dir"]);
    contains(
        &host.fails("pool start web", 152),
        &["/var/lib/bantam/pools/web", "--build"],
    );
    contains(
        &host.fails("volume create --pool web a --size 1", 152),
        &["bantamctl pool start web"],
    );
    host.ok("pool start web --build");
    contains(&host.ok("pool start web"), &["already"]);
    host.ok("volume create --pool web a --size 512M --preallocate");
    let volume = &host.json("volume list --pool web")[0];
    assert_eq!(volume["name"], "a");
    assert_eq!(volume["capacity"], 512 * MIB);
    assert_eq!(volume["allocation"], 512 * MIB);
    assert_eq!(volume["path"], "/var/lib/bantam/pools/web/a");
    let shown = host.json("pool show web");
    let bytes = |key: &str| shown[key].as_u64().unwrap();
    assert!(bytes("allocation") >= 512 * MIB, "{shown}");
    assert_eq!(bytes("capacity"), bytes("allocation") + bytes("available"));

    host.ok("pool autostart web");
    let unit =
        fs::read_to_string("/etc/systemd/system/bantam-pools.target.wants/bantam-pool@web.service");
    let start = format!("ExecStart={} pool start %i", world::bantamctl().display());
    contains(&unit.unwrap(), &[&start, "Before=bantam-pools.target"]);
    assert_eq!(host.json("pool list")[0]["autostart"], true);
    host.ok("pool autostart web --disable");
    assert_eq!(host.json("pool list")[0]["autostart"], false);

    contains(
        &host.fails("pool undefine web", 152),
        &["bantamctl pool stop web"],
    );
    host.ok("pool stop web");
    host.ok("pool undefine web");
    assert_eq!(host.json("pool list"), json!([]));
    assert!(Path::new("/var/lib/bantam/pools/web/a").exists());
}

#[test]
fn bad_input_is_refused_and_changes_nothing() {
    let mut host = Host::new();
    let small = host.file_system("ext4", "64M");
    host.dir_pool("small", &small);
    host.ok("volume create --pool small there --size 1");
    fs::write(small.join("plain"), vec![1; 8 << 20]).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", small.join("link")).unwrap();
    let long = "x".repeat(4096);
    let raw = host.world.path("raw");
    fs::write(&raw, vec![1; 30 << 20]).unwrap();
    fs::write(host.world.path("more"), vec![1; 80 << 20]).unwrap();
    let raw = raw.display();
    let more = host.world.path("more");
    let more = more.display();
    let before = tree(&small);
    for (words, status, part) in [
        ("pool start nosuch", 152, "there is no pool `nosuch`"),
        ("pool start ../small", 152, "cannot name a pool"),
        (
            "pool define small --type dir",
            152,
            "there is a pool `small` already",
        ),
        ("pool define x --type zfs", 152, "`zfs` is not dir, netfs"),
        (
            "pool define x --type dir --source-dev /dev/sda",
            152,
            "--source-dev: does not belong",
        ),
        (
            "volume create --pool nosuch a --size 1",
            152,
            "there is no pool",
        ),
        (
            "volume create --pool small there --size 1",
            152,
            "there is a volume `there` already",
        ),
        ("volume create --pool small link --size 1", 152, "already"),
        (
            "volume create --pool small a/b --size 1",
            152,
            "cannot name a volume",
        ),
        (
            "volume create --pool small .a --size 1",
            152,
            "cannot name a volume",
        ),
        ("volume create --pool small a --size 0", 153, "write a size"),
        (
            "volume create --pool small a --size 65T",
            153,
            "write a size",
        ),
        (
            "volume create --pool small a --size 1 --preallocate",
            152,
            "are free",
        ),
        (
            &format!("volume create --pool small {long} --size 1"),
            152,
            "cannot name a volume",
        ),
        (
            &format!("pool define {long} --type dir"),
            152,
            "cannot name a pool",
        ),
        (
            &format!("volume import --pool small a --from {more}"),
            152,
            "are free",
        ),
        (
            &format!("volume import --pool small a --from {raw} --size 1M"),
            152,
            "less than",
        ),
        (
            &format!("volume import --pool small a --from {raw} --format qcow2"),
            1,
            "not a qcow2 image",
        ),
        (
            &format!("volume import --pool small a --from {raw} --format vmdk"),
            152,
            "raw or qcow2",
        ),
        (
            "volume import --pool small a --from /nonexistent",
            152,
            "cannot open",
        ),
        (
            "volume import --pool small a --from /dev/null",
            152,
            "neither a file nor",
        ),
        (
            "volume clone --pool small nosuch a",
            152,
            "there is no volume `nosuch`",
        ),
        ("volume clone --pool small link a", 1, "link"),
        ("volume clone --pool small there there", 152, "already"),
        (
            "volume resize --pool small there --size 1M",
            152,
            "--shrink",
        ),
        (
            "volume delete --pool small nosuch",
            152,
            "there is no volume",
        ),
        ("volume delete --pool small link", 1, "link"),
        (
            "volume delete --pool small ../small",
            152,
            "cannot name a volume",
        ),
    ] {
        let said = host.fails(words, status);
        contains(&said, &[part]);
        assert!(said.len() < 1000, "{said}");
        assert_eq!(tree(&small), before, "{words}");
    }
    // The space runs out during a copy: nothing of it stays.
    host.ok(&format!("volume import --pool small fill --from {raw}"));
    contains(
        &host.fails("volume clone --pool small fill b", 1),
        &["No space left"],
    );
    assert!(!small.join("b").exists());
    assert_eq!(
        fs::read_dir(&small).unwrap().count(),
        5,
        "{:?}",
        tree(&small)
    );
}

#[test]
fn concurrent_commands_lose_nothing_and_duplicate_nothing() {
    let host = Host::new();
    host.dir_pool("web", &host.world.path("images"));
    let started = |words: String| {
        let mut command = Command::new(world::bantamctl());
        command.args(words.split_whitespace()).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let mut same = Vec::new();
    let mut each = Vec::new();
    for n in 0..20 {
        same.push(started("volume create --pool web same --size 1".into()));
        same.push(started("pool define other --type dir".into()));
        each.push(started(format!("volume create --pool web v{n} --size 1")));
        each.push(started(format!("pool define p{n} --type dir")));
    }
    let succeeded = |commands: Vec<std::process::Child>| {
        let done = commands
            .into_iter()
            .map(|mut c| c.wait().unwrap().success());
        done.filter(|success| *success).count()
    };
    assert_eq!(succeeded(same), 2);
    assert_eq!(succeeded(each), 40);
    assert_eq!(fs::read_dir(host.world.path("images")).unwrap().count(), 21);
    assert_eq!(fs::read_dir("/etc/bantam/pools").unwrap().count(), 22);
    assert_eq!(host.json("pool list").as_array().unwrap().len(), 22);
}

#[test]
fn only_one_guest_gets_a_volume() {
    let host = Host::new();
    let world = &host.world;
    host.dir_pool("web", &world.path("images"));
    let drive = |more: serde_json::Value| {
        let mut drive =
            json!({"drive_id": "d", "is_root_device": false, "path_on_host": "one", "pool": "web"});
        drive
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({"drives": [drive]})
    };
    world.config("up", &drive(json!({})));
    contains(
        &expect(&world.run("g1"), 152),
        &["drives[0].path_on_host", "one does not exist", "size_mib"],
    );
    world.config("up", &drive(json!({"pool": "nosuch"})));
    contains(
        &expect(&world.run("g1"), 152),
        &["drives[0].pool", "no pool `nosuch`"],
    );
    world.config("up", &drive(json!({"path_on_host": "../one"})));
    contains(&expect(&world.run("g1"), 152), &["names a volume"]);

    // The first start makes the volume, and the next one finds it.
    world.config("up", &drive(json!({"size_mib": 64})));
    world.start("g1").terminate();
    let path = world.path("images/one");
    assert_eq!(fs::metadata(&path).unwrap().len(), 64 * MIB);
    // A volume that was made by a command is given to the guest's user.
    host.ok("volume delete --pool web one");
    host.ok("volume create --pool web one --size 64M");
    assert_eq!(fs::metadata(&path).unwrap().uid(), 0);
    let guest = world.start("g1");
    assert_eq!(fs::metadata(&path).unwrap().uid(), UID);
    assert_eq!(host.json("volume list --pool web")[0]["in_use"], true);

    for words in [
        "volume delete --pool web one",
        "volume resize --pool web one --size 1M --shrink",
        "volume clone --pool web one two",
    ] {
        contains(&host.fails(words, 152), &["in use"]);
    }
    contains(
        &host.fails("pool stop web", 152),
        &["in use by guests: one"],
    );
    contains(
        &expect(&world.run("g2"), 152),
        &["in use by another process"],
    );
    host.ok("volume resize --pool web one --size 128M");
    assert_eq!(fs::metadata(&path).unwrap().len(), 128 * MIB);
    guest.terminate();
    host.ok("volume resize --pool web one --size 32M --shrink");
    host.ok("volume clone --pool web one two");
    host.ok("pool stop web");
    contains(
        &expect(&world.run("g1"), 152),
        &["drives[0].pool", "bantamctl pool start web"],
    );

    // Without the jailer, the monitor refuses pools.
    let mut alone = Command::new(harness::bantam());
    alone
        .arg("--config-file")
        .arg(world.path("vm.json"))
        .arg("--no-api");
    let said = expect(&output(alone.stdin(Stdio::null())), 152);
    contains(&said, &["drives[0].pool", "jailer"]);
}

#[test]
fn a_qcow2_image_is_imported_as_the_user_nobody() {
    let host = Host::new();
    let dir = host.world.dir.path().display();
    host.dir_pool("web", &host.world.path("images"));
    sh(&format!(
        "cd {dir}; head -c 3000000 /dev/urandom >raw; truncate -s 100M raw
         qemu-img convert -f raw -O qcow2 -c raw good.qcow2
         qemu-img create -q -f qcow2 -b /etc/shadow -F raw backed.qcow2
         qemu-img create -q -f qcow2 -o data_file=ext.raw external.qcow2 1M
         cp good.qcow2 secret.qcow2; chmod 600 secret.qcow2; chmod 755 ."
    ));
    let trace = host.world.path("trace");
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-e", "trace=execve,setresuid", "-o"])
        .arg(&trace);
    strace
        .arg(world::bantamctl())
        .args(["volume", "import", "--pool", "web", "deb"]);
    strace.arg("--from").arg(host.world.path("good.qcow2"));
    expect(&output(strace.stdin(Stdio::null())), 0);
    assert!(
        fs::read(host.world.path("images/deb")).unwrap()
            == fs::read(host.world.path("raw")).unwrap()
    );
    let trace = fs::read_to_string(trace).unwrap();
    let executed = trace
        .lines()
        .find(|line| line.contains("execve(") && line.contains("qemu-img"))
        .unwrap();
    let process = executed.split_whitespace().next().unwrap();
    let mine = trace.lines().filter(|line| line.starts_with(process));
    let become_nobody = mine
        .clone()
        .position(|line| line.contains("setresuid(65534, 65534, 65534"));
    let execute = mine.clone().position(|line| line.contains("execve("));
    assert!(become_nobody.unwrap() < execute.unwrap(), "{trace}");

    host.ok(&format!(
        "volume import --pool web large --from {dir}/good.qcow2 --size 1"
    ));
    assert_eq!(
        fs::metadata(host.world.path("images/large")).unwrap().len(),
        GIB
    );
    for (image, part, status) in [
        ("backed", "backing file", 1),
        ("external", "data is in another file", 1),
        ("secret", "chmod o+r", 152),
    ] {
        let said = host.fails(
            &format!("volume import --pool web x --from {dir}/{image}.qcow2"),
            status,
        );
        contains(&said, &[part]);
    }
    assert_eq!(
        host.json("volume list --pool web")
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

/// Tests a pool whose volumes are devices, which show no former data.
fn devices(host: &Host, pool: &str) {
    host.ok(&format!("pool start {pool}"));
    host.ok(&format!("volume create --pool {pool} one --size 8M"));
    contains(
        &host.fails(&format!("volume create --pool {pool} one --size 8M"), 152),
        &["already"],
    );
    contains(
        &host.fails(&format!("volume create --pool {pool} a,b --size 8M"), 152),
        &["cannot name"],
    );
    let huge = host.run(&format!("volume create --pool {pool} huge --size 10"));
    assert!(matches!(huge.status.code(), Some(1 | 152)), "{huge:?}");
    let path = |name: &str| {
        let volumes = host.json(&format!("volume list --pool {pool}"));
        let volumes = volumes.as_array().unwrap().clone();
        let mut volumes = volumes.into_iter();
        let volume = volumes
            .find(|v| v["name"] == name)
            .unwrap_or_else(|| panic!("no {name}"));
        volume["path"].as_str().unwrap().to_owned()
    };
    let read = |name: &str| fs::read(path(name)).unwrap();
    let one = path("one");
    assert!(read("one").iter().all(|byte| *byte == 0));
    assert_eq!(read("one").len() as u64, 8 * MIB);
    sh(&format!(
        "yes secret | dd of={one} bs=1M count=8 iflag=fullblock conv=fsync 2>/dev/null"
    ));

    host.ok(&format!("volume clone --pool {pool} one two --size 16M"));
    let (original, copy) = (read("one"), read("two"));
    assert!(copy[..original.len()] == original && copy[original.len()..].iter().all(|b| *b == 0));
    // No volume shows deleted data.
    host.ok(&format!("volume delete --pool {pool} one"));
    host.ok(&format!("volume create --pool {pool} three --size 8M"));
    assert!(read("three").iter().all(|byte| *byte == 0));
    sh(&format!(
        "yes secret | dd of={} bs=1M count=16 iflag=fullblock conv=fsync 2>/dev/null",
        path("two")
    ));
    host.ok(&format!(
        "volume resize --pool {pool} two --size 4M --shrink"
    ));
    assert_eq!(read("two").len() as u64, 4 * MIB);
    host.ok(&format!("volume resize --pool {pool} two --size 16M"));
    let grown = read("two");
    assert_eq!(grown.len() as u64, 16 * MIB);
    assert!(grown[..7] == *b"secret\n" && grown[4 << 20..].iter().all(|byte| *byte == 0));

    // An imported image, and a guest's own new volume.
    let dir = host.world.dir.path().display();
    sh(&format!(
        "cd {dir}; chmod 755 .; head -c 3000000 /dev/urandom >raw; truncate -s 4M raw
         qemu-img convert -f raw -O qcow2 raw good.qcow2"
    ));
    host.ok(&format!(
        "volume import --pool {pool} four --from {dir}/good.qcow2 --size 8M"
    ));
    let (raw, four) = (fs::read(host.world.path("raw")).unwrap(), read("four"));
    assert!(four[..raw.len()] == raw && four[raw.len()..].iter().all(|byte| *byte == 0));
    let drive = |name: &str| json!({"drive_id": name, "is_root_device": false, "path_on_host": name, "pool": pool, "size_mib": 4});
    host.world
        .config("up", &json!({"drives": [drive("four"), drive("five")]}));
    let guest = host.world.start("g1");
    contains(
        &host.fails(&format!("volume delete --pool {pool} four"), 152),
        &["in use"],
    );
    contains(
        &host.fails(&format!("pool stop {pool}"), 152),
        &["in use by guests: five, four"],
    );
    guest.terminate();
    let shown = host.json(&format!("pool show {pool}"));
    let bytes = |key: &str| shown[key].as_u64().unwrap();
    assert_eq!(bytes("capacity"), bytes("allocation") + bytes("available"));
    assert!(
        (36 * MIB..44 * MIB).contains(&bytes("allocation")),
        "{shown}"
    );
    for name in ["two", "three", "four", "five"] {
        host.ok(&format!("volume delete --pool {pool} {name}"));
    }
    assert_eq!(host.json(&format!("volume list --pool {pool}")), json!([]));
    host.ok(&format!("pool stop {pool}"));
    host.ok(&format!("pool undefine {pool}"));
}

#[test]
fn a_disk_holds_volumes_in_partitions() {
    let mut host = Host::new();
    let disk = host.disk("disk", "100M");
    let shown = disk.display();
    host.ok(&format!(
        "pool define parts --type disk --source-dev {shown}"
    ));
    contains(&host.fails("pool start parts", 152), &["--build"]);
    sh(&format!("mkfs.ext4 -q {shown}"));
    contains(
        &host.fails("pool start parts --build", 152),
        &["is not empty", "wipefs --all"],
    );
    sh(&format!("wipefs -qa {shown}"));
    host.ok("pool start parts --build");
    host.ok("pool stop parts");
    devices(&host, "parts");
}

#[test]
fn a_volume_group_holds_volumes() {
    let mut host = Host::new();
    sh("modprobe dm-mod");
    let disk = host.disk("disk", "100M");
    let shown = disk.display();
    host.ok("pool define vg --type logical --source-name bantamtest");
    contains(
        &host.fails("pool start vg", 152),
        &["no volume group `bantamtest`", "vgcreate"],
    );
    // On a loop device, away from this machine's volume groups.
    sh(&format!("vgcreate -q bantamtest {shown}"));
    host.at_end("vgremove -q -f -y bantamtest");
    devices(&host, "vg");
}
