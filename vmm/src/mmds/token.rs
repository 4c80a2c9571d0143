//! Session tokens: a guest requests one and sends it with each request.
//!
//! Nothing is stored for a token: it contains its expiry time and a code over it that only the holder of the key can make.
//! So a guest may request any number. The key is random for each process: a token is worthless to another guest, and to a
//! guest restored from a snapshot.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Valid times to live in seconds.
pub const TTL_SECONDS: RangeInclusive<u32> = 1..=21600;
/// Size of the expiry time in bytes. It counts milliseconds.
const END: usize = size_of::<u64>();
/// Size of the code in bytes.
const CODE: usize = 32;
/// Longest token text that is decoded.
const MAX_TEXT: usize = (END + CODE).div_ceil(3) * 4;

/// The requested time to live is out of range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "Invalid time to live value provided for token: {0}. Please provide a value between {first} and {last}.",
    first = TTL_SECONDS.start(),
    last = TTL_SECONDS.end()
)]
pub struct InvalidTtl(pub u32);

/// Issues and verifies tokens.
pub struct TokenAuthority {
    /// The keyed code, before any input.
    mac: Hmac<Sha256>,
    /// Start of expiry times, so that a token tells nothing about the host.
    epoch: Duration,
}

impl fmt::Debug for TokenAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenAuthority").finish_non_exhaustive()
    }
}

impl TokenAuthority {
    /// Creates an issuer with a random key, at the time `now`. All times are of one monotonic clock.
    ///
    /// # Errors
    /// The host has no random numbers.
    pub fn new(now: Duration) -> io::Result<Self> {
        // One block of the hash function, which is the longest key that it does not shorten.
        let mut key = [0; 64];
        getrandom::fill(&mut key)?;
        Ok(Self {
            mac: Hmac::new(&key.into()),
            epoch: now,
        })
    }

    /// Issues a token that is valid from `now` for `ttl_seconds`.
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

    /// Returns whether `token` is genuine and not expired.
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
        // The comparison takes constant time.
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
