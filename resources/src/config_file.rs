//! The configuration file: reading, parsing, checking.

use crate::check::error::{ConfigError, MAX_CONFIG_BYTES, parse_error};
use crate::check::files::read_bounded;
use crate::check::null::null_as_default;
use crate::check::problem::Problem;
use crate::sections::drive::check_drives;
use crate::sections::network::check_interfaces;
use crate::sections::pmem::check_pmem;
use crate::sections::*;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

macro_rules! vm_config {
    ($(
        $(#[$attribute:meta])*
        $field:ident: $type:ty = $key:literal { $($_:tt)* }
    )*) => {
        /// The configuration of a guest, made from the table [`sections!`](crate::sections).
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct VmConfig {
            $($(#[$attribute])* #[serde(rename = $key)] pub $field: $type,)*
        }

        /// Keys of the known sections. Any other key is ignored, with a warning.
        const SECTIONS: &[&str] = &[$($key),*];
    };
}
sections!([vm_config]);

/// A configuration that was read and checked.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The guest.
    pub config: VmConfig,
    /// Warnings about ignored keys, a line each, with the file and the key.
    pub warnings: Vec<String>,
}

impl VmConfig {
    /// Reads and checks `path`.
    ///
    /// # Errors
    /// Every text of [`ConfigError`] names `path` and, where there is one, the key.
    pub fn from_file(path: &Path) -> Result<Loaded, ConfigError> {
        let (config, problems, warnings) = Self::read_from_file(path)?;
        checked(path, config, problems, warnings)
    }

    /// Reads `path`. Returns the configuration, the problems of its values, and warnings about ignored keys.
    ///
    /// # Errors
    /// [`ConfigError`]: the file cannot be read or parsed.
    pub fn read_from_file(path: &Path) -> Result<(Self, Vec<Problem>, Vec<String>), ConfigError> {
        let text = read_bounded(path, MAX_CONFIG_BYTES).map_err(|source| match source.kind() {
            io::ErrorKind::FileTooLarge => ConfigError::TooLarge { path: path.into() },
            _ => ConfigError::Read {
                path: path.into(),
                source,
            },
        })?;
        Self::parse(path, &text)
    }

    /// Parses and checks `text`. Errors and warnings name `path`.
    ///
    /// # Errors
    /// As [`Self::from_file`].
    pub fn from_json(path: &Path, text: &[u8]) -> Result<Loaded, ConfigError> {
        let (config, problems, warnings) = Self::parse(path, text)?;
        checked(path, config, problems, warnings)
    }

    fn parse(path: &Path, text: &[u8]) -> Result<(Self, Vec<Problem>, Vec<String>), ConfigError> {
        let mut json = serde_json::Deserializer::from_slice(text);
        let config: Self = serde_path_to_error::deserialize(&mut json)
            .map_err(|e| parse_error(path, e.path().to_string(), e.inner()))?;
        json.end().map_err(|e| parse_error(path, ".".into(), &e))?;

        let mut warnings = Vec::new();
        // The text parsed above, so it also parses as a map of any values.
        let keys: BTreeMap<String, Option<IgnoredAny>> =
            serde_json::from_slice(text).unwrap_or_default();
        for (key, value) in keys {
            // Clients write null for a section they do not use.
            if value.is_some() && !SECTIONS.contains(&key.as_str()) {
                warnings.push(format!(
                    "{}: {key}: unknown section, ignored",
                    path.display()
                ));
            }
        }
        let problems = config.problems();
        Ok((config, problems, warnings))
    }

    /// Returns all problems of the values that can be found without the host.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.boot_source.check(&self.drives, &mut problems);
        if let Some(host) = &self.host {
            host.check(&mut problems);
        }
        self.machine_config.check(&mut problems);
        check_drives(&self.drives, &mut problems);
        check_interfaces(&self.network_interfaces, &mut problems);
        check_pmem(&self.pmem, &mut problems);
        if let Some(mmds) = &self.mmds_config {
            let ids = self.network_interfaces.iter();
            let ids: Vec<&str> = ids.map(|interface| interface.iface_id.as_str()).collect();
            mmds.check(&ids, &mut problems);
        }
        if let Some(vsock) = &self.vsock {
            vsock.check(&mut problems);
        }
        let machine = &self.machine_config;
        if let Some(balloon) = &self.balloon
            && !machine.holds_balloon(balloon.amount_mib)
        {
            problems.push(Problem::new(
                "balloon.amount_mib",
                "is more than the guest has (machine-config.mem_size_mib)",
            ));
        }
        if let Some(Err(e)) = self.memory_hotplug.as_ref().map(MemoryHotplug::validate) {
            problems.push(Problem::new("memory-hotplug", e));
        }
        problems.extend(self.unserved());
        problems
    }

    /// Returns a problem for each key that only the jailer can apply.
    pub fn jailers(&self) -> Vec<Problem> {
        let mut keys = Vec::new();
        keys.extend(self.host.is_some().then(|| "host".to_owned()));
        let image = self.boot_source.image_drive.is_some();
        keys.extend(image.then(|| "boot-source.image_drive".to_owned()));
        for (i, interface) in self.network_interfaces.iter().enumerate() {
            let host = interface.host.is_some();
            keys.extend(host.then(|| format!("network-interfaces[{i}].host")));
        }
        let message =
            "is the jailer's work: start the guest with `jailer --config-file`, or remove it";
        let problems = keys.into_iter().map(|key| Problem::new(key, message));
        problems.collect()
    }

    /// Returns a problem for each section that this version parses and checks, but does not support. A guest without it
    /// would not be the machine that the file describes.
    pub fn unserved(&self) -> Vec<Problem> {
        let template = self.machine_config.cpu_template;
        let cpu_config = match &self.cpu_config {
            Some(CpuConfigOrPath::Inline(config)) => !config.is_empty(),
            Some(CpuConfigOrPath::Path(_)) => true,
            None => false,
        };
        let sections = [
            (!self.pmem.is_empty(), "pmem"),
            (self.memory_hotplug.is_some(), "memory-hotplug"),
            (cpu_config, "cpu-config"),
            (
                template.is_some_and(|t| t != CpuTemplate::None),
                "machine-config.cpu_template",
            ),
        ];
        let unserved = sections.into_iter().filter(|(there, _)| *there);
        unserved
            .map(|(_, key)| Problem::new(key, "is not supported by this version: remove it"))
            .collect()
    }
}

fn checked(
    path: &Path,
    config: VmConfig,
    problems: Vec<Problem>,
    warnings: Vec<String>,
) -> Result<Loaded, ConfigError> {
    match problems.is_empty() {
        true => Ok(Loaded { config, warnings }),
        false => Err(ConfigError::Invalid {
            path: path.into(),
            problems,
        }),
    }
}

#[cfg(test)]
#[path = "config_file_test.rs"]
mod config_file_test;
