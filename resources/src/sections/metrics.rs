//! The `metrics` section.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The `metrics` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {
    /// Path of a file or FIFO that receives a line of JSON every minute and on request.
    pub metrics_path: PathBuf,
    /// True to include the guest's id in each line.
    #[serde(default)]
    pub emit_id: bool,
    /// Additional properties of each line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub properties: Option<BTreeMap<String, String>>,
    /// Bantam's own: path of a file that is rewritten each time in the text format of Prometheus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus_path: Option<PathBuf>,
}

impl Metrics {
    /// Creates a section that writes plain JSON lines to `path`.
    pub fn at(path: &Path) -> Self {
        Self {
            metrics_path: path.into(),
            emit_id: false,
            properties: None,
            prometheus_path: None,
        }
    }
}
