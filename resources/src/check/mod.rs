//! Shared parts of reading and checking: problems with their keys, bounded reading of files, `null` for a default.
//!
//! Every other room of this crate uses it. It knows no section.

pub mod error;
pub mod files;
pub mod null;
pub mod problem;
