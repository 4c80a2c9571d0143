//! The frames that the reader writes to its pipe: a mark, a length and as many bytes, in a fixed order. The receiver
//! trusts nothing: it checks lengths, order and sums.

use std::io::{self, Write};

/// Longest command line in an image, in bytes: x86-64 kernels take 2 KiB (COMMAND_LINE_SIZE).
pub const MAX_COMMAND_LINE: usize = 2048;
/// Largest kernel, in bytes.
pub const MAX_KERNEL: u64 = 256 << 20;
/// Largest initrd, in bytes.
pub const MAX_INITRD: u64 = 1 << 30;
/// Exit status of a reader that read nothing, because it could not be confined.
pub const CANNOT_CONFINE: i32 = 2;
/// The likely reason for a crash of the reader.
pub const DAMAGED: &str = "it is damaged, or made to do harm";
/// Longest frame, in bytes.
pub const MAX_FRAME: usize = 1 << 18;
/// Longest message, in bytes.
const MAX_MESSAGE: usize = 8 << 10;

/// The type of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// The command line; the first frame, and the only one of its type.
    CommandLine,
    /// A part of the kernel.
    Kernel,
    /// A part of the initrd.
    Initrd,
    /// The end of a complete answer.
    End,
    /// The reason for an incomplete answer.
    Error,
}

impl Mark {
    fn byte(self) -> u8 {
        match self {
            Self::CommandLine => b'C',
            Self::Kernel => b'K',
            Self::Initrd => b'I',
            Self::End => b'Z',
            Self::Error => b'E',
        }
    }
}

/// Length of a frame's header, in bytes.
pub const HEADER: usize = 5;

/// Writes `bytes` as one or more frames.
pub fn write(to: &mut impl Write, mark: Mark, bytes: &[u8]) -> io::Result<()> {
    let bytes = match mark {
        Mark::Error => bytes.get(..MAX_MESSAGE).unwrap_or(bytes),
        _ => bytes,
    };
    let pieces = bytes.chunks(MAX_FRAME);
    let empty: Option<&[u8]> = bytes.is_empty().then_some(&[]);
    for piece in pieces.chain(empty) {
        let len = u32::try_from(piece.len()).map_err(io::Error::other)?;
        let [a, b, c, d] = len.to_le_bytes();
        to.write_all(&[mark.byte(), a, b, c, d])?;
        to.write_all(piece)?;
    }
    Ok(())
}

/// The order and the sums of the frames so far.
#[derive(Debug, Default)]
pub struct Order {
    last: Option<Mark>,
    kernel: u64,
    initrd: u64,
}

impl Order {
    /// Reads a header; returns the type and the length of its frame.
    ///
    /// # Errors
    /// A message, if no frame of that type or length may come here.
    pub fn next(&mut self, header: [u8; HEADER]) -> Result<(Mark, usize), &'static str> {
        let [byte, len @ ..] = header;
        let len = u32::from_le_bytes(len);
        let known = [
            Mark::CommandLine,
            Mark::Kernel,
            Mark::Initrd,
            Mark::End,
            Mark::Error,
        ];
        let mark = known.into_iter().find(|mark| mark.byte() == byte);
        let mark = mark.ok_or("its reader sent an unknown frame")?;
        let expected = match (mark, self.last) {
            (Mark::Error, _) | (Mark::CommandLine, None) => true,
            (_, None) => false,
            (Mark::End, _) => self.kernel > 0,
            (Mark::Kernel | Mark::Initrd, Some(last)) => mark >= last,
            (Mark::CommandLine, Some(_)) => false,
        };
        if !expected || (mark == Mark::Initrd && self.kernel == 0) {
            return Err("its reader sent frames in a wrong order");
        }
        self.last = Some(mark);
        let bytes = u64::from(len);
        let fits = match mark {
            Mark::CommandLine => bytes <= MAX_COMMAND_LINE as u64,
            Mark::Kernel => add(&mut self.kernel, bytes) <= MAX_KERNEL,
            Mark::Initrd => add(&mut self.initrd, bytes) <= MAX_INITRD,
            Mark::End => len == 0,
            Mark::Error => bytes <= MAX_MESSAGE as u64,
        };
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        match fits && len <= MAX_FRAME {
            true => Ok((mark, len)),
            false => Err("its reader sent too many bytes"),
        }
    }
}

fn add(sum: &mut u64, more: u64) -> u64 {
    *sum = sum.saturating_add(more);
    *sum
}

#[cfg(test)]
#[path = "frames_test.rs"]
mod frames_test;
