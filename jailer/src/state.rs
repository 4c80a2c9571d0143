//! What the host remembers of guests until it is switched off: `/run/bantam`, the superuser's, where
//! nobody else reads or writes.

use crate::dir::{Dir, ROOT};
use crate::error::Error;
use nix::errno::Errno;
use nix::sys::stat::{Mode, mkdirat};
use std::io;
use std::path::Path;

/// Where it is.
pub const RUN: &str = "/run/bantam";

/// The directory `name` of [`RUN`], made if it is not there. It stays: others lock files in it.
///
/// # Errors
/// [`Error`], naming the directory.
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
        return Err(io::Error::other("others than root may write there"));
    }
    Ok(dir)
}
