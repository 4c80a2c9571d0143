//! The part of the metadata service that all cards of a guest share.

use super::http::{self, Answer};
use super::metrics::MmdsMetrics;
use super::store::Store;
use super::tcp::Seq;
use super::token::TokenAuthority;
use devices::lock;
use resources::MmdsVersion;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A monotonic clock.
pub(super) type Clock = Box<dyn Fn() -> Duration + Send + Sync>;

/// The shared part of the service.
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    /// The service's address. It is not in the state, because each frame of the guest is compared with it.
    pub(super) address: AtomicU32,
    pub(super) tokens: TokenAuthority,
    /// A random offset, so that sequence numbers tell the guest nothing about the host's clock.
    pub(super) seq_offset: u32,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<MmdsMetrics>,
}

pub(super) struct State {
    pub(super) store: Store,
    pub(super) version: MmdsVersion,
    pub(super) imds_compat: bool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn now(&self) -> Duration {
        (self.clock)()
    }

    pub(super) fn address(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.load(Ordering::Relaxed))
    }

    /// Returns the first sequence number of a new connection: a clock of 4 microseconds (RFC 9293, section 3.4.1), so that late
    /// segments of an earlier connection do not match.
    pub(super) fn first_seq(&self, now: Duration) -> Seq {
        let [a, b, c, d, ..] = (now.as_micros() / 4).to_le_bytes();
        Seq(u32::from_le_bytes([a, b, c, d]).wrapping_add(self.seq_offset))
    }

    /// Answers the request at the start of `bytes`, as [`http::answer`] does.
    pub(super) fn answer(&self, bytes: &[u8]) -> Option<Answer> {
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
