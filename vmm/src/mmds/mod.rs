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
mod store;
mod tcp;
#[cfg(test)]
mod testing;
mod token;

use devices::lock;
use devices::net::responder::Responder as OnCard;
use devices::util::metrics::MetricSet;
use http::Answer;
pub use metrics::MmdsMetrics;
use resources::{DEFAULT_MMDS_ADDRESS, MmdsConfig, MmdsVersion};
use serde_json::{Map, Value};
use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::Store;
pub use store::StoreError;
use tcp::Seq;
use token::TokenAuthority;

/// Longest data, in bytes of serialised JSON, if the user does not say: what one request to the API carries.
pub const DEFAULT_LIMIT: usize = 51200;

/// A monotonic clock.
type Clock = Box<dyn Fn() -> Duration + Send + Sync>;

/// The metadata service of one guest. Clones are the same service.
#[derive(Clone, Debug)]
pub struct Mmds(Arc<Shared>);

/// What all cards share.
struct Shared {
    state: Mutex<State>,
    /// Apart from the state, because each frame of the guest is compared with it.
    address: AtomicU32,
    tokens: TokenAuthority,
    /// So that a guest learns nothing about the host's clock.
    seq_offset: u32,
    clock: Clock,
    metrics: Arc<MmdsMetrics>,
}

struct State {
    store: Store,
    version: MmdsVersion,
    imds_compat: bool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Mmds {
    /// A service without data, for at most `limit` bytes of serialised JSON, configured as [`MmdsConfig`] is by
    /// default. Nobody reaches it before a card has its responder.
    ///
    /// # Errors
    /// The host has no randomness for the key of the tokens.
    pub fn new(limit: usize) -> io::Result<Self> {
        Self::with_clock(limit, Box::new(devices::util::timer::now))
    }

    fn with_clock(limit: usize, clock: Clock) -> io::Result<Self> {
        let mut offset = [0; 4];
        getrandom::fill(&mut offset)?;
        Ok(Self(Arc::new(Shared {
            state: Mutex::new(State {
                store: Store::new(limit),
                version: MmdsVersion::default(),
                imds_compat: false,
            }),
            address: AtomicU32::new(DEFAULT_MMDS_ADDRESS.to_bits()),
            tokens: TokenAuthority::new(clock())?,
            seq_offset: u32::from_ne_bytes(offset),
            clock,
            metrics: Arc::default(),
        })))
    }

    /// Takes over what `config` says of the service; which cards reach it is for the caller to arrange.
    pub fn configure(&self, config: &MmdsConfig) {
        let mut state = lock(&self.0.state);
        state.version = config.version;
        state.imds_compat = config.imds_compat;
        let address = config.address().to_bits();
        self.0.address.store(address, Ordering::Relaxed);
    }

    /// Replaces all data.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`].
    pub fn put(&self, value: Value) -> Result<(), StoreError> {
        lock(&self.0.state).store.put(value)
    }

    /// Merges `patch` into the data (RFC 7396).
    ///
    /// # Errors
    /// Both of [`StoreError`].
    pub fn patch(&self, patch: Value) -> Result<(), StoreError> {
        lock(&self.0.state).store.patch(patch)
    }

    /// The data as the host sees it: an empty object where there is none.
    pub fn get(&self) -> Value {
        match lock(&self.0.state).store.value() {
            Value::Null => Value::Object(Map::new()),
            value => value.clone(),
        }
    }

    /// The service for one card.
    pub fn responder(&self) -> Box<dyn OnCard> {
        Box::new(responder::Responder::new(self.0.clone()))
    }

    /// What it counts, over all cards.
    pub fn metrics(&self) -> Arc<dyn MetricSet> {
        self.0.metrics.clone()
    }
}

impl Shared {
    fn now(&self) -> Duration {
        (self.clock)()
    }

    fn address(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.load(Ordering::Relaxed))
    }

    /// The first number of a connection that begins now: a clock of 4 microseconds (RFC 9293, section 3.4.1), so
    /// that a connection's late segments are not taken for the next one's.
    fn first_seq(&self, now: Duration) -> Seq {
        let [a, b, c, d, ..] = (now.as_micros() / 4).to_le_bytes();
        Seq(u32::from_le_bytes([a, b, c, d]).wrapping_add(self.seq_offset))
    }

    /// Answers the request that `bytes` begin with, as [`http::answer`] does.
    fn answer(&self, bytes: &[u8]) -> Option<Answer> {
        let state = lock(&self.state);
        let service = http::Service {
            version: state.version,
            imds_compat: state.imds_compat,
            data: state.store.value(),
            tokens: &self.tokens,
            now: self.now(),
            metrics: &self.metrics,
        };
        http::answer(bytes, &service)
    }
}

#[cfg(test)]
#[path = "mmds_test.rs"]
mod mmds_test;

#[cfg(test)]
#[path = "conversation_test.rs"]
mod conversation_test;
