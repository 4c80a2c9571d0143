"""celesto boots a guest with a disk, a tap with limits and vsock, pauses it, resumes it, and stops it.

usage: celesto_drive.py MONITOR KERNEL DISK DIRECTORY     (as root, where `ip` and `nft` may change the network)
"""

import os
import sys
from pathlib import Path

import guest

monitor, kernel, disk, directory = map(Path, sys.argv[1:])

# celesto looks for a program of this name.
programs = directory / "bin"
programs.mkdir()
(programs / "firecracker").symlink_to(monitor)
os.environ["PATH"] = f"{programs}:{os.environ['PATH']}"
os.environ["CELESTO_FIRECRACKER_DIR"] = str(programs)

from celesto.types import VMConfig, VsockConfig  # noqa: E402
from celesto.vm import CelestoManager  # noqa: E402

data, sockets = directory / "data", directory / "sockets"
for made in (data, sockets):
    made.mkdir()
manager = CelestoManager(data_dir=data, socket_dir=sockets, backend="firecracker")
manager.create(
    VMConfig(
        vm_id="web1",
        vcpu_count=1,
        memory=128,
        kernel_path=kernel,
        rootfs_path=disk,
        backend="firecracker",
        boot_args="console=ttyS0 reboot=k panic=1 pci=off",
        network_rate_limit_mbps=10,
        vsock=VsockConfig(guest_cid=7),
    )
)
console = data / "web1.log"


def status(vm):
    return vm.status.name


assert status(manager.start("web1", boot_timeout=30.0)) == "RUNNING"
text = guest.wait_for(console, guest.TICK)
assert "root=/dev/vda" in text, text
assert status(manager.pause("web1")) == "PAUSED"
guest.assert_paused(console)
assert status(manager.resume("web1")) == "RUNNING"
guest.wait_for_tick(console)
assert status(manager.stop("web1")) == "STOPPED"
manager.delete("web1")
