//! Network devices, by rtnetlink(7), in the network namespace in which the socket was opened.

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage,
    NlaBuffer, NlasIterator,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoBridgePort, InfoKind, InfoPortData, InfoPortKind, LinkAttribute, LinkExtentMask, LinkFlags,
    LinkInfo, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::io;

/// Types of messages (linux/netlink.h, linux/rtnetlink.h).
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
/// Length of `struct ifinfomsg`, in bytes; the device's number is its second word.
const LINK_HEADER: usize = 16;

/// Kind of a bridge.
pub const BRIDGE: &str = "bridge";

/// A network device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Its number in the namespace.
    pub index: u32,
    /// Its kind, e.g. `tun` or `bridge`; `unknown` for hardware.
    pub kind: String,
    /// Its Ethernet address.
    address: Vec<u8>,
    /// Number of the bridge that it is a port of.
    bridge: Option<u32>,
}

impl Device {
    /// Reads the payload of an `RTM_NEWLINK` message. Only the attributes used here are decoded: a newer kernel may
    /// send others in forms that the crate does not know.
    fn parse(payload: &[u8]) -> Option<Self> {
        let (header, attributes) = payload.split_at_checked(LINK_HEADER)?;
        let mut device = Self {
            index: word(header.get(4..)?)?,
            kind: "unknown".into(),
            ..Self::default()
        };
        for attribute in NlasIterator::new(attributes).flatten() {
            match attribute.kind() {
                libc::IFLA_ADDRESS => device.address = attribute.value().into(),
                libc::IFLA_MASTER => device.bridge = word(attribute.value()),
                libc::IFLA_LINKINFO => device.kind = kind(&attribute).unwrap_or(device.kind),
                _ => {}
            }
        }
        Some(device)
    }
}

fn kind(information: &NlaBuffer<&[u8]>) -> Option<String> {
    let mut attributes = NlasIterator::new(information.value()).flatten();
    let kind = attributes.find(|attribute| attribute.kind() == libc::IFLA_INFO_KIND)?;
    let text = String::from_utf8_lossy(kind.value()).into_owned();
    Some(text.trim_end_matches('\0').into())
}

fn word(bytes: &[u8]) -> Option<u32> {
    let bytes = bytes.get(..4)?.try_into().ok()?;
    Some(u32::from_ne_bytes(bytes))
}

/// A socket for requests about the devices of a network namespace.
#[derive(Debug)]
pub struct Devices(Socket);

impl Devices {
    /// Opens a socket for this thread's network namespace.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    /// Returns the device `name`; `None` if there is none.
    pub fn find(&self, name: &str) -> io::Result<Option<Device>> {
        let message = named(name);
        let found = self.ask(RouteNetlinkMessage::GetLink(message), NLM_F_ACK);
        match found {
            Ok(devices) => Ok(devices.into_iter().next()),
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Returns the device `name`.
    ///
    /// # Errors
    /// `ENODEV` if there is none.
    pub fn get(&self, name: &str) -> io::Result<Device> {
        let found = self.find(name)?;
        found.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
    }

    /// Brings the device up or down.
    pub fn set_up(&self, name: &str, up: bool) -> io::Result<()> {
        let mut message = named(name);
        message.header.change_mask = LinkFlags::Up;
        message.header.flags.set(LinkFlags::Up, up);
        self.change(RouteNetlinkMessage::SetLink(message))
    }

    /// Sets the device's MTU, in bytes.
    pub fn set_mtu(&self, name: &str, mtu: u16) -> io::Result<()> {
        let mut message = named(name);
        message.attributes.push(LinkAttribute::Mtu(mtu.into()));
        self.change(RouteNetlinkMessage::SetLink(message))
    }

    /// Makes the current Ethernet address of a bridge permanent. A bridge otherwise takes the lowest address of its
    /// ports, so that its address changes as guests come and go.
    pub fn fix_address(&self, name: &str) -> io::Result<()> {
        let address = self.get(name)?.address;
        let mut message = named(name);
        message.attributes.push(LinkAttribute::Address(address));
        self.change(RouteNetlinkMessage::SetLink(message))
    }

    /// Creates a bridge.
    ///
    /// # Errors
    /// `EEXIST` if there is a device `name`.
    pub fn add_bridge(&self, name: &str) -> io::Result<()> {
        let mut message = named(name);
        let kind = LinkInfo::Kind(InfoKind::Bridge);
        message.attributes.push(LinkAttribute::LinkInfo(vec![kind]));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.ask(RouteNetlinkMessage::NewLink(message), flags)
            .map(drop)
    }

    /// Deletes a device.
    pub fn delete(&self, name: &str) -> io::Result<()> {
        self.change(RouteNetlinkMessage::DelLink(named(name)))
    }

    /// Makes the device `port` a port of the bridge `bridge`.
    pub fn add_port(&self, bridge: &str, port: &str) -> io::Result<()> {
        let bridge = self.get(bridge)?.index;
        let mut message = named(port);
        message.attributes.push(LinkAttribute::Controller(bridge));
        self.change(RouteNetlinkMessage::SetLink(message))
    }

    /// Returns the number of ports of the bridge `name`.
    ///
    /// # Errors
    /// `EOPNOTSUPP` if `name` is a device of another kind.
    pub fn ports(&self, name: &str) -> io::Result<usize> {
        let device = self.get(name)?;
        // A caller that finds no port deletes the device.
        if device.kind != BRIDGE {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }
        let bridge = device.index;
        let mut message = LinkMessage::default();
        // The kernel leaves out other devices, and counters.
        message.attributes.extend([
            LinkAttribute::Controller(bridge),
            LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]),
        ]);
        let devices = self.ask(RouteNetlinkMessage::GetLink(message), NLM_F_DUMP)?;
        let ports = devices.iter().filter(|one| one.bridge == Some(bridge));
        Ok(ports.count())
    }

