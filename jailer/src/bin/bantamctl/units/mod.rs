//! systemd's units of guests and pools: enabling, starting and asking for them by `systemctl`.
//! Commands call it; where systemd does not run the host, guests are started without it.
//! It writes no unit: the package installs them.

pub mod guest;
pub mod pool;
mod systemctl;
