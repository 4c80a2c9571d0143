//! Reads and changes the state of a snapshot.

use serde_json::Value;
use std::fs;
use std::path::Path;
use vmm::snapshot::format::{Header, encode};

/// Returns the state of the snapshot at `path`.
pub fn state(path: &Path) -> Value {
    let file = fs::File::open(path).unwrap();
    let header = Header::read(&file).unwrap();
    serde_json::from_slice(&header.state(&file).unwrap()).unwrap()
}

/// Applies `change` to the state of the snapshot at `path`, with correct checksums.
pub fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let file = fs::File::open(path).unwrap();
    let table = Header::read(&file).unwrap().table(&file).unwrap();
    let mut state = state(path);
    change(&mut state);
    fs::write(path, encode(&serde_json::to_vec(&state).unwrap(), &table)).unwrap();
}
