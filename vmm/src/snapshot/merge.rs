//! Merges a chain of diffs into one full snapshot with the id of the last diff, so that later diffs on it load on the
//! result. The files of the chain are not changed.

use super::error::{SnapshotError, invalid, unreadable, unwritable};
use super::links::{Link, links};
use super::runs::{self, Run};
use super::save::place;
use super::temp_file::TempFile;
use super::verify::{crc_of, first_damaged, verify_links};
use crate::machine::memory::page::{PAGE, PAGE_BYTES};
use crate::machine::memory::ranges::{data_in, read_pages};
use crate::process::progress::Progress;
use nix::errno::Errno;
use nix::fcntl::copy_file_range;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;

/// Longest run of pages without a checksum, in bytes.
const PIECE: u64 = 2 << 20;

/// Pages to copy, with their place in both files.
struct Segment {
    run: Run,
    from: Arc<File>,
}

/// Merges the snapshot of the first pair of files, state and memory, into the second. Returns the bytes of its pages.
///
/// # Errors
/// [`SnapshotError`]: the second pair does not exist.
pub fn merge(
    (state_path, memory_path): (&Path, &Path),
    (to_state, to_memory): (&Path, &Path),
    progress: &mut Progress,
) -> Result<u64, SnapshotError> {
    for path in [to_state, to_memory] {
        if path.symlink_metadata().is_ok() {
            return Err(invalid(
                path,
                "is there already: remove it, or choose another path",
            ));
        }
    }
    let (mut snapshot, links) = links(state_path, memory_path)?;
    let verdict = verify_links(&snapshot, &links, progress)?;
    if let Some(problem) = verdict.problems.into_iter().next() {
        return Err(invalid(
            state_path,
            format!("nothing was merged, because a part is damaged: {problem}"),
        ));
    }
    let segments = segments(&links)?;
    let written = segments.iter().map(|segment| segment.run.bytes()).sum();

    let memory_file = TempFile::create(to_memory).map_err(unwritable(to_memory))?;
    let copied = memory_file.file().and_then(|file| {
        file.set_len(snapshot.memory.bytes)?;
        progress.begin("copying", written);
        for segment in &segments {
            copy(segment, file)?;
            progress.add(segment.run.bytes());
        }
        memory_file.sync()?;
        Ok(file.metadata()?.ino())
    });
    snapshot.memory.inode = copied.map_err(unwritable(to_memory))?;
    snapshot.memory.path = to_memory.into();
    snapshot.memory.base = None;
    snapshot.memory.written = written;
    snapshot.written_by = env!("CARGO_PKG_VERSION").into();

    let runs: Vec<Run> = segments.iter().map(|segment| segment.run).collect();
    progress.begin("verifying the copy", written);
    let damaged = memory_file
        .file()
        .and_then(|file| first_damaged(file, &runs, progress))
        .map_err(unreadable(to_memory))?;
    if let Some(run) = damaged {
        return Err(invalid(
            to_memory,
            format!("page {} of the copy differs from the original", run.start),
        ));
    }
    place(&snapshot, &runs, memory_file, (to_state, to_memory))?;
    Ok(written)
}

/// Returns the pages of the merged memory, each from the topmost snapshot that holds it.
fn segments(links: &[Link]) -> Result<Vec<Segment>, SnapshotError> {
    let mut all = Vec::new();
    let mut covered: Vec<(u64, u64)> = Vec::new();
    for link in links.iter().rev() {
        let table = link.table()?;
        let runs = runs::joined(&table);
        let new = take(link, table, &covered);
        all.extend(new.map_err(unreadable(&link.memory_path))?);
        covered = union(covered, runs);
        if link.whole {
            // Pages that no table names, in a file that another tool merged into its base.
            let rest = uncovered(link, &covered);
            all.extend(rest.map_err(unreadable(&link.memory_path))?);
        }
    }
    all.sort_unstable_by_key(|segment| segment.run);
    Ok(all)
}

