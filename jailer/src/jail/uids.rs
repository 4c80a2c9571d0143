//! Users for guests that share theirs with no other guest: a range of uids, and a lock for each, which ends with the
//! guest that holds it.

use crate::error::Error;
use crate::sys::dir::{Dir, Owner};
use crate::undo::record::fingerprint;
use crate::undo::state;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid};
use resources::Problem;
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// Default range: above the uids that Debian gives to users and services, and below the ranges of container managers
/// and systemd (systemd's UIDS-GIDS.md).
const DEFAULT: Range = Range {
    first: 64_200,
    last: 65_199,
};

/// Time limit of the wait for another process that tries a uid.
const PATIENCE: Duration = Duration::from_secs(1);

/// A lock on a uid, which the monitor inherits.
pub type Claim = Flock<File>;

/// The uids from `first` to `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    first: u32,
    last: u32,
}

impl Range {
    /// Reads `FIRST-LAST`, or returns the default.
    pub fn parse(text: Option<&str>) -> Result<Self, String> {
        let Some(text) = text else {
            return Ok(DEFAULT);
        };
        let range = text.split_once('-').and_then(|(first, last)| {
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            (0 < first && first <= last && last < u32::MAX).then_some(Self { first, last })
        });
        range.ok_or_else(|| format!("--uid-range {text}: write FIRST-LAST, from 1 up"))
    }

    /// Claims a number that no other guest has for the guest `id`; user and group have the same number. The search
    /// begins at a number that depends on `id`: so of hundreds of guests none tries hundreds of numbers, and a guest
    /// that starts again is likely to get the number it had.
    ///
    /// # Errors
    /// [`Error`], if no number is free, or the host refuses a lock.
    pub fn allot(self, id: &str) -> Result<(Owner, Claim), Error> {
        let mut search = Search::new()?;
        for number in self.numbers_for(id) {
            if let Some(claim) = search.claim(number)? {
                return Ok((owner(number), claim));
            }
        }
        let step = format!(
            "find a user for the guest: no uid between {} and {} is free; widen --uid-range",
            self.first, self.last
        );
        Err(Error::step(step)(io::Error::from(Errno::EAGAIN)))
    }

    /// Returns the first `count` numbers that no running guest has and for which `taken` is false, or fewer if there
    /// are not as many. They are not claimed: the caller writes them down before another looks.
    pub fn first_free(self, count: usize, taken: impl Fn(u32) -> bool) -> Result<Vec<u32>, Error> {
        let mut search = Search::new()?;
        let mut free = Vec::new();
        for number in self.numbers() {
            if free.len() == count {
                break;
            }
            if !taken(number) && search.claim(number)?.is_some() {
                free.push(number);
            }
        }
        Ok(free)
    }

    /// Returns all uids in the order in which they are tried for the guest `id`.
    fn numbers_for(self, id: &str) -> impl Iterator<Item = u32> {
        let count = u64::from(self.last - self.first) + 1;
        let place = fingerprint(Path::new(id)) % count;
        let place = self.first + u32::try_from(place).unwrap_or_default();
        (place..=self.last).chain(self.first..place)
    }

    /// Returns all uids.
    pub fn numbers(self) -> impl Iterator<Item = u32> {
        self.first..=self.last
    }
}

/// Returns the user and the group with the number `number`.
pub fn owner(number: u32) -> Owner {
    Owner {
        uid: Uid::from_raw(number),
        gid: Gid::from_raw(number),
    }
}

/// A search for numbers that no guest has.
struct Search {
    directory: Dir,
    /// Users that had living processes at the last look.
    living: HashSet<u32>,
}

impl Search {
    fn new() -> Result<Self, Error> {
        Ok(Self {
            directory: directory()?,
            living: HashSet::new(),
        })
    }

    /// Claims `number`; `None` if a guest has it.
    fn claim(&mut self, number: u32) -> Result<Option<Claim>, Error> {
        let Some(claim) = lock_in(&self.directory, number, FlockArg::LockExclusiveNonblock)? else {
            return Ok(None);
        };
        // A monitor may release its lock, or leave a child behind.
        if !has_processes(number).map_err(Error::step("look for processes of a user"))? {
            return Ok(Some(claim));
        }
        if self.living.contains(&number) {
            return Ok(None);
        }
        // A process may have started since the last look.
        self.living = living_users().map_err(Error::step("look for processes of users"))?;
        Ok((!self.living.contains(&number)).then_some(claim))
    }
}

/// Locks the uid `number`, which the operator named, against `--uid auto`. Several guests for which the operator names
/// the same uid share the lock.
///
/// # Errors
/// [`Error::Problems`], if a guest has it by `--uid auto`.
pub fn share(number: u32) -> Result<Claim, Error> {
    let directory = directory()?;
    let started = Instant::now();
    loop {
        if let Some(claim) = lock_in(&directory, number, FlockArg::LockSharedNonblock)? {
            return Ok(claim);
        }
        if started.elapsed() >= PATIENCE {
            let message = format!(
                "user {number} belongs to a running guest, which got it by `--uid auto`: choose another"
            );
            return Err(Error::Problems(vec![Problem::new("--uid", message)]));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Returns whether the user `number` has processes; a dead one that no process has waited for yet counts as well.
#[expect(unsafe_code, reason = "getpriority has no safe wrapper")]
fn has_processes(number: u32) -> io::Result<bool> {
    // The call returns the highest priority of the user's processes (getpriority(2)).
    // SAFETY: the arguments are numbers.
    match unsafe { libc::syscall(libc::SYS_getpriority, libc::PRIO_USER, number) } {
        -1 => match Errno::last() {
            Errno::ESRCH => Ok(false),
            e => Err(e.into()),
        },
        _ => Ok(true),
    }
}

/// Returns the users that have living processes.
fn living_users() -> io::Result<HashSet<u32>> {
    let mut users = HashSet::new();
    for entry in std::fs::read_dir("/proc")? {
        // Other entries have no such file, nor has a process that has just ended.
        if let Ok(status) = std::fs::read_to_string(entry?.path().join("status")) {
            users.extend(users_of(&status));
        }
    }
    Ok(users)
}

/// Returns the users of the process that `status`, of the form of /proc/PID/status, describes; none if it is dead.
fn users_of(status: &str) -> impl Iterator<Item = u32> {
    let words = |key: &str| {
        let mut lines = status.lines();
        let found = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        found.unwrap_or_default().split_whitespace()
    };
    let dead = words("State").next() == Some("Z") && words("Threads").next() == Some("1");
    words("Uid")
        .filter(move |_| !dead)
        .filter_map(|uid| uid.parse().ok())
}

fn directory() -> Result<Dir, Error> {
    state::directory("uids")
}

fn lock_in(directory: &Dir, number: u32, how: FlockArg) -> Result<Option<Claim>, Error> {
    let name = number.to_string();
    let failed = || {
        let path = directory.path().join(&name);
        Error::step::<io::Error>(format!("lock {}", path.display()))
    };
    // Never removed: a lock on a file that another process may unlink protects nothing.
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
