//! The console's input: standard input goes to the guest's serial port, except for the monitor's keys after Ctrl-A.

use super::serial_input::{CurrentSerial, send_to_serial};
use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use nix::errno::Errno;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd;

/// Ctrl-A. The key after it belongs to the monitor.
const ESCAPE: u8 = 0x01;

/// Separates the monitor's keys from the guest's.
#[derive(Debug, Default)]
pub struct Keys {
    escaped: bool,
}

/// The meaning of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A byte for the guest.
    Guest(u8),
    /// The monitor must quit.
    Quit,
}

impl Keys {
    /// Returns the meaning of `byte` after the bytes before it. Returns `None` if it waits for the next byte, or is an unknown
    /// command.
    pub fn press(&mut self, byte: u8) -> Option<Key> {
        match (std::mem::take(&mut self.escaped), byte) {
            (false, ESCAPE) => {
                self.escaped = true;
                None
            }
            (false, byte) => Some(Key::Guest(byte)),
            (true, b'x' | b'X') => Some(Key::Quit),
            (true, ESCAPE) => Some(Key::Guest(ESCAPE)),
            (true, _) => None,
        }
    }
}

/// Standard input as a subscriber of the event loop.
pub struct Console {
    input: io::Stdin,
    /// Decoder of the monitor's keys on a terminal. All bytes of a pipe are the guest's.
    keys: Option<Keys>,
    serial: CurrentSerial,
    quit: Box<dyn Fn() + Send>,
}

impl Console {
    /// Creates a subscriber that feeds `serial`, and calls `quit` when a terminal's user asks for it.
    pub fn new(terminal: bool, serial: CurrentSerial, quit: Box<dyn Fn() + Send>) -> Self {
        Self {
            input: io::stdin(),
            keys: terminal.then(Keys::default),
            serial,
            quit,
        }
    }

    fn room(&self) -> usize {
        let serial = devices::lock(&self.serial).clone();
        serial.map_or(0, |serial| devices::lock(&serial).room())
    }

    /// Reads once. Returns whether there may be more.
    fn read(&mut self) -> io::Result<bool> {
        let mut typed = [0; 4096];
        // Not through std's buffer, because epoll does not report bytes that were read ahead.
        let typed = match nix::unistd::read(&self.input, &mut typed) {
            Ok(0) => return Ok(false),
            Ok(len) => typed.get(..len).unwrap_or_default(),
            Err(Errno::EINTR) => return Ok(true),
            Err(e) => return Err(e.into()),
        };
        let mut bytes = Vec::with_capacity(typed.len());
        for byte in typed {
            match self.keys.as_mut() {
                None => bytes.push(*byte),
                Some(keys) => match keys.press(*byte) {
                    Some(Key::Guest(byte)) => bytes.push(byte),
                    Some(Key::Quit) => (self.quit)(),
                    None => {}
                },
            }
        }
        // If the guest does not read, input beyond its buffer is lost, as on a real line. The monitor's keys were handled
        // first and still work, even if a vCPU that writes to a full pipe holds the port.
        if !bytes.is_empty() {
            let serial = devices::lock(&self.serial).clone();
            let taken = serial.map_or(0, |serial| send_to_serial(&serial, &bytes));
            let lost = bytes.len() - taken;
            if lost > 0 {
                log::debug!("lost {lost} bytes of input: the guest does not read");
            }
        }
        Ok(true)
    }
}

impl MutEventSubscriber for Console {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        if self.keys.is_none() && self.input.is_terminal() {
            // A background job that reads from its terminal is stopped by the kernel (SIGTTIN), and the guest with it.
            return;
        }
        let events = Events::with_data(&self.input.as_fd(), 0, EventSet::IN);
        if ops.add(events).is_err() {
            // epoll cannot watch a regular file, so it is read at once, as far as the port has room.
            while self.room() > 0 && self.read().unwrap_or(false) {}
        }
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        let more = self.read().unwrap_or_else(|e| {
            log::warn!("the console's input ended: {e}");
            false
        });
        if !more && let Err(e) = ops.remove(events) {
            log::error!("cannot stop watching standard input: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(text: &[u8]) -> Vec<Key> {
        let mut keys = Keys::default();
        text.iter().filter_map(|b| keys.press(*b)).collect()
    }

    #[test]
    fn ctrl_a_begins_a_command_to_the_monitor() {
        assert_eq!(press(b"ax"), [Key::Guest(b'a'), Key::Guest(b'x')]);
        assert_eq!(press(b"\x01x"), [Key::Quit]);
        assert_eq!(press(b"\x01\x01x"), [Key::Guest(1), Key::Guest(b'x')]);
        assert_eq!(press(b"\x01qx"), [Key::Guest(b'x')]);
    }
}
