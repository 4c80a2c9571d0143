//! `bantam-image-reader`: finds the kernel, the initrd and the command line in the disk image on standard input, and
//! writes them to standard output as frames.
//!
//! `jailer` and `bantamctl` run it as an unprivileged user in an empty root directory. It gives up everything else
//! before it reads the first byte, because a guest wrote the image.

mod boot;
mod confine;
mod disk;
mod file_system;
mod finder;
mod grub;
mod loader_entries;
mod partitions;
mod script;
#[cfg(test)]
#[path = "test_image.rs"]
mod test_image;

use disk::Window;
use finder::Sink;
use jailer::image::frames::{self, CANNOT_CONFINE, DAMAGED, Mark};
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd as _;
use std::panic::PanicHookInfo;

fn main() {
    let status = match std::env::args_os().len() {
        0 | 1 => run().map_or(CANNOT_CONFINE, |()| 0),
        _ => {
            eprintln!(
                "bantam-image-reader: jailer and bantamctl run this program; it takes no arguments"
            );
            153
        }
    };
    end(status)
}

fn run() -> io::Result<()> {
    let (mut image, mut to) = (stream(0), stream(1));
    let len = image.seek(SeekFrom::End(0))?;
    confine::confine()?;
    std::panic::set_hook(Box::new(report_panic));
    let image = ManuallyDrop::new(Window::new(ManuallyDrop::into_inner(image), len));
    let mut frames = Frames { to: &mut to };
    let sent = match finder::find(&image, &mut frames) {
        Ok(()) => frames.send(Mark::End, &[]),
        Err(e) => frames.send(Mark::Error, e.as_bytes()),
    };
    // If the pipe is closed, no one waits for the answer.
    drop(sent);
    Ok(())
}

/// Returns a standard stream as a file that is never closed: the filter allows no close.
#[expect(
    unsafe_code,
    reason = "a descriptor that stays open until the process ends"
)]
fn stream(number: i32) -> ManuallyDrop<File> {
    // SAFETY: standard streams are open, and ManuallyDrop keeps this from closing it.
    ManuallyDrop::new(unsafe { File::from_raw_fd(number) })
}

/// Ends the process without the C library's clean-up, which needs system calls that the filter forbids.
#[expect(unsafe_code, reason = "the filter allows nothing but this end")]
fn end(status: i32) -> ! {
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(status) }
}

/// Reports a panic: the parsers of file systems are other projects', and panic at some damaged images.
fn report_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(|place| {
        let mut parts: Vec<&str> = place.file().rsplit('/').take(3).collect();
        parts.reverse();
        format!("{}:{}", parts.join("/"), place.line())
    });
    let place = place.unwrap_or_default();
    let text = format!("its reader crashed at {place}: {DAMAGED}");
    let _ = frames::write(&mut *stream(1), Mark::Error, text.as_bytes());
}

/// Writes frames to the pipe.
struct Frames<'a> {
    to: &'a mut File,
}

impl Frames<'_> {
    fn send(&mut self, mark: Mark, bytes: &[u8]) -> Result<(), String> {
        frames::write(self.to, mark, bytes).map_err(|e| e.to_string())
    }
}

impl Sink for Frames<'_> {
    fn command_line(&mut self, line: &str) -> Result<(), String> {
        self.send(Mark::CommandLine, line.as_bytes())
    }

    fn kernel(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.send(Mark::Kernel, bytes)
    }

    fn initrd(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.send(Mark::Initrd, bytes)
    }
}
