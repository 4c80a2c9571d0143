//! Verifies a snapshot and its bases against all their checksums.

use super::contents::{ID_BYTES, Snapshot};
use super::error::{SnapshotError, unreadable};
use super::links::{Link, is_whole, links};
use super::runs::{self, Run};
use crate::machine::memory::layers::{Layer, Layers};
use crate::machine::memory::page::{PAGE, PAGE_BYTES};
use crate::process::progress::Progress;
use boot::layout;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Size of a read in bytes.
const BUFFER: usize = 1 << 20;
/// Limit of reported problems. A badly damaged disk would fill a screen.
const MOST: usize = 20;

/// The result of a verification.
#[derive(Debug)]
pub struct Verdict {
    /// Id of the snapshot.
    pub id: String,
    /// Number of snapshots in the chain.
    pub links: usize,
    /// Bytes that have a checksum.
    pub bytes: u64,
    /// Problems, one line each.
    pub problems: Vec<String>,
    /// Parts that could not be verified.
    pub notes: Vec<String>,
}

/// Verifies the snapshot with the given state and memory files.
///
/// # Errors
/// [`SnapshotError`]: it cannot be read at all.
pub fn verify(
    (state_path, memory_path): (&Path, &Path),
    progress: &mut Progress,
) -> Result<Verdict, SnapshotError> {
    let (snapshot, links) = links(state_path, memory_path)?;
    verify_links(&snapshot, &links, progress)
}

/// Verifies the links of a chain.
pub(super) fn verify_links(
    snapshot: &Snapshot,
    links: &[Link],
    progress: &mut Progress,
) -> Result<Verdict, SnapshotError> {
    let tables: Vec<Vec<Run>> = links.iter().map(Link::table).collect::<Result<_, _>>()?;
    let bytes = tables.iter().flatten().map(Run::bytes).sum();
    progress.begin("verifying", bytes);
    let mut verdict = Verdict {
        id: snapshot.id.clone(),
        links: links.len(),
        bytes,
        problems: Vec::new(),
        notes: Vec::new(),
    };
    for (link, runs) in links.iter().zip(&tables) {
        verdict.check_link(link, runs, progress)?;
    }
    verdict.check_samples(snapshot, links);
    let count = verdict.problems.len();
    if count > MOST {
        verdict.problems.truncate(MOST);
        let more = format!("and {} more problems", count - MOST);
        verdict.problems.push(more);
    }
    Ok(verdict)
}

impl Verdict {
    fn check_link(
        &mut self,
        link: &Link,
        runs: &[Run],
        progress: &mut Progress,
    ) -> Result<(), SnapshotError> {
        let path = link.memory_path.display();
        for run in runs {
            let pages = format!("pages {} to {}", run.start, run.end().saturating_sub(1));
            match crc_of(&link.memory, run.offset(), run.bytes()) {
                Ok(crc) if crc == run.crc => {}
                Ok(_) => self
                    .problems
                    .push(format!("{path}: {pages} differ from what was saved")),
                Err(e) => self
                    .problems
                    .push(format!("{path}: {pages} cannot be read: {e}")),
            }
            progress.add(run.bytes());
        }
        let mut mark = [0; ID_BYTES];
        let read = link.memory.read_exact_at(&mut mark, layout::SNAPSHOT_ID);
        read.map_err(unreadable(&link.memory_path))?;
        if mark != link.id.as_bytes() {
            let id = &link.id;
            self.problems.push(format!(
                "{path}: is not marked as the memory of snapshot {id}"
            ));
        }
        if link.whole {
            let more = is_whole(&link.memory, link.bytes(), &runs::joined(runs));
            match more.map_err(unreadable(&link.memory_path))? {
                false => {}
                true if link.is_diff() => self.notes.push(format!(
                    "{path}: was merged into its base by another program; the checksums of the base's pages are not known"
                )),
                true => self.problems.push(format!(
                    "{path}: has data where the snapshot has none"
                )),
            }
        }
        Ok(())
    }

    /// Checks the sampled pages of the whole memory. They are the only checksums of a base that another program merged.
    fn check_samples(&mut self, snapshot: &Snapshot, links: &[Link]) {
        let layers = Layers(links.iter().map(Link::layer).collect());
        for sample in &snapshot.memory.samples {
            let at = sample.page.checked_mul(PAGE);
            let holder = layers.holder(sample.page).zip(at);
            let crc = holder.map(|(Layer { file, .. }, at)| crc_of(file, at, PAGE));
            if !matches!(crc, Some(Ok(crc)) if crc == sample.crc) {
                let page = sample.page;
                let why = format!(
                    "snapshot {}: page {page} differs from what was saved",
                    self.id
                );
                self.problems.push(why);
            }
        }
    }
}

/// Returns the first of `runs` whose pages in `file` have another checksum.
///
/// # Errors
/// The file cannot be read.
pub(super) fn first_damaged<'r>(
    file: &File,
    runs: &'r [Run],
    progress: &mut Progress,
) -> io::Result<Option<&'r Run>> {
    for run in runs {
        if crc_of(file, run.offset(), run.bytes())? != run.crc {
            return Ok(Some(run));
        }
        progress.add(run.bytes());
    }
    Ok(None)
}

/// Returns the CRC-32 of `len` bytes of `file` from `offset` on.
///
/// # Errors
/// The file cannot be read.
pub(super) fn crc_of(file: &File, offset: u64, len: u64) -> io::Result<u32> {
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![
        0;
        BUFFER
            .min(usize::try_from(len).unwrap_or(BUFFER))
            .max(PAGE_BYTES)
    ];
    let mut at = 0;
    while at < len {
        let now = usize::try_from(len - at).unwrap_or(buffer.len());
        let part = buffer.get_mut(..now.min(BUFFER)).unwrap_or_default();
        file.read_exact_at(part, offset + at)?;
        hasher.update(part);
        at += part.len() as u64;
    }
    Ok(hasher.finalize())
}
