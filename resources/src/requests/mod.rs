//! Bodies of API requests that are not sections of the configuration: updates, actions, snapshots and forks.
//!
//! The monitor's API parses them. They have no meaning in a configuration file.

pub mod deprecated;
pub mod snapshot;
pub mod update;
