//! Booting what is in a guest's image: at each start, its kernel, initrd and command line are found as its own
//! boot loader would find them, and laid into the jail. So a guest that gets itself a new kernel boots it.
//!
//! A guest wrote the image, so no byte of it is understood by this process: a [`helper`] without any privilege
//! does that, and what it says is bounded and checked.

mod disk;
mod file_system;
mod finder;
mod frames;
mod grub;
mod helper;
mod loader_entries;
mod partitions;
mod script;
#[cfg(test)]
#[path = "test_image.rs"]
pub mod test_image;

use crate::dir::{Dir, Owner, ROOT, by_descriptor};
use crate::error::Error;
use crate::jail_config::{INITRD, KERNEL};
use crate::tool::printable;
use crate::undo::Undo;
use frames::{HEADER, Mark, Order};
use helper::Helper;
use nix::unistd::Gid;
use resources::Problem;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt as _;

/// Longest command line in an image, in bytes: x86-64 kernels take 2 KiB (COMMAND_LINE_SIZE).
pub const MAX_COMMAND_LINE: usize = 2048;
/// Largest kernel, in bytes.
pub const MAX_KERNEL: u64 = 256 << 20;
/// Largest initrd, in bytes.
pub const MAX_INITRD: u64 = 1 << 30;

/// What was found and laid into the jail, beside its kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The command line, as the boot loader would give it.
    pub command_line: String,
    /// Whether there is an initrd.
    pub initrd: bool,
}

impl Found {
    /// The command line with `more` after it. If neither names a console, it is the serial port: stock
    /// kernels have no other here.
    pub fn with(&self, more: Option<&str>) -> String {
        let mut words = vec![self.command_line.as_str(), more.unwrap_or_default()];
        let console = |line: &&str| line.split(' ').any(|word| word.starts_with("console="));
        if !words.iter().any(console) {
            words.push("console=ttyS0");
        }
        words.retain(|words| !words.is_empty());
        words.join(" ")
    }

    /// Whether the command line names the root file system.
    pub fn names_root(&self) -> bool {
        let mut words = self.command_line.split(' ');
        words.any(|word| word.starts_with("root="))
    }
}

/// Finds what `image` boots, and lays it into the jail `root` for its group `group`. `shown` names the image.
///
/// # Errors
/// [`Error::Problems`]: there is nothing to boot; [`Error::Step`]: the host refuses something.
pub fn lay(
    root: &Dir,
    group: Gid,
    image: impl AsFd,
    shown: &str,
    undo: &mut Undo,
) -> Result<Found, Error> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(by_descriptor(&image));
    let opened = opened.map_err(Error::step(format!("read {shown}")))?;
    let mut helper = Helper::start(opened)?;
    undo.checkpoint()?;
    match hear(&mut helper, root, group, undo)? {
        Heard::Found(found) => Ok(found),
        Heard::Error(message) => Err(nothing(shown, &message)),
        Heard::Nonsense(message) => Err(nothing(shown, message)),
        Heard::Nothing => Err(nothing(shown, &helper.verdict())),
    }
}

fn nothing(shown: &str, message: &str) -> Error {
    let message = format!("no kernel was found in {shown}: {}", printable(message));
    Error::Problems(vec![Problem::new("boot-source.image_drive", message)])
}

/// What the helper said.
enum Heard {
    Found(Found),
    /// What was wrong with the image.
    Error(String),
    /// What was wrong with what it said.
    Nonsense(&'static str),
    /// It ended before its last word.
    Nothing,
}

fn hear(helper: &mut Helper, root: &Dir, group: Gid, undo: &mut Undo) -> Result<Heard, Error> {
    let mut order = Order::default();
    let mut command_line = None;
    let (mut kernel, mut initrd): (Option<File>, Option<File>) = (None, None);
    let mut bytes = vec![0; frames::MAX_FRAME];
    loop {
        let mut header = [0; HEADER];
        let Some(()) = helper.fill(&mut header, undo)? else {
            return Ok(Heard::Nothing);
        };
        let (mark, len) = match order.next(header) {
            Ok(frame) => frame,
            Err(message) => return Ok(Heard::Nonsense(message)),
        };
        let bytes = bytes.get_mut(..len).unwrap_or_default();
        let Some(()) = helper.fill(bytes, undo)? else {
            return Ok(Heard::Nothing);
        };
        match (mark, &command_line) {
            (Mark::CommandLine, _) => {
                if !bytes.iter().all(|byte| matches!(byte, b' '..=b'~')) {
                    return Ok(Heard::Nonsense("its command line cannot be printed"));
                }
                command_line = Some(String::from_utf8_lossy(bytes).into_owned());
            }
            (Mark::Kernel, _) => write(&mut kernel, root, KERNEL, group, bytes, undo)?,
            (Mark::Initrd, _) => write(&mut initrd, root, INITRD, group, bytes, undo)?,
            (Mark::End, Some(line)) => {
                return Ok(Heard::Found(Found {
                    command_line: line.clone(),
                    initrd: initrd.is_some(),
                }));
            }
            (Mark::Error, _) => return Ok(Heard::Error(String::from_utf8_lossy(bytes).into())),
            (Mark::End, None) => return Ok(Heard::Nonsense("it has no command line")),
        }
    }
}

/// Writes `bytes` at the end of `file`, which is `name` in `root` and made with its first bytes: the
/// superuser's, and for the guest to read.
fn write(
    file: &mut Option<File>,
    root: &Dir,
    name: &str,
    group: Gid,
    bytes: &[u8],
    undo: &mut Undo,
) -> Result<(), Error> {
    if file.is_none() {
        let owner = Owner { gid: group, ..ROOT };
        root.make_file(undo, name, 0o440, owner, |made| {
            *file = Some(made.try_clone()?);
            Ok(())
        })?;
    }
    let written = file.as_mut().map_or(Ok(()), |file| file.write_all(bytes));
    let path = root.path().join(name);
    written.map_err(Error::step(format!("write {}", path.display())))
}

#[cfg(test)]
#[path = "mod_test.rs"]
mod mod_test;
