//! `jailer list` and `jailer show`: the guests that are defined.

use super::table::Table;
use crate::error::Error;
use crate::guests::{Guest, copies, definitions, options, service};
use argh::FromArgs;
use serde_json::{Value, json};

/// List the guests, those that run and those that do not.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "list", example = "jailer list\njailer list --json")]
pub struct List {
    /// print JSON
    #[argh(switch)]
    json: bool,
}

impl List {
    /// Does it.
    ///
    /// # Errors
    /// [`Error`].
    pub fn run(self) -> Result<(), Error> {
        super::need_root()?;
        let mut all = Vec::new();
        let mut names = definitions::names()?;
        names.extend(copies::names()?);
        for name in names {
            match Guest::load(&name) {
                Ok(guest) => all.push(state(&guest)?),
                Err(e) => all.push(
                    json!({"name": name, "state": "broken", "error": crate::error::chain(&e)}),
                ),
            }
        }
        if self.json {
            return super::print_json(&all);
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

/// Show a guest: its state, and its definition.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "show", example = "jailer show web1")]
pub struct Show {
    /// name of the guest
    #[argh(positional)]
    name: String,
}

impl Show {
    /// Does it.
    ///
    /// # Errors
    /// [`Error`].
    pub fn run(self) -> Result<(), Error> {
        super::need_root()?;
        let guest = Guest::load(&self.name)?;
        let Value::Object(mut shown) = state(&guest)? else {
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
        super::print_json(&shown)
    }
}

/// Where its messages are.
fn messages(guest: &Guest) -> Value {
    match service::is_here() && guest.copy_of().is_none() {
        true => format!("journalctl -u {}", service::unit(&guest.name)).into(),
        false => options::messages(&guest.name).display().to_string().into(),
    }
}

fn state(guest: &Guest) -> Result<Value, Error> {
    let running = guest.is_running();
    Ok(json!({
        "name": guest.name,
        "state": if running { "running" } else { "stopped" },
        "pid": guest.process()?,
        "vcpus": guest.config.machine_config.vcpu_count,
        "memory_mib": guest.config.machine_config.mem_size_mib,
        "autostart": service::is_enabled(&guest.name),
        "copy_of": guest.copy_of(),
    }))
}
