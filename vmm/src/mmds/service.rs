//! The metadata service as seen by the host.

use super::responder;
use super::shared::{Clock, Shared, State};
use super::store::{Store, StoreError};
use super::token::TokenAuthority;
use devices::lock;
use devices::net::responder::Responder as OnCard;
use devices::util::metrics::MetricSet;
use resources::{DEFAULT_MMDS_ADDRESS, MmdsConfig, MmdsVersion};
use serde_json::{Map, Value};
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

/// Default limit of the data in bytes of serialised JSON: the size of one API request.
pub const DEFAULT_LIMIT: usize = 51200;

/// The metadata service of one guest. Clones share the service.
#[derive(Clone, Debug)]
pub struct Mmds(pub(super) Arc<Shared>);

impl Mmds {
    /// Creates a service without data, with the default [`MmdsConfig`]. The data may have at most `limit` bytes of serialised
    /// JSON. No guest can reach it before a card has its responder.
    ///
    /// # Errors
    /// The host has no random numbers for the key of the tokens.
    pub fn new(limit: usize) -> io::Result<Self> {
        Self::with_clock(limit, Box::new(devices::util::timer::now))
    }

    pub(super) fn with_clock(limit: usize, clock: Clock) -> io::Result<Self> {
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

    /// Applies `config`, except for the list of cards, which the caller arranges.
    pub fn configure(&self, config: &MmdsConfig) {
        let mut state = lock(&self.0.state);
        state.version = config.version;
        state.imds_compat = config.imds_compat;
        let address = config.address().to_bits();
        self.0.address.store(address, Ordering::Relaxed);
    }

    /// Replaces the data.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`].
    pub fn put(&self, value: Value) -> Result<(), StoreError> {
        lock(&self.0.state).store.put(value)
    }

    /// Merges `patch` into the data (RFC 7396).
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn patch(&self, patch: Value) -> Result<(), StoreError> {
        lock(&self.0.state).store.patch(patch)
    }

    /// Returns the data for the host: an empty object if there is none.
    pub fn get(&self) -> Value {
        match lock(&self.0.state).store.value() {
            Value::Null => Value::Object(Map::new()),
            value => value.clone(),
        }
    }

    /// Returns a responder for one card.
    pub fn responder(&self) -> Box<dyn OnCard> {
        Box::new(responder::Responder::new(self.0.clone()))
    }

    /// Returns the metrics of the service over all cards.
    pub fn metrics(&self) -> Arc<dyn MetricSet> {
        self.0.metrics.clone()
    }
}
