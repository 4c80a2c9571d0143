//! The size of a kernel or initrd file.

use std::fs::File;
use std::io;

/// Returns the size of `file` in bytes. Anything but a regular file (a directory, a pipe) is an error.
pub(crate) fn regular_file_len(file: &File) -> io::Result<u64> {
    let metadata = file.metadata()?;
    if metadata.is_file() {
        Ok(metadata.len())
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ))
    }
}
