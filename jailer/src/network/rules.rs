//! Packet filter rules: the guard of a guest's addresses, and NAT for a bridge's networks.
//!
//! Each guest and each bridge has a table, which is replaced as a whole: so starts at the same time do not conflict,
//! and a leftover is overwritten. The program `nft` loads a table, if the configuration asks for one.

use crate::error::Error;
use crate::sys::tool::Tool;
use crate::undo::Undo;
use ipnet::IpNet;
use resources::MacAddress;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

/// Priority before all of a host's own rules for a bridge (nft(8), "dstnat").
const FIRST: i32 = -400;
/// Priority of source translation (nft(8), "srcnat").
const TRANSLATION: i32 = 100;
/// Priority of filters (nft(8), "filter").
const FILTER: i32 = 0;
/// Flag of a route that a router has advertised (linux/ipv6_route.h, RTF_ADDRCONF).
const ADVERTISED: u32 = 0x0004_0000;

/// An interface of a guest, and the addresses it may send from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarded {
    /// The tap.
    pub tap: String,
    /// The only MAC address it may send from.
    pub mac: MacAddress,
    /// The only IP addresses it may send from; any, if there are none here.
    pub addresses: Vec<IpNet>,
}

/// Returns the name of the table of the guest `id`.
fn guard_table(id: &str) -> String {
    format!("bantam-{id}")
}

/// Returns the rules that drop packets of `guarded` from other addresses than theirs.
fn guard_rules(table: &str, guarded: &[Guarded]) -> String {
    let mut text = replace("bridge", table);
    let _ = writeln!(text, "table bridge {table} {{");
    let _ = writeln!(
        text,
        "chain prerouting {{ type filter hook prerouting priority {FIRST}; policy accept;"
    );
    for (i, card) in guarded.iter().enumerate() {
        let _ = writeln!(text, "iifname \"{}\" jump card{i}", card.tap);
    }
    text.push_str("}\n");
    for (i, card) in guarded.iter().enumerate() {
        let _ = writeln!(text, "chain card{i} {{");
        card.rules(&mut text);
        text.push_str("}\n");
    }
    text.push_str("}\n");
    text
}

impl Guarded {
    fn rules(&self, text: &mut String) {
        let mac = self.mac;
        let _ = writeln!(text, "ether saddr != {mac} drop");
        let _ = writeln!(text, "ether type arp arp saddr ether != {mac} drop");
        // A guest is no DHCP server and no router.
        text.push_str("udp sport 67 drop\nudp sport 547 drop\nicmpv6 type nd-router-advert drop\n");
        if self.addresses.is_empty() {
            return;
        }
        let of = |want: fn(&IpAddr) -> bool| {
            let own = self.addresses.iter().map(IpNet::addr).filter(want);
            own.map(|address| address.to_string()).collect::<Vec<_>>()
        };
        let (v4, v6) = (of(IpAddr::is_ipv4), of(IpAddr::is_ipv6));
        // A host that has no address yet: RFC 5227 probes, DHCP.
        text.push_str("ether type arp arp saddr ip 0.0.0.0 accept\n");
        text.push_str("ether type ip ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept\n");
        if !v4.is_empty() {
            let v4 = v4.join(", ");
            let _ = writeln!(text, "ether type arp arp saddr ip {{ {v4} }} accept");
            let _ = writeln!(text, "ether type ip ip saddr {{ {v4} }} accept");
        }
        let mut v6 = v6;
        // The guest chooses its link-local addresses.
        v6.push("fe80::/10".into());
        let own = v6.join(", ");
        // Neighbour advertisements, RFC 4861 4.4: the target begins 8 bytes into the message.
        let _ = writeln!(
            text,
            "icmpv6 type nd-neighbor-advert @th,64,128 != {{ {} }} drop",
            v6.iter()
                .map(|text| target(text))
                .collect::<Vec<_>>()
                .join(", ")
        );
        // RFC 4862: duplicate address detection sends from the unspecified address.
        let _ = writeln!(text, "ether type ip6 ip6 saddr {{ {own}, :: }} accept");
        text.push_str("drop\n");
    }
}

/// Returns an address or a network in the form in which nft compares raw bytes.
fn target(text: &str) -> String {
    let number = |ip: std::net::Ipv6Addr| format!("0x{:032x}", u128::from(ip));
    match text.parse::<IpNet>() {
        Ok(IpNet::V6(net)) => format!("{}-{}", number(net.network()), number(net.broadcast())),
        _ => text.parse().map_or_else(|_| text.to_owned(), number),
    }
}

