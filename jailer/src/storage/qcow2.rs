//! qcow2 images, converted to raw ones by qemu-img in a [`sandbox`]: they are untrusted, and can name other files to
//! read. The header is parsed in the sandbox, too; only a number and raw bytes leave it.

use crate::confine::privileges;
use crate::confine::sandbox::{self, NOBODY};
use crate::error::Error;
use crate::storage::copy::Source;
use crate::storage::pools::definitions;
use crate::sys::progress::Progress;
use crate::sys::tool::Tool;
use crate::undo::Undo;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::unistd::fchown;
use resources::Problem;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::time::Duration;

/// Largest disk of an image, in bytes, as of a drive: 64 TiB.
const MAX_SIZE: u64 = 64 << 40;
/// Time limit of a conversion: a day, for 64 TiB at some GiB/s.
const LIMIT: Duration = Duration::from_secs(24 * 3600);
/// Most bytes that the parser of the header may write.
const MAX_ANSWER: u64 = 4096;
/// Length of the header of version 3, in bytes (QEMU, docs/interop/qcow2.txt).
const HEADER: usize = 104;
/// `incompatible_features`, bit 2: the data is in another file.
const EXTERNAL_DATA: u64 = 1 << 2;

/// The target of a conversion.
#[derive(Debug)]
pub enum Target<'a> {
    /// A file without a name, or with a temporary one.
    File(&'a File),
    /// A block device, at least as large as the disk.
    Device(&'a File),
}

/// Checks that qemu-img is installed, and that the user nobody may read the image.
///
/// # Errors
/// [`Error::Problems`].
pub fn check(source: &Source) -> Result<(), Error> {
    crate::sys::tool::need("qemu-img", "qemu-utils")?;
    let shown = source.path.display();
    match privileges::may_open(&source.file, NOBODY, false) {
        Ok(true) => Ok(()),
        Ok(false) => {
            let message = format!(
                "the user nobody must be able to read {shown}: `chmod o+r {shown}`, or convert it yourself with \
                 `qemu-img convert -O raw {shown} disk.raw` and import that"
            );
            Err(Error::Problems(vec![Problem::new("--from", message)]))
        }
        Err(e) => Err(Error::step(format!("examine {shown}"))(e)),
    }
}

/// Returns the size in bytes of the disk in `source`.
///
/// # Errors
/// [`Error`], if it is not a qcow2 image, or refers to another file.
pub fn disk_size(source: &Source, undo: &mut Undo) -> Result<u64, Error> {
    let root = definitions::runtime()?;
    let image = source.file.as_raw_fd();
    let tool = Tool::new("qemu-img", "qemu-utils")?.before(move || {
        sandbox::enter(root.path(), None, MAX_ANSWER)?;
        let said = probe(image);
        let (status, text, stream) = match &said {
            Ok(size) => (0, size.to_string(), 1),
            Err(message) => (1, message.clone(), 2),
        };
        end(status, &text, stream)
    });
    let shown = source.path.display();
    let said = tool.run(undo).map_err(|e| named(&shown.to_string(), e))?;
    let size = said.parse().ok().filter(|size| *size <= MAX_SIZE);
    size.ok_or_else(|| {
        let message = "its disk is larger than 64 TiB";
        Error::step(format!("import {shown}"))(io::Error::other(message))
    })
}

/// Writes the disk in `source` to `target`.
pub fn convert(source: &Source, target: Target<'_>, undo: &mut Undo) -> Result<(), Error> {
    let shown = source.path.display().to_string();
    let failed = Error::step::<io::Error>(format!("import {shown}"));
    let root = definitions::runtime()?;
    let image = source.file.as_raw_fd();
    let (file, device, to) = match target {
        Target::File(file) => {
            // qemu-img opens the file again, as nobody.
            let own = fchown(file, Some(NOBODY.uid), Some(NOBODY.gid)).map_err(io::Error::from);
            own.map_err(failed)?;
            (file, None, format!("/proc/self/fd/{}", file.as_raw_fd()))
        }
        Target::Device(file) => {
            let device = file.metadata().map_err(failed)?.rdev();
            (file, Some(device), "/device".to_owned())
        }
    };
    let out = file.as_raw_fd();
    let from = format!("/proc/self/fd/{image}");
    let mut args = vec!["convert", "-f", "qcow2", "-O", "raw"];
    if device.is_some() {
        // The device exists and has its size.
        args.push("-n");
    }
    args.extend([from.as_str(), to.as_str()]);
    let mut progress = Progress::new(format!("import {shown}"), 0);
    let watched = file
        .try_clone()
        .map_err(Error::step(format!("import {shown}")))?;
    let tool = Tool::new("qemu-img", "qemu-utils")?;
    let tool = tool.args(args).limit(LIMIT).before(move || {
        sandbox::enter(root.path(), device, MAX_SIZE)?;
        if let Err(message) = probe(image) {
            end(1, &message, 2)?;
        }
        inherit(image)?;
        if device.is_none() {
            inherit(out)?;
        }
        Ok(())
    });
    let tool = tool.meanwhile(move || {
        if let Ok(metadata) = watched.metadata() {
            progress.reached(metadata.blocks().saturating_mul(512));
        }
    });
    tool.run(undo).map_err(|e| named(&shown, e)).map(drop)
}

/// Adds the image's name to the error of a tool.
fn named(image: &str, error: Error) -> Error {
    match error {
        Error::Step { source, .. } => Error::Step {
            step: format!("import {image}"),
            source,
        },
        other => other,
    }
}

/// Writes `text` to the standard stream `stream`, and ends this process, which is in the sandbox.
#[expect(unsafe_code, reason = "a child of fork must not unwind")]
fn end(status: libc::c_int, text: &str, stream: RawFd) -> io::Result<()> {
    // SAFETY: a standard stream stays open for as long as the process.
    let stream = unsafe { BorrowedFd::borrow_raw(stream) };
    nix::unistd::write(stream, text.as_bytes())?;
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(status) }
}

