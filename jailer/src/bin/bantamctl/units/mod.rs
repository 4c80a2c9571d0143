//! systemd's units of guests and pools: enables, starts and examines them by `systemctl`.
//! Commands call it where systemd runs the host; elsewhere they start guests without it.
//! It writes no unit, only drop-ins of pools: the package installs the units.

pub mod guest;
pub mod pool;
pub mod systemctl;
