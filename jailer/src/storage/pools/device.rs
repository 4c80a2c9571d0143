//! Volumes that are block devices: former data is overwritten before a guest sees the volume.

use crate::error::Error;
use crate::storage::copy::zero;
use crate::storage::lock;
use crate::storage::qcow2;
use crate::storage::volume::{Content, VolumeRequest};
use crate::sys::dir::by_descriptor;
use crate::undo::Undo;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Checks that `name` has at most `most` bytes, all of which the host's programs take as part of a name; `kind` is the
/// kind of device.
pub fn check_name(name: &str, most: usize, kind: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "+_.-".contains(c);
    match name.len() <= most && name.chars().all(plain) {
        true => Ok(()),
        false => Err(format!(
            "`{name}` cannot name a {kind}: use at most {most} letters, digits, `+`, `_`, `.`, `-`"
        )),
    }
}

/// Returns the size of a device in bytes.
pub fn size(device: &File) -> Result<u64, Error> {
    let mut device = device;
    let size = device.seek(SeekFrom::End(0));
    size.map_err(Error::step("measure the volume"))
}

/// Fills all of the new volume `device`; the data is on the disk when this returns.
pub fn fill(device: &File, request: &VolumeRequest, undo: &mut Undo) -> Result<(), Error> {
    let failed = || Error::step::<io::Error>(format!("fill the volume ({})", request.key));
    if !lock::lock(device, false).map_err(failed())? {
        return Err(failed()(io::Error::other("another process uses it")));
    }
    let size = size(device)?;
    match &request.content {
        Content::Empty => zero(device, 0, size, undo)?.map_err(failed())?,
        Content::Copy(source) => {
            source
                .copy_to_device(device, size, undo)?
                .map_err(failed())?;
        }
        Content::Qcow2(source) => {
            zero(device, source.size, size, undo)?.map_err(failed())?;
            qcow2::convert(source, qcow2::Target::Device(device), undo)?;
        }
    }
    device.sync_all().map_err(failed())
}

/// Zeroes a volume's bytes beyond its `former` size.
pub fn zero_beyond(device: &File, former: u64, undo: &mut Undo) -> Result<(), Error> {
    let now = size(device)?;
    let failed = "zero the new part of the volume";
    zero(device, former.min(now), now, undo)?.map_err(Error::step(failed))?;
    device.sync_all().map_err(Error::step(failed))
}

/// Opens the block device at `path`, which only root can make.
///
/// # Errors
/// `NotFound` if it is not a block device.
pub fn open_device(path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    let look = File::options()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(path)?;
    if !look.metadata()?.file_type().is_block_device() {
        return Err(io::ErrorKind::NotFound.into());
    }
    if flags.contains(OFlag::O_PATH) {
        return Ok(look.into());
    }
    let flags = flags | OFlag::O_CLOEXEC;
    let mode = Mode::empty();
    Ok(nix::fcntl::open(&by_descriptor(&look), flags, mode)?)
}
