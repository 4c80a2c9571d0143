//! Names of the files and sockets in a guest's jail, `BASE/MONITOR/ID`.

/// Lock in the jail's directory, outside its root, held for as long as the guest runs.
pub const LOCK: &str = "jail.lock";
/// File beside [`LOCK`] with the process id of the monitor, where the guest cannot write.
pub const PROCESS: &str = "jail.pid";

/// The guest's configuration in the jail's root.
pub const CONFIG: &str = "vm.json";
/// The kernel in the jail's root.
pub const KERNEL: &str = "kernel";
/// The initrd in the jail's root.
pub const INITRD: &str = "initrd";
/// Directory of disk images in the jail's root; each has its drive's id as name.
pub const DRIVES: &str = "drives";

/// Directory of sockets in the jail's root.
pub const RUN: &str = "run";
/// Socket of the API in [`RUN`].
pub const API: &str = "firecracker.socket";
/// Socket of the serial console in [`RUN`].
pub const CONSOLE: &str = "console.socket";
/// Socket in [`RUN`] at which a monitor waits for a copy of another guest.
pub const FORK: &str = "fork.sock";

/// Names that the jailer itself uses in the jail's root.
pub const RESERVED: [&str; 6] = ["dev", DRIVES, INITRD, KERNEL, RUN, CONFIG];
