"""bunkervm writes a configuration file, boots the guest from it with disk and vsock, queries the API, and stops it.

usage: bunkervm_drive.py MONITOR KERNEL DISK DIRECTORY
"""

import http.client
import json
import os
import socket
import sys
import time

import guest

monitor, kernel, disk, directory = sys.argv[1:]
os.environ.update(
    BUNKERVM_FIRECRACKER_BIN=monitor,
    BUNKERVM_KERNEL_PATH=kernel,
    BUNKERVM_ROOTFS_PATH=disk,
    HOME=directory,
)

from bunkervm.config import load_config  # noqa: E402
from bunkervm.vm_manager import VMManager  # noqa: E402

config = load_config()
config.mem_size_mib = 128
config.vcpu_count = 1
config.rootfs_work_path = f"{directory}/work.ext4"
vm = VMManager(config, network=False)
vm.start()
assert vm.is_running()
assert os.path.exists(vm.vsock_uds_path)

# bunkervm reads the console from a pipe while the guest runs.
console = vm._process.stdout.fileno()
text, deadline = "", time.monotonic() + guest.PATIENCE
while guest.TICK not in text:
    assert time.monotonic() < deadline, text
    text += os.read(console, 65536).decode(errors="replace")
assert "Running Firecracker" in text, text
vm.stop()
assert not vm.is_running()
