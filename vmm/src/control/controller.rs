//! Carries out commands: the one owner of the guest's configuration and of its machine.
//!
//! Lives on the main thread, beside the event loop. What may be done when is decided here, by the phase, and
//! nowhere else.

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

/// What the process is before it knows its guest.
pub struct Process {
    /// The guest's name in messages and answers.
    pub id: String,
    /// The loop of the main thread.
    pub event_loop: Loop,
    /// From where a boot is timed, if it is.
    pub timed_from: Option<StartTimes>,
    /// Counters of the process.
    pub metrics: Arc<Metrics>,
    /// The metadata service.
    pub mmds: Mmds,
    /// Who hears of what happens.
    pub events: Events,
    /// What confines the threads.
    pub seccomp: Arc<Filters>,
}

/// What there is of the guest.
pub(super) enum Phase {
    Configuring,
    Running(Machine),
    Paused(Machine),
}

/// See the module.
pub struct Controller {
    pub(super) process: Process,
    pub(super) config: VmConfig,
    pub(super) phase: Phase,
    pub(super) lent: Lent,
    pub(super) reporter: Reporter,
    /// There once a guest was to be started.
    pub(super) output: Option<Output>,
    /// The console's socket, and the loop's hold of it.
    pub(super) console_socket: Option<(PathBuf, Added)>,
    pub(super) watches_input: bool,
    /// The terminal in raw mode, if the console is on one.
    pub(super) terminal: Option<RawTerminal>,
    pub(super) serial: CurrentSerial,
    /// Something of the guest was configured: no snapshot can be loaded any more.
    pub(super) guest_is_configured: bool,
    /// Some was put before the start.
    pub(super) has_metadata: bool,
    pub(super) restart: Restart,
    /// The snapshot that the guest came from or was saved to last: what a diff lies upon.
    pub(super) snapshot: Option<Saved>,
    /// Who reads or records what the restored guest touches at first.
    pub(super) prefetch: Option<Prefetch>,
    /// Where a copy of another guest is waited for.
    pub(super) fork_listener: Option<ForkListener>,
    /// A snapshot could not be loaded: there is nothing more to do.
    pub(super) load_failed: bool,
    /// The console's user wants the end.
    pub(super) quit: Arc<AtomicBool>,
}

/// What the guest is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It was not started.
    NotStarted,
    /// It runs.
    Running,
    /// It stands still.
    Paused,
}

impl Controller {
    /// No guest yet, with the defaults of the configuration.
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
    /// [`CommandError`]; nothing has changed then, unless it says so.
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

    /// Takes a whole configuration, which was checked, in place of what there was.
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

    /// Writes metrics to `path`.
    ///
    /// # Errors
    /// [`SinkError`].
    pub fn write_metrics_to(&mut self, path: &Path) -> Result<(), SinkError> {
        let sink = Sink::open(&resources::Metrics::at(path))?;
        self.reporter.set(sink, &self.process.event_loop)
    }

    /// Puts `data` in place of the metadata.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_metadata(&mut self, data: Value) -> Result<(), StoreError> {
        self.process.mmds.put(data)?;
        self.has_metadata = true;
        Ok(())
    }

    /// What the guest is doing.
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

    /// Builds the guest and lets it run.
    ///
    /// # Errors
    /// [`MachineError`]: there is no guest then.
    pub fn boot(&mut self) -> Result<(), MachineError> {
        let machine = self.build(Origin::Boot)?;
        // A guest that starts again is not timed.
        self.process.timed_from = None;
        let held = self.restart.started();
        self.adopt_machine(machine, held);
        log::info!("the guest was started");
        self.process.events.publish(Event::Started);
        self.report();
        Ok(())
    }

    /// Builds the machine of the configuration; it stands still.
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

    /// `machine` is the guest from now on.
    pub(super) fn adopt_machine(&mut self, mut machine: Machine, held: bool) {
        self.phase = match held {
            true => Phase::Paused(machine),
            false => {
                machine.resume();
                Phase::Running(machine)
            }
        };
    }

    /// The console's output, opened the first time.
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
            // If it cannot be removed it is in the way of the next, which says so.
            let _ = std::fs::remove_file(path);
        }
    }

    /// The terminal, if there is one, is the guest's from now on.
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

    /// Nothing of the guest runs before. The main thread confines itself while the others do.
    fn confine(&self, machine: &mut Machine) -> Result<(), MachineError> {
        let confined = self.process.seccomp.confine_main(self.restarts_in_place());
        confined.map_err(MachineError::set_up(
            "the seccomp filter of the main thread",
        ))?;
        machine.wait_until_confined()
    }

    /// To be called after each turn of the event loop: how the process ends, if the guest has ended.
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
            // Commands may have come meanwhile.
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
        // What another vCPU wrote last may still be on its way.
        self.machine().inspect(|machine| machine.drain_console());
        Ok(Some(outcome))
    }

    /// The process is about to end: puts the terminal back, and writes the metrics a last time.
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

    /// A guest that was started without metadata has no service for it.
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
