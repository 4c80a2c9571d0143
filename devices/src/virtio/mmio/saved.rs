//! Saves a paused transport and restores a new one. Saved state is untrusted and is checked completely before any of it
//! is used. Ring addresses are not checked: the driver chose them, and every start of the device checks them.

use super::{DRIVER_STATUS, MmioTransport, QueueSetup, valid_size};
use crate::virtio::state::{SavedQueue, StateError, VirtioState};
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK,
    VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};

impl MmioTransport {
    /// Saves the state of the paused device.
    pub fn save(&self) -> VirtioState {
        let config = self.device.config().into_owned();
        // A driver that has not read the changed configuration yet must see a new generation.
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

    /// Loads `state` into a new transport; call [`Self::resume`] to run it. If the configuration space differs from the
    /// saved one, the driver is notified.
    ///
    /// # Errors
    /// [`StateError`]; the device is unchanged.
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
            // The driver was notified before the save.
            self.needs_reset.set();
        }
        Ok(())
    }

    /// Raises the interrupts that were saved pending. Not before the machine runs, because interrupt controllers may be
    /// restored after devices.
    pub(super) fn raise_saved(&mut self) {
        if std::mem::take(&mut self.raise_saved)
            && let Err(e) = self.wiring.interrupt.raise_pending()
        {
            log::error!("cannot interrupt the guest: {e}");
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

/// Returns true if every status bit was set after the one before it (section 3.1.1).
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
