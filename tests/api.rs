//! The API as clients see it: a recorded conversation is replayed, every answer is checked against
//! `resources/openapi.yaml`, clients misbehave, and the process itself is inspected.
//!
//! Any `/dev/kvm` is enough: the guests are a few instructions (tests/guest/bare.c), which also run where a processor
//! without virtualization interprets them. Times are only bounded.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test may be blunt: a failed unwrap is a failed test"
)]

#[path = "api/abuse.rs"]
mod abuse;
#[path = "harness/chance.rs"]
mod chance;
#[path = "api/client.rs"]
mod client;
#[path = "api/conversation.rs"]
mod conversation;
#[path = "api/endurance.rs"]
mod endurance;
#[path = "harness/fault_handler.rs"]
mod fault_handler;
#[path = "api/fork.rs"]
mod fork;
#[path = "api/metrics.rs"]
mod metrics;
#[path = "api/monitor.rs"]
mod monitor;
#[path = "api/openapi.rs"]
mod openapi;
#[path = "api/phases.rs"]
mod phases;
#[path = "api/prefetch.rs"]
mod prefetch;
#[path = "api/process.rs"]
mod process;
#[path = "harness/saved.rs"]
mod saved;
#[path = "api/schema.rs"]
mod schema;
#[path = "api/snapshot.rs"]
mod snapshot;
#[path = "api/snapshot_tools.rs"]
mod snapshot_tools;
#[path = "api/uffd.rs"]
mod uffd;
