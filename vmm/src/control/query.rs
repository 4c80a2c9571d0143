//! Answering requests for information.

use super::command::{CommandError, Query, Reply, refused};
use super::controller::{Controller, State};
use crate::metrics::{self, Source};
use crate::process::options::COMPATIBLE_VERSION;
use devices::balloon::Balloon;
use devices::lock;
use devices::virtio::report::{BalloonReport, Report};
use serde::Serialize;
use serde_json::json;

/// The answer to `GET /`. Names and order are Firecracker's.
#[derive(Serialize)]
struct Instance<'a> {
    id: &'a str,
    state: &'static str,
    vmm_version: &'static str,
    app_name: &'static str,
}

fn reply(value: &impl Serialize) -> Result<Reply, CommandError> {
    serde_json::to_string(value)
        .map(Reply::Json)
        .map_err(CommandError::refused("Internal VMM"))
}

const NO_BALLOON: &str = "No balloon device found.";

impl Controller {
    pub(super) fn query(&self, query: Query) -> Result<Reply, CommandError> {
        match query {
            Query::Balloon => match &self.config.balloon {
                Some(balloon) => reply(balloon),
                None => Err(refused("Balloon config", NO_BALLOON)),
            },
            Query::BalloonStats => {
                let report = self.balloon_report("Internal VMM")?;
                match &report.statistics {
                    Some(stats) => reply(stats),
                    None => Err(refused(
                        "Internal VMM",
                        "Balloon: statistics are not enabled (stats_polling_interval_s)",
                    )),
                }
            }
            Query::HintingStatus => {
                let report = self.balloon_report("Balloon update")?;
                match &report.hinting {
                    Some(status) => reply(status),
                    None => Err(refused(
                        "Balloon update",
                        "free page hinting is not enabled (free_page_hinting)",
                    )),
                }
            }
            Query::Instance => reply(&self.instance()),
            Query::Machine => reply(&self.config.machine_config),
            Query::MemoryHotplug => Err(match self.machine() {
                None => CommandError::BeforeStart,
                Some(_) => refused("Internal VMM", "Device not found"),
            }),
            Query::Metadata => self.stored_metadata(),
            Query::Prometheus => {
                let process = self.process.metrics.sets().into_iter();
                let process = process.map(|set| Source { id: None, set });
                let sources: Vec<_> = process.chain(self.device_metrics()).collect();
                Ok(Reply::Text(metrics::text(&self.process.id, &sources)))
            }
            Query::Version => reply(&json!({"firecracker_version": COMPATIBLE_VERSION})),
            Query::Vm => self.whole(),
        }
    }

    /// Returns the whole configuration, without the sections of the process, as Firecracker does.
    fn whole(&self) -> Result<Reply, CommandError> {
        let mut config = self.config.clone();
        (config.logger, config.metrics, config.serial) = (None, None, None);
        reply(&config)
    }

    fn instance(&self) -> Instance<'_> {
        Instance {
            id: &self.process.id,
            state: match self.state() {
                State::NotStarted => "Not started",
                State::Running => "Running",
                State::Paused => "Paused",
            },
            vmm_version: COMPATIBLE_VERSION,
            app_name: "Firecracker",
        }
    }

    fn stored_metadata(&self) -> Result<Reply, CommandError> {
        self.metadata_is_there()?;
        reply(&self.process.mmds.get())
    }

    fn balloon_report(&self, subject: &'static str) -> Result<BalloonReport, CommandError> {
        let machine = self.machine().ok_or(CommandError::BeforeStart)?;
        match machine.report::<Balloon>(None) {
            Some(Report::Balloon(report)) => Ok(report),
            _ => Err(refused(subject, NO_BALLOON)),
        }
    }

    /// Returns the metrics of the devices and of the metadata service.
    pub(super) fn device_metrics(&self) -> Vec<Source> {
        let mut sources = vec![Source {
            id: None,
            set: self.process.mmds.metrics(),
        }];
        let Some(machine) = self.machine() else {
            return sources;
        };
        for (device, set) in machine.metrics() {
            let id = device.id.clone();
            sources.push(Source { id, set });
        }
        let set = machine.serial_metrics();
        sources.push(Source { id: None, set });
        if let Some(keyboard) = machine.keyboard() {
            let set = lock(keyboard).metrics();
            sources.push(Source { id: None, set });
        }
        sources
    }
}
