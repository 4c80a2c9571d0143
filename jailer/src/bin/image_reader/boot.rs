//! The files and the command line that a boot loader would load.

/// A kernel with its command line and its initrd.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Boot {
    /// The kernel.
    pub kernel: String,
    /// The command line's words.
    pub arguments: Vec<String>,
    /// Files that make up the initrd.
    pub initrds: Vec<String>,
}
