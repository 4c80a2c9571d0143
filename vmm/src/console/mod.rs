//! The console: standard input and output, the console socket, and the way to the guest's serial port.
//!
//! The controller and the machine use it. It knows neither registers of the port nor commands.

mod input;
mod output;
mod serial_input;
mod socket;

pub use input::{Console, Key, Keys};
pub use output::{Attached, Output};
pub use serial_input::CurrentSerial;
pub use socket::ConsoleSocket;
