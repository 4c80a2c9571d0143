//! Takes rights away from this process: namespaces, privileges, Landlock, seccomp and resource limits.
//! The start of a guest calls it last, and so do the sandboxes of programs that read untrusted images.
//! It creates nothing on the host and knows no guest.

pub(crate) mod landlock;
pub(crate) mod namespaces;
pub mod privileges;
pub(crate) mod sandbox;
pub(crate) mod terminal;
