//! ARP for IPv4 over Ethernet (RFC 826): requests and replies.

use super::ethernet::{Mac, OUR_MAC};
use std::net::Ipv4Addr;

/// Size of a packet in bytes.
pub const LEN: usize = 28;
/// Hardware type Ethernet, protocol type IPv4, lengths 6 and 4.
const KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: [u8; 2] = [0, 1];
const REPLY: [u8; 2] = [0, 2];

/// A request for the owner of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// MAC address of the sender.
    pub sender_mac: Mac,
    /// IP address of the sender; 0.0.0.0 in a probe.
    pub sender_ip: Ipv4Addr,
    /// The requested address.
    pub target: Ipv4Addr,
}

impl Request {
    /// Parses a request. Returns `None` for anything else.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let (kind, rest) = packet.split_first_chunk()?;
        let (operation, rest) = rest.split_first_chunk()?;
        let (sender_mac, rest) = rest.split_first_chunk()?;
        let (sender_ip, rest) = rest.split_first_chunk::<4>()?;
        let (_, rest) = rest.split_first_chunk::<6>()?;
        let (target, _) = rest.split_first_chunk::<4>()?;
        (*kind == KIND && *operation == REQUEST).then_some(Self {
            sender_mac: *sender_mac,
            sender_ip: Ipv4Addr::from(*sender_ip),
            target: Ipv4Addr::from(*target),
        })
    }

    /// Returns the reply that the service owns the address.
    pub fn reply(&self) -> [u8; LEN] {
        let mut packet = [0; LEN];
        let fields = KIND
            .into_iter()
            .chain(REPLY)
            .chain(OUR_MAC)
            .chain(self.target.octets())
            .chain(self.sender_mac)
            .chain(self.sender_ip.octets());
        for (byte, value) in packet.iter_mut().zip(fields) {
            *byte = value;
        }
        packet
    }
}

#[cfg(test)]
#[path = "arp_test.rs"]
mod arp_test;
