//! Freezing the memory of a machine, so that copies of it can begin where it is, at the cost of a short hold.
//!
//! What has been frozen is in layers (see [`Layers`]): files that nobody writes to any more. A machine's memory is its layers,
//! mapped privately, and what it has written since. The first time, its memory is one file in memory that it shares with
//! nobody: mapping it privately in place makes it a layer. Later what was written since is copied into a
//! layer of its own. Nearly all of this is done while the guest runs; what it does meanwhile is done again.

use super::memory::layers::{Layer, Layers};
use super::memory::mapping;
use super::memory::page::PAGE;
use super::memory::page_set::PageSet;
use super::memory::view::View;
use super::running::Machine;
use super::state::{MachineState, SaveError};
use crate::process::exit_status::Outcome;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// Most layers. Then those above the lowest are made one.
const MAX_LAYERS: usize = 8;
/// Pages that may be left to be copied while the guest is held: fewer than a millisecond takes.
const FEW: u64 = 512;
/// How often the guest is followed before that. One that writes faster than this copies is held longer.
const ROUNDS: usize = 4;

/// Why a machine cannot be frozen.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// It was not made for it.
    #[error(
        "the guest's memory cannot be shared: set `forkable` in its machine-config before it starts"
    )]
    NotForkable,
    /// Another process gives its pages.
    #[error(
        "the guest's memory cannot be shared: another process gives it, page by page (mem_backend Uffd)"
    )]
    GivenByAnother,
    /// The host refused something.
    #[error("cannot freeze the guest's memory")]
    Host(#[from] io::Error),
    /// The rest of it.
    #[error("cannot save the guest's state")]
    State(#[from] SaveError),
}

/// A frozen memory in the making.
pub struct Freezing {
    /// Pages that are in `layer`, and that layer; `None` the first time.
    copied: Option<(PageSet, Arc<File>)>,
}

impl Machine {
    /// Does what can be done before the guest is held.
    ///
    /// # Errors
    /// [`FreezeError`].
    pub fn prepare_to_freeze(&mut self) -> Result<Freezing, FreezeError> {
        if let Some(file) = self.pages.file.clone() {
            // From here on the guest's writes are noted, for the next time. What was noted before is in the file, as will be
            // what is noted until the memory is frozen: that is copied once more then, and need not be
            // looked through while the guest is held.
            self.track()?;
            self.take_changed()?;
            if let Err(e) = mapping::renew(self.memory(), &file) {
                return Err(self.lost(e));
            }
            return Ok(Freezing { copied: None });
        }
        let lowest = self.pages.layers.0.first();
        if lowest.is_some_and(|lowest| lowest.runs.is_some()) {
            return Err(FreezeError::GivenByAnother);
        }
        if lowest.is_none() || self.pages.written.is_none() {
            return Err(FreezeError::NotForkable);
        }
        let view = View::new(self.memory());
        let layer = Arc::new(mapping::file_in_memory(c"guest-layer", view.bytes())?);
        let mut copied = PageSet::empty(view.bytes() / PAGE);
        if self.pages.layers.0.len() >= MAX_LAYERS {
            // Those above the lowest become one with the new one: where they have a page, it is taken from the guest.
            for (offset, len) in self
                .pages
                .layers
                .0
                .iter()
                .skip(1)
                .filter_map(|l| l.runs.as_ref())
                .flatten()
            {
                (offset / PAGE..(offset + len) / PAGE).for_each(|page| copied.insert(page));
            }
            copy(&view, &copied, &layer)?;
        }
        let mut before = u64::MAX;
        for _ in 0..ROUNDS {
            let changed = self.take_changed()?;
            copied.extend(&changed);
            copy(&view, &changed, &layer).inspect_err(|_| self.return_changed(&copied))?;
            let len = changed.len();
            if len <= FEW || len >= before {
                break;
            }
            before = len;
        }
        Ok(Freezing {
            copied: Some((copied, layer)),
        })
    }

    /// Freezes the memory, and saves the rest; the machine is held. Its layers are then all of its memory.
    ///
    /// # Errors
    /// [`FreezeError`]. If its memory could not be mapped anew the guest must not go on.
    pub fn freeze(&mut self, freezing: Freezing) -> Result<(MachineState, Layers), FreezeError> {
        let state = match freezing.copied {
            None => self.freeze_file()?,
            Some((copied, layer)) => self.freeze_rest(copied, layer)?,
        };
        Ok((state, self.pages.layers.clone()))
    }

    /// What was one file so far is a layer.
    fn freeze_file(&mut self) -> Result<MachineState, FreezeError> {
        let file = self.pages.file.clone().ok_or(FreezeError::NotForkable)?;
        let mut frozen = None;
        let state = self.save_beside(|| frozen = Some(mapping::freeze(self.memory(), &file)));
        match frozen {
            Some(Err(e)) => return Err(self.lost(e)),
            Some(Ok(())) => {
                self.pages.file = None;
                self.pages.layers = Layers(vec![Layer { file, runs: None }]);
            }
            None => {}
        }
        Ok(state?)
    }

    /// What is not in the new layer yet is put there.
    fn freeze_rest(
        &mut self,
        mut copied: PageSet,
        layer: Arc<File>,
    ) -> Result<MachineState, FreezeError> {
        let changed = self.take_changed()?;
        let view = View::new(self.memory());
        let mut done = Ok(());
        let state = self.save_beside(|| done = copy(&view, &changed, &layer));
        let state = done.map_err(FreezeError::from).and(Ok(state?));
        copied.extend(&changed);
        let state = state.inspect_err(|_| self.return_changed(&copied))?;
        let layers = &mut self.pages.layers.0;
        if layers.len() >= MAX_LAYERS {
            layers.truncate(1);
        }
        let runs = copied.runs().into_iter();
        let runs = runs.map(|(first, pages)| (first * PAGE, pages * PAGE));
        if !copied.is_empty() {
            layers.push(Layer {
                file: layer,
                runs: Some(runs.collect()),
            });
        }
        Ok(state)
    }

    /// Ends the guest: part of its memory is not there any more.
    fn lost(&self, e: io::Error) -> FreezeError {
        log::error!("the guest's memory is lost: {e}");
        self.end_handle().set(Outcome::VcpuFailed);
        e.into()
    }

    /// Has nobody who is given the frozen layers change them.
    ///
    /// # Errors
    /// The host's.
    pub fn seal_layers(&self) -> io::Result<()> {
        let mut layers = self.pages.layers.0.iter();
        layers.try_for_each(|layer| mapping::seal(&layer.file))
    }
}

/// Copies `pages` to their places in `layer`; the guest may be writing to them.
fn copy(view: &View, pages: &PageSet, layer: &File) -> io::Result<()> {
    for (first, count) in pages.runs() {
        for piece in view.range(first, count) {
            piece.copy_to(layer)?;
        }
    }
    Ok(())
}
