#!/bin/sh
# Builds kernel, initrd and root file system of a guest from Debian packages, without root. README.md describes them and the
# keys that the initrd understands.
set -eu

GUEST_DIR=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=resources/guest/lib.sh
. "$GUEST_DIR/lib.sh"
# shellcheck source=resources/guest/disk.sh
. "$GUEST_DIR/disk.sh"

usage() {
    cat <<'END'
usage: build.sh [--out DIR] [--debian] [--disk] [--fio] [FLAVOUR]...

Builds for each kernel FLAVOUR (cloud, generic, backport; default cloud), into DIR:
  vmlinuz-FLAVOUR      the distribution's bzImage
  vmlinux-FLAVOUR      the same kernel as an uncompressed ELF file
  initrd-FLAVOUR.img   busybox, the drivers of the devices a guest has, and an init
  rootfs-FLAVOUR.ext4  raw ext4: busybox, e2fsprogs, curl and more of that kernel's modules
  version-FLAVOUR      the kernel's RELEASE, PACKAGE and VERSION
with --debian:
  debian-FLAVOUR.ext4  raw ext4: Debian bookworm with systemd and a login on ttyS0
with --disk:
  debian.raw           a GPT disk: Debian bookworm with its own kernel, GRUB configuration and cloud-init
and with --fio:
  fio.ext4             raw ext4: fio, linked statically, for tests

What is up to date is left alone. DIR is target/guest of this checkout unless --out or
BANTAM_GUEST_DIR says otherwise. BANTAM_DEBIAN_MIRROR names a mirror.
END
}

OUT=${BANTAM_GUEST_DIR:-$GUEST_DIR/../../target/guest}
debian=
disk=
fio=
flavours=
while [ $# -gt 0 ]; do
    case $1 in
        --out)
            [ $# -ge 2 ] || die "--out needs a directory"
            OUT=$2
            shift
            ;;
        --debian) debian=yes ;;
        --disk) disk=yes ;;
        --fio) fio=yes ;;
        -h | --help)
            usage
            exit 0
            ;;
        cloud | generic | backport) flavours="$flavours $1" ;;
        *) die "unknown argument '$1' (see --help)" ;;
    esac
    shift
done
flavours=${flavours:-cloud}

need cpio mke2fs debugfs depmod dpkg-deb lz4 xz zstd gcc flock
[ -z "$debian$disk" ] || need mmdebstrap
[ -z "$disk" ] || need sfdisk
[ -z "$fio" ] || need make tar
PATH=$PATH:/usr/sbin:/sbin
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
items=$flavours
case " $flavours " in
    *' cloud '*) ;;
        # The disk has this kernel.
    *) items="$flavours ${disk:+cloud}" ;;
esac
# shellcheck disable=SC2086  # a list
"$GUEST_DIR/fetch.sh" --out "$OUT" $items busybox e2fsprogs curl
lock_out

work=$OUT/.build.$$
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
rm -rf "$work"
mkdir -p "$work" "$OUT/stamps"

# The drivers of a guest's devices, present and planned, and of its file system.
BOOT_MODULES="virtio_mmio virtio_pci virtio_blk virtio_net virtio_rng pvpanic_mmio ext4 crc32c_generic crc32c_intel"
ROOT_MODULES="$BOOT_MODULES virtio_balloon virtio_console virtio_pmem nd_pmem
    vmw_vsock_virtio_transport button evdev loop overlay autofs4"
# A sparse size with room for a guest to write. Only the content takes space.
ROOT_SIZE=256M
DEBIAN_SIZE=2G
FIO_SIZE=8M
# Debian's own fio loads 63 libraries, Ceph's among them: 80 MB. The tests need two megabytes of it.
FIO_OPTIONS="--build-static --disable-native --disable-numa --disable-rdma --disable-rados --disable-rbd
    --disable-http --disable-gfapi --disable-pmem --disable-libnfs --disable-xnvme --disable-libzbc --disable-dfs
    --disable-tcmalloc --disable-lex"
DEBIAN_PACKAGES=systemd-sysv,udev,dbus,busybox-static,e2fsprogs,iproute2,iputils-ping,kmod

# outdated OUTPUT INPUT...: succeeds if OUTPUT is missing or was built from other inputs. An input is a file of this directory
# or a package's version file; their contents are the key.
outdated() {
    output=$1
    shift
    key=$(cat "$@" | sha256sum)
    [ ! -e "$OUT/$output" ] || [ "$(cat "$OUT/stamps/$output" 2>/dev/null)" != "$key" ]
}

