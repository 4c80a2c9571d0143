//! The way of typed bytes to the guest's serial port.

use devices::platform::serial::SerialPort;
use std::sync::{Arc, Mutex, TryLockError};

/// The serial port that input goes to; another after a restart.
pub type CurrentSerial = Arc<Mutex<Option<Arc<Mutex<SerialPort>>>>>;

/// Looks at a serial port that is in use before what was typed is lost.
const TRIES: usize = 1000;

/// Gives `serial` what was typed, unless a vCPU holds it that waits for an output that is full: the loop must not
/// wait with it. Returns how many bytes were taken.
pub(super) fn send_to_serial(serial: &Mutex<SerialPort>, bytes: &[u8]) -> usize {
    for _ in 0..TRIES {
        match serial.try_lock() {
            Ok(mut serial) => return serial.input(bytes),
            Err(TryLockError::Poisoned(serial)) => return serial.into_inner().input(bytes),
            // Commonly for the time of one access.
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
        }
    }
    0
}
