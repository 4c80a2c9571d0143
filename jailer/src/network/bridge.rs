//! The bridge: created if absent, left alone otherwise.

use super::device::Control;
use crate::error::{Error, warn};
use crate::undo::Undo;
use std::io;

/// What the driver of a bridge calls itself.
pub const DRIVER: &str = "bridge";

/// Makes sure that there is a bridge `name` and that it is on. It gets no IP address: the network
/// around the guests is the operator's.
///
/// # Errors
/// [`Error`], naming the bridge and `key`.
pub fn ensure(control: Control, key: &str, name: &str, undo: &mut Undo) -> Result<(), Error> {
    let failed = |what: &str| {
        Error::step::<io::Error>(format!(
            "{what} the bridge {name} ({key}.bridge); try `modprobe bridge`"
        ))
    };
    let created = match control.add_bridge(name) {
        Ok(()) => true,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
        Err(e) => return Err(failed("create")(e)),
    };
    if !created {
        return control.set_up(name, true).map_err(failed("switch on"));
    }
    let ready = control
        .fix_address(name)
        .and_then(|()| control.set_up(name, true));
    let name = name.to_owned();
    undo.made(format!("the bridge {name}"), move || {
        remove(&control, &name)
    })?;
    ready.map_err(Error::step(format!("set up the bridge of {key}.bridge")))
}

/// Removes the bridge, unless another guest came onto it meanwhile.
fn remove(control: &Control, name: &str) -> io::Result<()> {
    if control.ports(name)? > 0 {
        warn(&format!("the bridge {name} is in use, so it stays"));
        return Ok(());
    }
    control.set_up(name, false)?;
    control.delete_bridge(name)
}
