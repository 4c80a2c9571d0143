//! A guest on its host, which the jailer prepares: Bantam's own.

use crate::check::problem::Problem;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Longest host name (RFC 1035, 2.3.4).
const MAX_HOSTNAME: usize = 253;
/// Longest user name that Debian's adduser makes.
const MAX_USER: usize = 32;

/// The `host` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Host {
    /// The VMM; `bantam` beside the jailer if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec_file: Option<PathBuf>,
    /// User that the VMM runs as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group that it runs as; that of the user's number if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// What the guest is told at its first start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<Seed>,
    /// The running guest of which this one is a copy; `jailer fork` writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy_of: Option<String>,
}

/// What cloud-init finds on a volume labelled `CIDATA` (its data source NoCloud), with the addresses of the
/// guest's interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Seed {
    /// The guest applies the seed once for each of these.
    pub instance_id: String,
    /// The guest's host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// User who may log in by the keys; the image's default user if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Public keys as in `authorized_keys`, a line each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ssh_authorized_keys: Vec<String>,
}

impl Host {
    pub(crate) fn check(&self, problems: &mut Vec<Problem>) {
        for (key, number) in [("host.uid", self.uid), ("host.gid", self.gid)] {
            if number == Some(u32::MAX) {
                problems.push(Problem::new(key, "is the kernel's word for no user"));
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
                "is no host name: letters, digits and `-`, parts between dots",
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
                "is no user's name: lower-case letters, digits, `-` and `_`",
            );
        }
        for (i, key) in self.ssh_authorized_keys.iter().enumerate() {
            if !line(key) || key.split_whitespace().count() < 2 {
                let at = format!("ssh_authorized_keys[{i}]");
                wrong(&at, "is no public key: a line as in ~/.ssh/id_ed25519.pub");
            }
        }
    }
}
