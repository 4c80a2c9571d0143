//! Pools of type `logical`: a volume is a logical volume of an LVM volume group.

use crate::error::Error;
use crate::storage::pools::backend::{Backend, Usage, VolumeInfo, volume_clash};
use crate::storage::pools::device::{self, open_device};
use crate::storage::volume::VolumeRequest;
use crate::sys::dir::Owner;
use crate::sys::tool::Tool;
use crate::undo::Undo;
use nix::fcntl::OFlag;
use resources::{PoolDefinition, Problem};
use serde_json::Value;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Debian's package with lvm.
const PACKAGE: &str = "lvm2";

/// A volume group.
#[derive(Clone, Debug)]
pub struct Logical {
    group: String,
}

impl Logical {
    /// Returns the volume group that `definition` defines.
    pub fn new(definition: &PoolDefinition) -> Self {
        let group = definition.source_name.as_ref();
        Self {
            group: group.unwrap_or(&definition.name).clone(),
        }
    }

    /// Runs one of lvm's reports; returns its rows.
    fn report(&self, tool: &'static str, rows: &str, fields: &str) -> Result<Vec<Value>, Error> {
        let args = ["--reportformat", "json", "--units", "b", "--nosuffix", "-o"];
        let tool = Tool::new(tool, PACKAGE)?.args(args);
        let text = tool.args([fields, &self.group]).run_to_end()?;
        let failed = Error::step("read the report of lvm");
        let report: Value = serde_json::from_str(&text).map_err(|e| failed(io::Error::other(e)))?;
        let found = report.pointer("/report/0").and_then(|r| r.get(rows));
        Ok(found.and_then(Value::as_array).cloned().unwrap_or_default())
    }

    fn change(&self, tool: &'static str, args: &[&str], undo: &mut Undo) -> Result<(), Error> {
        let tool = Tool::new(tool, PACKAGE)?.args(args);
        tool.run(undo)?;
        // lvm relies on udev for the device nodes, even if udev does not run.
        if !Path::new("/run/udev/control").exists() {
            let tool = Tool::new("vgmknodes", PACKAGE)?.args(["-q", &self.group]);
            tool.run(undo)?;
        }
        Ok(())
    }
}

fn number(row: &Value, field: &str) -> u64 {
    let text = row.get(field).and_then(Value::as_str);
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl Backend for Logical {
    /// Returns `true`: [`Self::usage`] reports a missing group.
    fn is_there(&self) -> bool {
        true
    }

    fn start(&self, build: bool, undo: &mut Undo) -> Result<(), Error> {
        let group = &self.group;
        let found = Tool::new("vgs", PACKAGE)?.args([group]).run(undo);
        if let Err(Error::Step { source, .. }) = found {
            let message = format!(
                "there is no volume group `{group}` ({source}): `vgcreate {group} DEVICE` makes one{}",
                if build { "; --build does not" } else { "" }
            );
            return Err(Error::Problems(vec![Problem::new("source_name", message)]));
        }
        found?;
        self.change("vgchange", &["-q", "-ay", group], undo)
    }

    fn stop(&self) -> Result<(), Error> {
        let mut undo = Undo::uninterrupted();
        self.change("vgchange", &["-q", "-an", &self.group], &mut undo)
    }

    fn usage(&self) -> Result<Usage, Error> {
        let rows = self.report("vgs", "vg", "vg_size,vg_free")?;
        let row = rows.first().cloned().unwrap_or_default();
        let (capacity, available) = (number(&row, "vg_size"), number(&row, "vg_free"));
        Ok(Usage {
            capacity,
            allocation: capacity.saturating_sub(available),
            available,
        })
    }

    fn volumes(&self) -> Result<Vec<VolumeInfo>, Error> {
        let rows = self.report("lvs", "lv", "lv_name,lv_size,lv_attr")?;
        let volumes = rows.iter().filter_map(|row| {
            let name = row.get("lv_name").and_then(Value::as_str)?;
            let attributes = row.get("lv_attr").and_then(Value::as_str)?;
            // A thin pool is not a volume.
            if attributes.starts_with('t') {
                return None;
            }
            let size = number(row, "lv_size");
            Some(VolumeInfo {
                name: name.into(),
                path: Path::new("/dev").join(&self.group).join(name),
                capacity: size,
                allocation: size,
            })
        });
        Ok(volumes.collect())
    }

    /// lvm(8), "Valid names"; lvcreate refuses reserved names.
    fn check_name(&self, name: &str) -> Result<(), String> {
        device::check_name(name, 127, "logical volume")
    }

    fn path(&self, name: &str) -> io::Result<PathBuf> {
        Ok(Path::new("/dev").join(&self.group).join(name))
    }

    fn open(&self, name: &str, flags: OFlag) -> io::Result<OwnedFd> {
        open_device(&self.path(name)?, flags)
    }

    fn create(
        &self,
        name: &str,
        request: VolumeRequest,
        _: Owner,
        undo: &mut Undo,
    ) -> Result<(), Error> {
        if self.volumes()?.iter().any(|volume| volume.name == name) {
            return Err(volume_clash(name));
        }
        let size = format!("{}b", request.size);
        // All of it is zeroed below.
        let flags = ["-q", "-y", "-Wn", "-Zn", "-n", name, "-L", &size];
        let args: Vec<&str> = flags.into_iter().chain([self.group.as_str()]).collect();
        let full_name = format!("{}/{name}", self.group);
        // Uninterrupted, so that it is known whether the volume was made.
        self.change("lvcreate", &args, &mut Undo::uninterrupted())?;
        let (group, again) = (self.clone(), full_name.clone());
        undo.made(format!("the logical volume {full_name}"), move || {
            let (args, mut undo) = (["-q", "-y", "-f", &again], Undo::uninterrupted());
            let removed = group.change("lvremove", &args, &mut undo);
            removed.map_err(|e| io::Error::other(crate::error::chain(&e)))
        })?;
        let file = self.open(name, OFlag::O_RDWR);
        let file = file.map_err(Error::step(format!("open the new volume {full_name}")))?;
        device::fill(&file.into(), &request, undo)
    }

    fn delete(&self, name: &str, file: File, undo: &mut Undo) -> Result<(), Error> {
        // lvm refuses to remove an open volume.
        drop(file);
        let full_name = format!("{}/{name}", self.group);
        self.change("lvremove", &["-q", "-y", "-f", &full_name], undo)
    }

    fn resize(&self, name: &str, file: &File, size: u64, undo: &mut Undo) -> Result<(), Error> {
        let former = device::size(file)?;
        let (full_name, text) = (format!("{}/{name}", self.group), format!("{size}b"));
        let args = ["-q", "-y", "-f", "-L", &text, &full_name];
        match self.change("lvresize", &args, undo) {
            // "matches existing size": rounded to extents, it has that size.
            Err(Error::Step { source, .. }) if source.to_string().contains("matches existing") => {}
            other => other?,
        }
        device::zero_beyond(file, former, undo)
    }
}
