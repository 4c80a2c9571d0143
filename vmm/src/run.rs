//! The life of a guest, from its file to its end.

use crate::cli::Options;
use crate::event_loop::EventLoopError;
use crate::exit_status::{BAD_CONFIGURATION, GUEST_PANIC, HOST_FAILURE, Outcome, UNEXPECTED};
use crate::machine::builder::Start;
use crate::machine::{self, MachineError};
use crate::terminal::RawTerminal;
use resources::{ConfigError, VmConfig};
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

/// Why there is no guest.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The machine that it asks for.
    #[error("{config}")]
    Machine {
        /// The configuration file.
        config: String,
        /// Why.
        #[source]
        source: MachineError,
    },
    /// The terminal.
    #[error("cannot use the terminal")]
    Terminal(#[source] io::Error),
}

impl RunError {
    /// The process's exit status.
    pub fn status(&self) -> u8 {
        match self {
            Self::Config(_) => BAD_CONFIGURATION,
            Self::Machine { source, .. } if source.is_configuration() => BAD_CONFIGURATION,
            Self::Machine {
                source: MachineError::EventLoop(EventLoopError::Epoll(_)),
                ..
            } => UNEXPECTED,
            Self::Machine { .. } | Self::Terminal(_) => HOST_FAILURE,
        }
    }
}

/// Runs the guest of `options`. `started` is when the process did.
///
/// # Errors
/// [`RunError`]: the guest did not start, or the event loop failed.
pub fn run(options: &Options, started: Instant) -> Result<Outcome, RunError> {
    let loaded = VmConfig::from_file(&options.config_file)?;
    for warning in &loaded.warnings {
        log::warn!("{warning}");
    }
    if !options.no_api {
        log::warn!("this version serves no API socket; --no-api says that you know");
    }
    let in_file = |source| RunError::Machine {
        config: options.config_file.display().to_string(),
        source,
    };
    let timed_from = options.boot_timer.then(|| Start {
        jailer: options.start_time_us.and_then(|us| time_since(us, started)),
        exec: started,
    });
    // Unbuffered: a guest's prompt has no newline.
    let output = io::stdout().as_fd().try_clone_to_owned();
    let output = Box::new(File::from(output.map_err(RunError::Terminal)?));
    let machine = machine::build(&loaded.config, output, timed_from).map_err(in_file)?;

    let terminal = RawTerminal::enter(&io::stdin()).map_err(RunError::Terminal)?;
    let outcome = machine.run(terminal.is_some()).map_err(in_file)?;
    drop(terminal);
    match outcome.status() {
        GUEST_PANIC => log::warn!("{outcome}"),
        _ => log::info!("{outcome}"),
    }
    Ok(outcome)
}

/// Time from `start_us`, which is CLOCK_MONOTONIC in microseconds, to `end`.
fn time_since(start_us: u64, end: Instant) -> Option<Duration> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).ok()?;
    let before_end = Duration::from(now).checked_sub(end.elapsed())?;
    before_end.checked_sub(Duration::from_micros(start_us))
}
