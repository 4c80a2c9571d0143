//! The metadata service: who may ask it, where, and how.

use crate::check::null::null_as_default;
use crate::check::problem::Problem;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// Where the service is if no address is given.
pub const DEFAULT_MMDS_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// How a guest asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MmdsVersion {
    /// By a plain request. Clients are told that it is deprecated.
    #[default]
    V1,
    /// With the token of a session, which it asks for first.
    V2,
}

/// The `mmds-config` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MmdsConfig {
    /// How the guest asks.
    #[serde(default, deserialize_with = "null_as_default")]
    pub version: MmdsVersion,
    /// The `iface_id`s of the cards that reach the service.
    pub network_interfaces: Vec<String>,
    /// Where the service is: [`DEFAULT_MMDS_ADDRESS`] if absent.
    #[serde(default)]
    pub ipv4_address: Option<Ipv4Addr>,
    /// Answers are text whatever form the guest asks for, as Amazon's own service does.
    #[serde(default, deserialize_with = "null_as_default")]
    pub imds_compat: bool,
}

/// Why a section cannot be used, in the words that compatible clients know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MmdsConfigError {
    /// Outside 169.254.1.0 to 169.254.254.255.
    #[error("The MMDS IPv4 address is not link local.")]
    Address,
    /// No card would reach the service.
    #[error("The list of network interface IDs that allow forwarding MMDS requests is empty.")]
    NoInterfaces,
    /// No such card.
    #[error(
        "The list of network interface IDs provided contains at least one ID that does not \
         correspond to any existing network interface."
    )]
    UnknownInterface,
}

impl MmdsConfigError {
    /// The key it is about.
    fn key(self) -> &'static str {
        match self {
            Self::Address => "ipv4_address",
            Self::NoInterfaces | Self::UnknownInterface => "network_interfaces",
        }
    }
}

/// RFC 3927, section 2.1: the first and the last 256 addresses are reserved.
fn is_link_local(address: Ipv4Addr) -> bool {
    matches!(address.octets(), [169, 254, 1..=254, _])
}

impl MmdsConfig {
    /// Where the service is.
    pub fn address(&self) -> Ipv4Addr {
        self.ipv4_address.unwrap_or(DEFAULT_MMDS_ADDRESS)
    }

    /// Everything wrong, in the order in which clients are told; `ids` are those of all cards.
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

    /// Checks the section as the API does; `ids` are the `iface_id`s of all cards.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self, ids: &[&str]) -> Result<(), MmdsConfigError> {
        self.errors(ids).next().map_or(Ok(()), Err)
    }

    /// Checks the section of a configuration file; `ids` are the `iface_id`s of all cards.
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
