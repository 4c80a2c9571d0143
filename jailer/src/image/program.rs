//! Finds the installed `bantam-image-reader`.

use crate::error::Error;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat};
use resources::Problem;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

const NAME: &str = "bantam-image-reader";
/// Directory in which the package installs it.
const INSTALLED: &str = "/usr/libexec/bantam";

/// Opens the reader beside the running program, as in a build directory, or else the installed one.
///
/// # Errors
/// [`Error::Problems`] if there is none, or others than its owner may write to it.
pub fn open() -> Result<OwnedFd, Error> {
    let own = std::env::current_exe().map_err(Error::step("find this program's file"))?;
    let beside = beside(&own);
    let installed = Path::new(INSTALLED).join(NAME);
    let problem = |message| Error::Problems(vec![Problem::new(NAME, message)]);
    for path in [&beside, &installed] {
        match open_at(path) {
            Ok(Some(program)) => return program.map_err(problem),
            Ok(None) => {}
            Err(e) => return Err(Error::step(format!("open {}", path.display()))(e)),
        }
    }
    Err(problem(format!(
        "is needed to find the kernel in an image, and is neither {} nor {}: install the package `bantam`, or run \
         `cargo build --release -p jailer`",
        beside.display(),
        installed.display()
    )))
}

/// Returns the path of the reader in the directory of the program `own`.
fn beside(own: &Path) -> PathBuf {
    // Cargo puts tests one directory below the programs.
    let level = if cfg!(test) { 2 } else { 1 };
    let directory = own.ancestors().nth(level).unwrap_or(Path::new("/"));
    directory.join(NAME)
}

/// Opens `path`; `None` if there is no such file. The inner error says why the file cannot be used.
fn open_at(path: &Path) -> io::Result<Option<Result<OwnedFd, String>>> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let program = match openat(nix::fcntl::AT_FDCWD, path, flags, Mode::empty()) {
        Err(nix::errno::Errno::ENOENT) => return Ok(None),
        opened => opened?,
    };
    // By this link: an upgrade may have replaced the running program's file.
    let (stat, own) = (fstat(&program)?, nix::sys::stat::stat("/proc/self/exe")?);
    let shown = path.display();
    // The owner of the running program could replace that program as well, so its files are trusted.
    if stat.st_uid != 0 && stat.st_uid != own.st_uid {
        let message = format!(
            "{shown} belongs to user {}: `chown root {shown}`",
            stat.st_uid
        );
        return Ok(Some(Err(message)));
    }
    if stat.st_mode & 0o022 != 0 {
        let message = format!("others may write to {shown}: `chmod 755 {shown}`");
        return Ok(Some(Err(message)));
    }
    Ok(Some(Ok(program)))
}
