//! Users for guests that are to share theirs with no other: a range of numbers, and a lock for each
//! that ends with the guest that has it, however that ends.

use crate::dir::{Dir, Owner};
use crate::error::Error;
use crate::privileges;
use crate::record::fingerprint;
use crate::state;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid};
use resources::Problem;
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// The numbers taken if none are given: above those that Debian gives to people and services, below
/// those that container managers and systemd take (systemd's UIDS-GIDS.md).
const DEFAULT: Range = Range {
    first: 64_200,
    last: 65_199,
};

/// How long to wait for others who try a number, and mostly leave it.
const PATIENCE: Duration = Duration::from_secs(1);

/// A user that this process, and the VMM that it becomes, has for itself.
pub type Claim = Flock<File>;

/// The numbers from `first` to `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    first: u32,
    last: u32,
}

impl Range {
    /// Reads `FIRST-LAST`, or takes the default.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: Option<&str>) -> Result<Self, String> {
        let Some(text) = text else {
            return Ok(DEFAULT);
        };
        let range = text.split_once('-').and_then(|(first, last)| {
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            (0 < first && first <= last && last < u32::MAX).then_some(Self { first, last })
        });
        range.ok_or_else(|| format!("--uid-range {text}: write FIRST-LAST, the superuser excepted"))
    }

    /// Takes a number that no other guest has for the guest `id`; user and group are the same number. It is
    /// looked for from a place that the name tells on, so that of hundreds of guests none tries
    /// hundreds of numbers, and one that starts again is likely to be the user that it was.
    ///
    /// # Errors
    /// [`Error`]; none is free, or the host refuses a lock.
    pub fn allot(self, id: &str) -> Result<(Owner, Claim), Error> {
        let directory = directory()?;
        for number in self.numbers_for(id) {
            // A guest could let go of its lock, or leave it to a child of its monitor to go on.
            if let Some(claim) = claim_in(&directory, number)?
                && !is_in_use(number).map_err(Error::step("look for processes of a user"))?
            {
                return Ok((owner(number), claim));
            }
        }
        let wish = format!(
            "find a user for the guest: all from {} to {} are running guests'; widen --uid-range",
            self.first, self.last
        );
        Err(Error::step(wish)(io::Error::from(Errno::EAGAIN)))
    }

    /// All numbers, in the order for the guest `id`.
    fn numbers_for(self, id: &str) -> impl Iterator<Item = u32> {
        let count = u64::from(self.last - self.first) + 1;
        let place = fingerprint(Path::new(id)) % count;
        let place = self.first + u32::try_from(place).unwrap_or_default();
        (place..=self.last).chain(self.first..place)
    }

    /// All numbers.
    pub fn numbers(self) -> impl Iterator<Item = u32> {
        self.first..=self.last
    }
}

/// The user and the group `number`.
pub fn owner(number: u32) -> Owner {
    Owner {
        uid: Uid::from_raw(number),
        gid: Gid::from_raw(number),
    }
}

/// Takes user `number`; `None` if a running guest has it.
///
/// # Errors
/// [`Error`], if the host refuses a lock.
pub fn claim(number: u32) -> Result<Option<Claim>, Error> {
    claim_in(&directory()?, number)
}

/// Makes user `number`, whom the operator named, one that is allotted to nobody else. Other guests whom he gave
/// the same may have it too.
///
/// # Errors
/// [`Error`]: another guest was given it by `--uid auto`, or the host refuses a lock.
pub fn share(number: u32) -> Result<Claim, Error> {
    let directory = directory()?;
    let started = Instant::now();
    loop {
        if let Some(claim) = lock_in(&directory, number, FlockArg::LockSharedNonblock)? {
            return Ok(claim);
        }
        if started.elapsed() >= PATIENCE {
            let message = format!(
                "user {number} is that of a running guest, which was given it by `--uid auto`: choose another"
            );
            return Err(Error::Problems(vec![Problem::new("--uid", message)]));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether user `number` has processes that live.
fn is_in_use(number: u32) -> io::Result<bool> {
    // The kernel counts, and counts those that nobody has waited for yet: these are told apart by looking.
    if !privileges::has_processes(owner(number).uid)? {
        return Ok(false);
    }
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        // What is no process has no such file; nor has one that has gone meanwhile.
        let status = std::fs::read_to_string(path.join("status"));
        if status.is_ok_and(|status| is_alive_as(&status, number)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether `status`, of the form of /proc/PID/status, is that of a living process of user `number`.
fn is_alive_as(status: &str, number: u32) -> bool {
    let words = |key: &str| {
        let mut lines = status.lines();
        let found = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        found.unwrap_or_default().split_whitespace()
    };
    let dead = words("State").next() == Some("Z") && words("Threads").next() == Some("1");
    !dead && words("Uid").any(|uid| uid.parse() == Ok(number))
}

fn directory() -> Result<Dir, Error> {
    state::directory("uids")
}

fn claim_in(directory: &Dir, number: u32) -> Result<Option<Claim>, Error> {
    lock_in(directory, number, FlockArg::LockExclusiveNonblock)
}

fn lock_in(directory: &Dir, number: u32, how: FlockArg) -> Result<Option<Claim>, Error> {
    let name = number.to_string();
    let failed = || {
        let path = directory.path().join(&name);
        Error::step::<io::Error>(format!("lock {}", path.display()))
    };
    // Never removed: a lock on a file that another may unlink meanwhile is none.
    let flags = OFlag::O_RDONLY | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = openat(directory, name.as_str(), flags, Mode::S_IRUSR);
    let file = file.map_err(|e| failed()(e.into()))?;
    match Flock::lock(File::from(file), how) {
        Ok(claim) => Ok(Some(claim)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, e)) => Err(failed()(e.into())),
    }
}

#[cfg(test)]
#[path = "uids_test.rs"]
mod uids_test;