    /// Separates the bridge port `name` from all other isolated ports of its bridge.
    pub fn isolate(&self, name: &str) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = self.get(name)?.index;
        let isolated = InfoPortData::BridgePort(vec![InfoBridgePort::Isolated(true)]);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(isolated),
        ]));
        self.change(RouteNetlinkMessage::NewLink(message))
    }

    /// Adds the address `net` to the device `name`.
    ///
    /// # Errors
    /// `EEXIST` if the device has it.
    pub fn add_address(&self, name: &str, net: IpNet) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = match net {
            IpNet::V4(_) => AddressFamily::Inet,
            IpNet::V6(_) => AddressFamily::Inet6,
        };
        message.header.prefix_len = net.prefix_len();
        message.header.index = self.get(name)?.index;
        // Usable at once: no other host is on a new bridge.
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.extend([
            AddressAttribute::Local(net.addr()),
            AddressAttribute::Address(net.addr()),
        ]);
        if let IpNet::V4(v4) = net
            && v4.prefix_len() < 31
        {
            let broadcast = AddressAttribute::Broadcast(v4.broadcast());
            message.attributes.push(broadcast);
        }
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.ask(RouteNetlinkMessage::NewAddress(message), flags)
            .map(drop)
    }

    fn change(&self, message: RouteNetlinkMessage) -> io::Result<()> {
        self.ask(message, NLM_F_ACK).map(drop)
    }

    /// Sends `message`; returns the devices in the kernel's answer.
    fn ask(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<Device>> {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.0.send(&bytes, 0)?;
        let mut devices = Vec::new();
        loop {
            let (answer, _) = self.0.recv_from_full()?;
            let mut rest = answer.as_slice();
            while !rest.is_empty() {
                let message = NetlinkBuffer::new_checked(rest).map_err(io::Error::other)?;
                let payload = message.payload();
                match message.message_type() {
                    NLMSG_DONE => return Ok(devices),
                    NLMSG_ERROR => {
                        let code = word(payload).unwrap_or_default().cast_signed();
                        return match code {
                            0 => Ok(devices),
                            code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
                        };
                    }
                    RTM_NEWLINK => devices.extend(Device::parse(payload)),
                    _ => {}
                }
                let length = usize::try_from(message.length()).unwrap_or(usize::MAX);
                // Messages begin at multiples of four bytes.
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

/// Returns a message about the device `name`.
fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    message
}

#[cfg(test)]
#[path = "device_test.rs"]
mod device_test;
