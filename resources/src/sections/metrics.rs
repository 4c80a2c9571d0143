//! Where counters go.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The `metrics` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {
    /// File or FIFO that gets a line of JSON every minute and when asked.
    pub metrics_path: PathBuf,
    /// Whether each line tells the guest's id.
    #[serde(default)]
    pub emit_id: bool,
    /// What else each line tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub properties: Option<BTreeMap<String, String>>,
    /// Bantam's own: a file that is written anew each time, in the text format of Prometheus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus_path: Option<PathBuf>,
}

impl Metrics {
    /// A plain line of JSON to `path`.
    pub fn at(path: &Path) -> Self {
        Self {
            metrics_path: path.into(),
            emit_id: false,
            properties: None,
            prometheus_path: None,
        }
    }
}
