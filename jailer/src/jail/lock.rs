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

/// A lock that ends with the process, also when that has become the VMM.
pub type Lock = Arc<Flock<File>>;

/// Locks `directory` for this process and the VMM that it becomes, which inherits the open file. It
/// is a plain file, as an open directory would be a way out of the jail.
///
/// # Errors
/// [`Error`]: a guest runs there.
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
        // A start that failed may have removed the file between our opening and locking it.
        let (held, there) = (fstat(&*lock), directory.stat(LOCK));
        if let (Ok(held), Ok(there)) = (held, there)
            && (held.st_dev, held.st_ino) == (there.st_dev, there.st_ino)
        {
            let lock = Arc::new(lock);
            let (dir, held) = (directory.clone(), Arc::clone(&lock));
            // Nobody else gets in before everything in the jail is taken back.
            undo.made(shown.display().to_string(), move || {
                let removed = if new { dir.remove(LOCK) } else { Ok(()) };
                drop(held);
                removed
            })?;
            return Ok(lock);
        }
    }
}

/// Whether a guest runs in the jail whose directory is `jail`, as far as can be told without making anything.
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

/// As [`is_locked`], of the jail of `options`.
pub fn is_running(options: &Options) -> bool {
    is_locked(&options.base.join(&options.exec_name).join(&options.id))
}

/// What to tell of a jail that is in use.
pub fn in_use(id: &str) -> String {
    format!("start a second guest called {id} while one runs: choose another --id, or end that one")
}
