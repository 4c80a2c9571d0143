//! Tokens of sessions: a guest asks for one and shows it with each request.
//!
//! Nothing is kept of a token: it carries when it ends, and a code over that which only the holder of
//! the key can make. A guest may so ask for any number. The key is drawn for each process, and a
//! token is worth nothing to another: neither to another guest nor to one restored from a snapshot.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::time::Duration;

/// For how long a token may be good, in seconds.
pub const TTL_SECONDS: RangeInclusive<u32> = 1..=21600;
/// Bytes of the end, in milliseconds.
const END: usize = size_of::<u64>();
/// Bytes of the code.
const CODE: usize = 32;
/// Longest text worth decoding.
const MAX_TEXT: usize = (END + CODE).div_ceil(3) * 4;

/// The guest asked for a token that ends too soon or too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "Invalid time to live value provided for token: {0}. Please provide a value between {first} and {last}.",
    first = TTL_SECONDS.start(),
    last = TTL_SECONDS.end()
)]
pub struct InvalidTtl(pub u32);

/// Makes tokens and knows them again.
pub struct TokenAuthority {
    /// Keyed, and fed nothing.
    mac: Hmac<Sha256>,
    /// Ends are counted from here, so that a token tells nothing about the host.
    epoch: Duration,
}

impl fmt::Debug for TokenAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenAuthority").finish_non_exhaustive()
    }
}

impl TokenAuthority {
    /// With a key of its own, at the time `now`. All times are of one monotonic clock.
    ///
    /// # Errors
    /// The host has no randomness.
    pub fn new(now: Duration) -> io::Result<Self> {
        // A block of the hash function: the longest key it does not shorten.
        let mut key = [0; 64];
        getrandom::fill(&mut key)?;
        Ok(Self {
            mac: Hmac::new(&key.into()),
            epoch: now,
        })
    }

    /// A token that is good from `now` for `ttl_seconds`.
    ///
    /// # Errors
    /// The time is not in [`TTL_SECONDS`].
    pub fn issue(&self, ttl_seconds: u32, now: Duration) -> Result<String, InvalidTtl> {
        if !TTL_SECONDS.contains(&ttl_seconds) {
            return Err(InvalidTtl(ttl_seconds));
        }
        let ttl = Duration::from_secs(ttl_seconds.into());
        let end = self.millis(now.saturating_add(ttl)).to_le_bytes();
        let code = self.mac.clone().chain_update(end).finalize().into_bytes();
        Ok(URL_SAFE_NO_PAD.encode([end.as_slice(), code.as_slice()].concat()))
    }

    /// Whether `token` is one of ours and has not ended.
    pub fn accepts(&self, token: &[u8], now: Duration) -> bool {
        if token.len() > MAX_TEXT {
            return false;
        }
        let Ok(token) = URL_SAFE_NO_PAD.decode(token) else {
            return false;
        };
        let Some((end, code)) = token.split_first_chunk::<END>() else {
            return false;
        };
        // In constant time.
        let genuine = self.mac.clone().chain_update(end).verify_slice(code);
        genuine.is_ok() && self.millis(now) < u64::from_le_bytes(*end)
    }

    fn millis(&self, time: Duration) -> u64 {
        u64::try_from(time.saturating_sub(self.epoch).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
#[path = "token_test.rs"]
mod token_test;
