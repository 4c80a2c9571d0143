//! The host's state until it shuts down: `/run/bantam`, which root alone can read and write.

use crate::error::Error;
use crate::sys::dir::{Dir, ROOT};
use nix::errno::Errno;
use nix::sys::stat::{Mode, mkdirat};
use std::io;
use std::path::Path;

/// The directory.
pub const RUN: &str = "/run/bantam";

/// Opens the directory `name` in [`RUN`], which is made if it is missing. It is never removed, because other processes
/// lock files in it.
pub fn directory(name: &str) -> Result<Dir, Error> {
    let path = Path::new(RUN);
    let made = || -> io::Result<Dir> {
        let parent = path.parent().unwrap_or(path);
        let run = own(&Dir::open(parent)?, "bantam")?;
        own(&run, name)
    };
    made().map_err(Error::step(format!(
        "use the directory {}",
        path.join(name).display()
    )))
}

fn own(parent: &Dir, name: &str) -> io::Result<Dir> {
    match mkdirat(parent, name, Mode::S_IRWXU) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(e) => return Err(e.into()),
    }
    let dir = parent.enter(name)?;
    let stat = dir.own_stat()?;
    if stat.st_uid != ROOT.uid.as_raw() || stat.st_mode & 0o022 != 0 {
        return Err(io::Error::other("others than root can write to it"));
    }
    Ok(dir)
}
