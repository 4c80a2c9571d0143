//! The controller. It lives on the main thread, beside the event loop, and alone decides which command is allowed in which
//! phase.

use super::command::{Command, CommandError, Metadata, PhaseRule, Reply, refused};
use super::lifecycle::{Event, Events};
use super::restart::Restart;
use crate::console::{Console, ConsoleSocket, CurrentSerial, Output};
use crate::event_loop::{self, Added};
use crate::fork::listener::ForkListener;
use crate::machine::builder::{Host, StartTimes};
use crate::machine::lent::Lent;
use crate::machine::{self, Machine, MachineError, Origin};
use crate::metrics::{Metrics, Reporter, Sink, SinkError};
use crate::mmds::{Mmds, StoreError};
use crate::process::exit_status::Outcome;
use crate::process::logging::{self, LogFileError};
use crate::process::terminal::RawTerminal;
use crate::seccomp::Filters;
use crate::snapshot::Saved;
use crate::snapshot::prefetch::Prefetch;
use devices::lock;
use devices::platform::guest_event::GuestEvent;
use devices::virtio::worker::Loop;
use resources::VmConfig;
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Why a configuration cannot be adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The log file cannot be used.
    #[error(transparent)]
    Log(#[from] LogFileError),
    /// The metrics file cannot be used.
    #[error(transparent)]
    Metrics(#[from] SinkError),
}

/// The process, independent of its guest.
pub struct Process {
    /// The guest's name in messages and answers.
    pub id: String,
    /// The loop of the main thread.
    pub event_loop: Loop,
    /// Start times, if the guest's boot is timed.
    pub timed_from: Option<StartTimes>,
    /// Metrics of the process.
    pub metrics: Arc<Metrics>,
    /// The metadata service.
    pub mmds: Mmds,
    /// Subscribers of lifecycle events.
    pub events: Events,
    /// Seccomp filters of the threads.
    pub seccomp: Arc<Filters>,
}

/// The phase of the guest, with its machine.
pub(super) enum Phase {
    Configuring,
    Running(Machine),
    Paused(Machine),
}

/// The owner of configuration and machine.
pub struct Controller {
    pub(super) process: Process,
    pub(super) config: VmConfig,
    pub(super) phase: Phase,
    pub(super) lent: Lent,
    pub(super) reporter: Reporter,
    /// The console's output. It is opened at the first start.
    pub(super) output: Option<Output>,
    /// The path of the console's socket, and its subscriber in the event loop.
    pub(super) console_socket: Option<(PathBuf, Added)>,
    pub(super) watches_input: bool,
    /// The terminal in raw mode, if the console is on a terminal.
    pub(super) terminal: Option<RawTerminal>,
    pub(super) serial: CurrentSerial,
    /// Whether a section that describes the guest was set. No snapshot can be loaded after that.
    pub(super) guest_is_configured: bool,
    /// Whether metadata was put before the start.
    pub(super) has_metadata: bool,
    pub(super) restart: Restart,
    /// The snapshot that the guest was restored from or saved to last: the base of the next diff.
    pub(super) snapshot: Option<Saved>,
    /// The thread that records or reads ahead the pages that a restored guest touches first.
    pub(super) prefetch: Option<Prefetch>,
    /// The socket for a parent that brings a copy of its guest.
    pub(super) fork_listener: Option<ForkListener>,
    /// Whether a snapshot could not be loaded: the process must end.
    pub(super) load_failed: bool,
    /// Whether the console's user quit.
    pub(super) quit: Arc<AtomicBool>,
}

/// The state of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The guest is not started.
    NotStarted,
    /// The guest runs.
    Running,
    /// The guest is paused.
    Paused,
}

impl Controller {
    /// Creates a controller with the default configuration and without a guest.
    pub fn new(process: Process) -> Self {
        let lent = Lent::new(process.mmds.clone());
        let reporter = Reporter::new(&process.id, process.metrics.clone());
        Self {
            process,
            config: VmConfig::default(),
            phase: Phase::Configuring,
            lent,
            reporter,
            output: None,
            console_socket: None,
            watches_input: false,
            terminal: None,
            serial: CurrentSerial::default(),
            guest_is_configured: false,
            has_metadata: false,
            restart: Restart::default(),
            snapshot: None,
            prefetch: None,
            fork_listener: None,
            load_failed: false,
            quit: Arc::default(),
        }
    }

