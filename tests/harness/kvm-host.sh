#!/bin/bash
# Runs a command on a host with real KVM: this machine if its KVM is usable, else a software host, in which QEMU's TCG emulates
# AMD SVM and a Debian kernel's kvm_amd runs on it. `make test` and `make boot` use it. It knows nothing about the command.
#
# The software host boots Debian's generic kernel with kvm-host-init.sh as its init, on this machine's own root file system:
# read-only over 9p, with an overlay in the host's memory. Or it boots a Debian of its own from a disk, under systemd, which
# can be booted again.
set -euo pipefail

HARNESS_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PROJECT_DIR=$(cd "$HARNESS_DIR/../.." && pwd)
GUEST_DIR=$PROJECT_DIR/resources/guest
OUT=${BANTAM_GUEST_DIR:-$PROJECT_DIR/target/guest}
# shellcheck source=resources/guest/lib.sh
. "$GUEST_DIR/lib.sh"

# Exit statuses of runs that did not end with the command's own status. DIR/outcome has the reason in words.
EXIT_TIMEOUT=124
EXIT_HOST=125
# Seconds without a sign of life, which comes every 2 s. On a busy machine pauses of many seconds are normal; a pause of this
# length only occurred with a CPU stuck inside kvm.
WEDGED_AFTER=60
# Measured: 5 to 8 s on an idle machine.
UP_WITHIN=120

usage() {
    cat <<'END'
usage: kvm-host.sh [OPTION]... -- COMMAND [ARGUMENT]...
       kvm-host.sh --print-mode | --prepare

Runs COMMAND on a host with real KVM: directly where this machine's KVM is usable, else in a
software host. One line on standard error says which, and why.

  --timeout SECONDS   bound on the whole run (default 1200; with --interactive none)
  --interactive       COMMAND has this terminal: for a person, not for a test
  --dir DIR           results: the one directory that COMMAND can write to lastingly, the host's
                      console.log and the file outcome (default target/kvm-host)
  --mem SIZE          memory of the software host (default 3G)
  --system DISK       boot the Debian on DISK, a qcow2 image over target/guest/debian.raw, by its systemd;
                      COMMAND is run as a unit, and then the host reboots: that is the end of the run.
                      DISK keeps what was changed. Always a software host; this project is there too
  --qemu-opts OPTS    further options for the software host's QEMU, split at spaces
  --print-mode        print `hardware` or `software` and end
  --prepare           fetch and build what this machine's mode needs and end

Exit status: COMMAND's own; 124 if the time limit passed while COMMAND ran; 125 if the software
host did not come up, died, or wedged. DIR/outcome says it in words: `status N`, `timeout`,
`wedged`, `died` or `not-up`. For all but the first, the end of DIR/console.log is printed, and the
name COMMAND last wrote to DIR/current, which should be the guest or test it was busy with.

COMMAND sees BANTAM_ON_KVM=1, BANTAM_KVM_MODE, BANTAM_KVM_DIR=DIR, and in the software host a
TMPDIR in memory that is good for disk images, jails and device nodes. It runs in the current
directory with this environment; in the software host as root, and what it writes outside DIR is
forgotten. Without --interactive its standard input is empty.

BANTAM_KVM_HOST=hardware|software overrides the choice.
END
}

timeout_seconds=
interactive=
dir=$PROJECT_DIR/target/kvm-host
memory=3G
system=
qemu_opts=
action=run
while [ $# -gt 0 ]; do
    case $1 in
        --timeout | --dir | --mem | --system | --qemu-opts) [ $# -ge 2 ] || die "$1 needs a value (see --help)" ;;
    esac
    case $1 in
        --timeout) timeout_seconds=$2; shift ;;
        --dir) dir=$2; shift ;;
        --mem) memory=$2; shift ;;
        --system) system=$2; shift ;;
        --qemu-opts) qemu_opts=$2; shift ;;
        --interactive) interactive=yes ;;
        --print-mode) action=print ;;
        --prepare) action=prepare ;;
        -h | --help) usage; exit 0 ;;
        --) shift; break ;;
        *) die "unknown option '$1' (see --help)" ;;
    esac
    shift
