//! Opens and reads files that a configuration names, without blocking on a FIFO or filling memory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// `O_NONBLOCK` of Linux on x86-64 (asm-generic/fcntl.h). Opening a FIFO without a writer then returns at once. It has no
/// effect on a regular file.
const O_NONBLOCK: i32 = 0o4000;

/// Opens the regular file `path` for reading, without blocking.
///
/// # Errors
/// The error of the host; `InvalidInput` for anything but a regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(O_NONBLOCK)
        .open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "is not a regular file",
        )),
    }
}

/// Reads all of `path`, which may be a FIFO. Waits for the writer of a FIFO.
///
/// # Errors
/// The error of the host; `FileTooLarge` for more than `max` bytes.
pub fn read_bounded(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    let file = File::open(path)?;
    file.take(max.saturating_add(1))
        .read_to_end(&mut contents)?;
    match contents.len() as u64 > max {
        true => Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("is larger than {max} bytes"),
        )),
        false => Ok(contents),
    }
}

#[cfg(test)]
#[path = "files_test.rs"]
mod files_test;
