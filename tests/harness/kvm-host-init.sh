#!/bin/busybox sh
# shellcheck shell=dash
# The init of the software KVM host; kvm-host.sh puts it into the host's initrd as /init. It mounts a root file system over
# the machine's own, which is read-only, runs one command on it, reports the status and powers off. Its output goes to the
# host's console log.
#
# A host with a system of its own (kvm-host.sh --system) has a disk instead, and starts systemd with the command as a unit.

export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev

for module in virtio_pci virtio_console 9pnet_virtio 9p overlay; do
    modprobe "$module" || echo "kvm-host-init: no module $module"
done

give_up() {
    echo "kvm-host-init: $*"
    poweroff -f
}

system=
grep -q -w kvm_host.system /proc/cmdline && system=yes

# The page cache is kept: nothing changes the machine's files under a running host, and a test program of tens of megabytes
# would be read again at each start.
mkdir -p /lower /memory /root
mount -t 9p -o ro,version=9p2000.L,trans=virtio,msize=512000,cache=loose root /lower || give_up "no root"
if [ -n "$system" ]; then
    modprobe -a virtio_blk crc32c_generic ext4
    mount -t ext4 /dev/vda1 /root || give_up "no root on the disk"
else
    mount -t tmpfs -o size=90%,mode=755 memory /memory
    mkdir -p /memory/upper /memory/work
    mount -t overlay -o lowerdir=/lower,upperdir=/memory/upper,workdir=/memory/work root /root || give_up "no overlay"

    mkdir -p /root/proc /root/sys /root/dev /root/run /root/tmp
    mount -t proc -o nosuid,noexec,nodev proc /root/proc
    mount -t sysfs -o nosuid,noexec,nodev sys /root/sys
    mount -t devtmpfs -o nosuid dev /root/dev
    mkdir -p /root/dev/pts /root/dev/shm
    mount -t devpts -o mode=620,ptmxmode=666 devpts /root/dev/pts
    mount -t tmpfs -o mode=1777,nosuid,nodev shm /root/dev/shm
    mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
    mount -t debugfs debugfs /root/sys/kernel/debug
    mount -t tracefs tracefs /root/sys/kernel/tracing
    ln -sf /proc/self/fd /root/dev/fd
    ln -sf /proc/self/fd/0 /root/dev/stdin
    ln -sf /proc/self/fd/1 /root/dev/stdout
    ln -sf /proc/self/fd/2 /root/dev/stderr
fi

# A tmpfs instead of the overlay: it has no lower layer, holes can be punched in its files, and mounts, device nodes and
# sockets work as on a disk. Socket paths must be short.
mount -t tmpfs -o mode=755 run /root/run
mkdir -p /root/run/tests /root/run/results /root/run/lock
mount -t tmpfs -o size=90%,mode=1777 tests /root/run/tests
mount -t 9p -o version=9p2000.L,trans=virtio,msize=512000,cache=mmap results /root/run/results ||
    give_up "no results directory"
control=/root/run/results/.control
if [ -n "$system" ]; then
        # The project has the same path as on the machine.
    project=$(cat $control/project)
    mkdir -p "/root$project"
    mount -o bind "/lower$project" "/root$project"
fi
dir=$(cat $control/dir)
mkdir -p "/root$dir"
mount -o bind /root/run/results "/root$dir"

# The kernel's modules are where they were unpacked, most likely not in the machine's /lib.
modules=$(cat $control/modules)
mkdir -p "/root/lib/modules/$(uname -r)"
mount -o bind "/lower$modules" "/root/lib/modules/$(uname -r)"

hostname kvm-host
ip link set lo up
ulimit -n 65536
cp /bin/busybox /root/run/busybox

cat >/root/run/alive <<'END'
# Reports that the host is alive.
while :; do
    read -r alive _ </proc/uptime
    echo "$alive" >/run/results/.control/alive
    /run/busybox sleep 2
done
END
cat >/root/run/start <<'END'
#!/bin/bash
# Runs the command with the ports as its output, and reports its status.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
modprobe -a kvm_amd tun bridge vhost_net loop virtio_blk ||
    echo 'kvm-host-init: a module did not load'
chmod 666 /dev/kvm /dev/net/tun /dev/vhost-net
for port in /sys/class/virtio-ports/*; do
    read -r name <"$port/name"
    case $name in
        out) out=/dev/${port##*/} ;;
        err) err=/dev/${port##*/} ;;
    esac
done
[ -d /run/systemd/system ] || bash /run/alive &
if [ -c /dev/hvc0 ]; then
    setsid --ctty --wait bash /run/results/.control/command </dev/hvc0 >/dev/hvc0 2>&1
    status=$?
else
        # Pipes, because a port can be opened only once, and a command may open /dev/stdout again.
    mkfifo /run/out /run/err
    cat /run/out >"$out" &
    streams=$!
    cat /run/err >"$err" &
    streams="$streams $!"
    exec 3>/run/out 4>/run/err
    setsid --wait bash /run/results/.control/command </dev/null >&3 2>&4 3>&- 4>&-
    status=$?
    exec 3>&- 4>&-
        # Processes that the command left may keep the pipes open; do not wait for them.
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        # shellcheck disable=SC2086  # a list of process ids
        kill -0 $streams 2>/dev/null || break
        sleep 0.1
    done
fi
sync
if [ -d /run/systemd/system ]; then
        # kvm-host.sh reads the status when this host has ended.
    echo $status >/run/results/.control/ended
    exec systemctl reboot
fi
echo $status >/run/results/.control/status.new
mv /run/results/.control/status.new /run/results/.control/status
/run/busybox poweroff -f
END
if [ -n "$system" ]; then
    mkdir -p /root/run/systemd/system/multi-user.target.wants
    cat >/root/run/systemd/system/kvm-host.service <<'END'
[Unit]
Description=The command that kvm-host.sh was given
After=multi-user.target

[Service]
ExecStart=/bin/bash /run/start
END
        # It runs until the host's shutdown has finished, which may take long.
    cat >/root/run/systemd/system/kvm-host-alive.service <<'END'
[Unit]
Description=A sign of life for kvm-host.sh
DefaultDependencies=no

[Service]
ExecStart=/bin/bash /run/alive
END
    for unit in kvm-host kvm-host-alive; do
        ln -s "../$unit.service" "/root/run/systemd/system/multi-user.target.wants/"
    done
    exec switch_root /root /lib/systemd/systemd
fi
echo "kvm-host-init: up after $(cut -d' ' -f1 /proc/uptime) s"
exec switch_root /root /bin/bash /run/start