done
[ -n "$timeout_seconds" ] || timeout_seconds=$([ -n "$interactive" ] && echo 100000000 || echo 1200)
[[ $timeout_seconds =~ ^[1-9][0-9]*$ ]] || die "--timeout: '$timeout_seconds' is not a number of seconds"
[ "$action" != run ] || [ $# -gt 0 ] || die "no command given (see --help)"

# Sets `mode` and `reason`. A /dev/kvm that opens is not enough: without svm or vmx it interprets guests, and Linux does
# not boot.
choose_mode() {
    local extension
    if [ -n "$system" ]; then
        mode=software
        reason="it boots from a disk"
        return
    fi
    extension=$(grep -o -m1 -w -E 'svm|vmx' /proc/cpuinfo | head -n 1) || true
    case ${BANTAM_KVM_HOST:-} in
        hardware | software) mode=$BANTAM_KVM_HOST; reason="BANTAM_KVM_HOST says so"; return ;;
        '') ;;
        *) die "BANTAM_KVM_HOST is '$BANTAM_KVM_HOST', not hardware or software" ;;
    esac
    mode=software
    if [ ! -e /dev/kvm ]; then
        reason="there is no /dev/kvm"
    elif ! (: <>/dev/kvm) 2>/dev/null; then
        reason="/dev/kvm does not open for $(id -un)"
    elif [ -z "$extension" ]; then
        reason="/dev/kvm opens, but the CPU has neither svm nor vmx"
    else
        mode=hardware
        reason="/dev/kvm opens and the CPU has $extension"
    fi
}

# Builds the initrd of the software host: busybox, the modules for the root file system, the init. Sets `kernel` and `initrd`.
prepare_software() {
    need qemu-system-x86_64 cpio gzip setpriv modprobe
    "$GUEST_DIR/fetch.sh" --out "$OUT" generic busybox 2>&1 | grep -v -E '^guest: (generic|busybox): ' >&2 || true
    local release root
        [ -e "$OUT/packages/generic/version" ] || die "the software host's kernel is missing: see the messages above"
    root=$(cd -P "$OUT/packages/generic" && pwd)
    read -r release _ <"$root/version"
    kernel=$root/boot/vmlinuz-$release
    modules=$root/lib/modules/$release
    initrd=$OUT/kvm-host-$release.img
    [ "$initrd" -nt "$HARNESS_DIR/kvm-host-init.sh" ] && [ "$initrd" -nt "$kernel" ] &&
        [ "$initrd" -nt "$HARNESS_DIR/kvm-host.sh" ] && return
    local tree=$OUT/.kvm-host.$$
    mkdir -p "$tree"/{bin,dev,proc,sys,mnt}
    cp "$OUT/packages/busybox/bin/busybox" "$tree/bin/busybox"
    install -m 755 "$HARNESS_DIR/kvm-host-init.sh" "$tree/init"
    copy_modules "$root" "$tree" virtio_pci virtio_console 9p 9pnet_virtio overlay virtio_blk ext4 crc32c_generic
    (cd "$tree" && find . | cpio --quiet -o -H newc -R 0:0) | gzip -1 >"$initrd.$$"
    rm -rf "$tree"
    publish "$initrd.$$" "$initrd"
}

choose_mode
case $action in
    print)
        echo "$mode"
        exit
        ;;
    prepare)
        [ "$mode" = hardware ] || prepare_software
        exit
        ;;
esac

mkdir -p "$dir"
dir=$(cd "$dir" && pwd -P)
exec 8>"$dir/.lock"
flock -n 8 || die "$dir is in use by another kvm-host.sh; give each host a --dir of its own"
rm -f "$dir/outcome" "$dir/current" "$dir/console.log"
export BANTAM_ON_KVM=1 BANTAM_KVM_MODE=$mode BANTAM_KVM_DIR=$dir
echo "kvm-host: $mode KVM: $reason" >&2

