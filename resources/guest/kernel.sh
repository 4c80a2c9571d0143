#!/bin/sh
# Fetches and unpacks Debian's own kernels, without root and without touching the system's packages.
# Used by build.sh for the guest and by tests/harness/kvm-host.sh for the software KVM host.
set -eu

GUEST_DIR=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=resources/guest/lib.sh
. "$GUEST_DIR/lib.sh"

usage() {
    cat <<'END'
usage: kernel.sh [--out DIR] FLAVOUR...

Unpacks Debian kernels into DIR/kernels/FLAVOUR (a link to the newest version's directory):
boot/vmlinuz-VERSION and lib/modules/VERSION with modules.dep, and a file `version`.

flavours:
  cloud     bookworm's linux-image-cloud-amd64 (6.1)
  generic   bookworm's linux-image-amd64 (6.1)
  backport  bookworm-backports' linux-image-amd64 (6.12)

DIR is target/guest of this checkout unless --out or BANTAM_GUEST_DIR says otherwise.
BANTAM_DEBIAN_MIRROR names a mirror; by default the machine's own, else deb.debian.org.
END
}

OUT=${BANTAM_GUEST_DIR:-$GUEST_DIR/../../target/guest}
flavours=
while [ $# -gt 0 ]; do
    case $1 in
        --out) [ $# -ge 2 ] || die "--out needs a directory"; OUT=$2; shift ;;
        -h | --help) usage; exit 0 ;;
        cloud | generic | backport) flavours="$flavours $1" ;;
        *) die "unknown argument '$1' (flavours: cloud, generic, backport; see --help)" ;;
    esac
    shift
done
[ -n "$flavours" ] || { usage >&2; exit 2; }

need apt-get dpkg-deb depmod flock
PATH=$PATH:/usr/sbin:/sbin
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
lock_out

unpacking=
trap '[ -z "$unpacking" ] || rm -rf "$unpacking"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The package a flavour's meta package depends on, and its version: "NAME VERSION".
kernel_package() {
    case $1 in
        cloud) meta=linux-image-cloud-amd64 ;;
        generic) meta=linux-image-amd64 ;;
        backport) meta=linux-image-amd64/bookworm-backports ;;
    esac
    package_field "$meta" Depends | sed -n 's/^\([^ ,]*\) (= \([^)]*\)).*/\1 \2/p'
}

refresh_index
for flavour in $flavours; do
    name_and_version=$(kernel_package "$flavour")
    package=${name_and_version% *}
    version=${name_and_version#* }
    [ -n "$package" ] && [ -n "$version" ] || die "cannot tell the kernel package of flavour $flavour"
    directory=$OUT/kernels/${package}_$version
    if [ ! -e "$directory/version" ]; then
        say "unpack $package $version"
        unpacking=$OUT/kernels/.unpacking.$$
        rm -rf "$unpacking"
        mkdir -p "$unpacking"
        unpack_package "$package" "$version" "$unpacking"
        rm -rf "$unpacking/usr/share"
        release=$(basename "$unpacking"/lib/modules/*)
        [ -e "$unpacking/boot/vmlinuz-$release" ] || die "$package holds no boot/vmlinuz-$release"
        depmod -b "$unpacking" "$release"
        printf '%s %s %s\n' "$release" "$package" "$version" >"$unpacking/version"
        rm -rf "$directory"
        publish "$unpacking" "$directory"
        unpacking=
    fi
    ln -sfn "${package}_$version" "$OUT/kernels/.link.$$"
    publish "$OUT/kernels/.link.$$" "$OUT/kernels/$flavour"
    say "kernel $flavour: $(cat "$directory/version")"
done
