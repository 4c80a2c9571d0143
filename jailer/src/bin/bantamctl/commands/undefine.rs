//! `bantamctl undefine`.

use crate::commands::common::{change, need_root};
use crate::commands::volume;
use crate::guests::definitions;
use crate::guests::guest::Guest;
use crate::units;
use clap::Args;
use jailer::error::Error;
use jailer::jail;
use jailer::jail::options::place;

/// Delete the definition of a stopped guest
#[derive(Debug, Args)]
#[command(
    after_help = "Its disks stay unless --remove-all-storage is given.\n\n\
                  Examples:\n  bantamctl undefine web1\n  bantamctl undefine web1 --remove-all-storage"
)]
pub struct Undefine {
    /// Name of the guest
    name: String,
    /// Delete its volumes in pools, too; files outside pools stay
    #[arg(long)]
    remove_all_storage: bool,
}

impl Undefine {
    pub fn run(self) -> Result<(), Error> {
        need_root()?;
        let locked = definitions::Locked::new()?;
        let guest = Guest::load(&self.name)?;
        let name = &guest.name;
        if let Some(of) = guest.copy_of() {
            return Err(Error::Refused(format!(
                "guest {name} is a copy of {of}: `bantamctl destroy {name}` deletes it"
            )));
        }
        if guest.is_running() {
            return Err(Error::Refused(format!(
                "guest {name} is running: `bantamctl stop {name}` or `bantamctl destroy {name}` first"
            )));
        }
        let (base, exec_name) = place(&guest.config);
        jail::clean::clean(base, &exec_name, name)?;
        if self.remove_all_storage {
            for drive in &guest.config.drives {
                if let (Some(pool), Some(name)) = (&drive.pool, &drive.path_on_host) {
                    change(|undo| volume::delete(pool, &name.to_string_lossy(), undo))?;
                }
            }
        }
        units::guest::disable(name)?;
        locked.remove(name)
    }
}
