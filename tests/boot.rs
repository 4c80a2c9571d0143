//! The boot matrix: Debian's kernels as bzImage and as vmlinux, with 1, 2 and 4 vCPUs, each to user space with disk and
//! network.

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

use harness::{Guest, announce, needs_kvm, network};

/// Checks the number of vCPUs, writes and reads a file with fsync, and pings the bridge.
const SCRIPT: &str = r"
echo cpus=$(nproc)
echo release=$(uname -r)
mkfs.ext4 -q /dev/disk/by-id/virtio-data
mkdir /run/mnt && mount /dev/disk/by-id/virtio-data /run/mnt && echo kept | dd of=/run/mnt/file conv=fsync 2>/dev/null
umount /run/mnt && mount /dev/disk/by-id/virtio-data /run/mnt && echo disk=$(cat /run/mnt/file)
umount /run/mnt
ping -c 1 -W 20 10.99.0.1 >/dev/null && echo network=up
head -c 16 /dev/hwrng | wc -c | sed s/^/random=/
exit 42
";

fn boots(flavour: &str, form: &str, vcpus: u8) {
    needs_kvm();
    announce(&format!("boot {flavour} {form} {vcpus}"));
    network::enter(1);
    let ended = Guest::new(flavour, form)
        .vcpus(vcpus)
        .args(&network::guest_address(0))
        .interface("tap0")
        .root(flavour)
        .scratch("data", 32 << 20)
        .entropy()
        .script(SCRIPT)
        .run()
        .expect(42);
    assert_eq!(ended.value("cpus"), vcpus.to_string());
    assert_eq!(ended.value("disk"), "kept");
    assert_eq!(ended.value("network"), "up");
    assert_eq!(ended.value("random"), "16");
    let version = if flavour == "backport" {
        "6.12"
    } else {
        "6.1."
    };
    assert!(ended.value("release").starts_with(version));
}

macro_rules! matrix {
    ($($name:ident: $flavour:literal $form:literal $vcpus:literal;)*) => {
        $(#[test] fn $name() { boots($flavour, $form, $vcpus); })*
    };
}

matrix! {
    cloud_bzimage_1: "cloud" "vmlinuz" 1;
    cloud_bzimage_2: "cloud" "vmlinuz" 2;
    cloud_bzimage_4: "cloud" "vmlinuz" 4;
    cloud_vmlinux_1: "cloud" "vmlinux" 1;
    cloud_vmlinux_2: "cloud" "vmlinux" 2;
    cloud_vmlinux_4: "cloud" "vmlinux" 4;
    generic_bzimage_1: "generic" "vmlinuz" 1;
    generic_bzimage_2: "generic" "vmlinuz" 2;
    generic_bzimage_4: "generic" "vmlinuz" 4;
    generic_vmlinux_1: "generic" "vmlinux" 1;
    generic_vmlinux_2: "generic" "vmlinux" 2;
    generic_vmlinux_4: "generic" "vmlinux" 4;
    backport_bzimage_1: "backport" "vmlinuz" 1;
    backport_bzimage_2: "backport" "vmlinuz" 2;
    backport_bzimage_4: "backport" "vmlinuz" 4;
    backport_vmlinux_1: "backport" "vmlinux" 1;
    backport_vmlinux_2: "backport" "vmlinux" 2;
    backport_vmlinux_4: "backport" "vmlinux" 4;
}

/// The image's root file system on a read-write root device.
#[test]
fn a_root_device_is_mounted_and_runs_the_script() {
    needs_kvm();
    announce("boot root");
    let guest = Guest::cloud();
    let root = guest.dir().join("root.ext4");
    std::fs::copy(harness::image("rootfs-cloud.ext4"), &root).unwrap();
    let writeback = serde_json::json!({"is_root_device": true, "cache_type": "Writeback"});
    let ended = guest
        .drive("root", &root, writeback)
        .script("echo root=$(stat -f -c %T /); echo x >/written && sync && exit 7")
        .run()
        .expect(7);
    assert_eq!(ended.value("root"), "ext2/ext3");
}

/// Memory on both sides of the MMIO gap, and the smallest memory.
#[test]
fn memory_beyond_the_mmio_gap_is_usable() {
    needs_kvm();
    announce("boot memory");
    let ended = Guest::cloud()
        .mem_mib(4096)
        .script("awk '/MemTotal/ {print \"total=\" $2}' /proc/meminfo; exit 3")
        .run()
        .expect(3);
    let total: u64 = ended.value("total").parse().unwrap();
    assert!(total > 3_700_000, "{total} KiB");
}