/// Returns the pages of `table` that are not `covered`.
fn take(link: &Link, table: Vec<Run>, covered: &[(u64, u64)]) -> io::Result<Vec<Segment>> {
    let mut all = Vec::with_capacity(table.len());
    for run in table {
        for (offset, len) in subtract((run.offset(), run.bytes()), covered) {
            let crc = match len == run.bytes() {
                true => run.crc,
                false => crc_of(&link.memory, offset, len)?,
            };
            all.push(segment(link, (offset, len), crc)?);
        }
    }
    Ok(all)
}

/// Returns the pages outside `covered` that hold data.
fn uncovered(link: &Link, covered: &[(u64, u64)]) -> io::Result<Vec<Segment>> {
    let mut all = Vec::new();
    let mut page = vec![0; PAGE_BYTES];
    for (start, len) in data_in(&link.memory, link.bytes())? {
        let (first, end) = (start / PAGE * PAGE, (start + len).next_multiple_of(PAGE));
        for (offset, len) in subtract((first, end - first), covered) {
            let mut full: Vec<(u64, u64)> = Vec::new();
            for at in (offset..offset + len).step_by(PAGE_BYTES) {
                link.memory.read_exact_at(&mut page, at)?;
                if page.iter().all(|byte| *byte == 0) {
                    continue;
                }
                match full.last_mut() {
                    Some((from, len)) if *from + *len == at && *len < PIECE => *len += PAGE,
                    _ => full.push((at, PAGE)),
                }
            }
            for (offset, len) in full {
                let crc = crc_of(&link.memory, offset, len)?;
                all.push(segment(link, (offset, len), crc)?);
            }
        }
    }
    Ok(all)
}

fn segment(link: &Link, (offset, len): (u64, u64), crc: u32) -> io::Result<Segment> {
    let index = |bytes: u64| u32::try_from(bytes / PAGE).map_err(io::Error::other);
    Ok(Segment {
        run: Run {
            start: index(offset)?,
            pages: index(len)?,
            crc,
        },
        from: link.memory.clone(),
    })
}

/// Returns the parts of a range that are not in `covered`, whose ranges are in order and do not overlap.
fn subtract((offset, len): (u64, u64), covered: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let end = offset + len;
    let mut at = offset;
    let mut parts = Vec::new();
    let first = covered.partition_point(|(start, len)| start + len <= offset);
    let meeting = covered.iter().skip(first);
    for (start, len) in meeting.take_while(|(start, _)| *start < end) {
        if *start > at {
            parts.push((at, start - at));
        }
        at = start + len;
    }
    if at < end {
        parts.push((at, end - at));
    }
    parts
}

/// Returns the union of both lists, in order and joined.
fn union(mut one: Vec<(u64, u64)>, other: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    one.extend(other);
    one.sort_unstable();
    let mut all: Vec<(u64, u64)> = Vec::new();
    for (offset, len) in one {
        match all.last_mut() {
            Some((start, before)) if *start + *before >= offset => {
                *before = (*before).max(offset + len - *start);
            }
            _ => all.push((offset, len)),
        }
    }
    all
}

/// Copies a segment by copy_file_range(2), which shares blocks where the file system can.
fn copy(segment: &Segment, to: &File) -> io::Result<()> {
    let (start, bytes) = (segment.run.offset(), segment.run.bytes());
    let mut done = 0;
    while done < bytes {
        let at = i64::try_from(start + done).map_err(io::Error::other)?;
        let len = usize::try_from(bytes - done).unwrap_or(usize::MAX);
        let (mut from_at, mut to_at) = (at, at);
        let from = &*segment.from;
        match copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), len) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(copied) => done += copied as u64,
            Err(Errno::EINTR) => {}
            // The file systems differ, or cannot do it.
            Err(Errno::EXDEV | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => {
                let rest = (start + done, bytes - done);
                return read_pages(from, rest, |page, at| to.write_all_at(page, at));
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "merge_test.rs"]
mod merge_test;
