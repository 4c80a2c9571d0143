//! Changing a guest that was started.

use super::command::{CommandError, Operate, Reply, refused};
use super::controller::{Controller, Phase};
use super::lifecycle::Event;
use crate::machine::{DeviceError, Machine};
use crate::metrics::LatencyMetrics;
use crate::process::messages;
use devices::balloon::Balloon;
use devices::block::Block;
use devices::lock;
use devices::net::Net;
use devices::util::metrics::Gauge;
use devices::virtio::update::{DeviceUpdate, Direction};
use resources::{DriveUpdate, NetworkUpdate, RateLimiter, TokenBucket};
use std::time::Instant;

/// Returns the error of operations that need hot-plug: devices are described to the guest only when it starts.
pub(super) fn no_pci() -> CommandError {
    CommandError::Unsupported("PCI is not enabled".into())
}

fn internal(why: impl Into<String>) -> CommandError {
    refused("Internal VMM", why)
}

/// Returns the rate limits `config` after `change`.
fn limited(config: Option<RateLimiter>, change: &RateLimiter) -> Option<RateLimiter> {
    let on = |bucket: &TokenBucket| bucket.size != 0 && bucket.refill_time != 0;
    let before = config.unwrap_or_default();
    let after = RateLimiter {
        bandwidth: change.bandwidth.or(before.bandwidth).filter(on),
        ops: change.ops.or(before.ops).filter(on),
    };
    (after != RateLimiter::default()).then_some(after)
}

impl Controller {
    pub(super) fn operate(&mut self, operation: Operate) -> Result<Reply, CommandError> {
        match operation {
            Operate::Balloon(update) => {
                let mib = update.amount_mib;
                if !self.config.machine_config.holds_balloon(mib) {
                    return Err(CommandError::Refused {
                        subject: "Balloon update",
                        why: "Amount of pages requested is too large.".into(),
                    });
                }
                self.change_balloon(DeviceUpdate::BalloonTarget { mib })?;
                if let Some(balloon) = &mut self.config.balloon {
                    balloon.amount_mib = mib;
                }
                let amount_mib = mib;
                self.process
                    .events
                    .publish(Event::BalloonChanged { amount_mib });
            }
            Operate::BalloonStats(update) => {
                let seconds = update.stats_polling_interval_s;
                self.change_balloon(DeviceUpdate::StatisticsInterval { seconds })?;
                if let Some(balloon) = &mut self.config.balloon {
                    balloon.stats_polling_interval_s = seconds;
                }
            }
            Operate::HintingStart(start) => self.change_balloon(DeviceUpdate::HintingStart {
                acknowledge_on_stop: start.acknowledge_on_stop,
            })?,
            Operate::HintingStop => self.change_balloon(DeviceUpdate::HintingStop)?,
            Operate::CreateSnapshot(create) => self.create_snapshot(&create)?,
            Operate::Drive(update) => self.change_drive(update)?,
            Operate::FlushMetrics => {
                let sets = self.device_metrics();
                let written = self.reporter.write(&sets);
                written.map_err(|e| internal(format!("Metrics error: {e}")))?;
            }
            Operate::Fork(fork) => return self.fork(&fork),
            Operate::MemoryHotplug(_) => {
                return Err(CommandError::Refused {
                    subject: "Memory hotplug update",
                    why: DeviceError::NotFound.to_string(),
                });
            }
            Operate::Network(update) => self.change_network(&update)?,
            Operate::Pmem(_) => {
                return Err(CommandError::Refused {
                    subject: "Pmem config",
                    why: DeviceError::NotFound.to_string(),
                });
            }
            Operate::Pause => self.pause(),
            Operate::Resume => self.resume(),
            Operate::PowerButton => {
                let pressed = self.machine_mut()?.press_power_button();
                pressed.map_err(CommandError::refused("Internal VMM"))?;
            }
            Operate::SendCtrlAltDel => self.press_keys()?,
            Operate::Unplug(..) => return Err(no_pci()),
        }
        Ok(Reply::Done)
    }

    fn pause(&mut self) {
        if let Some(prefetch) = &self.prefetch {
            prefetch.guest_paused();
        }
        self.change_phase(Self::pause_machine, Event::Paused, |latencies| {
            [&latencies.pause_vm, &latencies.vmm_pause_vm]
        });
    }

    pub(super) fn resume(&mut self) {
        if let Some(prefetch) = &self.prefetch {
            prefetch.guest_resumed();
        }
        self.change_phase(Self::resume_machine, Event::Resumed, |latencies| {
            [&latencies.resume_vm, &latencies.vmm_resume_vm]
        });
    }

