//! A problem of a configuration value, with its key and its remedy.

use std::fmt;

/// A key whose value cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the key, e.g. `drives[1].path_on_host`.
    pub key: String,
    /// The problem and its remedy.
    pub message: String,
}

impl Problem {
    /// Creates a problem of the value at `key`.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

/// Checks the id of a drive, an interface or a pmem device. It is part of an API path: letters, digits and `_`.
pub(crate) fn check_id(key: &str, id: &str, problems: &mut Vec<Problem>) {
    if id.is_empty() || !id.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        let message = format!("`{id}` is not an id: use letters, digits and `_`, at least one");
        problems.push(Problem::new(key, message));
    }
}

/// Reports every value that an earlier entry of the same list has.
pub(crate) fn check_unique<'a>(
    section: &str,
    field: &str,
    values: impl Iterator<Item = &'a str>,
    problems: &mut Vec<Problem>,
) {
    let mut seen = std::collections::BTreeMap::new();
    for (index, value) in values.enumerate() {
        if let Some(first) = seen.insert(value, index) {
            problems.push(Problem::new(
                format!("{section}[{index}].{field}"),
                format!("`{value}` is already used by {section}[{first}]"),
            ));
        }
    }
}
