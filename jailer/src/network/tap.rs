//! Taps: each is made for one guest, and disappears with its last descriptor.

use crate::error::Error;
use crate::network::device::Devices;
use nix::unistd::Uid;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

/// The device that makes taps.
pub const TUN: &str = "/dev/net/tun";

/// The frames that the monitor expects: Ethernet, no packet information, a virtio-net header before each.
const FRAMES: libc::c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
/// The tap has several queues.
const MULTI_QUEUE: libc::c_int = libc::IFF_MULTI_QUEUE;
/// Fail if the tap exists.
const EXCLUSIVE: libc::c_int = libc::IFF_TUN_EXCL;

/// Attaches to the existing tap `name`. [`explain`] words the error.
pub fn attach(name: &str) -> io::Result<OwnedFd> {
    match open(name, FRAMES) {
        // It was made with several queues; the guest gets one of them.
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => open(name, FRAMES | MULTI_QUEUE),
        attached => attached,
    }
}

/// Returns the message for an error of [`attach`].
pub fn explain(name: &str, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EBUSY) => {
            format!("another process uses the tap {name}: give each guest a tap of its own")
        }
        Some(libc::EINVAL) => {
            format!(
                "{name} is not a tap with one queue: create it with `ip tuntap add {name} mode tap`"
            )
        }
        _ => format!("cannot use the tap {name}: {error}"),
    }
}

/// Creates the tap `name` for `owner`.
pub fn create(key: &str, name: &str, owner: Uid) -> Result<OwnedFd, Error> {
    let made = open(name, FRAMES | EXCLUSIVE).and_then(|tap| {
        own(&tap, owner)?;
        Ok(tap)
    });
    made.map_err(|e| {
        let hint = match e.raw_os_error() {
            Some(libc::EBUSY) => "; another guest has taken the name since it was checked",
            _ => "",
        };
        Error::step(format!("create the tap {name} ({key}.host_dev_name){hint}"))(e)
    })
}

/// Adds the tap `name` to the bridge `bridge`, and brings it up.
pub fn join(
    devices: &Devices,
    key: &str,
    name: &str,
    bridge: &str,
    mtu: Option<u16>,
    isolated: bool,
) -> Result<(), Error> {
    if let Some(mtu) = mtu {
        let step = format!("set the MTU of the tap {name} to {mtu} bytes ({key}.mtu)");
        devices.set_mtu(name, mtu).map_err(Error::step(step))?;
    }
    let joined = devices.add_port(bridge, name);
    joined.map_err(Error::step(format!(
        "add the tap {name} to the bridge {bridge} ({key}.bridge)"
    )))?;
    if isolated {
        let step = format!("isolate the tap {name} ({key}.host.isolated)");
        devices.isolate(name).map_err(Error::step(step))?;
    }
    let up = devices.set_up(name, true);
    up.map_err(Error::step(format!("bring up the tap {name} ({key})")))
}

/// Returns a request about the device `name`, of at most 15 bytes.
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
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_data: std::ptr::null_mut(),
        },
    })
}

#[expect(unsafe_code, reason = "TUNSETIFF is an ioctl")]
fn open(name: &str, flags: libc::c_int) -> io::Result<OwnedFd> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true);
    let file: File = options.custom_flags(libc::O_NONBLOCK).open(TUN)?;
    let mut request = request(name)?;
    // The field is signed, and the flags are its bits.
    let flags = u16::try_from(flags).map_err(io::Error::other)?;
    request.ifr_ifru.ifru_flags = libc::c_short::from_ne_bytes(flags.to_ne_bytes());
    // SAFETY: the argument points to an ifreq that lives until the call returns.
    checked(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request) })?;
    Ok(file.into())
}

#[expect(unsafe_code, reason = "TUNSETOWNER is an ioctl")]
fn own(tap: &OwnedFd, owner: Uid) -> io::Result<()> {
    let owner: libc::c_ulong = owner.as_raw().into();
    // SAFETY: the argument is a number.
    checked(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETOWNER, owner) })
}

fn checked(returned: libc::c_int) -> io::Result<()> {
    match returned {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
