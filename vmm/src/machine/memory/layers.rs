//! Guest memory in layers: a file with all pages, and files with the pages written later, each on top of the one before.

use super::mapping;
use super::page::PAGE;
use super::ranges::{data_in, holding, read_pages};
use boot::FilePiece;
use devices::GuestMemory;
use resources::MachineConfig;
use std::fs::File;
use std::io;
use std::sync::Arc;
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryBackend as _, GuestMemoryRegion as _};

/// Shortest run of pages that is mapped. Copying a shorter run costs no more than a mapping, and the number of mappings is
/// limited (`vm.max_map_count`, 65530).
const MAP_PAGES: u64 = 4;
/// Limit of mapped runs per layer.
const MAX_MAPPINGS: usize = 16 << 10;

/// A file with pages of guest memory, each at its offset.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The file. Nobody writes to it any more.
    pub file: Arc<File>,
    /// The ranges that the file holds, as offset and length; `None` for all of it.
    pub runs: Option<Vec<(u64, u64)>>,
}

/// The layers of a memory, the lowest first.
#[derive(Clone, Debug, Default)]
pub struct Layers(pub Vec<Layer>);

impl Layers {
    /// Maps the memory of `config` privately: pages are read from the layers when the guest touches them, and its writes do not
    /// reach the files.
    ///
    /// # Errors
    /// The host refused a mapping.
    pub fn map(&self, config: &MachineConfig) -> io::Result<GuestMemory> {
        let base = self.0.first().filter(|layer| layer.runs.is_none());
        let base =
            base.ok_or_else(|| io::Error::other("the lowest layer does not hold all pages"))?;
        let memory = mapping::map_whole(config, &base.file).map_err(io::Error::other)?;
        for layer in self.0.iter().skip(1) {
            overlay(&memory, layer)?;
        }
        Ok(memory)
    }

    /// Returns the ranges that hold data in a layer, as offset and length.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn data(&self, len: u64) -> io::Result<Vec<(u64, u64)>> {
        let mut all = Vec::new();
        for layer in &self.0 {
            match &layer.runs {
                Some(runs) => all.extend(runs),
                None => all.extend(data_in(&layer.file, len)?),
            }
        }
        Ok(all)
    }

    /// Checks that these are layers of a memory of `bytes` bytes. Files and ranges come from another process.
    ///
    /// # Errors
    /// The reason.
    pub fn check(&self, bytes: u64) -> Result<(), String> {
        for (index, layer) in self.0.iter().enumerate() {
            let len = layer.file.metadata().map_or(0, |metadata| metadata.len());
            if len != bytes {
                return Err(format!(
                    "layer {index} has {len} bytes, and the guest's memory has {bytes}"
                ));
            }
            let mut end = 0;
            for (offset, len) in layer.runs.iter().flatten() {
                let aligned = offset.is_multiple_of(PAGE) && len.is_multiple_of(PAGE);
                let after = offset.checked_add(*len).filter(|after| *after <= bytes);
                match after.filter(|_| aligned && *offset >= end) {
                    Some(after) => end = after,
                    None => return Err(format!("layer {index} has an invalid range")),
                }
            }
        }
        match self.0.split_first() {
            Some((base, rest)) if base.runs.is_none() && rest.iter().all(|l| l.runs.is_some()) => {
                Ok(())
            }
            _ => Err("the layers must be one complete file, followed by diffs".into()),
        }
    }

    /// Returns the topmost layer that holds `page`.
    pub fn holder(&self, page: u64) -> Option<&Layer> {
        let at = page * PAGE;
        let holds = |layer: &&Layer| match &layer.runs {
            None => true,
            Some(runs) => holding(runs, at).is_some(),
        };
        self.0.iter().rev().find(holds)
    }
}

/// Maps or copies the ranges of `layer` over `memory`.
fn overlay(memory: &GuestMemory, layer: &Layer) -> io::Result<()> {
    let mut mapped = 0;
    let mut start = 0;
    for region in memory.iter() {
        let end = start + region.len();
        for (offset, len) in layer.runs.iter().flatten().copied() {
            let (from, to) = (offset.max(start), (offset + len).min(end));
            if from >= to {
                continue;
            }
            let piece = FilePiece {
                file: &layer.file,
                file_offset: from,
                guest_addr: region.start_addr().0 + (from - start),
                len: to - from,
            };
            let large = piece.len >= MAP_PAGES * PAGE && mapped < MAX_MAPPINGS;
            if large && mapping::map_file(memory, &piece) {
                mapped += 1;
            } else {
                copy(memory, &piece)?;
            }
        }
        start = end;
    }
    Ok(())
}

fn copy(memory: &GuestMemory, piece: &FilePiece<'_>) -> io::Result<()> {
    let range = (piece.file_offset, piece.len);
    read_pages(piece.file, range, |page, at| {
        let address = piece.guest_addr + (at - piece.file_offset);
        memory
            .write_slice(page, GuestAddress(address))
            .map_err(io::Error::other)
    })
}

#[cfg(test)]
#[path = "layers_test.rs"]
mod layers_test;