# finished FILE OUTPUT: publishes FILE, and records the inputs of the last `outdated`.
finished() {
    publish "$1" "$OUT/$2"
    printf '%s\n' "$key" >"$OUT/stamps/$2"
    say "built $OUT/$2 ($(du -h "$OUT/$2" | cut -f1))"
}

# Programs of our own in every image.
own_programs() {
    mkdir -p "$1/sbin"
    for program in bantam-exit bantam-vsock; do
        gcc -Os -Wall -Wextra -Werror -static -nostdlib -ffreestanding -fno-stack-protector \
            -fno-asynchronous-unwind-tables -fno-pie -no-pie -Wl,--build-id=none -Wl,-z,noseparate-code -s \
            -o "$1/sbin/$program" "$GUEST_DIR/$program.c"
    done
    install -m 755 "$GUEST_DIR/userland" "$1/sbin/userland"
}

# image DIRECTORY FILE SIZE LABEL [OWNERS]: a raw ext4 of a directory. mke2fs copies the owners of the files, which are the
# builder's without root. They are then set to root, except for the lines "UID GID PATH" in OWNERS.
image() {
    truncate -s "$3" "$2"
    mke2fs -q -t ext4 -F -L "$4" -m 1 -E root_owner=0:0,lazy_itable_init=0 -d "$1" "$2"
    [ "$(id -u)" -ne 0 ] || return 0
    {
        (cd "$1" && find . -mindepth 1 -printf '0 0 %P\n')
        [ -z "${5:-}" ] || cat "$5"
    } | while read -r owner group path; do
        printf 'sif "/%s" uid %s\nsif "/%s" gid %s\n' "$path" "$owner" "$path" "$group"
    done >"$work/owners"
        # debugfs always ends with 0. Its errors are on standard error, after a banner.
    debugfs -w -f "$work/owners" "$2" >/dev/null 2>"$work/debugfs"
    ! grep -v '^debugfs [0-9]' "$work/debugfs" >&2 || die "cannot set the owners of the files in $2"
}

initrd() {
    tree=$work/initrd
    mkdir -p "$tree/bin" "$tree/proc" "$tree/sys" "$tree/dev" "$tree/run" "$tree/tmp" "$tree/root" "$tree/usr"
    install -m 755 "$OUT/packages/busybox/bin/busybox" "$tree/bin/busybox"
    own_programs "$tree"
    install -m 755 "$GUEST_DIR/init" "$tree/init"
        # The shell finds the applets by itself; the kernel and scripts use these two paths.
    ln -s busybox "$tree/bin/sh"
    ln -s ../bin/busybox "$tree/sbin/modprobe"
    # shellcheck disable=SC2086  # a list
    copy_modules "$OUT/packages/$1" "$tree" $BOOT_MODULES
    find "$tree" -exec touch -h -d @0 {} +
        # Not compressed, because mapping a few MiB from the page cache costs less than unpacking.
    (cd "$tree" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) >"$work/initrd.img"
    rm -rf "$tree"
}

# Prints the libraries that a program of a package's tree loads, with the loader, as paths within the tree.
libraries() {
    "$1/lib64/ld-linux-x86-64.so.2" --library-path "$1/lib/x86_64-linux-gnu:$1/usr/lib/x86_64-linux-gnu" --list "$2" |
        sed -n 's/.* => \(.*\) (0x.*/\1/p'
}

