//! Detects copies whose `bantamctl fork` was killed.
//!
//! `bantamctl fork` holds the write end of a FIFO until all copies have received their guest. The FIFO has the name
//! `COPY.new` beside the record of each copy. Each waiting monitor has the read end, locked. If `bantamctl fork` is
//! killed, the FIFO has no writer any more: the monitors notice that and exit, and when none of them holds the lock,
//! the copies can be removed.

use jailer::error::Error;
use jailer::jail::copies::{self, fifo};
use jailer::sys::dir::Dir;
use jailer::undo::Undo;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, mkfifoat};
use std::fs::File;
use std::io::{self, Read as _};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Time limit for the monitors to exit after `bantamctl fork` was killed.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Time between two checks that they have.
pub const INTERVAL: Duration = Duration::from_millis(5);

/// Marks the copies of one call as being made, until this is dropped.
#[derive(Debug)]
pub struct Making {
    directory: Dir,
    reader: Flock<File>,
    _writer: File,
}

impl Making {
    /// Marks `copies`, which have no records yet. The caller holds the lock of definitions.
    pub fn new(copies: &[String], undo: &mut Undo) -> Result<Self, Error> {
        let directory = copies::directory()?;
        let failed = || format!("make a FIFO in {}", directory.path().display());
        let first = copies.first().map(|copy| fifo(copy)).unwrap_or_default();
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        mkfifoat(&directory, first.as_str(), mode).map_err(Error::step(failed()))?;
        directory.record(undo, &first, UnlinkatFlags::NoRemoveDir)?;
        let ends = || -> io::Result<(File, Flock<File>)> {
            // O_WRONLY would fail without a reader.
            let writer = open(&directory, &first, OFlag::O_RDWR)?;
            let reader = open(&directory, &first, OFlag::O_RDONLY)?;
            let locked = Flock::lock(reader, FlockArg::LockExclusiveNonblock);
            Ok((writer, locked.map_err(|(_, e)| e)?))
        };
        let (writer, reader) = ends().map_err(Error::step(failed()))?;
        for copy in copies.iter().skip(1) {
            let linked = directory.link(&first, &directory, &fifo(copy));
            linked.map_err(Error::step(failed()))?;
            directory.record(undo, &fifo(copy), UnlinkatFlags::NoRemoveDir)?;
        }
        Ok(Self {
            directory,
            reader,
            _writer: writer,
        })
    }

    /// Returns the read end, for a future monitor of a copy.
    pub fn lifeline(&self) -> io::Result<Stdio> {
        Ok(self.reader.try_clone()?.into())
    }

    /// Removes the mark of `copy`, which has received its guest.
    pub fn done(&self, copy: &str) -> Result<(), Error> {
        self.directory.remove_leftover(&fifo(copy))
    }
}

fn open(directory: &Dir, name: &str, mode: OFlag) -> io::Result<File> {
    let flags = mode | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(directory, name, flags, Mode::empty())?.into())
}

/// Returns whether `copy` is marked as being made.
pub fn is_there(copy: &str) -> Result<bool, Error> {
    Ok(copies::directory()?.stat(&fifo(copy)).is_ok())
}

/// Returns the copies whose `bantamctl fork` was killed and whose monitors have exited. The caller holds the lock of
/// definitions.
///
/// # Errors
/// [`Error`], if a monitor does not exit.
pub fn abandoned() -> Result<Vec<String>, Error> {
    let directory = copies::directory()?;
    let names = directory.names();
    let names = names.map_err(Error::step(format!("read {}", directory.path().display())))?;
    let mut abandoned = Vec::new();
    for copy in names.iter().filter_map(|file| file.strip_suffix(".new")) {
        let left = is_abandoned(&directory, copy);
        if left.map_err(Error::step(format!(
            "find out whether {copy} is being made, after an interrupted `bantamctl fork`"
        )))? {
            abandoned.push(copy.to_owned());
        }
    }
    Ok(abandoned)
}

fn is_abandoned(directory: &Dir, copy: &str) -> io::Result<bool> {
    let mut end = match open(directory, &fifo(copy), OFlag::O_RDONLY) {
        // The copy was finished since its name was read.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        end => end?,
    };
    match end.read(&mut [0]) {
        // The FIFO is empty, but has a writer.
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
        read => read?,
    };
    let started = Instant::now();
    loop {
        match Flock::lock(end, FlockArg::LockExclusiveNonblock) {
            Ok(_) => return Ok(true),
            Err((_, e)) if e != Errno::EWOULDBLOCK => return Err(e.into()),
            Err(_) if started.elapsed() > PATIENCE => {
                return Err(io::Error::other(
                    "a monitor that it has started does not exit",
                ));
            }
            Err((back, _)) => end = back,
        }
        std::thread::sleep(INTERVAL);
    }
}
