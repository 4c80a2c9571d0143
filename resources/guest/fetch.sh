#!/bin/sh
# Downloads and unpacks the Debian packages of a guest: kernels and a few programs. It needs no root and leaves the system's own
# packages alone. build.sh and tests/harness/kvm-host.sh use it.
set -eu

GUEST_DIR=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=resources/guest/lib.sh
. "$GUEST_DIR/lib.sh"

usage() {
    cat <<'END'
usage: fetch.sh [--out DIR] ITEM...

Unpacks Debian packages into DIR/packages/ITEM, a link to the newest version's directory.

items:
  cloud      bookworm's linux-image-cloud-amd64 (6.1)
  generic    bookworm's linux-image-amd64 (6.1)
  backport   bookworm-backports' linux-image-amd64 (6.12)
  busybox    busybox-static
  e2fsprogs  mke2fs, e2fsck and the libraries they load
  curl       curl and the libraries it loads

A kernel's directory holds boot/vmlinuz-RELEASE, lib/modules/RELEASE with modules.dep, and a file
`version` with the line: RELEASE PACKAGE VERSION.

DIR is target/guest of this checkout unless --out or BANTAM_GUEST_DIR says otherwise.
BANTAM_DEBIAN_MIRROR names a mirror; by default the machine's own, else deb.debian.org.
END
}

OUT=${BANTAM_GUEST_DIR:-$GUEST_DIR/../../target/guest}
items=
while [ $# -gt 0 ]; do
    case $1 in
        --out)
            [ $# -ge 2 ] || die "--out needs a directory"
            OUT=$2
            shift
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        cloud | generic | backport | busybox | e2fsprogs | curl) items="$items $1" ;;
        *) die "unknown argument '$1' (see --help)" ;;
    esac
    shift
done
[ -n "$items" ] || {
    usage >&2
    exit 2
}

need apt-get dpkg-deb depmod flock xz zstd
PATH=$PATH:/usr/sbin:/sbin
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
lock_out

unpacking=
trap '[ -z "$unpacking" ] || rm -rf "$unpacking"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Prints the packages of an item, first the one whose version names it.
item_packages() {
    case $1 in
        cloud) kernel_package linux-image-cloud-amd64 ;;
        generic) kernel_package linux-image-amd64 ;;
        backport) kernel_package linux-image-amd64/bookworm-backports ;;
        busybox) echo busybox-static ;;
        curl) echo curl libcurl4 libbrotli1 libcom-err2 libffi8 libgmp10 libgnutls30 libgssapi-krb5-2 \
            libhogweed6 libidn2-0 libk5crypto3 libkeyutils1 libkrb5-3 libkrb5support0 libldap-2.5-0 libnettle8 \
            libnghttp2-14 libp11-kit0 libpsl5 librtmp1 libsasl2-2 libssh2-1 libssl3 libtasn1-6 libunistring2 \
            libzstd1 zlib1g libc6 ;;
        e2fsprogs) echo e2fsprogs libext2fs2 libss2 libcom-err2 libblkid1 libuuid1 logsave libc6 ;;
    esac
}

# Prints the package that a meta package depends on.
kernel_package() {
    kernel_name=$(package_field "$1" Depends | sed -n 's/^\([^ ,]*\) (= [^)]*).*/\1/p')
        [ -n "$kernel_name" ] || die "cannot find the kernel package of $1"
    echo "$kernel_name"
}

refresh_index
for item in $items; do
    packages=$(item_packages "$item")
    first=${packages%% *}
    version=$(package_field "$first" Version)
        # No colon in a path, because many tools give it a meaning.
    name=${first}_$(printf %s "$version" | tr : _)
    directory=$OUT/packages/$name
    if [ ! -e "$directory/version" ]; then
        say "unpack $first $version"
        mkdir -p "$OUT/packages"
        unpacking=$OUT/packages/.unpacking.$$
        rm -rf "$unpacking"
        mkdir "$unpacking"
        for package in $packages; do
            unpack_package "$package" "$(package_field "$package" Version)" "$unpacking"
        done
        rm -rf "${unpacking:?}/usr/share"
        release=-
        if [ -d "$unpacking/lib/modules" ]; then
            release=$(basename "$unpacking"/lib/modules/*)
            [ -e "$unpacking/boot/vmlinuz-$release" ] || die "$first holds no boot/vmlinuz-$release"
            depmod -b "$unpacking" "$release"
        fi
        printf '%s %s %s\n' "$release" "$first" "$version" >"$unpacking/version"
        rm -rf "$directory"
        publish "$unpacking" "$directory"
        unpacking=
    fi
    if [ "$(readlink "$OUT/packages/$item")" != "$name" ]; then
        ln -sfn "$name" "$OUT/packages/.link.$$"
        publish "$OUT/packages/.link.$$" "$OUT/packages/$item"
    fi
    say "$item: $first $version"
done
