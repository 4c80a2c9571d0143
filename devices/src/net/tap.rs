//! The tap: a network device of the host whose other end is a descriptor.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;

/// Bytes of `struct virtio_net_hdr_v1`, the header of every packet on the tap and in the ring.
pub const HEADER: usize = 12;

/// Offloads that the guest accepts for received packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// Packets without a checksum.
    pub checksum: bool,
    /// TCP over IPv4 in packets of up to 64 KiB.
    pub tso4: bool,
    /// TCP over IPv6 in packets of up to 64 KiB.
    pub tso6: bool,
}

/// The reason why a tap cannot be used. Each text names the tap.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The host has no TUN device.
    #[error("cannot open /dev/net/tun: load the module `tun`, or give the process access to it")]
    NoTun(#[source] io::Error),
    /// Another process uses the tap.
    #[error("the tap {0} is in use by another process: give each guest a tap of its own")]
    Taken(String),
    /// The process may not use or create the tap.
    #[error(
        "not permitted to use the tap {name}: create it for this user with \
         `ip tuntap add {name} mode tap user $(id -u)`, or start through the jailer"
    )]
    NotPermitted {
        /// The tap.
        name: String,
        /// The error of the host.
        #[source]
        source: io::Error,
    },
    /// The device is no tap, or not one with a virtio-net header.
    #[error("cannot use the tap {name}")]
    Unusable {
        /// The tap.
        name: String,
        /// The error of the host.
        #[source]
        source: io::Error,
    },
}

/// An open tap with a virtio-net header before each packet.
#[derive(Debug)]
pub struct Tap {
    file: File,
}

impl Tap {
    /// Attaches to the tap `name`. Creates it if it does not exist and the process may.
    ///
    /// # Errors
    /// [`TapError`], naming the tap.
    pub fn open(name: &str) -> Result<Self, TapError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .map_err(TapError::NoTun)?;
        attach(&file, name).map_err(|source| match source.raw_os_error() {
            Some(libc::EBUSY) => TapError::Taken(name.into()),
            Some(libc::EPERM | libc::EACCES) => TapError::NotPermitted {
                name: name.into(),
                source,
            },
            _ => TapError::Unusable {
                name: name.into(),
                source,
            },
        })?;
        Self::ready(file, name)
    }

    /// Uses an open tap that another process passed on at exec. `fd` stays open, for a guest that reboots.
    ///
    /// # Errors
    /// [`TapError::Unusable`] if `fd` is no open tap called `name`.
    pub fn inherited(fd: RawFd, name: &str) -> Result<Self, TapError> {
        let unusable = |source| TapError::Unusable {
            name: name.into(),
            source,
        };
        let file = take_descriptor(fd).map_err(unusable)?;
        if attached_name(&file).map_err(unusable)? != name.as_bytes() {
            let text = format!("descriptor {fd} belongs to another tap");
            return Err(unusable(io::Error::other(text)));
        }
        Self::ready(file, name)
    }

    fn ready(file: File, name: &str) -> Result<Self, TapError> {
        let tap = Self { file };
        tap.set_header_size().map_err(|source| TapError::Unusable {
            name: name.into(),
            source,
        })?;
        Ok(tap)
    }

    /// Uses `end` of a message socket as a tap. Each message is a packet with its header.
    #[cfg(any(test, feature = "testing"))]
    pub fn from_socket(end: std::os::fd::OwnedFd) -> Self {
        Self { file: end.into() }
    }

    /// Duplicates the handle.
    ///
    /// # Errors
    /// The process has no free descriptor.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            file: self.file.try_clone()?,
        })
    }

    /// Reads one packet with its header. `WouldBlock` means that there is none.
    ///
    /// # Errors
    /// The read failed, or the tap was removed.
    pub fn read(&mut self, packet: &mut [u8]) -> io::Result<usize> {
        self.file.read(packet)
    }

    /// Sets the offloads that the guest accepts.
    ///
    /// # Errors
    /// The kernel refused them.
    #[expect(unsafe_code, reason = "TUNSETOFFLOAD is an ioctl")]
    pub fn set_offload(&self, offload: Offload) -> io::Result<()> {
        let mut flags: libc::c_uint = 0;
        for (set, flag) in [
            (offload.checksum, libc::TUN_F_CSUM),
            (offload.tso4, libc::TUN_F_TSO4),
            (offload.tso6, libc::TUN_F_TSO6),
        ] {
            flags |= if set { flag } else { 0 };
        }
        // SAFETY: the argument is a number.
        let done = unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETOFFLOAD, flags) };
        checked(done)
    }

    #[expect(unsafe_code, reason = "TUNSETVNETHDRSZ is an ioctl")]
    fn set_header_size(&self) -> io::Result<()> {
        let size = libc::c_int::try_from(HEADER).map_err(io::Error::other)?;
        // SAFETY: the argument points to an int that the kernel only reads.
        let done = unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &size) };
        checked(done)
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn checked(returned: libc::c_int) -> io::Result<()> {
    match returned {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Returns a request for the device `name`, whose length the configuration has checked.
fn request(name: &str) -> io::Result<libc::ifreq> {
    let mut field: [libc::c_char; libc::IFNAMSIZ] = [0; libc::IFNAMSIZ];
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in field.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    Ok(libc::ifreq {
        ifr_name: field,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: 0 },
    })
}

#[expect(unsafe_code, reason = "TUNSETIFF is an ioctl")]
fn attach(file: &File, name: &str) -> io::Result<()> {
    let mut request = request(name)?;
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).map_err(io::Error::other)?;
    // SAFETY: the argument points to an ifreq that lives until the call returns.
    checked(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request) })
}

/// Returns the name of the device that `file` is attached to. Fails if it is no tap.
#[expect(unsafe_code, reason = "TUNGETIFF is an ioctl")]
fn attached_name(file: &File) -> io::Result<Vec<u8>> {
    let mut request = request("")?;
    // SAFETY: the argument points to an ifreq that lives until the call returns.
    checked(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNGETIFF, &mut request) })?;
    let name = request.ifr_name.iter().map(|c| c.to_ne_bytes()[0]);
    Ok(name.take_while(|c| *c != 0).collect())
}

/// Duplicates `fd`, which the configuration names as inherited.
#[expect(
    unsafe_code,
    reason = "an inherited descriptor is a number until it is borrowed"
)]
fn take_descriptor(fd: RawFd) -> io::Result<File> {
    // SAFETY: F_SETFD takes a number, and fails if `fd` is not open.
    checked(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: `fd` is open. The jailer opened it for this process, which never closes it.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    Ok(fd.try_clone_to_owned()?.into())
}
