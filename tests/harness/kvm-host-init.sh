#!/bin/busybox sh
# shellcheck shell=dash
# The first process of the software KVM host; kvm-host.sh puts it into the host's initrd as /init.
# It lays a root file system over the machine's own, read-only one, runs one command on it, reports
# the status and powers off. Everything it prints goes to the host's console log.

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

# Its page cache is kept: nothing changes the machine's files under a running host, and a test
# binary of tens of megabytes would be read anew at each start.
mkdir -p /lower /memory /root
mount -t 9p -o ro,version=9p2000.L,trans=virtio,msize=512000,cache=loose root /lower || give_up "no root"
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

# A tmpfs, not the overlay: it has no lower layer to consult, holes can be punched in its files, and
# its mounts, device nodes and sockets behave as on a disk. Sockets want a short path.
mount -t tmpfs -o mode=755 run /root/run
mkdir -p /root/run/tests /root/run/results /root/run/lock
mount -t tmpfs -o size=90%,mode=1777 tests /root/run/tests
mount -t 9p -o version=9p2000.L,trans=virtio,msize=512000,cache=mmap results /root/run/results ||
    give_up "no results directory"
control=/root/run/results/.control
dir=$(cat $control/dir)
mkdir -p "/root$dir"
mount -o bind /root/run/results "/root$dir"

# The kernel's modules lie wherever they were unpacked, most likely not in the machine's /lib.
modules=$(cat $control/modules)
mkdir -p "/root/lib/modules/$(uname -r)"
mount -o bind "/root$modules" "/root/lib/modules/$(uname -r)"

hostname kvm-host
ip link set lo up
ulimit -n 65536
cp /bin/busybox /root/run/busybox

cat >/root/run/start <<'END'
#!/bin/bash
# Runs the command with the ports as its output and then says that and how it ended.
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
while :; do
    read -r alive _ </proc/uptime
    echo "$alive" >/run/results/.control/alive
    /run/busybox sleep 2
done &
if [ -c /dev/hvc0 ]; then
    setsid --ctty --wait bash /run/results/.control/command </dev/hvc0 >/dev/hvc0 2>&1
    status=$?
else
    # Pipes, because a port opens only once: a command may open /dev/stdout again, a pipe allows it.
    mkfifo /run/out /run/err
    cat /run/out >"$out" &
    streams=$!
    cat /run/err >"$err" &
    streams="$streams $!"
    exec 3>/run/out 4>/run/err
    setsid --wait bash /run/results/.control/command </dev/null >&3 2>&4 3>&- 4>&-
    status=$?
    exec 3>&- 4>&-
    # What the command left running may hold the pipes open; it is not waited for.
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        # shellcheck disable=SC2086  # a list of process ids
        kill -0 $streams 2>/dev/null || break
        sleep 0.1
    done
fi
sync
echo $status >/run/results/.control/status.new
mv /run/results/.control/status.new /run/results/.control/status
/run/busybox poweroff -f
END
echo "kvm-host-init: up after $(cut -d' ' -f1 /proc/uptime) s"
exec switch_root /root /bin/bash /run/start
