//! `bantamctl list`.

use crate::commands::common::{need_root, print_json};
use crate::commands::state;
use crate::guests::definitions;
use crate::guests::guest::Guest;
use crate::table::Table;
use clap::Args;
use jailer::error::{self, Error};
use jailer::jail::copies;
use serde_json::{Value, json};

/// List all guests, running or not
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bantamctl list\n  bantamctl list --json")]
pub struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl List {
    pub fn run(self) -> Result<(), Error> {
        need_root()?;
        let mut all = Vec::new();
        let mut names = definitions::names()?;
        names.extend(copies::names()?);
        for name in names {
            all.push(match Guest::load(&name) {
                Ok(guest) => state::of(&guest)?,
                Err(e) => json!({"name": name, "state": "broken", "error": error::chain(&e)}),
            });
        }
        if self.json {
            return print_json(&all);
        }
        let mut table = Table::new([
            "NAME",
            "STATE",
            "PID",
            "VCPUS",
            "MEMORY",
            "AUTOSTART",
            "COPY OF",
        ]);
        for guest in &all {
            let cell = |key: &str| match guest.get(key) {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Bool(yes)) => if *yes { "yes" } else { "no" }.into(),
                None | Some(Value::Null) => "-".into(),
                Some(other) => other.to_string(),
            };
            table.row(
                [
                    "name",
                    "state",
                    "pid",
                    "vcpus",
                    "memory_mib",
                    "autostart",
                    "copy_of",
                ]
                .map(cell),
            );
        }
        table.print();
        Ok(())
    }
}
