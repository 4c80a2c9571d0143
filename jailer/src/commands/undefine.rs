//! `jailer undefine`: forgets a guest.

use super::volume;
use crate::clean;
use crate::error::Error;
use crate::guests::{Guest, definitions, options, service};
use argh::FromArgs;
use resources::Problem;

/// Forget a guest that does not run. Its disks stay, unless --remove-all-storage.
#[derive(Debug, FromArgs)]
#[argh(
    subcommand,
    name = "undefine",
    example = "jailer undefine web1\njailer undefine web1 --remove-all-storage"
)]
pub struct Undefine {
    /// name of the guest
    #[argh(positional)]
    name: String,
    /// delete its volumes in pools too; files outside of pools stay
    #[argh(switch)]
    remove_all_storage: bool,
}

impl Undefine {
    /// Does it.
    ///
    /// # Errors
    /// [`Error`]: it runs, or what the host says.
    pub fn run(self) -> Result<(), Error> {
        super::need_root()?;
        let held = definitions::Held::new()?;
        let guest = Guest::load(&self.name)?;
        let name = &guest.name;
        if let Some(of) = guest.copy_of() {
            let message = format!("is a copy of {of}: `jailer destroy {name}` ends it for good");
            return Err(Error::Problems(vec![Problem::new(name, message)]));
        }
        if guest.is_running() {
            let message = format!("runs: `jailer stop {name}` or `jailer destroy {name}` first");
            return Err(Error::Problems(vec![Problem::new(name, message)]));
        }
        let (base, exec_name) = options::place(&guest.config);
        clean::clean(base, &exec_name, name)?;
        if self.remove_all_storage {
            for drive in &guest.config.drives {
                if let (Some(pool), Some(name)) = (&drive.pool, &drive.path_on_host) {
                    super::change(|undo| volume::delete(pool, &name.to_string_lossy(), undo))?;
                }
            }
        }
        service::disable(name)?;
        held.remove(name)
    }
}
