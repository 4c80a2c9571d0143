//! `bantamctl run`: this process becomes the guest's monitor.

use crate::commands::common::need_root;
use crate::guests::guest::Guest;
use crate::guests::options;
use clap::Args;
use jailer::error::Error;
use jailer::jail::options::Process;
use jailer::jail::{Started, start};
use std::fs::File;
use std::time::{Duration, Instant};

/// Time limit for the kernel modules of a booting host. It is a small part of a start's time limit.
const MODULES: Duration = Duration::from_secs(20);
/// Time between two attempts to open the device.
const INTERVAL: Duration = Duration::from_millis(5);
/// The device that these modules make.
const KVM: &str = "/dev/kvm";

/// Run a guest in this process, as bantam@NAME.service does
#[derive(Debug, Args)]
#[command(
    after_help = "This process becomes the guest's monitor: its process id stays the same, and it ends with the\n\
                  guest. `bantamctl start` is the command for daily use.\n\n\
                  Examples:\n  bantamctl run web1\n  bantamctl run --detach web1"
)]
pub struct Run {
    /// Name of the guest
    name: String,
    /// Leave the terminal, and exit when the monitor runs
    #[arg(long)]
    detach: bool,
    /// Standard input is the read end of `bantamctl fork`'s pipe: exit when it closes
    #[arg(long, hide = true)]
    lifeline: bool,
}

impl Run {
    pub fn run(self) -> Result<(), Error> {
        need_root()?;
        let guest = Guest::load(&self.name)?;
        if !self.detach {
            wait_for_kvm();
        }
        let process = Process {
            daemonize: self.detach,
            lifeline: self.lifeline,
            ..Process::default()
        };
        let Err(error) = start::start(options::of(&guest, process)?, Started::now());
        Err(error)
    }
}

/// Waits for /dev/kvm: while a host boots, its guests may start before udev has loaded the modules. The start itself
/// reports a device that stays missing.
fn wait_for_kvm() {
    let started = Instant::now();
    let opened = || File::options().read(true).write(true).open(KVM).is_ok();
    while !opened() && started.elapsed() < MODULES {
        std::thread::sleep(INTERVAL);
    }
}
