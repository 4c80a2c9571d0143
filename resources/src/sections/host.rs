//! The `host` section, Bantam's own: the guest's user, monitor and seed, which the jailer prepares.

use crate::check::problem::Problem;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Longest host name (RFC 1035, 2.3.4).
const MAX_HOSTNAME: usize = 253;
/// Longest user name that Debian's adduser creates.
const MAX_USER: usize = 32;

/// The `host` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Host {
    /// Path of the monitor; `bantam` beside the program if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec_file: Option<PathBuf>,
    /// User id of the monitor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group id of the monitor; the number of `uid` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Seed for cloud-init at the guest's first start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<Seed>,
    /// Name of the guest of which this one is a fork; `bantamctl fork` writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy_of: Option<String>,
}

/// Content of a volume labelled `CIDATA`, which cloud-init reads (data source NoCloud) together with the addresses of
/// the guest's interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Seed {
    /// Instance id. The guest applies the seed once per id.
    pub instance_id: String,
    /// The guest's host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// User for whom the keys are installed; the image's default user if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Public keys in the format of `authorized_keys`, one line each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ssh_authorized_keys: Vec<String>,
}

impl Host {
    pub(crate) fn check(&self, problems: &mut Vec<Problem>) {
        for (key, number) in [("host.uid", self.uid), ("host.gid", self.gid)] {
            if number == Some(u32::MAX) {
                problems.push(Problem::new(
                    key,
                    "is reserved by the kernel: choose another number",
                ));
            }
        }
        if let Some(seed) = &self.seed {
            seed.check(problems);
        }
    }
}

impl Seed {
    fn check(&self, problems: &mut Vec<Problem>) {
        let mut wrong = |key: &str, message: &str| {
            problems.push(Problem::new(format!("host.seed.{key}"), message));
        };
        let line = |text: &str| !text.is_empty() && !text.contains(char::is_control);
        if !line(&self.instance_id) {
            wrong("instance_id", "is empty or has control characters");
        }
        let label = |part: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
            !part.is_empty()
                && part.len() <= 63
                && part.chars().all(plain)
                && !part.starts_with('-')
        };
        let hostname = |name: &String| name.len() <= MAX_HOSTNAME && name.split('.').all(label);
        if !self.hostname.as_ref().is_none_or(hostname) {
            wrong(
                "hostname",
                "is not a host name: use letters, digits and `-`, with dots between the parts",
            );
        }
        let user = |name: &String| {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
            let first = name.chars().next();
            name.len() <= MAX_USER
                && name.chars().all(plain)
                && first.is_some_and(|c| c.is_ascii_lowercase() || c == '_')
        };
        if !self.user.as_ref().is_none_or(user) {
            wrong(
                "user",
                "is not a user name: use lower-case letters, digits, `-` and `_`",
            );
        }
        for (i, key) in self.ssh_authorized_keys.iter().enumerate() {
            if !line(key) || key.split_whitespace().count() < 2 {
                let at = format!("ssh_authorized_keys[{i}]");
                wrong(
                    &at,
                    "is not a public key: use a line as in ~/.ssh/id_ed25519.pub",
                );
            }
        }
    }
}
