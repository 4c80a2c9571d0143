//! The kernel command line: checked, and with parameters appended where they belong.
//!
//! [`crate::load`] checks the line it is given against the kernel's own limit. The monitor uses [`CommandLine`] to
//! add parameters to what the user wrote: they must go before ` -- `, after which everything is init's.
//!
//! # `virtio_mmio.device=`
//!
//! Devices are described in ACPI, and [`crate::load`] adds nothing to the line. A kernel without ACPI needs one
//! parameter per window ([`CommandLine::append_virtio_mmio`]). It must not be given to every kernel: one built with
//! both ACPI and `CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES` makes two platform devices of each window, of which one fails
//! with EBUSY and an error on the console (the compatible monitor gives it to every kernel, and documents the errors
//! as a caveat); and since the number is taken as a Linux interrupt number, not as an I/O APIC pin, the twin would
//! not work under hardware-reduced ACPI anyway. So: only when [`CommandLine::disables_acpi`]. A kernel that was built
//! without ACPI does not know `acpi=off`, and passes over it: whoever boots one adds it.

use thiserror::Error;

use crate::layout::{self, VirtioMmioWindow};

/// Bytes a kernel that does not say otherwise takes, including the NUL: `COMMAND_LINE_SIZE` of x86 Linux.
pub const DEFAULT_CAPACITY: usize = 2048;

/// Bytes there is room for in guest memory, including the NUL, whatever the kernel says.
pub const MAX_CAPACITY: usize = 0x1_0000;
const _: () = assert!(MAX_CAPACITY as u64 == layout::CMDLINE_ROOM);

/// Why a command line cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CmdlineError {
    /// Longer than the kernel takes.
    #[error("it has {len} bytes, but the kernel takes at most {max}: shorten it")]
    TooLong {
        /// Bytes of the line, without NUL.
        len: usize,
        /// Bytes the kernel takes, without NUL.
        max: usize,
    },
    /// A byte the kernel would not take as written.
    #[error("byte {position} is {character:?}: only printable ASCII is allowed, on one line")]
    InvalidCharacter {
        /// Byte offset in the line.
        position: usize,
        /// The character there.
        character: char,
    },
}

/// A checked command line that parameters can be appended to.
///
/// linux-loader's builder is not used: it rewrites what the user wrote, and cannot put a line together that is
/// nothing but init's arguments.
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
    /// When it is too long or has a character that is not printable ASCII.
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
    /// When there is no room, or `parameters` are not printable ASCII.
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

    /// Appends `virtio_mmio.device=` for `window`. See the module's text for when.
    ///
    /// # Errors
    ///
    /// When there is no room.
    pub fn append_virtio_mmio(&mut self, window: &VirtioMmioWindow) -> Result<(), CmdlineError> {
        let VirtioMmioWindow { base, len, gsi } = window;
        let size = if len.is_multiple_of(1024) {
            format!("{}K", len / 1024)
        } else {
            len.to_string()
        };
        self.append(&format!("virtio_mmio.device={size}@{base:#x}:{gsi}"))
    }

    /// Whether the user switched ACPI off, so that devices must be named on the line.
    #[must_use]
    pub fn disables_acpi(&self) -> bool {
        words(self.parameters()).any(|(_, word)| matches!(word, "acpi=off" | "acpi=ht"))
    }

    /// Whether a parameter (`pci=off`, or all with a name: `console=`) was given by the user.
    #[must_use]
    pub fn has(&self, parameter: &str) -> bool {
        words(self.parameters()).any(|(_, word)| {
            word == parameter || parameter.ends_with('=') && word.starts_with(parameter)
        })
    }

    /// The line.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.line
    }

    fn parameters(&self) -> &str {
        self.line.get(..self.parameters_end).unwrap_or_default()
    }
}

/// Where `--` stands as a word of its own, or the end of the line.
fn init_args_start(line: &str) -> usize {
    words(line)
        .find(|&(_, word)| word == "--")
        .map_or(line.len(), |(start, _)| start)
}

/// The words of a line and where they start. As in the kernel, a double quote keeps spaces inside a word.
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
