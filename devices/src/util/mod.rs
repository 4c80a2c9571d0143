//! Tools that several devices share: rate limiters, timers, Unix sockets and metric counters.
//!
//! Devices and the monitor use them. Nothing here answers an access of the guest.

pub mod metrics;
pub mod rate_limiter;
pub mod source;
pub mod timer;
pub mod unix_socket;
