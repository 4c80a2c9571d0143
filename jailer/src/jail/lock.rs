//! The lock of a guest's jail: the monitor holds it for as long as the guest runs.

use crate::error::Error;
use crate::jail::layout::LOCK;
use crate::jail::options::Options;
use crate::sys::dir::Dir;
use crate::undo::Undo;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat};
use nix::sys::stat::{Mode, fstat};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// A lock that the monitor inherits; it ends with the process.
pub type Lock = Arc<Flock<File>>;

/// Locks `directory` for this process and the monitor that it becomes, which inherits the open file. The lock is on a
/// plain file, because a process could leave the jail through an open directory.
///
/// # Errors
/// [`Error`], if a guest runs there.
pub fn lock(directory: &Dir, id: &str, undo: &mut Undo) -> Result<Lock, Error> {
    let shown = directory.path().join(LOCK);
    let failed = |e: Errno| {
        let step = match e {
            Errno::EWOULDBLOCK => in_use(id),
            _ => format!("lock {}", shown.display()),
        };
        Error::step(step)(e)
    };
    loop {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let created = flags | OFlag::O_CREAT | OFlag::O_EXCL;
        let (fd, new) = match openat(directory, LOCK, created, Mode::S_IRUSR) {
            Ok(fd) => (fd, true),
            Err(Errno::EEXIST) => match openat(directory, LOCK, flags, Mode::empty()) {
                Ok(fd) => (fd, false),
                Err(Errno::ENOENT) => continue,
                Err(e) => return Err(failed(e)),
            },
            Err(e) => return Err(failed(e)),
        };
        let lock = Flock::lock(File::from(fd), FlockArg::LockExclusiveNonblock)
            .map_err(|(_, e)| failed(e))?;
        // A failed start may have removed the file between this process's open and lock.
        let (held, there) = (fstat(&*lock), directory.stat(LOCK));
        if let (Ok(held), Ok(there)) = (held, there)
            && (held.st_dev, held.st_ino) == (there.st_dev, there.st_ino)
        {
            let lock = Arc::new(lock);
            let (dir, held) = (directory.clone(), Arc::clone(&lock));
            // No other start enters the jail before everything in it is undone.
            undo.made(shown.display().to_string(), move || {
                let removed = if new { dir.remove(LOCK) } else { Ok(()) };
                drop(held);
                removed
            })?;
            return Ok(lock);
        }
    }
}

/// Returns whether a guest runs in the jail whose directory is `jail`. Makes nothing.
pub fn is_locked(jail: &Path) -> bool {
    let Ok(file) = Dir::open(jail).and_then(|dir| {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(openat(&dir, LOCK, flags, Mode::empty())?)
    }) else {
        return false;
    };
    let lock = Flock::lock(File::from(file), FlockArg::LockSharedNonblock);
    matches!(lock, Err((_, Errno::EWOULDBLOCK)))
}

/// Returns whether a guest runs in the jail of `options`.
pub fn is_running(options: &Options) -> bool {
    is_locked(&options.base.join(&options.exec_name).join(&options.id))
}

/// Returns the step that fails if the jail is in use.
pub fn in_use(id: &str) -> String {
    format!("start a second guest called {id} while one runs: choose another --id, or end that one")
}
