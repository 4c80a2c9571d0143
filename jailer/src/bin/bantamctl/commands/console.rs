//! `bantamctl console`: connects the terminal to a guest's serial console.

use crate::commands::common::need_root;
use crate::guests::channel;
use crate::guests::guest::Guest;
use clap::Args;
use jailer::error::Error;
use jailer::jail::layout::{CONSOLE, RUN};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

/// Ctrl-], as in telnet and virsh.
const LEAVE: u8 = 0x1d;

/// Connect to a guest's serial console
#[derive(Debug, Args)]
#[command(
    after_help = "Shows the end of what the guest has printed, then what it prints. Ctrl-] leaves, and the guest\n\
                  runs on.\n\n\
                  Examples:\n  bantamctl console web1\n  echo uptime | bantamctl console web1"
)]
pub struct Console {
    /// Name of the guest
    name: String,
}

/// Raw mode of the terminal: every key is sent at once. Dropping it restores the former mode.
struct Raw(Option<Termios>);

impl Raw {
    fn new() -> Self {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Self(None);
        }
        let before = tcgetattr(&stdin).ok();
        if let Some(mut raw) = before.clone() {
            cfmakeraw(&mut raw);
            let _ = tcsetattr(&stdin, SetArg::TCSANOW, &raw);
        }
        Self(before)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, before);
        }
    }
}

impl Console {
    pub fn run(self) -> Result<(), Error> {
        need_root()?;
        let guest = Guest::load(&self.name)?;
        if !guest.is_running() {
            return Err(guest.not_running());
        }
        let name = &guest.name;
        let stream = channel::connect(&guest, CONSOLE);
        let stream = stream.map_err(Error::step(format!(
            "connect to the console of {name} (`serial.socket` in its definition must be /{RUN}/{CONSOLE})"
        )))?;
        if io::stdin().is_terminal() {
            eprintln!("Ctrl-] leaves; {name} runs on.");
        }
        let raw = Raw::new();
        let done = attach(stream);
        drop(raw);
        done.map_err(Error::step(format!("show the console of {name}")))
    }
}

fn attach(mut stream: UnixStream) -> io::Result<()> {
    let (mut stdin, mut stdout) = (io::stdin(), io::stdout());
    let mut bytes = [0; 4096];
    let mut typing = true;
    loop {
        let (typed, printed) = {
            let mut fds = vec![PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
            if typing {
                fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
            }
            poll(&mut fds, PollTimeout::NONE)?;
            let ready = |at: usize| fds.get(at).is_some_and(|fd| fd.any() == Some(true));
            (ready(1), ready(0))
        };
        if printed {
            let len = stream.read(&mut bytes)?;
            if len == 0 {
                return Ok(());
            }
            stdout.write_all(bytes.get(..len).unwrap_or_default())?;
            stdout.flush()?;
        }
        if typed {
            let len = stdin.read(&mut bytes)?;
            let typed = bytes.get(..len).unwrap_or_default();
            let leave = typed.iter().position(|byte| *byte == LEAVE);
            stream.write_all(typed.get(..leave.unwrap_or(len)).unwrap_or_default())?;
            if leave.is_some() {
                return Ok(());
            }
            typing = len > 0;
        }
    }
}
