//! `jailer console`: a terminal on a guest's serial console.

use crate::error::Error;
use crate::guests::{Guest, channel};
use argh::FromArgs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

/// Ctrl-], as telnet and virsh have it.
const LEAVE: u8 = 0x1d;

/// Attach to a guest's console: what it wrote last, and from there on. Ctrl-] leaves; the guest runs on.
#[derive(Debug, FromArgs)]
#[argh(
    subcommand,
    name = "console",
    example = "jailer console web1\necho uptime | jailer console web1"
)]
pub struct Console {
    /// name of the guest
    #[argh(positional)]
    name: String,
}

/// A terminal that sends every key, until this ends.
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
    /// Does it.
    ///
    /// # Errors
    /// [`Error`]: it does not run, or has no console.
    pub fn run(self) -> Result<(), Error> {
        super::need_root()?;
        let guest = Guest::load(&self.name)?;
        if !guest.is_running() {
            return Err(guest.not_running());
        }
        let stream = channel::connect(&guest, channel::CONSOLE);
        let stream = stream.map_err(Error::step(format!(
            "connect to the console of {} (`serial.socket` in its definition must be /run/{})",
            guest.name,
            channel::CONSOLE
        )))?;
        if io::stdin().is_terminal() {
            eprintln!("Ctrl-] leaves; {} runs on.", guest.name);
        }
        let raw = Raw::new();
        let done = attach(stream);
        drop(raw);
        done.map_err(Error::step(format!("show the console of {}", guest.name)))
    }
}

fn attach(mut stream: UnixStream) -> io::Result<()> {
    let (mut stdin, mut stdout) = (io::stdin(), io::stdout());
    let mut bytes = [0; 4096];
    let mut typing = true;
    loop {
        let (readable, ended) = {
            let mut fds = vec![PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
            if typing {
                fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
            }
            poll(&mut fds, PollTimeout::NONE)?;
            let ready = |at: usize| fds.get(at).is_some_and(|fd| fd.any() == Some(true));
            (ready(1), ready(0))
        };
        if ended {
            let len = stream.read(&mut bytes)?;
            if len == 0 {
                return Ok(());
            }
            stdout.write_all(bytes.get(..len).unwrap_or_default())?;
            stdout.flush()?;
        }
        if readable {
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