rootfs() {
    tree=$work/rootfs
    mkdir -p "$tree/bin" "$tree/sbin" "$tree/usr/bin" "$tree/usr/sbin" "$tree/proc" "$tree/sys" "$tree/dev" \
        "$tree/run" "$tree/tmp" "$tree/etc" "$tree/mnt" "$tree/var" "$tree/lib64" "$tree/lib/x86_64-linux-gnu"
    mkdir -m 700 "$tree/root"
    chmod 1777 "$tree/tmp"
    install -m 755 "$OUT/packages/busybox/bin/busybox" "$tree/bin/busybox"
    "$tree/bin/busybox" --list | while read -r applet; do
        [ "$applet" = busybox ] || ln -s busybox "$tree/bin/$applet"
    done
    own_programs "$tree"
    ln -s userland "$tree/sbin/init"
    ln -s ../bin/busybox "$tree/sbin/modprobe"
    printf 'root::0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$tree/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$tree/etc/group"
    printf '127.0.0.1 localhost\n' >"$tree/etc/hosts"
    printf 'guest\n' >"$tree/etc/hostname"
    printf 'PRETTY_NAME="Bantam guest"\nID=bantam-guest\n' >"$tree/etc/os-release"
    cp /dev/null "$tree/etc/fstab"

    tools=$OUT/packages/e2fsprogs
    for program in mke2fs e2fsck tune2fs resize2fs debugfs dumpe2fs; do
        install -m 755 "$tools/sbin/$program" "$tree/usr/sbin/$program"
        libraries "$tools" "$tools/sbin/$program"
    done | sort -u >"$work/libraries"
    install -m 755 "$OUT/packages/curl/usr/bin/curl" "$tree/usr/bin/curl"
    libraries "$OUT/packages/curl" "$OUT/packages/curl/usr/bin/curl" | sort -u >>"$work/libraries"
    while read -r library; do
        install -m 755 "$library" "$tree/lib/x86_64-linux-gnu/"
    done <"$work/libraries"
    install -m 755 "$tools/lib64/ld-linux-x86-64.so.2" "$tree/lib64/"
    ln -s mke2fs "$tree/usr/sbin/mkfs.ext4"
    ln -s e2fsck "$tree/usr/sbin/fsck.ext4"
    cp "$tools/etc/mke2fs.conf" "$tree/etc/"

    # shellcheck disable=SC2086  # a list
    copy_modules "$OUT/packages/$1" "$tree" $ROOT_MODULES
    image "$tree" "$work/rootfs.ext4" "$ROOT_SIZE" bantam-root
    rm -rf "$tree"
}

# install_debian PACKAGES OUTPUT ARGUMENT...: installs Debian bookworm by mmdebstrap, without root if possible.
install_debian() {
    archives=$OUT/apt/debian
    mkdir -p "$archives"
    packages=$1
    output=$2
    shift 2
        # The hooks keep the downloaded packages. mmdebstrap passes the root directory as $1.
    # shellcheck disable=SC2016
    mmdebstrap --quiet --variant=minbase --architectures=amd64 --keyring="$GUEST_KEYRING" \
        --include="$packages" --aptopt='Acquire::Languages "none"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --skip=essential/unlink,download/empty \
        --setup-hook='mkdir -p "$1/var/cache/apt/archives"' \
        --setup-hook="sync-in '$archives' /var/cache/apt/archives" \
        --customize-hook="sync-out /var/cache/apt/archives '$archives'" "$@" \
        bookworm "$output" \
        "deb $(mirror) bookworm main" "deb $(mirror) bookworm-updates main" \
        "deb $(security_mirror) bookworm-security main" >"$OUT/debian.log" 2>&1 </dev/null || {
        tail -n 5 "$OUT/debian.log" >&2
        die "mmdebstrap failed (see $OUT/debian.log); without root it needs user namespaces and uidmap"
    }
    rm -rf "$archives/partial" "$archives/lock"
}

# Installs the user space of every flavour's Debian image.
debian_archive() {
    say "install Debian bookworm (a minute or so)"
    install_debian "$DEBIAN_PACKAGES" "$work/debian.tar"
}

debian() {
    tree=$work/debian
    mkdir "$tree"
        # devtmpfs creates the device nodes, and not every user may.
    tar -xp --numeric-owner --exclude='./dev/*' -f "$OUT/debian.tar" -C "$tree"
        # "-rwxr-xr-x 0/42 SIZE DATE TIME ./PATH": files that do not belong to root.
    tar -tv --numeric-owner --exclude='./dev/*' -f "$OUT/debian.tar" | awk '$2 != "0/0" && /^[-d]/ {
        split($2, owner, "/")
        path = $0
        sub(/^.* \.\//, "", path)
        sub(/\/$/, "", path)
        if (path != "") print owner[1], owner[2], path
    }' >"$work/debian-owners"
    own_programs "$tree"
    printf 'guest\n' >"$tree/etc/hostname"
    printf '127.0.0.1 localhost guest\n' >"$tree/etc/hosts"
    printf 'LABEL=debian-root / ext4 defaults 0 1\n' >"$tree/etc/fstab"
        # Empty: the guest creates its own, and does not treat the boot as the first one of an installation.
    : >"$tree/etc/machine-id"
        # Root logs in without a password, because access to the console is full access anyway.
    sed -i 's/^root:[^:]*:/root::/' "$tree/etc/shadow"
        # The interfaces keep the names that the initrd configured.
    ln -s /dev/null "$tree/etc/systemd/network/99-default.link"
    install -m 644 "$GUEST_DIR/bantam-script.service" "$tree/etc/systemd/system/"
    mkdir -p "$tree/etc/systemd/system/multi-user.target.wants"
    ln -s ../bantam-script.service "$tree/etc/systemd/system/multi-user.target.wants/"
    # shellcheck disable=SC2086  # a list
    copy_modules "$OUT/packages/$1" "$tree" $ROOT_MODULES
    image "$tree" "$work/debian.ext4" "$DEBIAN_SIZE" debian-root "$work/debian-owners"
    rm -rf "$tree"
}

