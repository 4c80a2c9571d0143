//! Snapshots of earlier versions can be read: see tests/golden.

use super::format::{Header, VERSION};
use super::runs;
use super::*;
use crate::machine::memory::page::PAGE;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Unpacks `pages` into a memory file, at the places that the table of `state` names.
fn unpack(state: &Path, pages: &Path, memory: &Path) {
    let file = File::open(state).unwrap();
    let table = Header::read(&file).unwrap().table(&file).unwrap();
    let runs = runs::decode(&table, (32 << 20) / PAGE).unwrap();
    let packed = fs::read(pages).unwrap();
    let memory = File::create(memory).unwrap();
    memory.set_len(32 << 20).unwrap();
    let mut rest = packed.as_slice();
    for run in runs {
        let (now, after) = rest.split_at(usize::try_from(run.bytes()).unwrap());
        memory.write_all_at(now, run.offset()).unwrap();
        assert_eq!(crc32fast::hash(now), run.crc);
        rest = after;
    }
    assert!(rest.is_empty());
}

#[test]
fn every_version_can_be_loaded() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    for version in 1..=VERSION {
        let dir = tempfile::tempdir().unwrap();
        let state = golden.join(format!("{version}.state"));
        let memory = dir.path().join("memory");
        unpack(&state, &golden.join(format!("{version}.pages")), &memory);
        let mut loaded = load(&state, &memory).unwrap();
        let machine = &loaded.snapshot.machine;
        let names: Vec<_> = machine.devices.iter().map(|d| d.name.as_str()).collect();
        let expected = [
            "drive data",
            "interface eth0",
            "balloon",
            "vsock",
            "entropy",
        ];
        assert_eq!(names, expected, "version {version}");
        assert_eq!(machine.vcpus.len(), 2);
        // The pages are at their places.
        let config = loaded.snapshot.config.machine_config.clone();
        loaded.memory(&config).unwrap();
    }
}
