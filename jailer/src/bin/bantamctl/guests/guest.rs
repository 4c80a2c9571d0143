//! A guest: its name, its definition, and whether it runs.
//!
//! A guest runs if the lock of its jail is held; nothing else records that.

use crate::guests::definitions;
use jailer::error::{self, Error};
use jailer::jail::layout::PROCESS;
use jailer::jail::lock;
use jailer::jail::options::{check_id, place};
use jailer::sys::dir::{Dir, absent_is_none};
use jailer::sys::pidfd::Process;
use resources::{Problem, VmConfig};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Time between two checks of the jail's lock.
const INTERVAL: Duration = Duration::from_millis(20);

/// A guest that is defined, or a copy of one.
#[derive(Debug)]
pub struct Guest {
    /// Its name, which is its jail's id.
    pub name: String,
    /// Its definition.
    pub config: VmConfig,
}

impl Guest {
    /// Reads the guest `name`.
    ///
    /// # Errors
    /// [`Error`], if there is no such guest or its definition is wrong.
    pub fn load(name: &str) -> Result<Self, Error> {
        check_name(name)?;
        let path = definitions::find(name);
        let problem = |message| Error::Problems(vec![Problem::new("guest", message)]);
        if !path.exists() {
            return Err(problem(format!(
                "there is no guest `{name}`: `bantamctl list` shows all guests, `bantamctl create --name {name} ...` \
                 makes one"
            )));
        }
        let loaded = VmConfig::from_file(&path).map_err(|e| problem(error::chain(&e)))?;
        Ok(Self {
            name: name.into(),
            config: loaded.config,
        })
    }

    /// Returns the guest that this one is a copy of, if it is a copy.
    pub fn copy_of(&self) -> Option<&str> {
        self.config.host.as_ref()?.copy_of.as_deref()
    }

    /// Returns the directory of its jail, outside the guest's reach.
    pub fn directory(&self) -> PathBuf {
        let (base, exec_name) = place(&self.config);
        base.join(exec_name).join(&self.name)
    }

    /// Returns whether it runs.
    pub fn is_running(&self) -> bool {
        lock::is_locked(&self.directory())
    }

    /// Returns its process id, if it runs and has written it.
    pub fn process(&self) -> Result<Option<u32>, Error> {
        if !self.is_running() {
            return Ok(None);
        }
        let path = self.directory().join(PROCESS);
        let text = absent_is_none(fs::read_to_string(&path));
        let text = text.map_err(Error::step(format!("read {}", path.display())))?;
        Ok(text.and_then(|text| parse_id(&text)))
    }

    /// Waits until the guest has ended, but not longer than `limit`; returns whether it has.
    pub fn wait_for_end(&self, limit: Duration) -> Result<bool, Error> {
        let started = Instant::now();
        while self.is_running() {
            let left = limit.saturating_sub(started.elapsed());
            if left.is_zero() {
                return Ok(false);
            }
            let process = self.process()?.and_then(|id| Process::open(id).ok());
            match process {
                // The lock decides: a process may release it before it ends, or leave it to a child.
                Some(process) => {
                    let waited = process.wait(left.min(Duration::from_secs(1)));
                    let ended = waited.map_err(Error::step(format!("wait for {}", self.name)))?;
                    if ended && self.is_running() {
                        std::thread::sleep(INTERVAL);
                    }
                }
                None => std::thread::sleep(INTERVAL),
            }
        }
        Ok(true)
    }

    /// Opens the root of its jail, which belongs to the guest's user.
    ///
    /// # Errors
    /// `ENOENT` if it was never started.
    pub fn root(&self) -> io::Result<Dir> {
        Dir::open(&self.directory())?.enter("root")
    }

    /// Returns the error of a command for which the guest must run.
    pub fn not_running(&self) -> Error {
        let name = &self.name;
        Error::Refused(match self.copy_of() {
            Some(of) => {
                format!(
                    "guest {name}, a copy of {of}, has ended: `bantamctl fork {of}` makes another"
                )
            }
            None => format!("guest {name} is not running"),
        })
    }
}

/// Checks that `name` can name a guest.
///
/// # Errors
/// [`Error::Arguments`].
pub fn check_name(name: &str) -> Result<(), Error> {
    check_id(name).map_err(|_| {
        let shown: String = name.chars().take(80).collect();
        Error::Arguments(format!(
            "`{shown}` cannot be a guest's name: use 1 to 64 letters, digits and `-`"
        ))
    })
}

/// Returns the process id in `text`. Larger numbers would be process groups, or all processes, to kill(2).
fn parse_id(text: &str) -> Option<u32> {
    let id = text.parse::<i32>().ok().filter(|id| *id > 1)?;
    Some(id.cast_unsigned())
}

#[cfg(test)]
#[path = "guest_test.rs"]
mod guest_test;
