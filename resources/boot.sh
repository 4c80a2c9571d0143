#!/bin/bash
# `make boot`: starts a Debian guest through the jailer, with a disk in a directory and a tap on br0.
#
# On a terminal it gives a shell in the guest. Without one the guest runs a script that checks its disk and its network,
# prints the boot timeline, and powers off; the exit status is 0 only if all of that worked.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
project=$(dirname "$here")
guest=${BANTAM_GUEST_DIR:-$project/target/guest}
binaries=$project/target/x86_64-unknown-linux-gnu/release
bridge=br0
host_address=10.88.0.1
guest_address=10.88.0.2
# The monitor runs as a user that no one else has.
uid=64101

usage() {
    cat <<'END'
usage: resources/boot.sh [--vcpus N] [--mem MIB] [--flavour cloud|generic|backport] [--form vmlinuz|vmlinux]

Starts a guest with Debian's kernel, a disk and a network, through the jailer. On a terminal it gives a
shell in the guest, which `exit` or Ctrl-A x ends. Without one the guest checks its disk and network.

It runs as root on this machine's KVM if that is usable, else in a software host, where the guest's
disk is lost at the end. `make boot` builds everything first.
END
}

export PATH="$PATH:/usr/sbin:/sbin"
given=("$@")
vcpus=1
mem=256
flavour=cloud
form=vmlinuz
inside=
while [ $# -gt 0 ]; do
    case $1 in
        --vcpus) vcpus=${2:?} && shift ;;
        --mem) mem=${2:?} && shift ;;
        --flavour) flavour=${2:?} && shift ;;
        --form) form=${2:?} && shift ;;
        --inside) inside=${2:?} && shift ;;
        -h | --help) usage && exit ;;
        *) echo "boot: unknown argument $1 (see --help)" >&2 && exit 2 ;;
    esac
    shift
done

say() { echo "boot: $*"; }

# Outside: choose the host, and run this script in it as root.
if [ -z "$inside" ]; then
    # The machine's own KVM and a tap need root; a software host does not.
    if [ "$(id -u)" -ne 0 ] && grep -qE '^flags.* (svm|vmx)( |$)' /proc/cpuinfo; then
        say "continuing as root with sudo, because the jailer makes a tap and a jail"
        exec sudo env "PATH=$PATH" "$here/boot.sh" "${given[@]}"
    fi
    arguments=(--vcpus "$vcpus" --mem "$mem" --flavour "$flavour" --form "$form")
    kind=batch
    options=(--timeout 300 --dir "$project/target/boot-host")
    if [ -t 0 ] && [ -t 1 ]; then
        kind=terminal
        options=(--interactive --timeout 86400 --dir "$project/target/boot-host")
    fi
    exec "$project/tests/harness/kvm-host.sh" "${options[@]}" -- \
        "$here/boot.sh" "${arguments[@]}" --inside "$kind"
fi

# Inside: the host's side, as root.
# Not in /tmp, which may be a tmpfs without device nodes; the jail needs some.
work=$(mktemp -d "${TMPDIR:-/var/tmp}/bantam-boot.XXXXXX")
made_bridge=
added_address=
server=
cleanup() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    [ -z "$added_address" ] || ip address delete "$host_address/24" dev "$bridge" || true
    [ -z "$made_bridge" ] || ip link delete "$bridge" || true
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

if ! ip link show "$bridge" >/dev/null 2>&1; then
    say "creating the bridge $bridge, for as long as the guest runs"
    ip link add "$bridge" type bridge
    made_bridge=yes
fi
ip link set "$bridge" up
if ! ip -4 address show dev "$bridge" | grep -q "inet $host_address/"; then
    ip address add "$host_address/24" dev "$bridge"
    added_address=yes
fi

