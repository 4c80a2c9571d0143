//! Freezes the memory of a machine, so that copies of the guest can start from it, with a short pause only.
//!
//! Frozen memory is in layers (see [`Layers`]): files that are not written any more. The memory of a machine is its layers,
//! mapped privately, and the pages written since. At first the memory is one shared memory file of its own; mapping it
//! privately in place makes it a layer. Later, the pages written since are copied into a new layer. Nearly all of this
//! happens while the guest runs, and the pages it writes meanwhile are copied again.

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

/// Limit of layers. At the limit, all but the lowest are merged.
const MAX_LAYERS: usize = 8;
/// Pages left to be copied during the pause: copying them takes less than a millisecond.
const FEW: u64 = 512;
/// Limit of copying rounds before the pause. A guest that writes faster than a round copies is paused longer.
const ROUNDS: usize = 4;

/// Why the memory cannot be frozen.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// The guest was not started for it.
    #[error(
        "the guest's memory cannot be shared: set `forkable` in its machine-config before it starts"
    )]
    NotForkable,
    /// Another process serves the pages.
    #[error(
        "the guest's memory cannot be shared: another process serves its pages (mem_backend Uffd)"
    )]
    GivenByAnother,
    /// The host refused an operation.
    #[error("cannot freeze the guest's memory")]
    Host(#[from] io::Error),
    /// The state of the machine cannot be saved.
    #[error("cannot save the guest's state")]
    State(#[from] SaveError),
}

/// A freeze in progress.
pub struct Freezing {
    /// The pages copied so far and their layer; `None` for the first freeze.
    copied: Option<(PageSet, Arc<File>)>,
}

impl Machine {
    /// Does the part of a freeze that needs no pause.
    ///
    /// # Errors
    /// [`FreezeError`].
    pub fn prepare_to_freeze(&mut self) -> Result<Freezing, FreezeError> {
        if let Some(file) = self.pages.file.clone() {
            // Start dirty logging. Pages written before the freeze are already in the memory file. They are copied again at
            // the next fork, which costs time but saves a scan during the pause.
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
        if lowest.is_none() || self.pages.since_freeze.is_none() {
            return Err(FreezeError::NotForkable);
        }
        let view = View::new(self.memory());
        let layer = Arc::new(mapping::file_in_memory(c"guest-layer", view.bytes())?);
        let mut copied = PageSet::empty(view.bytes() / PAGE);
        if self.pages.layers.0.len() >= MAX_LAYERS {
            // Merge all layers above the lowest into the new one, by copying their pages from the guest's memory.
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

    /// Freezes the memory of the paused machine and saves its state. The returned layers hold all of its memory.
    ///
    /// # Errors
    /// [`FreezeError`]. If the memory could not be mapped again the guest must not resume.
    pub fn freeze(&mut self, freezing: Freezing) -> Result<(MachineState, Layers), FreezeError> {
        let state = match freezing.copied {
            None => self.freeze_file()?,
            Some((copied, layer)) => self.freeze_rest(copied, layer)?,
        };
        Ok((state, self.pages.layers.clone()))
    }

    /// First freeze: makes the memory file a layer.
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

    /// Later freeze: copies the remaining pages into the new layer.
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

    /// Ends the guest, because a part of its memory is lost.
    fn lost(&self, e: io::Error) -> FreezeError {
        log::error!("the guest's memory is lost: {e}");
        self.end_handle().set(Outcome::VcpuFailed);
        e.into()
    }

    /// Seals the layers, so that a process that receives them cannot change them.
    ///
    /// # Errors
    /// The host refused a seal.
    pub fn seal_layers(&self) -> io::Result<()> {
        let mut layers = self.pages.layers.0.iter();
        layers.try_for_each(|layer| mapping::seal(&layer.file))
    }
}

/// Copies `pages` to their places in `layer`. The guest may be writing to them.
fn copy(view: &View, pages: &PageSet, layer: &File) -> io::Result<()> {
    for (first, count) in pages.runs() {
        for piece in view.range(first, count) {
            piece.copy_to(layer)?;
        }
    }
    Ok(())
}
