//! The monitor's file: checked to run in a jail, and copied or linked into it.

use crate::error::Error;
use crate::storage::copy::share;
use crate::sys::dir::{Dir, Owner, ROOT, by_descriptor};
use crate::undo::Undo;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{UnlinkatFlags, linkat};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Type of the program header with the dynamic linker's path.
const PT_INTERP: u32 = 3;
const EM_X86_64: u64 = 62;
/// Most program headers that are read; linkers make about ten.
const MAX_HEADERS: u64 = 64;

/// The monitor's file, open.
#[derive(Debug)]
pub struct ExecFile {
    file: File,
}

impl ExecFile {
    /// Opens `path`, and checks that it is a static program for this machine.
    pub fn open(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let mut options = OpenOptions::new();
        let options = options.read(true).custom_flags(libc::O_NONBLOCK);
        let file = options
            .open(path)
            .map_err(|e| format!("cannot open {shown}: {e}"))?;
        let metadata = file
            .metadata()
            .map_err(|e| format!("cannot examine {shown}: {e}"))?;
        if !metadata.is_file() {
            return Err(format!("{shown} is not a file: name the program `bantam`"));
        }
        if metadata.mode() & 0o111 == 0 {
            return Err(format!("{shown} is not executable: `chmod 755 {shown}`"));
        }
        match interpreter(&file) {
            Ok(false) => Ok(Self { file }),
            Ok(true) => Err(format!(
                "{shown} is dynamically linked, but a jail has no libraries: build it statically, with \
                 `-C target-feature=+crt-static`"
            )),
            Err(e) => Err(format!("{shown} is not a program for this machine: {e}")),
        }
    }

    /// Puts it into the jail of `owner` as `name`. Every user may execute it there, and only root change it.
    pub fn place(
        &self,
        jail: &Dir,
        name: &str,
        owner: Owner,
        undo: &mut Undo,
    ) -> Result<(), Error> {
        jail.remove_leftover(name)?;
        if self.may_be_linked(owner) {
            let (from, flags) = (by_descriptor(&self.file), AtFlags::AT_SYMLINK_FOLLOW);
            if linkat(AT_FDCWD, &from, jail, name, flags).is_ok() {
                return jail.record(undo, name, UnlinkatFlags::NoRemoveDir);
            }
        }
        jail.make_file(undo, name, 0o555, ROOT, |to| {
            if !share(&self.file, to) {
                io::copy(&mut &self.file, to)?;
            }
            Ok(())
        })
    }

    /// Returns whether a link will do. It shares owner and mode with the original, so these must be right for the jail,
    /// and the owner must not be the guest's user, who could write to it.
    fn may_be_linked(&self, owner: Owner) -> bool {
        self.file.metadata().is_ok_and(|m| {
            let mode = m.mode();
            m.uid() == 0 && !owner.uid.is_root() && mode & 0o005 == 0o005 && mode & 0o7022 == 0
        })
    }
}

/// Returns whether the ELF program `file` needs an interpreter, which is the dynamic linker.
fn interpreter(file: &File) -> io::Result<bool> {
    let wrong = |what: &str| Err(io::Error::other(what.to_owned()));
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0)
        .map_err(|_| io::Error::other("it is shorter than the header of an ELF file"))?;
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return wrong("it is not a 64-bit ELF file");
    }
    if number(&header, 18, 2) != EM_X86_64 {
        return wrong("it is for another processor");
    }
    // ELF-64 object file format, version 1.5: e_phoff, e_phentsize, e_phnum.
    let (table, size, count) = (
        number(&header, 32, 8),
        number(&header, 54, 2),
        number(&header, 56, 2),
    );
    for index in 0..count.min(MAX_HEADERS) {
        let mut kind = [0; 4];
        let at = table.saturating_add(index * size);
        file.read_exact_at(&mut kind, at)
            .map_err(|_| io::Error::other("it is truncated"))?;
        if u32::from_le_bytes(kind) == PT_INTERP {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the little-endian number of `len` bytes, at most 8, at `at`.
fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    let bytes = bytes.iter().skip(at).take(len).rev();
    bytes.fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
#[path = "exec_file_test.rs"]
mod exec_file_test;