# The guest fetches this file over TCP, and checks its checksum.
mkdir "$work/served"
head -c 4194304 /dev/urandom >"$work/served/file"
sum=$(sha256sum <"$work/served/file" | cut -d' ' -f1)
busybox=$(find "$guest/packages" -path '*busybox-static*/bin/busybox' | head -n 1)
"$busybox" httpd -f -p "$host_address:8088" -h "$work/served" &
server=$!

arguments="console=ttyS0 quiet bantam.timer bantam.ip=$guest_address/24,$host_address"
# The disk: a sparse image in a directory, which the jailer makes from the template.
drives="{\"drive_id\": \"root\", \"is_root_device\": true, \"cache_type\": \"Writeback\", \"discard\": true,
     \"path_on_host\": \"$work/disks/root.ext4\", \"template\": \"$guest/rootfs-$flavour.ext4\", \"size_mib\": 1024}"
mkdir "$work/disks" "$work/jails"
if [ "$inside" = batch ]; then
    cat >"$work/script" <<END
fail() { echo "boot-check: \$* FAILED"; exit 99; }
dd if=/dev/urandom of=/root/data bs=64k count=16 conv=fsync 2>/dev/null || fail "writing a file with fsync"
before=\$(sha256sum </root/data)
echo 3 >/proc/sys/vm/drop_caches
[ "\$before" = "\$(sha256sum </root/data)" ] || fail "reading the file back"
echo "boot-check: wrote 1 MiB with fsync and read it back from the disk"
ping -c 3 -W 10 $host_address >/dev/null || fail "pinging the bridge"
echo "boot-check: pinged $bridge at $host_address"
fetched=\$(wget -q -O - http://$host_address:8088/file | sha256sum)
[ "\${fetched%% *}" = $sum ] || fail "fetching a file over TCP"
echo "boot-check: fetched 4 MiB over TCP, intact"
echo "boot-check: all held"
END
    truncate -s "$((($(stat -c %s "$work/script") + 511) / 512 * 512))" "$work/script"
    # The monitor's user must be able to read it.
    chmod 644 "$work/script"
    drives="$drives,
    {\"drive_id\": \"script\", \"is_root_device\": false, \"is_read_only\": true, \"path_on_host\": \"$work/script\"}"
fi
chmod 711 "$work" "$work/disks" "$work/jails"
cat >"$work/vm.json" <<END
{
  "boot-source": {
    "kernel_image_path": "$guest/$form-$flavour",
    "initrd_path": "$guest/initrd-$flavour.img",
    "boot_args": "$arguments"
  },
  "drives": [
    $drives
  ],
  "network-interfaces": [
    {"iface_id": "eth0", "host_dev_name": "tap-boot", "bridge": "$bridge", "guest_mac": "06:00:0a:58:00:02"}
  ],
  "entropy": {},
  "machine-config": {"vcpu_count": $vcpus, "mem_size_mib": $mem}
}
END
say "the guest's configuration:"
sed 's/^/    /' "$work/vm.json"
say "starting it through the jailer, as user $uid in a chroot of its own"
[ "$inside" = batch ] || say "exit or Ctrl-A x ends the guest"

jailer=("$binaries/jailer" --id boot --exec-file "$binaries/bantam" --uid "$uid" --gid "$uid"
    --chroot-base-dir "$work/jails" --config-file "$work/vm.json" -- --no-api --boot-timer)
if [ "$inside" = terminal ]; then
    "${jailer[@]}"
    exit
fi
set +e
"${jailer[@]}" </dev/null 2>"$work/messages" | tee "$work/console"
status=${PIPESTATUS[0]}
set -e
cat "$work/messages" >&2
[ "$status" -eq 0 ] || {
    say "the guest ended with status $status"
    exit "$status"
}
for line in 'boot-check: all held' 'boot timeline: '; do
    grep -q "$line" "$work/console" "$work/messages" || {
        say "the guest powered off without \`$line\`"
        exit 1
    }
done
say "disk, network and timeline are right; the guest powered off"
