//! Reboots in place: a guest that resets gets a new machine in the same process.

use super::brake::{BURST, WINDOW};
use super::controller::{Controller, Phase};
use super::lifecycle::Event;
use crate::event_loop::{self, Alarm};
use crate::machine::MachineError;
use devices::lock;
use devices::util::timer::now;
use resources::OnReboot;
use std::time::Duration;

impl Controller {
    pub(super) fn restarts_in_place(&self) -> bool {
        self.config.machine_config.on_reboot == OnReboot::Restart
    }

    /// Returns whether the guest is between two machines. No command is carried out then.
    pub fn is_restarting(&self) -> bool {
        self.restart.due
    }

    /// Restarts the guest after a reset, at once or when its wait is over.
    ///
    /// # Errors
    /// The host has no more descriptors for an alarm.
    pub(super) fn rebooted(&mut self) -> Result<(), MachineError> {
        let now = now();
        let Some((until, alarm)) = self.restart.waits.take() else {
            let wait = self.restart.brake.rebooted(now);
            return match wait.is_zero() {
                true => {
                    self.take_apart();
                    Ok(())
                }
                false => self.wait_for_restart(now, wait),
            };
        };
        if now < until {
            self.restart.waits = Some((until, alarm));
        } else {
            alarm.remove();
            self.take_apart();
        }
        Ok(())
    }

    /// Keeps the machine until the wait is over, so that the API can still query and change it. Its vCPUs do not enter the
    /// guest again, because its guest has ended.
    fn wait_for_restart(&mut self, now: Duration, wait: Duration) -> Result<(), MachineError> {
        let seconds = wait.as_secs();
        log::warn!(
            "the guest rebooted more than {BURST} times within {} s: it starts again in {seconds} s",
            WINDOW.as_secs()
        );
        let until = now.saturating_add(wait);
        let alarm = Alarm::at(until, &self.process.event_loop)
            .map_err(MachineError::set_up("the alarm of a restart"))?;
        self.restart.waits = Some((until, alarm));
        if let Phase::Running(machine) = &mut self.phase {
            machine.pause();
        }
        self.process
            .events
            .publish(Event::RebootDelayed { seconds });
        Ok(())
    }

    /// Takes the machine apart. The next turn of the loop drops its devices and closes their host resources. After that they
    /// can be created again.
    fn take_apart(&mut self) {
        log::info!("the guest reboots: it starts again");
        self.process.events.publish(Event::Rebooted);
        // The last counts of the devices go with them. The next machine's begin at zero.
        self.report();
        self.reporter.forget_devices();
        self.restart.stays_paused = matches!(self.phase, Phase::Paused(_));
        *lock(&self.serial) = None;
        // The memory of the next machine has nothing in common with the saved one.
        self.snapshot = None;
        if let Phase::Running(machine) | Phase::Paused(machine) =
            std::mem::replace(&mut self.phase, Phase::Configuring)
        {
            machine.drain_console();
            machine.end();
        }
        self.restart.due = true;
        event_loop::wake(&self.process.event_loop);
    }
}
