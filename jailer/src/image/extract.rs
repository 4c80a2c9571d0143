//! Copies the kernel and the initrd from a guest's image into its jail at each start, so that a guest that installs a
//! new kernel boots it.

use crate::error::Error;
use crate::image::frames::{self, HEADER, Mark, Order};
use crate::image::reader::Reader;
use crate::sys::dir::{Dir, Owner, ROOT, by_descriptor};
use crate::sys::tool::printable;
use crate::undo::Undo;
use nix::unistd::Gid;
use resources::Problem;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt as _;

/// The destination of the kernel and the initrd.
#[derive(Debug)]
pub struct Destination<'a> {
    /// The jail's root.
    pub directory: &'a Dir,
    /// Group that may read the files.
    pub group: Gid,
    /// Name of the kernel's file.
    pub kernel: &'static str,
    /// Name of the initrd's file.
    pub initrd: &'static str,
}

/// The result of a search in an image, besides the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The kernel command line of the boot loader.
    pub command_line: String,
    /// Whether an initrd was found.
    pub initrd: bool,
}

impl Found {
    /// Returns the command line with `more` after it. If neither names a console, the serial port is added:
    /// distributions' kernels have no other here.
    pub fn with(&self, more: Option<&str>) -> String {
        let mut words = vec![self.command_line.as_str(), more.unwrap_or_default()];
        let console = |line: &&str| line.split(' ').any(|word| word.starts_with("console="));
        if !words.iter().any(console) {
            words.push("console=ttyS0");
        }
        words.retain(|words| !words.is_empty());
        words.join(" ")
    }

    /// Returns whether the command line names the root file system.
    pub fn names_root(&self) -> bool {
        let mut words = self.command_line.split(' ');
        words.any(|word| word.starts_with("root="))
    }
}

/// Copies the kernel and the initrd that `image` boots to `to`, readable for its group. `shown` names the image in
/// errors.
///
/// # Errors
/// [`Error::Problems`] if the image boots nothing; [`Error::Step`] if the host refuses a step.
pub fn extract(
    to: &Destination<'_>,
    image: impl AsFd,
    shown: &str,
    undo: &mut Undo,
) -> Result<Found, Error> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(by_descriptor(&image));
    let opened = opened.map_err(Error::step(format!("read {shown}")))?;
    let mut reader = Reader::start(opened)?;
    undo.checkpoint()?;
    match receive(&mut reader, to, undo)? {
        Answer::Found(found) => Ok(found),
        Answer::Error(message) => Err(no_kernel(shown, &message)),
        Answer::Invalid(message) => Err(no_kernel(shown, message)),
        Answer::Incomplete => Err(no_kernel(shown, &reader.verdict())),
    }
}

fn no_kernel(shown: &str, message: &str) -> Error {
    let message = format!("no kernel was found in {shown}: {}", printable(message));
    Error::Problems(vec![Problem::new("boot-source.image_drive", message)])
}

/// The reader's answer.
enum Answer {
    Found(Found),
    /// Why the image boots nothing, as the reader says.
    Error(String),
    /// Why the answer cannot be used.
    Invalid(&'static str),
    /// The reader ended before its last frame.
    Incomplete,
}

fn receive(reader: &mut Reader, to: &Destination<'_>, undo: &mut Undo) -> Result<Answer, Error> {
    let mut order = Order::default();
    let mut command_line = None;
    let (mut kernel, mut initrd): (Option<File>, Option<File>) = (None, None);
    let mut bytes = vec![0; frames::MAX_FRAME];
    loop {
        let mut header = [0; HEADER];
        let Some(()) = reader.fill(&mut header, undo)? else {
            return Ok(Answer::Incomplete);
        };
        let (mark, len) = match order.next(header) {
            Ok(frame) => frame,
            Err(message) => return Ok(Answer::Invalid(message)),
        };
        let bytes = bytes.get_mut(..len).unwrap_or_default();
        let Some(()) = reader.fill(bytes, undo)? else {
            return Ok(Answer::Incomplete);
        };
        match (mark, &command_line) {
            (Mark::CommandLine, _) => {
                if !bytes.iter().all(|byte| matches!(byte, b' '..=b'~')) {
                    return Ok(Answer::Invalid("its command line cannot be printed"));
                }
                command_line = Some(String::from_utf8_lossy(bytes).into_owned());
            }
            (Mark::Kernel, _) => append(&mut kernel, to, to.kernel, bytes, undo)?,
            (Mark::Initrd, _) => append(&mut initrd, to, to.initrd, bytes, undo)?,
            (Mark::End, Some(line)) => {
                return Ok(Answer::Found(Found {
                    command_line: line.clone(),
                    initrd: initrd.is_some(),
                }));
            }
            (Mark::Error, _) => return Ok(Answer::Error(String::from_utf8_lossy(bytes).into())),
            (Mark::End, None) => return Ok(Answer::Invalid("its reader sent no command line")),
        }
    }
}

/// Appends `bytes` to `file`. The first bytes create it as `name` in `to`: root's, and readable for the group.
fn append(
    file: &mut Option<File>,
    to: &Destination<'_>,
    name: &str,
    bytes: &[u8],
    undo: &mut Undo,
) -> Result<(), Error> {
    if file.is_none() {
        let owner = Owner {
            gid: to.group,
            ..ROOT
        };
        to.directory.make_file(undo, name, 0o440, owner, |made| {
            *file = Some(made.try_clone()?);
            Ok(())
        })?;
    }
    let written = file.as_mut().map_or(Ok(()), |file| file.write_all(bytes));
    let path = to.directory.path().join(name);
    written.map_err(Error::step(format!("write {}", path.display())))
}

#[cfg(test)]
#[path = "extract_test.rs"]
mod extract_test;