    /// Carries out `command`.
    ///
    /// # Errors
    /// [`CommandError`]; nothing has changed, unless the text says so.
    pub fn apply(&mut self, command: Command) -> Result<Reply, CommandError> {
        match (command, &self.phase) {
            (Command::Configure(section), Phase::Configuring) => self.configure(*section),
            (Command::Configure(section), _) => Err(match section.phase_rule() {
                PhaseRule::Pluggable => CommandError::NoHotplug,
                PhaseRule::Guest | PhaseRule::Process => CommandError::AfterStart,
            }),
            (Command::UpdateMachine(update), Phase::Configuring) => self.update_machine(&update),
            (Command::LoadSnapshot(load), Phase::Configuring) => self.load_snapshot(&load),
            (Command::UpdateMachine(_) | Command::LoadSnapshot(_), _) => {
                Err(CommandError::AfterStart)
            }
            (Command::Start, Phase::Configuring) => self.start(),
            (Command::Start, _) => Err(CommandError::AfterStart),
            (Command::Operate(_), Phase::Configuring) => Err(CommandError::BeforeStart),
            (Command::Operate(operation), _) => self.operate(operation),
            (Command::Query(query), _) => self.query(query),
            (Command::Metadata(change), _) => self.metadata(change),
        }
    }

    /// Replaces the configuration by `config`, which was checked.
    ///
    /// # Errors
    /// [`AdoptError`]: a file for messages or metrics cannot be used.
    pub fn adopt(&mut self, config: VmConfig) -> Result<(), AdoptError> {
        if let Some(logger) = &config.logger {
            logging::configure(logger)?;
        }
        if let Some(metrics) = &config.metrics {
            self.reporter
                .set(Sink::open(metrics)?, &self.process.event_loop)?;
        }
        if let Some(mmds) = &config.mmds_config {
            self.process.mmds.configure(mmds);
            self.lent.serve_metadata_on(&mmds.network_interfaces);
        }
        self.config = config;
        Ok(())
    }

    /// Sets `path` as the metrics file.
    ///
    /// # Errors
    /// [`SinkError`].
    pub fn write_metrics_to(&mut self, path: &Path) -> Result<(), SinkError> {
        let sink = Sink::open(&resources::Metrics::at(path))?;
        self.reporter.set(sink, &self.process.event_loop)
    }

