//! `jailer clean`: removes what a guest that has ended left, or `jailer fork`s that were killed.

use super::fork;
use crate::clean;
use crate::cli::{DEFAULT_BASE, check_id, exec_name};
use crate::error::Error;
use crate::guests::definitions;
use argh::FromArgs;
use std::path::PathBuf;

/// Remove what a guest that has ended left on the host: control groups, packet filter rules, its bridge
/// if the jailer made it and no guest is on it, and what the jailer had put into its jail; without --id, that of
/// copies that `jailer fork` was killed over. Logs and files of others stay. A guest that runs is not touched. Nothing
/// left is no error.
#[derive(Debug, FromArgs)]
#[argh(
    subcommand,
    name = "clean",
    example = "jailer clean --id web1\njailer clean\njailer clean --id 551e7604 --exec-file /usr/bin/firecracker --chroot-base-dir /srv/jailer"
)]
pub struct Clean {
    /// name of the guest (copies that did not come to their guest)
    #[argh(option)]
    id: Option<String>,
    /// the VMM it was started with (bantam)
    #[argh(option, default = "\"bantam\".into()")]
    exec_file: PathBuf,
    /// directory of jails (/srv/jailer)
    #[argh(option, default = "DEFAULT_BASE.into()")]
    chroot_base_dir: PathBuf,
}

impl Clean {
    /// Does it.
    ///
    /// # Errors
    /// [`Error`], naming what cannot be removed.
    pub fn run(self) -> Result<(), Error> {
        let Some(id) = self.id else {
            super::need_root()?;
            return fork::sweep(&definitions::Held::new()?);
        };
        check_id(&id).map_err(Error::Arguments)?;
        let exec_name = exec_name(&self.exec_file).map_err(Error::Arguments)?;
        clean::clean(&self.chroot_base_dir, &exec_name, &id)
    }
}