control=
child=
session=
terminal=
streams=()
# shellcheck disable=SC2317  # called by the trap
cleanup() {
    [ -z "$session" ] || kill -KILL -- "-$session" 2>/dev/null || true
    [ -z "$child" ] || kill -KILL "$child" 2>/dev/null || true
    [ -z "$terminal" ] || stty "$terminal" 2>/dev/null || true
    [ ${#streams[@]} -eq 0 ] || kill "${streams[@]}" 2>/dev/null || true
    [ -z "$control" ] || rm -rf "$control"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# conclude STATUS OUTCOME MESSAGE: ends the run that did not end with the command's own status.
conclude() {
    echo "$2" >"$dir/outcome"
    echo "kvm-host: $3" >&2
    [ ! -s "$dir/current" ] || echo "kvm-host: busy with: $(head -c 400 "$dir/current")" >&2
    if [ -s "$dir/console.log" ]; then
        echo "kvm-host: end of $dir/console.log:" >&2
        tail -n 40 "$dir/console.log" | tr -d '\r' >&2
    fi
    exit "$1"
}

if [ "$mode" = hardware ] && [ -n "$interactive" ]; then
    status=0
    timeout --foreground --kill-after=5 "$timeout_seconds" "$@" || status=$?
    echo "status $status" >"$dir/outcome"
    exit "$status"
elif [ "$mode" = hardware ]; then
        # A session of its own, so that a time limit ends the command with its children.
    setsid --wait "$@" </dev/null &
    child=$!
    session=$child
    SECONDS=0
    while kill -0 "$child" 2>/dev/null; do
        [ $SECONDS -lt "$timeout_seconds" ] ||
            conclude $EXIT_TIMEOUT timeout "time limit of $timeout_seconds s passed"
        sleep 0.2
    done
    status=0
    wait "$child" || status=$?
    child=
    session=
    echo "status $status" >"$dir/outcome"
    exit "$status"
fi

prepare_software
# The command's environment, directory and arguments, its status, and the host's signs of life.
control=$dir/.control
rm -rf "$control"
(umask 077 && mkdir "$control")
{
    export -p
    printf 'cd %q || exit 127\n' "$PWD"
    [ -n "$system" ] || printf 'export TMPDIR=/run/tests\n'
    [ -z "$interactive" ] || printf 'stty %s 2>/dev/null\n' "$(stty size 2>/dev/null | awk '{ print "rows", $1, "cols", $2 }')"
    printf 'exec'
    printf ' %q' "$@"
    printf '\n'
} >"$control/command"
printf '%s\n' "$dir" >"$control/dir"
printf '%s\n' "$modules" >"$control/modules"
printf '%s\n' "$PROJECT_DIR" >"$control/project"
# QEMU separates options by commas; a doubled comma stands for itself.
quoted() { printf '%s' "${1//,/,,}"; }
exec 7</dev/null
# shellcheck disable=SC2054  # the commas are QEMU's
if [ -n "$interactive" ]; then
    exec 7<&0
    terminal=$(stty -g 2>/dev/null) || true
    stdio=(-chardev stdio,id=terminal,signal=off -device virtconsole,chardev=terminal)
else
    mkfifo "$control/out" "$control/err"
        # QEMU truncates files and cannot open sockets. A FIFO works for any output of this script.
    cat <"$control/out" &
    streams=($!)
    cat <"$control/err" >&2 &
    streams+=($!)
    stdio=(-chardev file,id=out,path="$(quoted "$control/out")" -device virtserialport,chardev=out,name=out
        -chardev file,id=err,path="$(quoted "$control/err")" -device virtserialport,chardev=err,name=err)
fi
# shellcheck disable=SC2206  # split at spaces is what --qemu-opts promises
extra=($qemu_opts)
# tsc=reliable switches the clocksource watchdog off: on a busy machine it may declare the host's TSC unstable, and KVM then stops
# the TSC of a vCPU that does not run. QEMU derives the TSC from this machine's clock.
arguments="console=ttyS0 loglevel=${BANTAM_KVM_HOST_LOGLEVEL:-5} panic=-1 nokaslr random.trust_cpu=on tsc=reliable"
if [ -n "$system" ]; then
    extra+=(-drive file="$(quoted "$system")",format=qcow2,if=virtio)
        # No cloud-init seed identifies this host, and it has no network to wait for.
    arguments="$arguments kvm_host.system cloud-init=disabled systemd.mask=ssh.service"
    arguments="$arguments systemd.mask=systemd-networkd-wait-online.service"
fi
# One CPU, because with two the emulation sooner or later leaves one stuck inside kvm.
setpriv --pdeathsig KILL qemu-system-x86_64 \
    -machine q35 -accel tcg -cpu max -smp 1 -m "$memory" -nodefaults -no-user-config -no-reboot \
    -display none -kernel "$kernel" -initrd "$initrd" \
    -append "$arguments" \
    -chardev file,id=console,path="$(quoted "$dir/console.log")" -serial chardev:console \
    -fsdev local,id=root,path=/,security_model=none,readonly=on,multidevs=remap \
    -device virtio-9p-pci,fsdev=root,mount_tag=root \
    -fsdev local,id=results,path="$(quoted "$dir")",security_model=none,multidevs=remap \
    -device virtio-9p-pci,fsdev=results,mount_tag=results \
    -device virtio-serial-pci "${stdio[@]}" \
    -object rng-random,id=rng,filename=/dev/urandom -device virtio-rng-pci,rng=rng \
    ${extra[@]+"${extra[@]}"} <&7 8>&- &
child=$!

SECONDS=0
verdict=
while kill -0 "$child" 2>/dev/null; do
    sleep 0.2
    if [ -e "$control/status" ]; then
                # Do not wait for the host's power-off.
        sleep 0.2
        break
    elif [ $SECONDS -ge "$timeout_seconds" ]; then
        verdict=timeout
        break
    elif [ ! -e "$control/alive" ]; then
        [ $SECONDS -lt $UP_WITHIN ] || { verdict=not-up; break; }
    else
        age=$(($(date +%s) - $(stat -c %Y "$control/alive" 2>/dev/null || date +%s)))
        [ $age -lt $WEDGED_AFTER ] || { verdict=wedged; break; }
    fi
done
# A host with a system of its own has shut down when QEMU has ended.
if [ -z "$verdict" ] && [ -e "$control/ended" ]; then
    mv "$control/ended" "$control/status"
fi
if [ -e "$control/status" ]; then
        # The output was written before the status.
    for _ in $(seq 50); do
        kill -0 "$child" 2>/dev/null || break
        sleep 0.1
    done
fi
kill -KILL "$child" 2>/dev/null || true
wait "$child" 2>/dev/null || true
child=
[ ${#streams[@]} -eq 0 ] || wait "${streams[@]}" || true
streams=()
if [ -e "$control/status" ]; then
    status=$(cat "$control/status")
    echo "status $status" >"$dir/outcome"
    exit "$status"
fi
up="up"
[ -e "$control/alive" ] || up="not up"
case $verdict in
    timeout) conclude $EXIT_TIMEOUT timeout "time limit of $timeout_seconds s passed, host $up" ;;
    wedged) conclude $EXIT_HOST wedged "the software host wedged: no sign of life for $WEDGED_AFTER s" ;;
    not-up) conclude $EXIT_HOST not-up "the software host did not come up within $UP_WITHIN s" ;;
esac
[ -e "$control/alive" ] || conclude $EXIT_HOST not-up "the software host did not come up: QEMU ended"
conclude $EXIT_HOST died "the software host died while the command ran"
