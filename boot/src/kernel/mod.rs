//! The kernel, its initrd and its command line: checks the files and places them in guest memory.
//!
//! [`crate::load_with`] calls this room before the first vCPU runs. It sets up no register and describes no machine:
//! [`crate::x86_64`] and [`crate::acpi`] do.
//!
//! A bzImage is entered at its 64-bit entry point. A vmlinux is entered through PVH if it has the PVH note, else at its
//! ELF entry in long mode. The note is preferred because it is specified, and it is the same for Linux, FreeBSD and
//! unikernels. Only Linux has the convention that `e_entry` is a physical address and expects a zero page. Neither way costs
//! a VM exit.

mod bzimage;
pub mod cmdline;
mod elf;
mod file;
mod format;
mod image;
mod initrd;
mod placement;

pub use image::KernelError;
pub use initrd::InitrdError;
pub use placement::{FilePiece, Mapper};

pub(crate) use format::inspect;
pub(crate) use initrd::Initrd;
