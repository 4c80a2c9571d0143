use super::*;
use crate::test_image::{self, MIB};
use std::fs::{self, File};
use std::path::Path;

fn numbers(path: &Path) -> Vec<(Option<u32>, u64)> {
    let file = File::open(path).unwrap();
    let len = file.metadata().unwrap().len();
    let found = find(&Window::new(file, len)).unwrap();
    found
        .iter()
        .map(|p| (p.number, p.window.len() / MIB))
        .collect()
}

#[test]
fn gpt_mbr_and_disks_without_a_table_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let part = dir.path().join("part");
    File::create(&part).unwrap().set_len(2 * MIB).unwrap();
    let parts: Vec<(&str, &Path)> = vec![("linux", &part); 3];
    let gpt = test_image::disk(dir.path(), "gpt", &parts);
    assert_eq!(numbers(&gpt), [(Some(1), 2), (Some(2), 2), (Some(3), 2)]);

    let mut parts: Vec<(&str, &Path)> = vec![("linux", &part), ("extended", &part)];
    parts.extend(vec![("linux", part.as_path()); 2]);
    let dos = test_image::disk(dir.path(), "dos", &parts);
    assert_eq!(numbers(&dos), [(Some(1), 2), (Some(5), 2), (Some(6), 2)]);

    let bare = test_image::ext4(dir.path(), 4, &[]);
    assert_eq!(numbers(&bare), [(None, 4)]);
    let fat = test_image::fat(dir.path(), 4, &[]);
    assert_eq!(numbers(&fat), [(None, 4)]);
}

#[test]
fn a_circular_or_oversized_table_terminates() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    // An extended partition that is its own successor, and contains a partition.
    let mut sector = vec![0; 512];
    let entry = |kind: u8, start: u32, len: u32| {
        let mut entry = vec![0, 0, 0, 0, kind, 0, 0, 0];
        entry.extend(start.to_le_bytes());
        entry.extend(len.to_le_bytes());
        entry
    };
    sector[446..462].copy_from_slice(&entry(0x83, 1, u32::MAX));
    sector[462..478].copy_from_slice(&entry(0x05, 0, u32::MAX));
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    fs::write(&path, [sector.clone(), vec![0; 1024]].concat()).unwrap();
    assert_eq!(numbers(&path).len(), 1 + MAX_LOGICAL as usize);

    // A table with the largest possible numbers.
    sector[450] = PROTECTIVE;
    let mut header = b"EFI PART".to_vec();
    header.resize(72, 0xff);
    header.extend(2_u64.to_le_bytes());
    header.extend(u32::MAX.to_le_bytes());
    header.extend(128_u32.to_le_bytes());
    header.resize(512, 0xff);
    let entries = vec![0xff; 4096];
    fs::write(&path, [sector, header, entries].concat()).unwrap();
    assert_eq!(numbers(&path), []);
}
