//! The partitions of a disk: GPT (UEFI 2.10, 5.3), or MBR with its extended partitions. A disk without either is one
//! file system.

use crate::disk::Window;
use crate::file_system;
use std::io;

/// Most entries of a table that are read: four times as many as partitioning programs make.
const MAX_ENTRIES: u32 = 512;
/// Most logical partitions.
const MAX_LOGICAL: u32 = 64;
/// Length of an MBR's sector, in bytes.
const SECTOR: u64 = 512;
/// MBR partition types: a GPT's protective entry, and extended partitions.
const PROTECTIVE: u8 = 0xee;
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];

/// A part of a disk that may hold a file system.
#[derive(Clone, Debug)]
pub struct Partition {
    /// Its number in the guest's kernel; `None` for the whole disk.
    pub number: Option<u32>,
    /// Its bytes.
    pub window: Window,
}

/// Returns the partitions of `disk`, sorted by number.
///
/// # Errors
/// An error of the host, or `UnexpectedEof` if the disk is smaller than a sector.
pub fn find(disk: &Window) -> io::Result<Vec<Partition>> {
    let first = disk.bytes::<512>(0)?;
    let entries = Entry::all(&first);
    if entries.iter().any(|entry| entry.kind == PROTECTIVE) {
        // The header is in sector 1. The protective entry does not give the sector's size.
        for sector in [SECTOR, 4096] {
            if let Some(found) = gpt(disk, sector)? {
                return Ok(found);
            }
        }
    }
    let whole = || {
        vec![Partition {
            number: None,
            window: disk.clone(),
        }]
    };
    if file_system::kind(disk)?.is_some() || entries.is_empty() {
        return Ok(whole());
    }
    let found = mbr(disk, &entries)?;
    Ok(if found.is_empty() { whole() } else { found })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes.iter().skip(at).take(4).rev();
    bytes.fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

fn gpt(disk: &Window, sector: u64) -> io::Result<Option<Vec<Partition>>> {
    let Ok(header) = disk.bytes::<92>(sector) else {
        return Ok(None);
    };
    let (table, count, size) = (
        u64_at(&header, 72),
        u32_at(&header, 80),
        u32_at(&header, 84),
    );
    if !header.starts_with(b"EFI PART") || !(128..=4096).contains(&size) {
        return Ok(None);
    }
    let mut found = Vec::new();
    for i in 0..count.min(MAX_ENTRIES) {
        let at = table.checked_mul(sector);
        let at = at.and_then(|at| at.checked_add(u64::from(i) * u64::from(size)));
        let Some(Ok(entry)) = at.map(|at| disk.bytes::<48>(at)) else {
            break;
        };
        let unused = entry.iter().take(16).all(|byte| *byte == 0);
        let (first, last) = (u64_at(&entry, 32), u64_at(&entry, 40));
        let start = first.checked_mul(sector);
        let len = last.checked_sub(first).and_then(|n| n.checked_add(1));
        let len = len.and_then(|n| n.checked_mul(sector));
        if let (false, Some(start), Some(len)) = (unused, start, len)
            && start < disk.len()
        {
            found.push(Partition {
                number: Some(i + 1),
                window: disk.part(start, len),
            });
        }
    }
    Ok(Some(found))
}

/// An entry of an MBR.
#[derive(Clone, Copy, Debug)]
struct Entry {
    index: u32,
    kind: u8,
    /// First sector.
    start: u64,
    len: u64,
}

impl Entry {
    /// Returns the used entries of `sector`.
    fn all(sector: &[u8; 512]) -> Vec<Self> {
        if !sector.ends_with(&[0x55, 0xaa]) {
            return Vec::new();
        }
        let table = sector.get(446..510).unwrap_or_default();
        let entries = (0..).zip(table.chunks_exact(16)).map(|(index, bytes)| {
            let status = bytes.first().copied().unwrap_or(1);
            let entry = Self {
                index,
                kind: bytes.get(4).copied().unwrap_or_default(),
                start: u32_at(bytes, 8).into(),
                len: u32_at(bytes, 12).into(),
            };
            (status & 0x7f == 0 && entry.kind != 0 && entry.len != 0).then_some(entry)
        });
        entries.flatten().collect()
    }

    fn partition(&self, disk: &Window, number: u32, from: u64) -> Option<Partition> {
        let start = from.checked_add(self.start)?.checked_mul(SECTOR)?;
        (start < disk.len()).then(|| Partition {
            number: Some(number),
            window: disk.part(start, self.len * SECTOR),
        })
    }
}

fn mbr(disk: &Window, entries: &[Entry]) -> io::Result<Vec<Partition>> {
    let (extended, primary): (Vec<Entry>, Vec<Entry>) = entries
        .iter()
        .partition(|entry| EXTENDED.contains(&entry.kind));
    let mut found: Vec<_> = primary
        .iter()
        .filter_map(|entry| entry.partition(disk, entry.index + 1, 0))
        .collect();
    let Some(extended) = extended.first() else {
        return Ok(found);
    };
    let mut at = extended.start;
    for number in 5..5 + MAX_LOGICAL {
        let Some(Ok(sector)) = at.checked_mul(SECTOR).map(|at| disk.bytes::<512>(at)) else {
            break;
        };
        let entries = Entry::all(&sector);
        let is_link = |entry: &&Entry| EXTENDED.contains(&entry.kind);
        let own = entries.iter().find(|entry| !is_link(entry));
        found.extend(own.and_then(|entry| entry.partition(disk, number, at)));
        match entries.iter().find(is_link) {
            Some(next) => at = extended.start.saturating_add(next.start),
            None => break,
        }
    }
    Ok(found)
}

#[cfg(test)]
#[path = "partitions_test.rs"]
mod partitions_test;
