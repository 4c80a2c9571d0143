//! The kernel command line: checks it and appends parameters.
//!
//! [`crate::load`] checks the line against the kernel's limit. The monitor uses [`CommandLine`] to add parameters to the
//! user's line. They must precede ` -- `, because everything after it belongs to init.
//!
//! # `virtio_mmio.device=`
//!
//! ACPI describes the devices, and [`crate::load`] adds nothing to the line. A kernel without ACPI needs one parameter
//! per window ([`CommandLine::append_virtio_mmio`]). A kernel with ACPI must not get it: with
//! `CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES` it would create two platform devices per window, one of which fails with EBUSY and
//! an error on the console. (Firecracker passes the parameter to every kernel and documents the errors.) The second device
//! could not work anyway: its number is a Linux interrupt number, not an I/O APIC pin. So the parameter is added only if
//! [`CommandLine::disables_acpi`]. A kernel built without ACPI ignores `acpi=off`; its user adds it.

use thiserror::Error;

use crate::layout::{self, VirtioMmioWindow};

/// Largest command line of a kernel that declares no limit, in bytes with NUL: `COMMAND_LINE_SIZE` of x86 Linux.
pub const DEFAULT_CAPACITY: usize = 2048;

/// Room for the command line in guest memory, in bytes with NUL.
pub const MAX_CAPACITY: usize = 0x1_0000;
const _: () = assert!(MAX_CAPACITY as u64 == layout::CMDLINE_ROOM);

/// The reason why a command line cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CmdlineError {
    /// The line exceeds the kernel's limit.
    #[error("it has {len} bytes, but the kernel takes at most {max}: shorten it")]
    TooLong {
        /// Bytes of the line without NUL.
        len: usize,
        /// The kernel's limit without NUL.
        max: usize,
    },
    /// The line has a character other than printable ASCII.
    #[error("byte {position} is {character:?}: only printable ASCII is allowed, on one line")]
    InvalidCharacter {
        /// Byte offset in the line.
        position: usize,
        /// The character.
        character: char,
    },
}

/// A checked command line.
///
/// linux-loader's builder is not used: it rewrites the user's text, and it cannot represent a line that consists of
/// init's arguments only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    line: String,
    /// Byte offset where init's arguments begin with `--`, or the end of the line.
    parameters_end: usize,
    capacity: usize,
}

impl CommandLine {
    /// Checks `line` against the common limit of x86 Linux.
    ///
    /// # Errors
    ///
    /// The line is too long, or has a character other than printable ASCII.
    pub fn new(line: &str) -> Result<Self, CmdlineError> {
        Self::with_capacity(line, DEFAULT_CAPACITY)
    }

    /// Checks `line` against `capacity` bytes, including the NUL.
    ///
    /// # Errors
    ///
    /// As [`CommandLine::new`].
    pub fn with_capacity(line: &str, capacity: usize) -> Result<Self, CmdlineError> {
        if let Some((position, character)) =
            line.char_indices().find(|&(_, c)| !matches!(c, ' '..='~'))
        {
            return Err(CmdlineError::InvalidCharacter {
                position,
                character,
            });
        }
        let max = capacity.saturating_sub(1);
        if line.len() > max {
            return Err(CmdlineError::TooLong {
                len: line.len(),
                max,
            });
        }
        Ok(Self {
            line: line.to_owned(),
            parameters_end: init_args_start(line),
            capacity,
        })
    }

    /// Appends kernel parameters, before init's arguments if there are any.
    ///
    /// # Errors
    ///
    /// The line would become too long, or `parameters` are not printable ASCII.
    pub fn append(&mut self, parameters: &str) -> Result<(), CmdlineError> {
        let (before, after) = self
            .line
            .split_at_checked(self.parameters_end)
            .unwrap_or((&self.line, ""));
        let mut line = before.trim_end().to_owned();
        for part in [parameters, after] {
            if !line.is_empty() && !part.is_empty() {
                line.push(' ');
            }
            line.push_str(part);
        }
        *self = Self::with_capacity(&line, self.capacity)?;
        Ok(())
    }

    /// Appends `virtio_mmio.device=` for `window`. The module documentation says when.
    ///
    /// # Errors
    ///
    /// The line would become too long.
    pub fn append_virtio_mmio(&mut self, window: &VirtioMmioWindow) -> Result<(), CmdlineError> {
        let VirtioMmioWindow { base, len, gsi } = window;
        let size = if len.is_multiple_of(1024) {
            format!("{}K", len / 1024)
        } else {
            len.to_string()
        };
        self.append(&format!("virtio_mmio.device={size}@{base:#x}:{gsi}"))
    }

    /// Returns true if the user disabled ACPI, so that the line must name the devices.
    #[must_use]
    pub fn disables_acpi(&self) -> bool {
        words(self.parameters()).any(|(_, word)| matches!(word, "acpi=off" | "acpi=ht"))
    }

    /// Returns true if the line has `parameter`, e.g. `pci=off`, or any value of a name, e.g. `console=`.
    #[must_use]
    pub fn has(&self, parameter: &str) -> bool {
        words(self.parameters()).any(|(_, word)| {
            word == parameter || parameter.ends_with('=') && word.starts_with(parameter)
        })
    }

    /// Returns the line.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.line
    }

    fn parameters(&self) -> &str {
        self.line.get(..self.parameters_end).unwrap_or_default()
    }
}

/// Returns the offset of `--` as a separate word, or the end of the line.
fn init_args_start(line: &str) -> usize {
    words(line)
        .find(|&(_, word)| word == "--")
        .map_or(line.len(), |(start, _)| start)
}

/// Returns the words of a line with their offsets. As in the kernel, a double quote keeps spaces inside a word.
fn words(line: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut quoted = false;
    let mut start = 0;
    line.split(move |c: char| {
        quoted ^= c == '"';
        c == ' ' && !quoted
    })
    .map(move |word| {
        let at = start;
        start += word.len() + 1;
        (at, word)
    })
    .filter(|(_, word)| !word.is_empty())
}

#[cfg(test)]
#[path = "cmdline_test.rs"]
mod tests;
