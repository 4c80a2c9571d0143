//! The state of a guest, as `list` and `show` present it.

use crate::guests::guest::Guest;
use crate::units;
use jailer::error::Error;
use serde_json::{Value, json};

/// Returns the state of `guest` as a JSON object.
pub fn of(guest: &Guest) -> Result<Value, Error> {
    let running = guest.is_running();
    Ok(json!({
        "name": guest.name,
        "state": if running { "running" } else { "stopped" },
        "pid": guest.process()?,
        "vcpus": guest.config.machine_config.vcpu_count,
        "memory_mib": guest.config.machine_config.mem_size_mib,
        "autostart": units::guest::is_enabled(&guest.name),
        "copy_of": guest.copy_of(),
    }))
}