#[expect(unsafe_code, reason = "a descriptor that the parent holds")]
fn inherit(fd: RawFd) -> io::Result<()> {
    // SAFETY: the parent process owns the descriptor, and keeps it open while it waits for this one.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(())
}

/// Returns the size of the disk, if the image refers to no other file. Runs in the sandbox.
#[expect(unsafe_code, reason = "a descriptor that the parent holds")]
fn probe(image: RawFd) -> Result<u64, String> {
    // SAFETY: as in `inherit`.
    let image = unsafe { BorrowedFd::borrow_raw(image) };
    let image = image.try_clone_to_owned().map_err(|e| e.to_string())?;
    let mut header = [0; HEADER];
    let read = File::from(image).read_at(&mut header, 0);
    let read = read.map_err(|e| e.to_string())?;
    parse(header.get(..read).unwrap_or_default())
}

/// Returns the size of the disk of an image that begins with `header`, if it refers to no other file.
fn parse(header: &[u8]) -> Result<u64, String> {
    let number = |at: usize, len: usize| {
        let bytes = header.iter().skip(at).take(len);
        bytes.fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
    };
    if header.len() < 72 || !header.starts_with(b"QFI\xfb") {
        return Err("it is not a qcow2 image; for a raw image add `--format raw`".into());
    }
    let version = number(4, 4);
    if !matches!(version, 2 | 3) {
        return Err(format!("its qcow version is {version}, not 2 or 3"));
    }
    if number(8, 8) != 0 || number(16, 4) != 0 {
        return Err(
            "it has a backing file: merge them first with `qemu-img convert -O qcow2 IMAGE NEW`"
                .into(),
        );
    }
    if number(32, 4) != 0 {
        return Err("it is encrypted".into());
    }
    if version == 3 && number(72, 8) & EXTERNAL_DATA != 0 {
        return Err("its data is in another file: merge them first with `qemu-img convert`".into());
    }
    Ok(number(24, 8))
}

#[cfg(test)]
#[path = "qcow2_test.rs"]
mod qcow2_test;
