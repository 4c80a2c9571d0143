//! The life of the process, from the command line to the end of the guest.

use crate::api::{self, Api, ApiError, CommandQueue};
use crate::control::controller::{AdoptError, Controller, Process};
use crate::control::lifecycle::{Event, Events};
use crate::event_loop::{EventLoopError, MainLoop};
use crate::machine::MachineError;
use crate::machine::builder::StartTimes;
use crate::metrics::{Metrics, SinkError};
use crate::mmds::{Mmds, StoreError};
use crate::process::exit_status::{
    BAD_CONFIGURATION, GUEST_PANIC, HOST_FAILURE, Outcome, UNEXPECTED,
};
use crate::process::logging::{self, LogFileError};
use crate::process::options::{COMPATIBLE_VERSION, Options};
use crate::process::{allocator, messages, signals};
use crate::seccomp::{Filters, SeccompError};
use crate::snapshot;
use crate::vcpu;
use devices::util::metrics::Gauge;
use resources::{ConfigError, MAX_CONFIG_BYTES, Prefetch, SnapshotLoad, VmConfig, read_bounded};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Why the process ends without an outcome of a guest.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The API cannot be served.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A file for messages or metrics cannot be used.
    #[error(transparent)]
    Adopt(#[from] AdoptError),
    /// The configuration file cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The log file cannot be used.
    #[error(transparent)]
    Log(#[from] LogFileError),
    /// The machine cannot be built.
    #[error("{config}")]
    Machine {
        /// The configuration file, the snapshot's directory, or `API`.
        config: String,
        /// The cause.
        #[source]
        source: MachineError,
    },
    /// The socket for a fork cannot be used.
    #[error("--fork-socket {}", path.display())]
    Fork {
        /// The socket's path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file of `--metadata` cannot be used.
    #[error("--metadata {}: {why}", path.display())]
    Metadata {
        /// The file's path.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// The metrics file cannot be used.
    #[error(transparent)]
    Metrics(#[from] SinkError),
    /// The seccomp filters cannot be used.
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    /// The snapshot of `--restore` cannot be loaded.
    #[error("--restore {}: {why}", path.display())]
    Restore {
        /// The snapshot's directory.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// The host refused a resource of the process.
    #[error("cannot use the {what}")]
    Host {
        /// The resource.
        what: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl RunError {
    /// Returns the process's exit status.
    pub fn status(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Metadata { .. } | Self::Seccomp(_) => BAD_CONFIGURATION,
            Self::Machine { source, .. } if source.is_configuration() => BAD_CONFIGURATION,
            Self::Machine {
                source: MachineError::EventLoop(EventLoopError::Epoll(_)),
                ..
            } => UNEXPECTED,
            _ => HOST_FAILURE,
        }
    }
}

fn host(what: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |source| RunError::Host { what, source }
}

/// Runs the guest that `options` describe. The process started at `started`.
///
/// # Errors
/// [`RunError`]: the guest did not start, or the event loop failed.
pub fn run(options: &Options, started: Instant) -> Result<Outcome, RunError> {
    if options.api_sock.is_some() {
        // Clients find the process by this name. The call fails only for longer names.
        let _ = nix::sys::prctl::set_name(c"firecracker");
    }
    allocator::keep_one_arena();
    // The socket comes first, because clients wait for it.
    let listener = options.api_sock.as_deref().map(api::bind).transpose()?;
    let metrics = Arc::new(Metrics::default());
    logging::init(&options.id, listener.is_some(), metrics.logger.clone());
    logging::configure(&options.logger)?;
    log::info!("Running Firecracker v{COMPATIBLE_VERSION}");
    if options.enable_pci {
        log::warn!("--enable-pci: devices are on virtio-mmio in this version");
    }
    vcpu::install_signal().map_err(host("signals"))?;
    signals::install().map_err(host("signals"))?;
    record_startup(&metrics, options);
    let seccomp = Arc::new(Filters::load(&options.seccomp)?);
    seccomp.report_violations().map_err(host("signals"))?;

    let in_place = |source| RunError::Machine {
        config: match options.config_file.as_ref().or(options.restore.as_ref()) {
            Some(file) => file.display().to_string(),
            None => "API".into(),
        },
        source,
    };
    let mut main_loop = MainLoop::new().map_err(|e| in_place(e.into()))?;
    let events = Events::default();
    let process = Process {
        id: options.id.clone(),
        event_loop: main_loop.endpoint(),
        timed_from: options.boot_timer.then(|| StartTimes {
            jailer: options.start_time_us.and_then(|us| time_since(us, started)),
            exec: started,
        }),
        metrics: metrics.clone(),
        mmds: Mmds::new(options.metadata_limit).map_err(host("source of randomness"))?,
        events: events.clone(),
        seccomp: seccomp.clone(),
    };
    let mut controller = Controller::new(process);
    if let Some(path) = &options.metrics_path {
        controller.write_metrics_to(path)?;
    }
    if let Some(path) = &options.metadata {
        load_metadata(&mut controller, path)?;
    }
    let queue = listener.map(|listener| {
        let options = api::Options {
            max_body: options.max_body,
            event_loop: main_loop.endpoint(),
            metrics,
            seccomp,
        };
        Api::start(listener, &events, options)
    });
    let queue = queue.transpose()?;
    if let Some(file) = &options.config_file {
        let loaded = VmConfig::from_file(file)?;
        for warning in &loaded.warnings {
            log::warn!("{warning}");
        }
        let problems = loaded.config.jailers();
        if !problems.is_empty() {
            let path = file.clone();
            return Err(ConfigError::Invalid { path, problems }.into());
        }
        controller.adopt(loaded.config)?;
        controller.boot().map_err(in_place)?;
    }
    if let Some(waiting) = &options.fork {
        controller
            .wait_for_fork(waiting)
            .map_err(|source| RunError::Fork {
                path: waiting.socket.clone(),
                source,
            })?;
    }
    if let Some(directory) = &options.restore {
        restore(&mut controller, directory, options.prefetch)?;
    }
    let ended = serve(&mut main_loop, &mut controller, queue.as_ref());
    controller.finish();
    let outcome = match ended {
        Ok(outcome) => outcome,
        Err(e) => {
            let error = in_place(e);
            events.publish(Event::Stopped {
                status: error.status(),
                reason: messages::chain(&error),
            });
            if let Some(queue) = queue {
                queue.end();
            }
            return Err(error);
        }
    };
    match outcome.status() {
        GUEST_PANIC => log::warn!("{outcome}"),
        _ => log::info!("{outcome}"),
    }
    log::info!("Vmm is stopping.");
    if let Some(queue) = queue {
        queue.end();
    }
    match outcome.status() {
        0 => log::info!("Firecracker exiting successfully. exit_code=0"),
        status => log::info!("Firecracker exiting with exit_code={status}"),
    }
    Ok(outcome)
}

fn serve(
    main_loop: &mut MainLoop,
    controller: &mut Controller,
    queue: Option<&CommandQueue>,
) -> Result<Outcome, MachineError> {
    loop {
        if let Some(queue) = queue.filter(|_| !controller.is_restarting()) {
            queue.serve(|command| controller.apply(command));
        }
        if let Some(outcome) = controller.after_turn()? {
            return Ok(outcome);
        }
        main_loop.turn()?;
    }
}

/// `--restore`: loads the snapshot in `directory`, sets the guest's clocks to the host's time, and resumes the guest.
fn restore(controller: &mut Controller, directory: &Path, prefetch: bool) -> Result<(), RunError> {
    let (state, memory) = snapshot::files_in(directory);
    let mut load = SnapshotLoad::from_files(state, memory);
    load.resume_vm = true;
    load.clock_realtime = true;
    load.prefetch = Some(Prefetch::Switch(prefetch));
    let loaded = controller.load_snapshot(&load);
    loaded.map(drop).map_err(|e| RunError::Restore {
        path: directory.into(),
        why: e.to_string(),
    })
}

fn load_metadata(controller: &mut Controller, path: &Path) -> Result<(), RunError> {
    let wrong = |why: String| RunError::Metadata {
        path: path.into(),
        why,
    };
    let text =
        read_bounded(path, MAX_CONFIG_BYTES).map_err(|e| wrong(format!("cannot be read: {e}")))?;
    let data = serde_json::from_slice(&text).map_err(|e| wrong(format!("is not JSON: {e}")))?;
    controller
        .put_metadata(data)
        .map_err(|e: StoreError| wrong(e.to_string()))
}

/// Returns the time from `start_us`, a CLOCK_MONOTONIC value in microseconds, to `end`.
fn time_since(start_us: u64, end: Instant) -> Option<Duration> {
    let now = devices::util::timer::now();
    let before_end = now.checked_sub(end.elapsed())?;
    before_end.checked_sub(Duration::from_micros(start_us))
}

/// Records the time from the jailer's start until the API could be used, if the jailer passed its start time.
fn record_startup(metrics: &Metrics, options: &Options) {
    let record = |gauge: &Gauge, now: Duration, start: Option<u64>| {
        if let Some(time) = start.and_then(|us| now.checked_sub(Duration::from_micros(us))) {
            gauge.set_time(time);
        }
    };
    let server = &metrics.server;
    let start = options.start_time_us;
    record(
        &server.process_startup_time_us,
        devices::util::timer::now(),
        start,
    );
    let cpu = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID);
    let cpu = cpu.map(Duration::from).unwrap_or_default();
    let jailer = Duration::from_micros(options.parent_cpu_time_us.unwrap_or(0));
    let start = options.start_time_cpu_us;
    record(&server.process_startup_time_cpu_us, cpu + jailer, start);
}
