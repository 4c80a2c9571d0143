//! `bantamctl clean`.

use crate::commands::common::need_root;
use crate::commands::fork;
use crate::guests::definitions;
use crate::guests::guest::check_name;
use clap::Args;
use jailer::error::Error;
use jailer::jail;
use jailer::jail::options::place;
use resources::VmConfig;

/// Remove what an ended guest left on the host
#[derive(Debug, Args)]
#[command(
    after_help = "Removes control groups, packet filter rules, the guest's bridge if it was created for guests and no\n\
                  guest uses it, and the jailer's files in the guest's jail. Logs and other files stay, and a\n\
                  running guest is not touched. Without NAME, removes the copies that an interrupted\n\
                  `bantamctl fork` has left.\n\n\
                  Examples:\n  bantamctl clean web1\n  bantamctl clean\n\n\
                  `jailer clean` does the same for a guest that was started by `jailer --id`."
)]
pub struct Clean {
    /// Name of the guest; without it, removes what an interrupted `bantamctl fork` left
    name: Option<String>,
}

impl Clean {
    pub fn run(self) -> Result<(), Error> {
        need_root()?;
        let Some(name) = self.name else {
            return fork::sweep(&definitions::Locked::new()?);
        };
        check_name(&name)?;
        // A definition that has gone or cannot be read names no other monitor.
        let config = VmConfig::read_from_file(&definitions::find(&name));
        let config = config.map_or_else(|_| VmConfig::default(), |(config, ..)| config);
        let (base, exec_name) = place(&config);
        jail::clean::clean(base, &exec_name, &name)
    }
}
