//! Sends input bytes to the guest's serial port.

use devices::platform::serial::SerialPort;
use std::sync::{Arc, Mutex, TryLockError};

/// The serial port of the current machine. A restart replaces it.
pub type CurrentSerial = Arc<Mutex<Option<Arc<Mutex<SerialPort>>>>>;

/// Number of tries to lock a port in use before input is lost.
const TRIES: usize = 1000;

/// Sends `bytes` to `serial`. Gives up if a vCPU that waits for a full output holds the port, because the event loop must
/// not wait with it. Returns the number of bytes sent.
pub(super) fn send_to_serial(serial: &Mutex<SerialPort>, bytes: &[u8]) -> usize {
    for _ in 0..TRIES {
        match serial.try_lock() {
            Ok(mut serial) => return serial.input(bytes),
            Err(TryLockError::Poisoned(serial)) => return serial.into_inner().input(bytes),
            // The port is usually held for one access only.
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
        }
    }
    0
}
