//! Network devices by ioctl (netdevice(7)): names in, numbers out.

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GDRVINFO: u32 = 3;
const SIOCBRADDBR: libc::c_ulong = 0x89a0;
const SIOCBRDELBR: libc::c_ulong = 0x89a1;
const SIOCBRADDIF: libc::c_ulong = 0x89a2;
const SIOCDEVPRIVATE: libc::c_ulong = 0x89f0;
const BRCTL_GET_PORT_LIST: libc::c_ulong = 7;
/// Most ports of a bridge (BR_MAX_PORTS).
const MAX_PORTS: usize = 1024;

/// `struct ethtool_drvinfo`, as far as we read it.
#[repr(C)]
struct DriverInfo {
    cmd: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

/// A socket to ask the kernel about the devices of the network namespace it was opened in.
#[derive(Debug)]
pub struct Control(OwnedFd);

/// A request that names `name`, of at most 15 bytes.
pub fn request(name: &str) -> io::Result<libc::ifreq> {
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

impl Control {
    /// Opens the socket.
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let family = AddressFamily::Unix;
        Ok(Self(socket(family, SockType::Datagram, flags, None)?))
    }

    /// The kind of the device `name` as its driver calls it, e.g. `tun` or `bridge`; `None` if
    /// there is no such device.
    pub fn driver(&self, name: &str) -> io::Result<Option<String>> {
        let mut info = DriverInfo {
            cmd: ETHTOOL_GDRVINFO,
            driver: [0; 32],
            rest: [0; 160],
        };
        let mut request = request(name)?;
        request.ifr_ifru.ifru_data = (&raw mut info).cast();
        match self.call(SIOCETHTOOL, &mut request) {
            Ok(()) => {
                let name = info.driver.split(|byte| *byte == 0).next();
                let name = String::from_utf8_lossy(name.unwrap_or_default());
                Ok(Some(name.into_owned()))
            }
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(Some("unknown".into())),
            Err(e) => Err(e),
        }
    }

    /// Switches the device on or off.
    pub fn set_up(&self, name: &str, up: bool) -> io::Result<()> {
        let mut request = request(name)?;
        self.call(libc::SIOCGIFFLAGS, &mut request)?;
        let flag = libc::c_short::try_from(libc::IFF_UP).map_err(io::Error::other)?;
        let flags = read_flags(&request);
        request.ifr_ifru.ifru_flags = if up { flags | flag } else { flags & !flag };
        self.call(libc::SIOCSIFFLAGS, &mut request)
    }

    /// Sets the largest packet, in bytes.
    pub fn set_mtu(&self, name: &str, mtu: u16) -> io::Result<()> {
        let mut request = request(name)?;
        request.ifr_ifru.ifru_mtu = mtu.into();
        self.call(libc::SIOCSIFMTU, &mut request)
    }

    /// Makes the device's Ethernet address its own for good. A bridge otherwise takes the
    /// lowest address of its ports, so that it changes as guests come and go.
    pub fn fix_address(&self, name: &str) -> io::Result<()> {
        let mut request = request(name)?;
        self.call(libc::SIOCGIFHWADDR, &mut request)?;
        self.call(libc::SIOCSIFHWADDR, &mut request)
    }

    /// The device's number; `None` if there is no such device.
    pub fn index(&self, name: &str) -> io::Result<Option<libc::c_int>> {
        let mut request = request(name)?;
        match self.call(libc::SIOCGIFINDEX, &mut request) {
            Ok(()) => Ok(Some(read_index(&request))),
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Creates a bridge.
    pub fn add_bridge(&self, name: &str) -> io::Result<()> {
        self.call(SIOCBRADDBR, &mut request(name)?)
    }

    /// Removes a bridge, which is off.
    pub fn delete_bridge(&self, name: &str) -> io::Result<()> {
        self.call(SIOCBRDELBR, &mut request(name)?)
    }

    /// Puts the device with number `index` on the bridge `name`.
    pub fn add_port(&self, name: &str, index: libc::c_int) -> io::Result<()> {
        let mut request = request(name)?;
        request.ifr_ifru.ifru_ifindex = index;
        self.call(SIOCBRADDIF, &mut request)
    }

    /// Number of devices on the bridge `name`.
    pub fn ports(&self, name: &str) -> io::Result<usize> {
        let mut indices: [libc::c_int; MAX_PORTS] = [0; MAX_PORTS];
        let mut arguments = [
            BRCTL_GET_PORT_LIST,
            (&raw mut indices).addr() as libc::c_ulong,
            MAX_PORTS as libc::c_ulong,
            0,
        ];
        let mut request = request(name)?;
        request.ifr_ifru.ifru_data = (&raw mut arguments).cast();
        self.call(SIOCDEVPRIVATE, &mut request)?;
        Ok(indices.iter().filter(|index| **index != 0).count())
    }

    #[expect(unsafe_code, reason = "an ioctl")]
    fn call(&self, number: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: these ioctls take an ifreq, and those that follow its `ifru_data` get it from the
        // caller pointing to a buffer of the size that they are told or that is theirs.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), number, request) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

#[expect(unsafe_code, reason = "reading a union")]
fn read_flags(request: &libc::ifreq) -> libc::c_short {
    // SAFETY: SIOCGIFFLAGS wrote this member.
    unsafe { request.ifr_ifru.ifru_flags }
}

#[expect(unsafe_code, reason = "reading a union")]
fn read_index(request: &libc::ifreq) -> libc::c_int {
    // SAFETY: SIOCGIFINDEX wrote this member.
    unsafe { request.ifr_ifru.ifru_ifindex }
}
