//! Bridges: one that is missing is made, with its addresses; one that exists is joined and left as it is.
//!
//! A bridge that a jailer made is deleted when its last guest is cleaned up. Files in `/run/bantam/bridges` say which
//! bridges these are; they are also the locks that keep a guest from joining a bridge that another process deletes.

use crate::error::{Error, warn};
use crate::network::device::Devices;
use crate::network::rules;
use crate::sys::tool;
use crate::undo::Undo;
use crate::undo::state;
use ipnet::IpNet;
use nix::fcntl::{Flock, FlockArg, OFlag, openat};
use nix::sys::stat::{Mode, stat};
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::unix::fs::FileExt as _;

/// In place of the number of a bridge that is about to be made.
const NEW: &str = "new";

/// The lock of a bridge: no other process makes, joins or deletes the bridge while this lives.
#[derive(Debug)]
pub struct BridgeLock {
    name: String,
    file: Flock<File>,
}

impl BridgeLock {
    /// Waits for the lock of the bridge `name`.
    pub fn new(name: &str) -> Result<Self, Error> {
        let directory = state::directory("bridges")?;
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let locked = openat(&directory, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .and_then(|fd| Flock::lock(File::from(fd), FlockArg::LockExclusive).map_err(|e| e.1));
        let file = locked.map_err(Error::step(format!(
            "lock {}",
            directory.path().join(name).display()
        )))?;
        Ok(Self {
            name: name.into(),
            file,
        })
    }

    /// Makes the bridge with `addresses` if it is missing, and brings it up. `key` is its interface's; `nat` says
    /// whether its networks will be translated.
    pub fn ensure(
        &mut self,
        devices: Devices,
        key: &str,
        addresses: &[IpNet],
        nat: bool,
        undo: &mut Undo,
    ) -> Result<(), Error> {
        let name = self.name.clone();
        let failed = |what: &str| {
            Error::step::<io::Error>(format!(
                "{what} the bridge {name} ({key}.bridge); try `modprobe bridge`"
            ))
        };
        let absent = devices.find(&name).map_err(failed("examine"))?.is_none();
        if absent {
            // Written before the bridge is made, too: this process may be killed in between.
            self.claim(NEW).map_err(failed("record"))?;
        }
        let created = match devices.add_bridge(&name) {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
            Err(e) => return Err(failed("create")(e)),
        };
        if !created {
            return devices.set_up(&name, true).map_err(failed("bring up"));
        }
        let claimed = number(&devices, &name).and_then(|number| self.claim(&number));
        let ready = claimed.and_then(|()| set_up_new(&devices, &name, addresses));
        let removed = name.clone();
        undo.made(format!("the bridge {name}"), move || {
            remove_new(&devices, &removed, nat)
        })?;
        ready.map_err(Error::step(format!(
            "set up the bridge {name} and its addresses ({key}.bridge, {key}.host.bridge_addresses)"
        )))
    }

    /// Deletes the bridge and its packet filter table, if a jailer made it and it has no ports.
    pub fn remove_unused(&mut self, devices: &Devices) -> Result<(), Error> {
        let name = self.name.clone();
        let unused = self
            .is_ours(devices)
            .and_then(|ours| Ok(ours && devices.ports(&name)? == 0));
        match unused.map_err(Error::step(format!("delete the bridge {name}")))? {
            true => self.remove(devices, tool::find("nft").is_some()),
            false => Ok(()),
        }
    }

    fn remove(&mut self, devices: &Devices, nat: bool) -> Result<(), Error> {
        let name = self.name.clone();
        if nat {
            rules::remove(&format!("inet {}", rules::translation_table(&name)))?;
        }
        let removed = devices
            .set_up(&name, false)
            .and_then(|()| devices.delete(&name))
            .and_then(|()| self.file.set_len(0));
        removed.map_err(Error::step(format!("delete the bridge {name}")))
    }

    /// Records that a jailer made the bridge with this number.
    fn claim(&self, number: &str) -> io::Result<()> {
        // One write over the former text, of which only the first line counts.
        let text = format!("{} {number}\n", namespace()?);
        self.file.write_all_at(text.as_bytes(), 0)
    }

    /// Returns whether a jailer made the existing bridge.
    fn is_ours(&mut self, devices: &Devices) -> io::Result<bool> {
        if devices.find(&self.name)?.is_none() {
            return Ok(false);
        }
        let mut written = String::new();
        self.file.rewind()?;
        self.file.read_to_string(&mut written)?;
        let number = number(devices, &self.name)?;
        let line = written.lines().next().unwrap_or_default();
        let written = line.split_once(' ').unwrap_or_default();
        let namespace = namespace()?.to_string();
        Ok(written.0 == namespace && (written.1 == number || written.1 == NEW))
    }
}

/// Gives a new bridge its addresses, and brings it up.
fn set_up_new(devices: &Devices, name: &str, addresses: &[IpNet]) -> io::Result<()> {
    devices.fix_address(name)?;
    devices.set_up(name, true)?;
    let mut addresses = addresses.iter();
    addresses.try_for_each(|net| devices.add_address(name, *net))
}

/// Makes the bridge `name` with `addresses` if it is missing, in a network namespace of one guest alone, with which it
/// disappears. `key` is its interface's.
pub fn make_own(
    devices: &Devices,
    key: &str,
    name: &str,
    addresses: &[IpNet],
) -> Result<(), Error> {
    let made = match devices.add_bridge(name) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.and_then(|()| set_up_new(devices, name, addresses)),
    };
    made.map_err(Error::step(format!(
        "set up the bridge {name} of a copy ({key}.bridge)"
    )))
}

/// Returns the device's number, which no other device of this network namespace has or had.
fn number(devices: &Devices, name: &str) -> io::Result<String> {
    Ok(devices.get(name)?.index.to_string())
}

/// Returns the inode number of this thread's network namespace.
fn namespace() -> io::Result<u64> {
    Ok(stat("/proc/thread-self/ns/net")?.st_ino)
}

/// Deletes a bridge that a failed start has made, unless another guest has joined it.
fn remove_new(devices: &Devices, name: &str, nat: bool) -> io::Result<()> {
    // Else a guest could join after the check.
    let mut lock = BridgeLock::new(name).map_err(io::Error::other)?;
    if devices.ports(name)? > 0 {
        warn(&format!("the bridge {name} is in use, so it stays"));
        return Ok(());
    }
    lock.remove(devices, nat).map_err(io::Error::other)
}
