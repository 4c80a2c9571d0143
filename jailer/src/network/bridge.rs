//! The bridge: created if absent, with its addresses; else joined and left as it is.
//!
//! One that a jailer created goes when the last guest on it is cleaned up. Which these are is in
//! `/run/bantam/bridges`, in files that are also the locks that keep a guest from joining a bridge
//! that another is removing.

use crate::error::{Error, warn};
use crate::network::device::Control;
use crate::network::{netlink, rules};
use crate::undo::Undo;
use crate::undo::state;
use ipnet::IpNet;
use nix::fcntl::{Flock, FlockArg, OFlag, openat};
use nix::sys::stat::{Mode, stat};
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::unix::fs::FileExt as _;

/// What the driver of a bridge calls itself.
pub const DRIVER: &str = "bridge";

/// A bridge that nobody else makes, joins or removes while this is held.
#[derive(Debug)]
pub struct Held {
    name: String,
    file: Flock<File>,
}

impl Held {
    /// Waits for the bridge `name`.
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

    /// Makes sure that there is the bridge and that it is on; one that is created gets `addresses`. `key`
    /// is its interface's; `nat` tells whether its networks are going to be translated.
    pub fn ensure(
        &mut self,
        control: Control,
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
        let absent = control.index(&name).map_err(failed("look at"))?.is_none();
        if absent {
            // Written before as well, for whoever finds what is left if this process is killed.
            self.claim(NEW).map_err(failed("note"))?;
        }
        let created = match control.add_bridge(&name) {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
            Err(e) => return Err(failed("create")(e)),
        };
        if !created {
            return control.set_up(&name, true).map_err(failed("switch on"));
        }
        let ready = number(&control, &name)
            .and_then(|number| self.claim(&number))
            .and_then(|()| control.fix_address(&name))
            .and_then(|()| control.set_up(&name, true));
        let addressed = control.index(&name).and_then(|index| {
            let index = index.and_then(|index| u32::try_from(index).ok());
            let index = index.ok_or(io::ErrorKind::NotFound)?;
            let mut addresses = addresses.iter();
            addresses.try_for_each(|net| netlink::add_address(index, *net))
        });
        let taken_back = name.clone();
        undo.made(format!("the bridge {name}"), move || {
            take_back(&control, &taken_back, nat)
        })?;
        ready.map_err(Error::step(format!("set up the bridge of {key}.bridge")))?;
        addressed.map_err(Error::step(format!(
            "give the bridge {name} its addresses ({key}.host.bridge_addresses)"
        )))
    }

    /// Removes the bridge and its table, if a jailer created it and nothing is on it.
    pub fn remove_unused(&mut self, control: &Control) -> Result<(), Error> {
        let name = self.name.clone();
        let failed = || Error::step::<io::Error>(format!("remove the bridge {name}"));
        let unused = self
            .is_ours(control)
            .and_then(|ours| Ok(ours && control.ports(&name)? == 0));
        if !unused.map_err(failed())? {
            return Ok(());
        }
        self.remove(control, crate::sys::tool::find("nft").is_some())
    }

    fn remove(&mut self, control: &Control, nat: bool) -> Result<(), Error> {
        let name = self.name.clone();
        if nat {
            rules::remove(&format!("inet {}", rules::translation_table(&name)))?;
        }
        let removed = control
            .set_up(&name, false)
            .and_then(|()| control.delete_bridge(&name))
            .and_then(|()| self.file.set_len(0));
        removed.map_err(Error::step(format!("remove the bridge {name}")))
    }

    /// Writes down that a jailer created the bridge with this number.
    fn claim(&self, number: &str) -> io::Result<()> {
        // At once, over what was there: only the first line counts.
        let text = format!("{} {number}\n", namespace()?);
        self.file.write_all_at(text.as_bytes(), 0)
    }

    /// Whether a jailer created the bridge that is there.
    fn is_ours(&mut self, control: &Control) -> io::Result<bool> {
        if control.index(&self.name)?.is_none() {
            return Ok(false);
        }
        let mut written = String::new();
        self.file.rewind()?;
        self.file.read_to_string(&mut written)?;
        let number = number(control, &self.name)?;
        let line = written.lines().next().unwrap_or_default();
        let written = line.split_once(' ').unwrap_or_default();
        let namespace = namespace()?.to_string();
        Ok(written.0 == namespace && (written.1 == number || written.1 == NEW))
    }
}

/// Makes sure that there is the bridge `name`, with `addresses`, in a network namespace that is one guest's alone: it goes
/// with that. `key` is its interface's.
pub fn make_own(
    control: &Control,
    key: &str,
    name: &str,
    addresses: &[IpNet],
) -> Result<(), Error> {
    let make = || -> io::Result<()> {
        match control.add_bridge(name) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            made => made?,
        }
        control.fix_address(name)?;
        control.set_up(name, true)?;
        let index = control
            .index(name)?
            .and_then(|index| u32::try_from(index).ok());
        let index = index.ok_or(io::ErrorKind::NotFound)?;
        let mut addresses = addresses.iter();
        addresses.try_for_each(|net| netlink::add_address(index, *net))
    };
    make().map_err(Error::step(format!(
        "set up the bridge {name} of a copy ({key}.bridge)"
    )))
}

/// In place of the number of a bridge that is about to be created.
const NEW: &str = "new";

/// The number that no other device of this network namespace has or had.
fn number(control: &Control, name: &str) -> io::Result<String> {
    let index = control.index(name)?.unwrap_or_default();
    Ok(index.to_string())
}

/// The number of this thread's network namespace.
fn namespace() -> io::Result<u64> {
    Ok(stat("/proc/thread-self/ns/net")?.st_ino)
}

/// Removes the bridge, unless another guest came onto it meanwhile.
fn take_back(control: &Control, name: &str, nat: bool) -> io::Result<()> {
    // Else one could come between the look and the removal.
    let mut held = Held::new(name).map_err(io::Error::other)?;
    if control.ports(name)? > 0 {
        warn(&format!("the bridge {name} is in use, so it stays"));
        return Ok(());
    }
    held.remove(control, nat).map_err(io::Error::other)
}
