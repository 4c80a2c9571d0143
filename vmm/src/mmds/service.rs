//! The metadata service as the host uses it.

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

/// Longest data, in bytes of serialised JSON, if the user does not say: what one request to the API carries.
pub const DEFAULT_LIMIT: usize = 51200;

/// The metadata service of one guest. Clones are the same service.
#[derive(Clone, Debug)]
pub struct Mmds(pub(super) Arc<Shared>);

impl Mmds {
    /// A service without data, for at most `limit` bytes of serialised JSON, configured as [`MmdsConfig`] is by
    /// default. Nobody reaches it before a card has its responder.
    ///
    /// # Errors
    /// The host has no randomness for the key of the tokens.
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