fio() {
    say "build fio from Debian's source (half a minute or so)"
    fetch_source fio "$work/fio"
    (
        cd "$work/fio"
        # shellcheck disable=SC2086  # a list
        ./configure $FIO_OPTIONS && make -j2 fio
    ) >"$OUT/fio.log" 2>&1 || {
        tail -n 5 "$OUT/fio.log" >&2
        die "cannot build fio (see $OUT/fio.log)"
    }
    mkdir "$work/fio-image"
    strip -o "$work/fio-image/fio" "$work/fio/fio"
    image "$work/fio-image" "$work/fio.ext4" "$FIO_SIZE" bantam-fio
}

if [ -n "$fio" ]; then
    printf '%s\n' "$FIO_OPTIONS" "$FIO_SIZE" >"$work/fio-options"
    if outdated fio.ext4 "$work/fio-options"; then
        fio
        finished "$work/fio.ext4" fio.ext4
    fi
fi

if [ -n "$disk" ]; then
    if outdated debian.raw "$OUT/packages/cloud/version" "$GUEST_DIR/disk.sh" "$GUEST_DIR"/disk/*; then
        debian_disk
        finished "$work/debian.raw" debian.raw
    fi
fi

for flavour in $flavours; do
    package=$OUT/packages/$flavour
    read -r release _ <"$package/version"
    tools="$OUT/packages/busybox/version $OUT/packages/e2fsprogs/version $OUT/packages/curl/version"
    if outdated "vmlinuz-$flavour" "$package/version"; then
        cp "$package/boot/vmlinuz-$release" "$work/vmlinuz"
        finished "$work/vmlinuz" "vmlinuz-$flavour"
    fi
    if outdated "vmlinux-$flavour" "$package/version" "$GUEST_DIR/extract-vmlinux.sh"; then
        "$GUEST_DIR/extract-vmlinux.sh" "$package/boot/vmlinuz-$release" "$work/vmlinux"
        finished "$work/vmlinux" "vmlinux-$flavour"
    fi
    # shellcheck disable=SC2086  # a list
    if outdated "initrd-$flavour.img" "$package/version" $tools "$GUEST_DIR"/*.sh "$GUEST_DIR/init" "$GUEST_DIR/userland" "$GUEST_DIR"/*.c; then
        initrd "$flavour"
        finished "$work/initrd.img" "initrd-$flavour.img"
    fi
    # shellcheck disable=SC2086  # a list
    if outdated "rootfs-$flavour.ext4" "$package/version" $tools "$GUEST_DIR"/*.sh "$GUEST_DIR/userland" "$GUEST_DIR"/*.c; then
        rootfs "$flavour"
        finished "$work/rootfs.ext4" "rootfs-$flavour.ext4"
    fi
    if [ -n "$debian" ]; then
        printf '%s\n' "$DEBIAN_PACKAGES" >"$work/debian-packages"
        if outdated debian.tar "$work/debian-packages"; then
            debian_archive
            finished "$work/debian.tar" debian.tar
        fi
        if outdated "debian-$flavour.ext4" "$package/version" "$OUT/stamps/debian.tar" "$GUEST_DIR"/*.sh \
            "$GUEST_DIR/userland" "$GUEST_DIR"/*.c "$GUEST_DIR/bantam-script.service"; then
            debian "$flavour"
            finished "$work/debian.ext4" "debian-$flavour.ext4"
        fi
    fi
    cp "$package/version" "$work/version"
    publish "$work/version" "$OUT/version-$flavour"
    say "ready: $flavour, Linux $release, in $OUT"
done
