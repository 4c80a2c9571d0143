//! Copies in the making: how others see that somebody makes them yet, and how the processes that wait for their guest
//! see it.
//!
//! Who makes copies holds the writing end of a FIFO, which has a name, `COPY.new`, beside what is written down of each,
//! until all of them have their guest. Every process that is to become one of them has the reading end, locked. So who
//! was killed leaves a FIFO that nobody writes to; its processes see that, and end; and when none of them
//! holds the lock any more, what there is of the copy can be removed.

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

/// How long processes may take to end whose maker was killed.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks whether they have.
pub const INTERVAL: Duration = Duration::from_millis(5);

/// The copies of one call. They are being made until this is dropped.
#[derive(Debug)]
pub struct Making {
    directory: Dir,
    reader: Flock<File>,
    _writer: File,
}

impl Making {
    /// Of `copies`, none of which is written down yet. No other copies begin to be made meanwhile.
    pub fn new(copies: &[String], undo: &mut Undo) -> Result<Self, Error> {
        let directory = copies::directory()?;
        let failed = || format!("make a FIFO in {}", directory.path().display());
        let first = copies.first().map(|copy| fifo(copy)).unwrap_or_default();
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        mkfifoat(&directory, first.as_str(), mode).map_err(Error::step(failed()))?;
        directory.record(undo, &first, UnlinkatFlags::NoRemoveDir)?;
        let ends = || -> io::Result<(File, Flock<File>)> {
            // A writing end alone can only be opened when there is a reading one.
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

    /// The reading end, for a process that is to become a copy.
    pub fn lifeline(&self) -> io::Result<Stdio> {
        Ok(self.reader.try_clone()?.into())
    }

    /// `copy` has its guest.
    pub fn done(&self, copy: &str) -> Result<(), Error> {
        self.directory.remove_leftover(&fifo(copy))
    }
}

fn open(directory: &Dir, name: &str, mode: OFlag) -> io::Result<File> {
    let flags = mode | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(directory, name, flags, Mode::empty())?.into())
}

/// Whether `copy` is being made, or what is left of that is there yet.
pub fn is_there(copy: &str) -> Result<bool, Error> {
    Ok(copies::directory()?.stat(&fifo(copy)).is_ok())
}

/// The copies whose maker was killed, and that no process is about to become any more. No copies begin to be made meanwhile.
///
/// # Errors
/// What the host says, or such a process does not end.
pub fn abandoned() -> Result<Vec<String>, Error> {
    let directory = copies::directory()?;
    let names = directory.names();
    let names = names.map_err(Error::step(format!("read {}", directory.path().display())))?;
    let mut abandoned = Vec::new();
    for copy in names.iter().filter_map(|file| file.strip_suffix(".new")) {
        let left = is_abandoned(&directory, copy);
        if left.map_err(Error::step(format!(
            "see who makes {copy}, after a `bantamctl fork` that was killed"
        )))? {
            abandoned.push(copy.to_owned());
        }
    }
    Ok(abandoned)
}

fn is_abandoned(directory: &Dir, copy: &str) -> io::Result<bool> {
    let mut end = match open(directory, &fifo(copy), OFlag::O_RDONLY) {
        // All is well with it by now.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        end => end?,
    };
    match end.read(&mut [0]) {
        // Nobody writes, but somebody could.
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
                    "a process that it has started does not end",
                ));
            }
            Err((back, _)) => end = back,
        }
        std::thread::sleep(INTERVAL);
    }
}
