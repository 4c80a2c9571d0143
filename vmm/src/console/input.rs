//! The console's input: what is typed goes to the guest's serial port, and Ctrl-A is the monitor's.

use super::serial_input::{CurrentSerial, send_to_serial};
use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use nix::errno::Errno;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd;

/// Ctrl-A, after which a key is the monitor's.
const ESCAPE: u8 = 0x01;

/// Takes the monitor's keys out of what is typed.
#[derive(Debug, Default)]
pub struct Keys {
    escaped: bool,
}

/// What a key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// The guest's.
    Guest(u8),
    /// End the guest.
    Quit,
}

impl Keys {
    /// What `byte` means after those before it; `None` if it waits for the next, or is
    /// a command that does not exist.
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
    /// Only a terminal has the monitor's keys; a pipe's bytes are all the guest's.
    keys: Option<Keys>,
    serial: CurrentSerial,
    quit: Box<dyn Fn() + Send>,
}

impl Console {
    /// Feeds `serial`; calls `quit` when a terminal's user asks for it.
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

    /// Returns whether there may be more.
    fn read(&mut self) -> io::Result<bool> {
        let mut typed = [0; 4096];
        // Not through the library's buffer: what that read ahead, epoll would not tell of.
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
        // A guest that reads nothing: input beyond its buffer is lost, as on a real line, but the
        // monitor's keys still work; they come before the port, which a write to a full pipe may hold.
        if !bytes.is_empty() {
            let serial = devices::lock(&self.serial).clone();
            let taken = serial.map_or(0, |serial| send_to_serial(&serial, &bytes));
            let lost = bytes.len() - taken;
            if lost > 0 {
                log::debug!("the guest does not read: lost {lost} bytes of input");
            }
        }
        Ok(true)
    }
}

impl MutEventSubscriber for Console {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        if self.keys.is_none() && self.input.is_terminal() {
            // A background job's: reading from it would stop the monitor (SIGTTIN), and so the guest.
            return;
        }
        let events = Events::with_data(&self.input.as_fd(), 0, EventSet::IN);
        if ops.add(events).is_err() {
            // A regular file cannot be waited for; it is there at once, as far as it fits.
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
    fn ctrl_a_is_the_monitor_s() {
        assert_eq!(press(b"ax"), [Key::Guest(b'a'), Key::Guest(b'x')]);
        assert_eq!(press(b"\x01x"), [Key::Quit]);
        assert_eq!(press(b"\x01\x01x"), [Key::Guest(1), Key::Guest(b'x')]);
        assert_eq!(press(b"\x01qx"), [Key::Guest(b'x')]);
    }
}
