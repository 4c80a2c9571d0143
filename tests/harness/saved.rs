//! The state of a snapshot, read and changed as one who knows its format would.

use serde_json::Value;
use std::fs;
use std::path::Path;
use vmm::snapshot::format::{Header, encode};

/// The state of the snapshot at `path`.
pub fn state(path: &Path) -> Value {
    let file = fs::File::open(path).unwrap();
    let header = Header::read(&file).unwrap();
    serde_json::from_slice(&header.state(&file).unwrap()).unwrap()
}

/// The state of the snapshot at `path`, changed by `change`, with checksums that are right.
pub fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let file = fs::File::open(path).unwrap();
    let table = Header::read(&file).unwrap().table(&file).unwrap();
    let mut state = state(path);
    change(&mut state);
    fs::write(path, encode(&serde_json::to_vec(&state).unwrap(), &table)).unwrap();
}
