//! The console: what is typed goes to the guest's serial port, and Ctrl-A is the monitor's.

mod input;
mod output;
mod serial_input;
mod socket;

pub use input::{Console, Key, Keys};
pub use output::{Attached, Output};
pub use serial_input::CurrentSerial;
pub use socket::ConsoleSocket;
