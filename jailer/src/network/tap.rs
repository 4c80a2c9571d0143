//! The tap: made for one guest, gone with the last descriptor of it.

use crate::error::Error;
use crate::network::device::{Control, request};
use crate::network::netlink;
use nix::unistd::Uid;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

/// Where taps come from.
pub const TUN: &str = "/dev/net/tun";

/// What the VMM expects: Ethernet frames, no packet information, a virtio-net header before each.
const DIALECT: libc::c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
/// The tap has several queues.
const MULTI_QUEUE: libc::c_int = libc::IFF_MULTI_QUEUE;
/// Fail if the tap exists.
const EXCLUSIVE: libc::c_int = libc::IFF_TUN_EXCL;

/// Attaches to the tap `name`, which exists.
///
/// # Errors
/// What the host says; see [`explain`].
pub fn attach(name: &str) -> io::Result<OwnedFd> {
    match open(name, DIALECT) {
        // It was made with several queues; the guest has one of them.
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => open(name, DIALECT | MULTI_QUEUE),
        attached => attached,
    }
}

/// What [`attach`]'s error means.
pub fn explain(name: &str, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EBUSY) => {
            format!("the tap {name} is taken by another process: give each guest one of its own")
        }
        Some(libc::EINVAL) => {
            format!("{name} is no tap of one queue: create it with `ip tuntap add {name} mode tap`")
        }
        _ => format!("cannot use the tap {name}: {error}"),
    }
}

/// Creates the tap `name` for `owner`.
pub fn create(key: &str, name: &str, owner: Uid) -> Result<OwnedFd, Error> {
    let made = open(name, DIALECT | EXCLUSIVE).and_then(|tap| {
        own(&tap, owner)?;
        Ok(tap)
    });
    made.map_err(|e| {
        let hint = match e.raw_os_error() {
            Some(libc::EBUSY) => "; another guest took the name meanwhile",
            _ => "",
        };
        Error::step(format!("create the tap {name} ({key}.host_dev_name){hint}"))(e)
    })
}

/// Puts the tap on the bridge, and switches it on.
pub fn join(
    key: &str,
    name: &str,
    bridge: &str,
    mtu: Option<u16>,
    isolated: bool,
) -> Result<(), Error> {
    let control = Control::open().map_err(Error::step("open a socket to make network devices"))?;
    if let Some(mtu) = mtu {
        let refused = format!("give the tap {name} packets of {mtu} bytes ({key}.mtu)");
        control.set_mtu(name, mtu).map_err(Error::step(refused))?;
    }
    let index = control
        .index(name)
        .and_then(|index| index.ok_or_else(|| io::ErrorKind::NotFound.into()));
    let index = index.map_err(Error::step(format!("find the tap {name}")))?;
    let joined = control.add_port(bridge, index);
    joined.map_err(Error::step(format!(
        "put the tap {name} on the bridge {bridge} ({key}.bridge)"
    )))?;
    if isolated {
        let isolated = u32::try_from(index).map_err(io::Error::other);
        isolated
            .and_then(netlink::isolate)
            .map_err(Error::step(format!(
                "keep the tap {name} from other isolated ones ({key}.host.isolated)"
            )))?;
    }
    control
        .set_up(name, true)
        .map_err(Error::step(format!("switch on the tap {name} ({key})")))
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
