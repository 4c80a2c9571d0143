//! Guest memory whose page faults another process serves (userfaultfd(2)). The process listens at a Unix socket and gets
//! the layout of the memory and the descriptor in one message. From then on, a touch of a page waits until the process serves
//! it, without a limit.
//!
//! All of this happens before the process is confined.

use crate::machine::memory::layers::Layer;
use crate::machine::memory::mapping::{self, MemoryError};
use devices::GuestMemory;
use resources::{HugePages, MachineConfig};
use serde::Serialize;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_val};
use vmm_sys_util::sock_ctrl_msg::ScmSocket as _;

// Constants of linux/userfaultfd.h.
const DEVICE: &str = "/dev/userfaultfd";
const USERFAULTFD_IOC_NEW: libc::c_ulong = 0xaa00;
const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
const UFFD_API: u64 = 0xaa;
/// Reports pages that the balloon released to the handler, which then serves zeroes for them.
const UFFD_FEATURE_EVENT_REMOVE: u64 = 1 << 3;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1 << 0;

#[repr(C)]
struct UffdioApi {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct UffdioRegister {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

/// Why no process can serve the memory. Each text suggests a remedy.
#[derive(Debug, thiserror::Error)]
pub enum UffdError {
    /// The memory cannot be mapped.
    #[error(transparent)]
    Map(#[from] MemoryError),
    /// The user may not use userfaultfd.
    #[error(
        "mem_backend: Uffd: this user may not use userfaultfd: grant access to {DEVICE}, which the jailer puts into \
        jails if the host has it, or write 1 to /proc/sys/vm/unprivileged_userfaultfd"
    )]
    NotPermitted(#[source] io::Error),
    /// The kernel does not support userfaultfd.
    #[error(
        "mem_backend: Uffd: the host's kernel does not support userfaultfd (CONFIG_USERFAULTFD)"
    )]
    NotSupported(#[source] io::Error),
    /// The kernel refused this memory.
    #[error("mem_backend: Uffd: the kernel refused to register guest memory with userfaultfd")]
    Register(#[source] io::Error),
    /// The handler does not listen.
    #[error("mem_backend: Uffd: cannot connect to {}: is the page fault handler running?", path.display())]
    Connect {
        /// The socket's path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The handler did not accept the message.
    #[error("mem_backend: Uffd: cannot send the memory's layout to {}", path.display())]
    Send {
        /// The socket's path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// A region of guest memory in the message to a handler.
#[derive(Debug, Serialize)]
struct Mapping {
    base_host_virt_addr: u64,
    size: u64,
    /// Offset in the memory file.
    offset: u64,
    page_size: u64,
    /// In bytes in spite of its name, because handlers depend on it.
    page_size_kib: u64,
}

/// Maps the memory of `config`, served by the process that listens at `socket`. The layer covers all pages.
///
/// # Errors
/// [`UffdError`].
pub(super) fn map(
    config: &MachineConfig,
    socket: &Path,
) -> Result<(GuestMemory, Layer), UffdError> {
    let memory = mapping::map(config)?;
    let page_size = match config.huge_pages {
        HugePages::Hugetlb2M => 2 << 20,
        HugePages::None | HugePages::Transparent => 4096,
    };
    let faults = open()?;
    let mut offset = 0;
    let mut mappings = Vec::new();
    for region in memory.iter() {
        let mapping = Mapping {
            base_host_virt_addr: region.as_ptr() as u64,
            size: region.len(),
            offset,
            page_size,
            page_size_kib: page_size,
        };
        offset += mapping.size;
        register(&faults, &mapping).map_err(UffdError::Register)?;
        mappings.push(mapping);
    }
    let path = socket;
    let stream = UnixStream::connect(path).map_err(|source| UffdError::Connect {
        path: path.into(),
        source,
    })?;
    let sent = serde_json::to_vec(&mappings)
        .map_err(io::Error::from)
        .and_then(|text| {
            let sent = stream.send_with_fd(text.as_slice(), faults.as_raw_fd());
            match sent.map_err(io::Error::from)? {
                len if len == text.len() => Ok(()),
                _ => Err(io::ErrorKind::WriteZero.into()),
            }
        });
    sent.map_err(|source| UffdError::Send {
        path: path.into(),
        source,
    })?;
    // The descriptor is kept as long as the memory: if the handler ended and it were closed, the guest would see zeroes.
    let layer = Layer {
        file: Arc::new(faults),
        runs: Some(vec![(0, offset)]),
    };
    Ok((memory, layer))
}

/// Opens a descriptor that also serves faults in kernel mode, in which guests run. Prefers the device to the system call.
fn open() -> Result<File, UffdError> {
    let by_device = File::options().read(true).write(true).open(DEVICE);
    let faults = by_device.and_then(|device| new_by_device(&device));
    let faults = faults.or_else(|_| new_by_call());
    let faults = faults.map_err(|e| match e.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => UffdError::NotPermitted(e),
        _ => UffdError::NotSupported(e),
    })?;
    let api = negotiate(&faults, UFFD_FEATURE_EVENT_REMOVE);
    let api = api.or_else(|_| negotiate(&faults, 0));
    api.map_err(UffdError::NotSupported)?;
    Ok(faults)
}

const FLAGS: libc::c_int = libc::O_CLOEXEC | libc::O_NONBLOCK;

#[expect(unsafe_code, reason = "ioctl is an unsafe function")]
fn new_by_device(device: &File) -> io::Result<File> {
    let flags = libc::c_ulong::try_from(FLAGS).map_err(io::Error::other)?;
    // SAFETY: the request takes a number and returns a new descriptor or an error.
    unsafe { owned(ioctl_with_val(device, USERFAULTFD_IOC_NEW, flags)) }
}

#[expect(unsafe_code, reason = "the C library has no such function")]
fn new_by_call() -> io::Result<File> {
    // SAFETY: the call takes a number and returns a new descriptor or an error.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, FLAGS) };
    let fd = libc::c_int::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: as above.
    unsafe { owned(fd) }
}

/// # Safety
/// `fd` must be a new descriptor, or negative.
#[expect(unsafe_code, reason = "the descriptor arrives as a number")]
unsafe fn owned(fd: libc::c_int) -> io::Result<File> {
    match fd {
        // SAFETY: the caller got the descriptor from the kernel, and nothing else owns it.
        0.. => Ok(unsafe { File::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[expect(unsafe_code, reason = "ioctl is an unsafe function")]
fn negotiate(faults: &File, features: u64) -> io::Result<()> {
    let mut api = UffdioApi {
        api: UFFD_API,
        features,
        ioctls: 0,
    };
    // SAFETY: the kernel reads and writes a `struct uffdio_api`.
    match unsafe { ioctl_with_mut_ref(faults, UFFDIO_API, &mut api) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[expect(unsafe_code, reason = "ioctl is an unsafe function")]
fn register(faults: &File, mapping: &Mapping) -> io::Result<()> {
    let mut register = UffdioRegister {
        start: mapping.base_host_virt_addr,
        len: mapping.size,
        mode: UFFDIO_REGISTER_MODE_MISSING,
        ioctls: 0,
    };
    // SAFETY: the kernel reads and writes a `struct uffdio_register`. The range is a mapping of anonymous memory that was
    // never touched. A thread that touches it waits in the kernel.
    match unsafe { ioctl_with_mut_ref(faults, UFFDIO_REGISTER, &mut register) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
#[path = "uffd_test.rs"]
mod uffd_test;
