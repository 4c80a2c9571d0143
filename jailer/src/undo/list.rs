//! The undo list: what was made on the host, in order, and how to undo it.
//!
//! Each step records what it made as soon as it is made. If a start or a command fails, dropping the list undoes
//! everything, the last step first. Recording is also the point at which a pending signal stops the start.

use crate::error::{Error, warn};
use crate::sys::tool::Checkpoint;
use crate::undo::record::{Made, Record};
use std::fs::File;
use std::io;

type Action = Box<dyn FnOnce() -> io::Result<()> + Send>;
type Check = Box<dyn FnMut() -> Result<(), Error> + Send>;

/// The steps of a start or a command, and how to undo them. Dropping this undoes everything.
pub struct Undo {
    made: Vec<(String, Action)>,
    check: Check,
    /// The record on the host, for what would outlive this process.
    record: Option<Record>,
}

impl Undo {
    /// Returns an empty list. `check` is called after each step, and stops the start by an error.
    pub fn new(check: impl FnMut() -> Result<(), Error> + Send + 'static) -> Self {
        Self {
            made: Vec::new(),
            check: Box::new(check),
            record: None,
        }
    }

    /// Returns an empty list whose steps no signal stops.
    pub fn uninterrupted() -> Self {
        Self::new(|| Ok(()))
    }

    /// Makes [`Self::announce`] write to `record` from now on.
    pub fn keep_record(&mut self, record: Record) {
        self.record = Some(record);
    }

    /// Adds to the record things that are about to be made and would outlive this process.
    pub fn announce(&mut self, add: impl FnOnce(&mut Made)) -> Result<(), Error> {
        let Some(record) = &mut self.record else {
            return Ok(());
        };
        let mut made = record.made().clone();
        add(&mut made);
        record.write(made)
    }

    /// See [`Record::handover`].
    pub fn handover(&self) -> Result<Option<File>, Error> {
        self.record.as_ref().map_or(Ok(None), Record::handover)
    }

    /// Records that `what` was made, and that `action` undoes it.
    ///
    /// # Errors
    /// [`Error::Stopped`]; `what` is recorded all the same.
    pub fn made(
        &mut self,
        what: impl Into<String>,
        action: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Result<(), Error> {
        self.made.push((what.into(), Box::new(action)));
        self.checkpoint()
    }

    /// Stops the start if a signal is pending: after a step that needs no undoing, or during a long one.
    pub fn checkpoint(&mut self) -> Result<(), Error> {
        (self.check)()
    }

    /// Keeps everything that was made.
    pub fn keep(mut self) {
        self.made.clear();
    }
}

impl Checkpoint for Undo {
    fn checkpoint(&mut self) -> Result<(), Error> {
        (self.check)()
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        let mut all = true;
        while let Some((what, action)) = self.made.pop() {
            match action() {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => {
                    all = false;
                    warn(&format!("cannot undo {what}: {e}; do it by hand"));
                }
            }
        }
        if all && let Some(Err(e)) = self.record.as_mut().map(|r| r.write(Made::default())) {
            warn(&crate::error::chain(&e));
        }
    }
}

#[cfg(test)]
#[path = "list_test.rs"]
mod list_test;
