//! What was made on the host, in order, and how to take it back.
//!
//! Every step of the preparation records here what it made, at once. If the start fails, dropping
//! the list takes everything back, the latest first. Each record is also the point where a signal
//! that came meanwhile stops the start.

use crate::error::{Error, warn};
use crate::record::{Made, Record};
use std::fs::File;
use std::io;

type Action = Box<dyn FnOnce() -> io::Result<()> + Send>;
type Check = Box<dyn FnMut() -> Result<(), Error> + Send>;

/// What was made.
pub struct Undo {
    made: Vec<(String, Action)>,
    check: Check,
    /// What outlives this process if it is killed.
    record: Option<Record>,
}

impl Undo {
    /// Nothing made yet. `check` is asked after each step whether to go on.
    pub fn new(check: impl FnMut() -> Result<(), Error> + Send + 'static) -> Self {
        Self {
            made: Vec::new(),
            check: Box::new(check),
            record: None,
        }
    }

    /// From now on, what [`Self::announce`] tells is written into `record`.
    pub fn keep_record(&mut self, record: Record) {
        self.record = Some(record);
    }

    /// Writes down, before it is made, what outlives this process.
    ///
    /// # Errors
    /// [`Error`], naming the record.
    pub fn announce(&mut self, tell: impl FnOnce(&mut Made)) -> Result<(), Error> {
        let Some(record) = &mut self.record else {
            return Ok(());
        };
        let mut made = record.made().clone();
        tell(&mut made);
        record.write(made)
    }

    /// See [`Record::handover`].
    ///
    /// # Errors
    /// [`Error`], naming the file.
    pub fn handover(&self) -> Result<Option<File>, Error> {
        self.record.as_ref().map_or(Ok(None), Record::handover)
    }

    /// Records that `what` was made, and that `action` takes it back.
    ///
    /// # Errors
    /// [`Error::Stopped`]; the record stands.
    pub fn made(
        &mut self,
        what: impl Into<String>,
        action: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Result<(), Error> {
        self.made.push((what.into(), Box::new(action)));
        self.checkpoint()
    }

    /// Whether to go on, after something that needs no taking back or within something long.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn checkpoint(&mut self) -> Result<(), Error> {
        (self.check)()
    }

    /// Everything made is to stay.
    pub fn keep(mut self) {
        self.made.clear();
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
                    warn(&format!("cannot take back {what}: {e}; remove it by hand"));
                }
            }
        }
        if all && let Some(Err(e)) = self.record.as_mut().map(|r| r.write(Made::default())) {
            warn(&crate::error::chain(&e));
        }
    }
}

#[cfg(test)]
#[path = "undo_test.rs"]
mod undo_test;