    /// Replaces the metadata.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_metadata(&mut self, data: Value) -> Result<(), StoreError> {
        self.process.mmds.put(data)?;
        self.has_metadata = true;
        Ok(())
    }

    /// Returns the state of the guest.
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Configuring => State::NotStarted,
            Phase::Running(_) => State::Running,
            Phase::Paused(_) => State::Paused,
        }
    }

    pub(super) fn machine(&self) -> Option<&Machine> {
        match &self.phase {
            Phase::Configuring => None,
            Phase::Running(machine) | Phase::Paused(machine) => Some(machine),
        }
    }

    pub(super) fn machine_mut(&mut self) -> Result<&mut Machine, CommandError> {
        match &mut self.phase {
            Phase::Configuring => Err(CommandError::BeforeStart),
            Phase::Running(machine) | Phase::Paused(machine) => Ok(machine),
        }
    }

    fn start(&mut self) -> Result<Reply, CommandError> {
        let refused = |why| CommandError::Refused {
            subject: "Start microvm",
            why,
        };
        if self
            .config
            .boot_source
            .kernel_image_path
            .as_os_str()
            .is_empty()
        {
            return Err(refused(
                "Cannot start microvm without kernel configuration.".into(),
            ));
        }
        let problems: Vec<_> = self
            .config
            .problems()
            .iter()
            .chain(&self.config.jailers())
            .map(ToString::to_string)
            .collect();
        if !problems.is_empty() {
            return Err(refused(problems.join("; ")));
        }
        self.boot()
            .map_err(CommandError::refused("Start microvm"))?;
        Ok(Reply::Done)
    }

    /// Builds the guest and starts it.
    ///
    /// # Errors
    /// [`MachineError`]; there is no guest.
    pub fn boot(&mut self) -> Result<(), MachineError> {
        let machine = self.build(Origin::Boot)?;
        // Only the first start is timed.
        self.process.timed_from = None;
        let paused = self.restart.started();
        self.adopt_machine(machine, paused);
        log::info!("the guest was started");
        self.process.events.publish(Event::Started);
        self.report();
        Ok(())
    }

    /// Builds a machine from the configuration. It is paused.
    pub(super) fn build(&mut self, origin: Origin<'_>) -> Result<Machine, MachineError> {
        let output = self.open_console()?;
        let host = Host {
            event_loop: &self.process.event_loop,
            output: &output,
            timed_from: self.process.timed_from,
            metrics: &self.process.metrics.vcpu,
            lent: &mut self.lent,
            seccomp: &self.process.seccomp,
        };
        let mut machine = machine::build(&self.config, host, origin)?;
        *lock(&self.serial) = Some(machine.serial());
        if let Err(e) = self.watch_input().and_then(|()| self.confine(&mut machine)) {
            machine.end();
            return Err(e);
        }
        Ok(machine)
    }

    /// Makes `machine` the guest's, and resumes it unless it starts `paused`.
    pub(super) fn adopt_machine(&mut self, mut machine: Machine, paused: bool) {
        self.phase = match paused {
            true => Phase::Paused(machine),
            false => {
                machine.resume();
                Phase::Running(machine)
            }
        };
    }

    /// Returns the console's output, which is opened at the first call.
    fn open_console(&mut self) -> Result<Output, MachineError> {
        if let Some(output) = &self.output {
            return Ok(output.clone());
        }
        let config = self.config.serial.clone().unwrap_or_default();
        let output = Output::new(&config).map_err(|source| MachineError::Open {
            key: "serial.serial_out_path".into(),
            path: config
                .serial_out_path
                .unwrap_or_default()
                .display()
                .to_string(),
            source,
        })?;
        if let (Some(path), Some(attached)) = (&config.socket, output.attached()) {
            let socket = ConsoleSocket::bind(path, attached, self.serial.clone());
            let socket = socket.map_err(|source| MachineError::Open {
                key: "serial.socket".into(),
                path: path.display().to_string(),
                source,
            })?;
            let added = event_loop::add(&self.process.event_loop, Box::new(socket));
            self.console_socket = Some((path.clone(), added));
        }
        self.output = Some(output.clone());
        Ok(output)
    }

    pub(super) fn close_console(&mut self) {
        self.output = None;
        if let Some((path, added)) = self.console_socket.take() {
            added.remove();
            // A socket that cannot be removed is reported by the next bind at its path.
            let _ = std::fs::remove_file(path);
        }
    }

    /// Gives standard input to the guest: a terminal is set to raw mode.
    fn watch_input(&mut self) -> Result<(), MachineError> {
        if self.watches_input {
            return Ok(());
        }
        let terminal = RawTerminal::enter(&io::stdin());
        self.terminal = terminal.map_err(MachineError::set_up("the terminal"))?;
        self.watches_input = true;
        let event_loop = self.process.event_loop.clone();
        let quit = self.quit.clone();
        let quit = Box::new(move || {
            quit.store(true, Ordering::Release);
            event_loop::wake(&event_loop);
        });
        let console = Console::new(self.terminal.is_some(), self.serial.clone(), quit);
        event_loop::add(&self.process.event_loop, Box::new(console));
        Ok(())
    }

    /// Confines all threads. The main thread confines itself at the same time as the others. The guest must not run before.
    fn confine(&self, machine: &mut Machine) -> Result<(), MachineError> {
        let confined = self.process.seccomp.confine_main(self.restarts_in_place());
        confined.map_err(MachineError::set_up(
            "the seccomp filter of the main thread",
        ))?;
        machine.wait_until_confined()
    }

    /// Does the controller's work after each turn of the event loop. Returns the outcome if the guest has ended.
    ///
    /// # Errors
    /// The guest could not be started again.
    pub fn after_turn(&mut self) -> Result<Option<Outcome>, MachineError> {
        if self.quit.load(Ordering::Acquire) {
            return Ok(Some(Outcome::Quit));
        }
        self.accept_fork();
        if self.load_failed {
            return Ok(Some(Outcome::NotRestored));
        }
        if self.reporter.is_due() {
            self.report();
        }
        if self.restart.is_due() {
            self.boot()?;
            // Commands may have arrived during the start.
            event_loop::wake(&self.process.event_loop);
        }
        let Some(outcome) = self.machine().and_then(Machine::outcome) else {
            return Ok(None);
        };
        if self.restarts_in_place() && outcome == Outcome::Guest(GuestEvent::Reset) {
            self.rebooted()?;
            return Ok(None);
        }
        self.process.events.publish_end(outcome);
        // The last output of another vCPU may still be collected by KVM.
        self.machine().inspect(|machine| machine.drain_console());
        Ok(Some(outcome))
    }

    /// Restores the terminal and writes the last line of metrics. Called at the end of the process.
    pub fn finish(&mut self) {
        self.terminal = None;
        if let Some(prefetch) = self.prefetch.take() {
            prefetch.finish();
        }
        self.report();
    }

    pub(super) fn report(&mut self) {
        let devices = self.device_metrics();
        if let Err(e) = self.reporter.write(&devices) {
            log::error!("cannot write the metrics: {e}");
        }
    }

    fn metadata(&mut self, change: Metadata) -> Result<Reply, CommandError> {
        self.metadata_is_there()?;
        let done = match change {
            Metadata::Put(data) => self.put_metadata(data),
            Metadata::Patch(data) => self.process.mmds.patch(data),
        };
        done.map(|()| Reply::Done).map_err(mmds_error)
    }

    /// Refuses metadata for a guest that was started without it.
    pub(super) fn metadata_is_there(&self) -> Result<(), CommandError> {
        let there = self.has_metadata || self.config.mmds_config.is_some();
        match there || self.machine().is_none() {
            true => Ok(()),
            false => Err(mmds_error(StoreError::NotInitialized)),
        }
    }
}

fn mmds_error(error: StoreError) -> CommandError {
    match error {
        StoreError::TooLarge => CommandError::MetadataTooLarge(error.to_string()),
        other => refused("MMDS", other.to_string()),
    }
}

#[cfg(test)]
#[path = "controller_test.rs"]
mod controller_test;
