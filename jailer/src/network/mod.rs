//! The guest's network on the host: taps, and the bridges they are on.
//!
//! A tap with the key `bridge` is made here and lives as long as a descriptor of it is open, which
//! the VMM inherits; nothing needs to be taken away at its end. A bridge that was created stays, as
//! other guests may be on it by then.

pub mod bridge;
pub mod device;
pub mod tap;

use crate::error::Error;
use crate::undo::Undo;
use device::Control;
use resources::{NetworkInterface, Problem};
use std::os::fd::OwnedFd;
use std::path::Path;

/// One interface, checked: what is there already, and what is to be made.
#[derive(Debug)]
pub enum Interface {
    /// A tap that exists, open.
    Existing(OwnedFd),
    /// A tap to make.
    New {
        /// Its key in the configuration.
        key: String,
        /// Its name.
        name: String,
        /// The bridge it goes on.
        bridge: String,
        /// Largest packet in bytes, the device's default if absent.
        mtu: Option<u16>,
    },
}

/// Finds out whether the taps and bridges that `interfaces` ask for can be had, without making any.
pub fn check(interfaces: &[NetworkInterface], problems: &mut Vec<Problem>) -> Vec<Interface> {
    if interfaces.is_empty() {
        return Vec::new();
    }
    let control = match Control::open() {
        Ok(control) => control,
        Err(e) => {
            let message = format!("cannot open a socket to look at network devices: {e}");
            problems.push(Problem::new("network-interfaces", message));
            return Vec::new();
        }
    };
    let tun = Path::new(tap::TUN);
    if !tun.exists() {
        let message = format!("there is no {}: load the module `tun`", tun.display());
        problems.push(Problem::new("network-interfaces", message));
        return Vec::new();
    }
    let mut found = Vec::new();
    for (i, interface) in interfaces.iter().enumerate() {
        let key = format!("network-interfaces[{i}]");
        let others = interfaces.iter().map(|n| n.host_dev_name.as_str());
        match check_one(&control, &key, interface, others) {
            Ok(interface) => found.push(interface),
            Err(problem) => problems.push(problem),
        }
    }
    found
}

fn check_one<'a>(
    control: &Control,
    key: &str,
    interface: &NetworkInterface,
    mut taps: impl Iterator<Item = &'a str>,
) -> Result<Interface, Problem> {
    let name = &interface.host_dev_name;
    let tap = |message: String| Problem::new(format!("{key}.host_dev_name"), message);
    if interface.tap_fd.is_some() {
        let message = "is written by the jailer itself: remove the key";
        return Err(Problem::new(format!("{key}.tap_fd"), message));
    }
    let driver = |name: &str| {
        let driver = control.driver(name);
        driver.map_err(|e| Problem::new(key, format!("cannot look at the device {name}: {e}")))
    };
    let existing = driver(name)?;
    let Some(bridge) = &interface.bridge else {
        return match existing.as_deref() {
            None => Err(tap(format!(
                "there is no tap {name}: add the key `bridge` and the jailer makes it, or create it \
                 with `ip tuntap add {name} mode tap`"
            ))),
            Some("tun") => tap::attach(name)
                .map(Interface::Existing)
                .map_err(|e| tap(tap::explain(name, &e))),
            Some(other) => Err(tap(format!(
                "{name} is a device of kind `{other}`, not a tap: choose another name"
            ))),
        };
    };
    if existing.is_some() {
        return Err(tap(format!(
            "a device {name} exists already, a running guest's or one made by hand: choose another \
             name, remove it with `ip link del {name}`, or remove the key `bridge` to use it as it is"
        )));
    }
    let wrong_bridge = |message| Err(Problem::new(format!("{key}.bridge"), message));
    if taps.any(|tap| tap == bridge) {
        return wrong_bridge(format!("{bridge} is the name of a tap: choose another"));
    }
    if let Some(other) = driver(bridge)?.filter(|kind| kind != bridge::DRIVER) {
        return wrong_bridge(format!(
            "{bridge} is a device of kind `{other}`, not a bridge: choose another name"
        ));
    }
    Ok(Interface::New {
        key: key.into(),
        name: name.clone(),
        bridge: bridge.clone(),
        mtu: interface.mtu,
    })
}

/// Makes what [`check`] found missing; the taps' descriptors, in order.
///
/// # Errors
/// [`Error`], naming the key and the device.
pub fn make(
    interfaces: Vec<Interface>,
    owner: nix::unistd::Uid,
    undo: &mut Undo,
) -> Result<Vec<OwnedFd>, Error> {
    let mut taps = Vec::new();
    for interface in interfaces {
        taps.push(match interface {
            Interface::Existing(tap) => tap,
            Interface::New {
                key,
                name,
                bridge,
                mtu,
            } => {
                let control = Control::open()
                    .map_err(Error::step("open a socket to make network devices"))?;
                bridge::ensure(control, &key, &bridge, undo)?;
                let tap = tap::create(&key, &name, owner)?;
                undo.checkpoint()?;
                tap::join(&key, &name, &bridge, mtu)?;
                undo.checkpoint()?;
                tap
            }
        });
    }
    Ok(taps)
}

/// Removes what a guest left in the network: `made` is its record.
///
/// # Errors
/// [`Error`], naming what cannot be removed.
pub fn clear(_made: &crate::record::Made) -> Result<(), Error> {
    Ok(())
}
