//! A transport's state: saved while it is paused, loaded into a fresh one. What is loaded may be anybody's: it
//! is checked as a whole before any of it counts. Addresses of rings are not: they are the driver's, and
//! looked at each time the device starts.

use super::{DRIVER_STATUS, MmioTransport, QueueSetup, valid_size};
use crate::virtio::state::{SavedQueue, StateError, VirtioState};
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK,
    VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};

impl MmioTransport {
    /// State of a paused device.
    pub fn save(&self) -> VirtioState {
        let config = self.device.config().into_owned();
        // A driver that has yet to look will find another number.
        let changed = u32::from(config != self.config_seen);
        VirtioState {
            status: self.status(),
            features: self.features,
            interrupts: self.wiring.interrupt.status(),
            select: self.select,
            queues: self.queues.iter().map(|queue| queue.set).collect(),
            config_generation: self.config_generation.wrapping_add(changed),
            config,
            device: self.device.save(),
        }
    }

    /// Loads `state` into a freshly built transport; call [`Self::resume`] to run. A driver that knew another
    /// configuration than this device has is then told.
    ///
    /// # Errors
    /// [`StateError`]; the device is then as it was.
    pub fn restore(&mut self, state: &VirtioState) -> Result<(), StateError> {
        self.check(state)?;
        self.device.restore(&state.device)?;
        for (setup, saved) in self.queues.iter_mut().zip(&state.queues) {
            setup.set = *saved;
        }
        self.status = state.status & DRIVER_STATUS;
        self.features = state.features;
        self.select = state.select;
        self.config_generation = state.config_generation;
        self.config_seen = match state.config.is_empty() {
            true => self.device.config().into_owned(),
            false => state.config.clone(),
        };
        let mut interrupts = state.interrupts;
        if self.notice_config() && self.has(VIRTIO_CONFIG_S_DRIVER_OK) {
            interrupts |= VIRTIO_MMIO_INT_CONFIG;
        }
        self.wiring.interrupt.set_pending(interrupts);
        self.raise_saved = true;
        if state.status & VIRTIO_CONFIG_S_NEEDS_RESET != 0 {
            // The driver was told before.
            self.needs_reset.set();
        }
        Ok(())
    }

    /// Raises what was saved pending: not before the machine runs, since interrupt controllers may be loaded
    /// later than devices.
    pub(super) fn raise_saved(&mut self) {
        if std::mem::take(&mut self.raise_saved)
            && let Err(e) = self.wiring.interrupt.raise_pending()
        {
            log::error!("cannot signal the guest: {e}");
        }
    }

    fn check(&self, state: &VirtioState) -> Result<(), StateError> {
        if state.queues.len() != self.queues.len() {
            return Err(StateError::QueueCount {
                saved: state.queues.len(),
                present: self.queues.len(),
            });
        }
        let unknown = state.features & !self.offered();
        if unknown != 0 {
            return Err(StateError::Features(unknown));
        }
        let valid = |(setup, saved): (&QueueSetup, &SavedQueue)| {
            valid_size(saved.size.into(), setup.max_size).is_some()
        };
        let pairs = self.queues.iter().zip(&state.queues);
        if let Some(bad) = pairs.into_iter().position(|pair| !valid(pair)) {
            return Err(StateError::Queue(bad));
        }
        let known = DRIVER_STATUS | VIRTIO_CONFIG_S_NEEDS_RESET;
        if state.status & !known != 0 || !reached_in_order(state) {
            return Err(StateError::Status(state.status));
        }
        match state.interrupts & !(VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG) {
            0 => Ok(()),
            unknown => Err(StateError::Interrupts(unknown)),
        }
    }
}

/// Whether each step of section 3.1.1 that was taken had the one before it.
fn reached_in_order(state: &VirtioState) -> bool {
    let has = |status: u32| state.status & status != 0;
    let steps = [
        (VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_ACKNOWLEDGE),
        (VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_DRIVER),
        (VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK),
    ];
    let negotiated = state.features & 1 << VIRTIO_F_VERSION_1 != 0;
    steps
        .iter()
        .all(|(step, before)| !has(*step) || has(*before))
        && (negotiated || !has(VIRTIO_CONFIG_S_FEATURES_OK))
}