    /// Pauses the machine. Returns whether it ran.
    pub(super) fn pause_machine(&mut self) -> bool {
        let phase = std::mem::replace(&mut self.phase, Phase::Configuring);
        let ran = matches!(phase, Phase::Running(_));
        self.phase = match phase {
            Phase::Running(mut machine) => {
                machine.pause();
                Phase::Paused(machine)
            }
            other => other,
        };
        ran
    }

    /// Resumes the machine. Returns whether it was paused.
    pub(super) fn resume_machine(&mut self) -> bool {
        let phase = std::mem::replace(&mut self.phase, Phase::Configuring);
        let was_paused = matches!(phase, Phase::Paused(_));
        self.phase = match phase {
            Phase::Paused(mut machine) => {
                machine.resume();
                Phase::Running(machine)
            }
            other => other,
        };
        was_paused
    }

    /// Runs `change`, measures it, and publishes `event` if the phase changed.
    fn change_phase(
        &mut self,
        change: impl FnOnce(&mut Self) -> bool,
        event: Event,
        timed: impl FnOnce(&LatencyMetrics) -> [&Gauge; 2],
    ) {
        let started = Instant::now();
        let changed = change(self);
        let time = started.elapsed();
        for gauge in timed(&self.process.metrics.latencies) {
            gauge.set_time(time);
        }
        if changed {
            log::info!("{event:?} after {} us", time.as_micros());
            self.process.events.publish(event);
        }
    }

    fn press_keys(&mut self) -> Result<(), CommandError> {
        let keyboard = self.machine_mut()?.keyboard();
        let keyboard = keyboard.ok_or_else(|| {
            internal("the guest has no keyboard (machine-config.i8042): use PowerButton")
        })?;
        match lock(keyboard).ctrl_alt_del() {
            true => Ok(()),
            false => Err(internal("the guest does not read its keyboard")),
        }
    }

    fn change_balloon(&mut self, change: DeviceUpdate) -> Result<(), CommandError> {
        let machine = self.machine_mut()?;
        let done = machine.update::<Balloon>(None, change);
        done.map_err(CommandError::refused("Balloon update"))
    }

    fn change_drive(&mut self, update: DriveUpdate) -> Result<(), CommandError> {
        let id = update.drive_id;
        let change = |machine: &mut Machine, change| {
            machine
                .update::<Block>(Some(&id), change)
                .map_err(|e| CommandError::Refused {
                    subject: "Drive config",
                    why: format!(
                        "Unable to patch the block device: {} Please verify the request arguments.",
                        messages::chain(&e)
                    ),
                })
        };
        if update.path_on_host.is_none() && update.rate_limiter.is_none() {
            // Firecracker's clients send this to refresh a vhost-user drive, which this version does not have.
            return Err(CommandError::Refused {
                subject: "Drive config",
                why: format!(
                    "Unable to patch the block device: {id} has neither path_on_host nor rate_limiter \
                     Please verify the request arguments."
                ),
            });
        }
        let machine = self.machine_mut()?;
        if let Some(path) = &update.path_on_host {
            let path = path.clone();
            change(machine, DeviceUpdate::Disk { path })?;
        }
        if let Some(limits) = update.rate_limiter {
            let direction = Direction::Both;
            let update = DeviceUpdate::Limits {
                direction,
                change: limits,
            };
            change(machine, update)?;
        }
        let drives = &mut self.config.drives;
        if let Some(drive) = drives.iter_mut().find(|drive| drive.drive_id == id) {
            drive.path_on_host = update.path_on_host.or(drive.path_on_host.take());
            if let Some(limits) = &update.rate_limiter {
                drive.rate_limiter = limited(drive.rate_limiter, limits);
            }
        }
        self.process
            .events
            .publish(Event::DriveChanged { drive_id: id });
        Ok(())
    }

    fn change_network(&mut self, update: &NetworkUpdate) -> Result<(), CommandError> {
        let id = &update.iface_id;
        let machine = self.machine_mut()?;
        for (direction, change) in [
            (Direction::Receive, update.rx_rate_limiter),
            (Direction::Transmit, update.tx_rate_limiter),
        ] {
            let change = change.unwrap_or_default();
            let change = DeviceUpdate::Limits { direction, change };
            machine
                .update::<Net>(Some(id), change)
                .map_err(|e| CommandError::Refused {
                    subject: "Network config",
                    why: format!("Unable to update the net device: {}", messages::chain(&e)),
                })?;
        }
        let interfaces = &mut self.config.network_interfaces;
        if let Some(interface) = interfaces.iter_mut().find(|n| n.iface_id == *id) {
            for (limits, change) in [
                (&mut interface.rx_rate_limiter, &update.rx_rate_limiter),
                (&mut interface.tx_rate_limiter, &update.tx_rate_limiter),
            ] {
                if let Some(change) = change {
                    *limits = limited(*limits, change);
                }
            }
        }
        self.process.events.publish(Event::NetworkChanged {
            iface_id: id.clone(),
        });
        Ok(())
    }
}
