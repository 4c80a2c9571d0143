"""hysn-firecracker-python boots a guest with a disk, a tap and MMDS, reads its configuration, pauses it, resumes it,
and deletes it.

usage: hysn-firecracker-python_drive.py MONITOR KERNEL DISK DIRECTORY     (as root; the default route is over eth0)
"""

import os
import sys

import guest

monitor, kernel, disk, directory = sys.argv[1:]
data, snapshots = f"{directory}/data", f"{directory}/snapshots"
os.makedirs(data)
os.makedirs(snapshots)

# Replaces what a test machine lacks: a Docker daemon, an answer from the internet, and Debian's python3-nftables.
import docker  # noqa: E402

docker.from_env = lambda *_, **__: None

import firecracker.config  # noqa: E402
import firecracker.microvm  # noqa: E402
import firecracker.network  # noqa: E402

firecracker.microvm.get_public_ip = lambda *_, **__: "127.0.0.1"
firecracker.network.NetworkManager.create_masquerade = lambda *_: True

# The default paths are on the host.
places = {
    "/usr/local/bin/firecracker": monitor,
    "/var/lib/firecracker": data,
    "/var/lib/firecracker/snapshots": snapshots,
}
configure = firecracker.config.MicroVMConfig.__init__
configure.__defaults__ = tuple(
    places.get(value, value) if isinstance(value, str) else value for value in configure.__defaults__
)

vm = firecracker.MicroVM(
    name="web1",
    kernel_file=kernel,
    base_rootfs=disk,
    vcpu=1,
    memory="128M",
    ip_addr="172.30.0.2",
    mmds_enabled=True,
    user_data="hello",
)
assert "created" in (answer := vm.create()), answer
machine = vm._microvm_id
console = f"{data}/{machine}/firecracker.log"
guest.wait_for(console, guest.TICK)

config = vm.config()
assert config["machine-config"]["mem_size_mib"] == 128, config
assert config["drives"][0]["cache_type"] == "Unsafe", config
assert config["mmds-config"]["version"] == "V2", config
assert len(config["network-interfaces"]) == 1, config
assert "running" in (answer := vm.status()), answer
assert "paused" in (answer := vm.pause()), answer
guest.assert_paused(console)
assert "resumed" in (answer := vm.resume()), answer
guest.wait_for_tick(console)
assert firecracker.MicroVM.list()[0]["id"] == machine
assert "deleted" in (answer := vm.delete()), answer
