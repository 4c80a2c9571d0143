//! The metadata service: data that the host puts and a guest asks for by HTTP at an address of its own, which its
//! frames never leave the card for.
//!
//! ```text
//!  API ── Mmds ──┬── store      the data
//!                ├── token      sessions
//!  card ─ responder ─ arp, ipv4, tcp ─ connection ─ http ── both
//! ```
//!
//! [`Mmds`] is one for each guest and cheap to clone; each card that reaches the service has a
//! responder, which holds the connections. All that comes in by the card is hostile: it is read by
//! checked parsers, held up to fixed bounds, and what is sent depends on nothing but the data, the configuration
//! and a clock.
//! Nothing here is saved: a restored guest has no data, no sessions and no connections until it is given new ones.

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
