//! The file systems that a boot loader reads: ext2 to ext4 with their journal, and FAT; read-only.

use crate::disk::Window;
use ext4_view::{Ext4, Ext4Error, PathBuf};
use fatfs::FsOptions;
use std::io::{self, Read};

/// Most names of a directory that are read.
const MAX_NAMES: usize = 4096;
/// Bytes of a file that are passed on at a time.
const PIECE: usize = 1 << 18;

/// The type of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ext2, ext3 or ext4.
    Ext,
    /// FAT of any width.
    Fat,
    /// A known type that cannot be read here.
    Other(&'static str),
}

impl Kind {
    /// Returns its usual name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext => "ext4",
            Self::Fat => "FAT",
            Self::Other(name) => name,
        }
    }
}

/// Offsets of signatures, the signatures, and the types that they identify.
const MARKS: [(u64, &[u8], Kind); 9] = [
    (1024 + 56, &[0x53, 0xef], Kind::Ext),
    (0, b"XFSB", Kind::Other("XFS")),
    (0, b"LUKS\xba\xbe", Kind::Other("LUKS")),
    (512, b"LABELONE", Kind::Other("LVM")),
    (0x1_0040, b"_BHRfS_M", Kind::Other("btrfs")),
    (4086, b"SWAPSPACE2", Kind::Other("swap")),
    (54, b"FAT", Kind::Fat),
    (82, b"FAT", Kind::Fat),
    (3, b"NTFS", Kind::Other("NTFS")),
];

/// Returns the type of the file system in `window`; `None` if it has no known signature.
pub fn kind(window: &Window) -> io::Result<Option<Kind>> {
    for (at, mark, kind) in MARKS {
        let mut found = vec![0; mark.len()];
        match window.read_exact_at(at, &mut found) {
            Ok(()) if found == mark => return Ok(Some(kind)),
            Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => return Err(e),
            _ => {}
        }
    }
    Ok(None)
}

/// An open file system.
pub enum FileSystem {
    /// ext2, ext3 or ext4.
    Ext(Ext4),
    /// FAT.
    Fat(Box<fatfs::FileSystem<Window>>),
}

impl FileSystem {
    /// Opens the file system of type `kind` in `window`.
    pub fn open(kind: Kind, window: Window) -> Result<Self, String> {
        match kind {
            Kind::Ext => match Ext4::load(Box::new(window)) {
                Ok(open) => Ok(Self::Ext(open)),
                Err(e) => Err(e.to_string()),
            },
            Kind::Fat => match fatfs::FileSystem::new(window, FsOptions::new()) {
                Ok(open) => Ok(Self::Fat(Box::new(open))),
                Err(e) => Err(e.to_string()),
            },
            Kind::Other(_) => Err("this type of file system is not supported".into()),
        }
    }

    /// Returns the names in the directory `path`; `None` if there is no such directory.
    pub fn names(&self, path: &str) -> Result<Option<Vec<String>>, String> {
        let mut names = Vec::new();
        match self {
            Self::Ext(ext) => {
                let Some(entries) = there(ext.read_dir(ext_path(path)?.as_path()), path)? else {
                    return Ok(None);
                };
                for entry in entries.take(MAX_NAMES) {
                    let entry = entry.map_err(|e| format!("{path}: {e}"))?;
                    names.extend(entry.file_name().as_str().ok().map(str::to_owned));
                }
            }
            Self::Fat(fat) => {
                let opened = fat.root_dir().open_dir(path.trim_start_matches('/'));
                let Some(dir) = fat_there(opened, path)? else {
                    return Ok(None);
                };
                for entry in dir.iter().take(MAX_NAMES) {
                    names.push(entry.map_err(|e| format!("{path}: {e}"))?.file_name());
                }
            }
        }
        Ok(Some(names))
    }

    /// Returns the contents of the file `path`; `None` if there is no such file.
    ///
    /// # Errors
    /// A message, if it cannot be read or has more than `max` bytes.
    pub fn read(&self, path: &str, max: u64) -> Result<Option<Vec<u8>>, String> {
        let mut bytes = Vec::new();
        let read = self.copy(path, max, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(read.map(|_| bytes))
    }

    /// Returns whether there is a file `path`.
    pub fn has(&self, path: &str) -> Result<bool, String> {
        match self {
            Self::Ext(ext) => {
                let metadata = there(ext.metadata(ext_path(path)?.as_path()), path)?;
                Ok(metadata.is_some())
            }
            Self::Fat(fat) => {
                let opened = fat.root_dir().open_file(path.trim_start_matches('/'));
                Ok(fat_there(opened, path)?.is_some())
            }
        }
    }

    /// Passes the contents of the file `path` to `to` in pieces; returns its length, or `None` if there is no such
    /// file.
    ///
    /// # Errors
    /// A message, if it cannot be read or has more than `max` bytes; or the error of `to`.
    pub fn copy(
        &self,
        path: &str,
        max: u64,
        to: &mut dyn FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<Option<u64>, String> {
        match self {
            Self::Ext(ext) => {
                let Some(file) = there(ext.open(ext_path(path)?.as_path()), path)? else {
                    return Ok(None);
                };
                let len = file.metadata().len();
                if len > max {
                    return Err(too_long(path, max));
                }
                pass(file, path, max, to)
            }
            Self::Fat(fat) => {
                let opened = fat.root_dir().open_file(path.trim_start_matches('/'));
                match fat_there(opened, path)? {
                    Some(file) => pass(file, path, max, to),
                    None => Ok(None),
                }
            }
        }
    }
}

fn too_long(path: &str, max: u64) -> String {
    format!("{path} is longer than {max} bytes")
}

fn pass(
    mut from: impl Read,
    path: &str,
    max: u64,
    to: &mut dyn FnMut(&[u8]) -> Result<(), String>,
) -> Result<Option<u64>, String> {
    let mut piece = vec![0; PIECE];
    let mut len = 0_u64;
    loop {
        // The crates read a block at a time.
        let mut filled = 0;
        while filled < PIECE {
            let room = piece.get_mut(filled..).unwrap_or_default();
            match from.read(room).map_err(|e| format!("{path}: {e}"))? {
                0 => break,
                read => filled += read,
            }
        }
        if filled == 0 {
            return Ok(Some(len));
        }
        len = len.saturating_add(filled as u64);
        if len > max {
            return Err(too_long(path, max));
        }
        to(piece.get(..filled).unwrap_or_default())?;
    }
}

fn ext_path(path: &str) -> Result<PathBuf, String> {
    PathBuf::try_from(path).map_err(|e| format!("{path}: {e}"))
}

fn there<T>(result: Result<T, Ext4Error>, path: &str) -> Result<Option<T>, String> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(Ext4Error::NotFound | Ext4Error::NotADirectory) => Ok(None),
        Err(e) => Err(format!("{path}: {e}")),
    }
}

fn fat_there<T>(result: io::Result<T>, path: &str) -> Result<Option<T>, String> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(format!("{path}: {e}")),
    }
}

#[cfg(test)]
#[path = "file_system_test.rs"]
mod file_system_test;
