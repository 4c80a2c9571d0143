//! The metadata service: the host stores JSON data, and the guest reads it by HTTP at a special address. Its frames never
//! leave the card.
//!
//! ```text
//!  API ── Mmds ──┬── store      the data
//!                ├── token      sessions
//!  card ─ responder ─ arp, ipv4, tcp ─ connection ─ http ── both
//! ```
//!
//! The controller stores the data, and network devices call the responders. [`Mmds`] is one service for each guest and cheap
//! to clone; each card has a responder with its own connections. All frames are untrusted: parsers check them, and all
//! buffers are bounded. The service has no state that is saved: a restored guest starts without data, sessions and
//! connections.

mod arp;
mod connection;
mod ethernet;
mod http;
mod ipv4;
mod metrics;
mod responder;
mod sender;
mod service;
mod shared;
mod store;
mod tcp;
#[cfg(test)]
mod testing;
mod token;

pub use metrics::MmdsMetrics;
pub use service::{DEFAULT_LIMIT, Mmds};
pub use store::StoreError;

#[cfg(test)]
#[path = "mmds_test.rs"]
mod mmds_test;

#[cfg(test)]
#[path = "conversation_test.rs"]
mod conversation_test;
