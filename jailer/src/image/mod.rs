//! Finds the kernel, the initrd and the command line in a guest's disk image, and copies them into its jail.
//! A start whose configuration names `boot-source.image_drive` calls it.
//! It parses no byte of the image: `bantam-image-reader` does, and its answers are bounded and checked.

mod extract;
pub mod frames;
mod program;
mod reader;

pub use extract::{Destination, Found, extract};