/// Returns the name of the table of the bridge `name`. Characters that a table's name cannot have are escaped.
pub fn translation_table(name: &str) -> String {
    let mut table = String::from("bantam-nat-");
    for c in name.chars() {
        match c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.' {
            true => table.push(c),
            false => {
                let _ = write!(table, "/{:x}", u32::from(c));
            }
        }
    }
    table
}

/// Returns the rules that translate packets from `networks`, those of the bridge `name`, and forward only answers to
/// the guests.
fn translation_rules(name: &str, networks: &[IpNet]) -> String {
    let table = translation_table(name);
    let mut text = replace("inet", &table);
    let _ = writeln!(text, "table inet {table} {{");
    let _ = writeln!(
        text,
        "chain postrouting {{ type nat hook postrouting priority {TRANSLATION}; policy accept;"
    );
    for net in networks {
        let family = match net {
            IpNet::V4(_) => "ip",
            IpNet::V6(_) => "ip6",
        };
        let net = net.trunc();
        let _ = writeln!(
            text,
            "{family} saddr {net} {family} daddr != {net} oifname != \"{name}\" masquerade"
        );
    }
    text.push_str("}\n");
    // Only answers are forwarded to guests behind NAT.
    let _ = writeln!(
        text,
        "chain forward {{ type filter hook forward priority {FILTER}; policy accept;\n\
         iifname != \"{name}\" oifname \"{name}\" ct state != {{ established, related }} drop"
    );
    text.push_str("}\n}\n");
    text
}

/// Returns the commands that make the table empty, whether it exists or not.
fn replace(family: &str, table: &str) -> String {
    format!("add table {family} {table}\ndelete table {family} {table}\n")
}

/// Loads the table that guards the guest `id`.
pub fn guard(id: &str, guarded: &[Guarded], undo: &mut Undo) -> Result<(), Error> {
    let table = guard_table(id);
    undo.announce(|made| made.tables.push(format!("bridge {table}")))?;
    load(&guard_rules(&table, guarded), undo)?;
    undo.made(format!("the packet filter table {table}"), move || {
        remove(&format!("bridge {table}")).map_err(io::Error::other)
    })
}

/// Loads the table that translates packets from `networks`, those of the bridge `name`, and lets the host forward them.
///
/// # Errors
/// [`Error`], if `nft` fails, or if only the operator can enable forwarding.
pub fn translate(name: &str, networks: &[IpNet], undo: &mut Undo) -> Result<(), Error> {
    for (family, want, path) in [
        (
            "IPv4",
            IpAddr::is_ipv4 as fn(&IpAddr) -> bool,
            "/proc/sys/net/ipv4/ip_forward",
        ),
        (
            "IPv6",
            IpAddr::is_ipv6,
            "/proc/sys/net/ipv6/conf/all/forwarding",
        ),
    ] {
        if networks.iter().any(|net| want(&net.addr())) {
            forward(Path::new(path), family == "IPv6").map_err(Error::step(format!(
                "let the host forward {family}: write 1 to {path}"
            )))?;
        }
    }
    load(&translation_rules(name, networks), undo)
}

fn forward(path: &Path, v6: bool) -> io::Result<()> {
    if fs::read_to_string(path)?.trim() == "1" {
        return Ok(());
    }
    if v6 && route_is_advertised(&fs::read_to_string("/proc/thread-self/net/ipv6_route")?) {
        return Err(io::Error::other(
            "a router advertises this host's IPv6 route, and a forwarding host would lose it: set \
             net.ipv6.conf.DEVICE.accept_ra=2 for the device to that router, then \
             net.ipv6.conf.all.forwarding=1",
        ));
    }
    fs::write(path, "1")
}

/// Returns whether `routes`, of the form of /proc/net/ipv6_route, has a default route from a router.
fn route_is_advertised(routes: &str) -> bool {
    routes.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (Some(to), Some(len), Some(flags)) = (words.first(), words.get(1), words.get(8)) else {
            return false;
        };
        let advertised = u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & ADVERTISED != 0);
        advertised && *len == "00" && to.chars().all(|c| c == '0')
    })
}

/// Removes the table `table`, a family and a name, if it exists.
pub fn remove(table: &str) -> Result<(), Error> {
    let text = format!("add table {table}\ndelete table {table}\n");
    nft(&text)?.run_to_end().map(drop)
}

fn load(text: &str, undo: &mut Undo) -> Result<(), Error> {
    nft(text)?.run(undo).map(drop)
}

fn nft(text: &str) -> Result<Tool, Error> {
    Ok(Tool::new("nft", "nftables")?.args(["-f", "-"]).input(text))
}

#[cfg(test)]
#[path = "rules_test.rs"]
mod rules_test;
