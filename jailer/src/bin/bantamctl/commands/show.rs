//! `bantamctl show`.

use crate::commands::common::{need_root, print_json};
use crate::commands::state;
use crate::guests::guest::Guest;
use crate::guests::{definitions, options};
use crate::units;
use clap::Args;
use jailer::error::Error;
use serde_json::Value;

/// Show a guest's state and definition as JSON
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  bantamctl show web1")]
pub struct Show {
    /// Name of the guest
    name: String,
}

impl Show {
    pub fn run(self) -> Result<(), Error> {
        need_root()?;
        let guest = Guest::load(&self.name)?;
        let Value::Object(mut shown) = state::of(&guest)? else {
            return Ok(());
        };
        let config = serde_json::to_value(&guest.config)
            .map_err(|e| Error::step("show the definition")(std::io::Error::from(e)))?;
        let jail = guest.directory().join("root");
        for (key, value) in [
            (
                "definition",
                definitions::find(&guest.name).display().to_string().into(),
            ),
            ("jail", jail.display().to_string().into()),
            ("messages", messages(&guest)),
            ("config", config),
        ] {
            shown.insert(key.into(), value);
        }
        print_json(&shown)
    }
}

/// Returns where the monitor's messages are.
fn messages(guest: &Guest) -> Value {
    match units::systemctl::is_running() && guest.copy_of().is_none() {
        true => units::guest::journal_command(&guest.name).into(),
        false => options::messages(&guest.name).display().to_string().into(),
    }
}
