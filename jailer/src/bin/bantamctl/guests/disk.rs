//! The option `--disk`, in the words of virt-install.

use crate::guests::pairs::Pairs;
use crate::size::Size;
use resources::{CacheType, Drive};
use std::path::PathBuf;

const KEYS: &str = "pool, name, path, size, template, format, readonly, cache, discard";

/// Returns the drive number `index` of the guest `guest`, which `text` describes. A new drive is a copy of `template`.
pub fn parse(
    text: &str,
    guest: &str,
    index: usize,
    template: Option<&PathBuf>,
) -> Result<Drive, String> {
    let mut pairs = Pairs::parse("--disk", text)?;
    let wrong = |message: &str| Err(format!("--disk {text:.100}: {message}"));
    let pool = pairs.take("pool");
    let path: Option<PathBuf> = pairs.take("path").map(PathBuf::from);
    let name = pairs.take("name");
    let size: Option<Size> = pairs.take_as("size", "20 (in GiB, or with M, G, T)")?;
    let read_only = pairs.take_switch("readonly")?;
    match pairs.take("format").as_deref() {
        None | Some("raw") => {}
        Some(_) => {
            return wrong(
                "the only format is raw: `bantamctl volume import` makes a raw volume from a qcow2 image",
            );
        }
    }
    let cache_type = match pairs.take("cache").as_deref() {
        None | Some("writeback" | "none" | "default") => CacheType::Writeback,
        Some("unsafe") => CacheType::Unsafe,
        Some(_) => return wrong("write cache=writeback or cache=unsafe"),
    };
    let discard = match pairs.take("discard").as_deref() {
        None | Some("unmap") => !read_only,
        Some("ignore") => false,
        Some(_) => return wrong("write discard=unmap or discard=ignore"),
    };
    let own_template = pairs.take("template").map(std::path::absolute);
    let own_template = own_template.transpose().map_err(|e| e.to_string())?;
    if own_template.is_some() && template.is_some() {
        return wrong("the root disk is a copy of --image already: leave template out");
    }
    pairs.end(KEYS)?;
    let path = match (&pool, path, name) {
        (Some(_), Some(_), _) => return wrong("give either pool or path"),
        (None, None, _) => return wrong("give pool=POOL,size=GIB for a new volume, or path=FILE"),
        (None, Some(_), Some(_)) => return wrong("name is for a volume in a pool"),
        (None, Some(path), None) => std::path::absolute(&path).map_err(|e| e.to_string())?,
        (Some(_), None, Some(name)) => name.into(),
        (Some(_), None, None) => match index {
            0 => guest.into(),
            _ => format!("{guest}-{index}").into(),
        },
    };
    Ok(Drive {
        drive_id: match index {
            0 => "root".into(),
            _ => format!("disk{index}"),
        },
        is_read_only: read_only,
        path_on_host: Some(path),
        size_mib: size.map(|Size(bytes)| bytes.div_ceil(1 << 20)),
        template: own_template.or_else(|| template.cloned()),
        cache_type,
        discard,
        pool,
        ..Drive::default()
    })
}

#[cfg(test)]
#[path = "disk_test.rs"]
mod disk_test;
