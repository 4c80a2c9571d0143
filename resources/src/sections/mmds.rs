//! The `mmds-config` section: interfaces, address and version of the metadata service.

use crate::check::null::null_as_default;
use crate::check::problem::Problem;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// Default address of the service.
pub const DEFAULT_MMDS_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// Version of the protocol between guest and service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MmdsVersion {
    /// Plain requests. Clients get a deprecation notice.
    #[default]
    V1,
    /// Requests with a session token.
    V2,
}

/// The `mmds-config` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MmdsConfig {
    /// Protocol version.
    #[serde(default, deserialize_with = "null_as_default")]
    pub version: MmdsVersion,
    /// The `iface_id`s of the interfaces that reach the service.
    pub network_interfaces: Vec<String>,
    /// Address of the service; [`DEFAULT_MMDS_ADDRESS`] if absent.
    #[serde(default)]
    pub ipv4_address: Option<Ipv4Addr>,
    /// True to answer with plain text regardless of the requested format, as Amazon's service does.
    #[serde(default, deserialize_with = "null_as_default")]
    pub imds_compat: bool,
}

/// The reason why the section cannot be used, in Firecracker's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MmdsConfigError {
    /// The address is outside 169.254.1.0 to 169.254.254.255.
    #[error("The MMDS IPv4 address is not link local.")]
    Address,
    /// The list of interfaces is empty.
    #[error("The list of network interface IDs that allow forwarding MMDS requests is empty.")]
    NoInterfaces,
    /// An interface in the list does not exist.
    #[error(
        "The list of network interface IDs provided contains at least one ID that does not \
         correspond to any existing network interface."
    )]
    UnknownInterface,
}

impl MmdsConfigError {
    /// Returns the key of the value.
    fn key(self) -> &'static str {
        match self {
            Self::Address => "ipv4_address",
            Self::NoInterfaces | Self::UnknownInterface => "network_interfaces",
        }
    }
}

/// Returns true for a usable link-local address (RFC 3927, section 2.1, reserves the first and last 256).
fn is_link_local(address: Ipv4Addr) -> bool {
    matches!(address.octets(), [169, 254, 1..=254, _])
}

impl MmdsConfig {
    /// Returns the address of the service.
    pub fn address(&self) -> Ipv4Addr {
        self.ipv4_address.unwrap_or(DEFAULT_MMDS_ADDRESS)
    }

    /// Returns all problems in the order in which clients get them. `ids` are the `iface_id`s of all interfaces.
    fn errors<'a>(&'a self, ids: &'a [&str]) -> impl Iterator<Item = MmdsConfigError> + 'a {
        let unknown = |id: &String| !ids.contains(&id.as_str());
        [
            (!is_link_local(self.address()), MmdsConfigError::Address),
            (
                self.network_interfaces.is_empty(),
                MmdsConfigError::NoInterfaces,
            ),
            (
                self.network_interfaces.iter().any(unknown),
                MmdsConfigError::UnknownInterface,
            ),
        ]
        .into_iter()
        .filter_map(|(wrong, error)| wrong.then_some(error))
    }

    /// Checks the section for the API. `ids` are the `iface_id`s of all interfaces.
    ///
    /// # Errors
    /// The first problem.
    pub fn validate(&self, ids: &[&str]) -> Result<(), MmdsConfigError> {
        self.errors(ids).next().map_or(Ok(()), Err)
    }

    /// Checks the section of a configuration file. `ids` are the `iface_id`s of all interfaces.
    pub fn check(&self, ids: &[&str], problems: &mut Vec<Problem>) {
        for error in self.errors(ids) {
            let key = format!("mmds-config.{}", error.key());
            problems.push(Problem::new(key, error.to_string()));
        }
    }
}

#[cfg(test)]
#[path = "mmds_test.rs"]
mod mmds_test;
