//! Finds what the boot loader of an image would load, from GRUB's configuration or boot-loader entries. Every byte that
//! is read here was written by a guest.

use crate::boot::Boot;
use crate::disk::Window;
use crate::file_system::{self, FileSystem, Kind};
use crate::grub;
use crate::loader_entries::{self, LoaderEntry};
use crate::partitions::{self, Partition};
use jailer::image::frames::{MAX_COMMAND_LINE, MAX_INITRD, MAX_KERNEL};

/// Directories of GRUB's configuration, in the root file system and in a separate one for /boot.
const GRUB: [&str; 4] = ["/boot/grub", "/boot/grub2", "/grub", "/grub2"];
/// Directories of boot-loader entries.
const LOADER: [&str; 2] = ["/boot/loader", "/loader"];
/// Largest configuration, in bytes; one with a hundred kernels has a tenth.
const MAX_CONFIG: u64 = 1 << 20;
/// Largest environment block, in bytes; GRUB writes 1 KiB.
const MAX_ENVIRONMENT: u64 = 64 << 10;
/// Longest path, in bytes.
const MAX_PATH: usize = 1024;
/// Most files of an initrd.
const MAX_INITRDS: usize = 16;

/// Receives what is found, in the order of these functions.
pub trait Sink {
    /// Receives the command line.
    fn command_line(&mut self, line: &str) -> Result<(), String>;
    /// Receives a part of the kernel.
    fn kernel(&mut self, bytes: &[u8]) -> Result<(), String>;
    /// Receives a part of the initrd.
    fn initrd(&mut self, bytes: &[u8]) -> Result<(), String>;
}

/// Passes what `image` boots to `to`.
///
/// # Errors
/// A line for each place that was searched.
pub fn find(image: &Window, to: &mut dyn Sink) -> Result<(), String> {
    let mut notes = Vec::new();
    let partitions = partitions::find(image).map_err(|e| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => {
            format!("it has {} bytes, which is no disk", image.len())
        }
        _ => e.to_string(),
    })?;
    let nothing = match partitions.iter().filter(|p| p.number.is_some()).count() {
        0 if partitions.is_empty() => "it has a partition table, but no partition".to_owned(),
        0 => "it has no partition table and no known file system".to_owned(),
        some => format!("it has {some} partitions, but no known file system"),
    };
    let places = open_all(partitions, &mut notes);
    let looks: [fn(&FileSystem) -> Found; 2] = [by_grub, by_loader];
    for look in looks {
        for (i, place) in places.iter().enumerate() {
            match look(&place.system) {
                Ok(Some((boot, at))) => {
                    let said = take(&boot, &places, i, to);
                    return said.map_err(|e| format!("in {}: by {at}: {e}", place.name));
                }
                Ok(None) => {}
                Err(e) => notes.push(format!("in {}: {e}", place.name)),
            }
        }
    }
    for place in &places {
        notes.push(format!(
            "in {}: no grub.cfg in {}, and no entries in {}",
            place.name,
            GRUB.join(", "),
            LOADER.map(|at| format!("{at}/entries")).join(", ")
        ));
    }
    if notes.is_empty() {
        notes.push(nothing);
    }
    Err(notes.join("\n"))
}

/// A kernel to boot, and the file that names it.
type Found = Result<Option<(Boot, String)>, String>;

/// A file system that could be opened.
struct Place {
    /// For messages.
    name: String,
    system: FileSystem,
}

fn open_all(partitions: Vec<Partition>, notes: &mut Vec<String>) -> Vec<Place> {
    let mut places = Vec::new();
    for Partition { number, window } in partitions {
        let name = |kind: &str| match number {
            Some(number) => format!("partition {number} ({kind})"),
            None => format!("the whole disk ({kind})"),
        };
        match file_system::kind(&window) {
            Ok(Some(Kind::Other(kind))) => {
                notes.push(format!("{}: is not supported", name(kind)));
            }
            Ok(Some(kind)) => match FileSystem::open(kind, window) {
                Ok(system) => places.push(Place {
                    name: name(kind.name()),
                    system,
                }),
                Err(e) => notes.push(format!("{}: {e}", name(kind.name()))),
            },
            // A BIOS boot partition, or an empty one.
            Ok(None) => {}
            Err(e) => notes.push(format!("{}: {e}", name("unknown"))),
        }
    }
    places
}

fn text(system: &FileSystem, path: &str, max: u64) -> Result<Option<String>, String> {
    let bytes = system.read(path, max)?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

fn by_grub(system: &FileSystem) -> Found {
    for prefix in GRUB {
        let path = format!("{prefix}/grub.cfg");
        let Some(config) = text(system, &path, MAX_CONFIG)? else {
            continue;
        };
        let environment = text(system, &format!("{prefix}/grubenv"), MAX_ENVIRONMENT)?;
        let entries = match config.contains("blscfg") {
            true => entries(system)?.map(|(entries, _)| entries),
            false => None,
        };
        let chosen = grub::chosen(
            &config,
            &environment.unwrap_or_default(),
            &entries.unwrap_or_default(),
        );
        return match chosen {
            Ok(boot) => Ok(Some((boot, path))),
            Err(e) => Err(format!("{path}: {e}")),
        };
    }
    Ok(None)
}

fn by_loader(system: &FileSystem) -> Found {
    let Some((entries, at)) = entries(system)? else {
        return Ok(None);
    };
    let config = text(system, &format!("{at}/loader.conf"), MAX_CONFIG)?;
    let entry = loader_entries::default(&entries, &config.unwrap_or_default());
    Ok(entry.map(|entry| (entry.boot(), format!("{at}/entries/{}.conf", entry.id))))
}

/// Returns the boot loader's entries, and the directory that contains theirs.
fn entries(system: &FileSystem) -> Result<Option<(Vec<LoaderEntry>, &'static str)>, String> {
    for at in LOADER {
        if let Some(found) = loader_entries::read(system, &format!("{at}/entries"))?
            && !found.is_empty()
        {
            return Ok(Some((found, at)));
        }
    }
    Ok(None)
}

/// Passes on the files that `boot` names. The file system `first` has the configuration.
fn take(boot: &Boot, places: &[Place], first: usize, to: &mut dyn Sink) -> Result<(), String> {
    to.command_line(&command_line(&boot.arguments)?)?;
    let (system, path) = locate(places, first, &boot.kernel)?;
    if system.copy(&path, MAX_KERNEL, &mut |bytes| to.kernel(bytes))? == Some(0) {
        return Err(format!("{path} is empty"));
    }
    if boot.initrds.len() > MAX_INITRDS {
        return Err(format!("it has more than {MAX_INITRDS} initrds"));
    }
    let mut len = 0_u64;
    for name in &boot.initrds {
        // As with GRUB, each file begins at a multiple of four bytes.
        let gap = usize::try_from(len.wrapping_neg() % 4).unwrap_or_default();
        if gap > 0 {
            to.initrd([0; 4].get(..gap).unwrap_or_default())?;
            len += gap as u64;
        }
        let (system, path) = locate(places, first, name)?;
        let copied = system.copy(&path, MAX_INITRD - len, &mut |bytes| to.initrd(bytes))?;
        len += copied.unwrap_or_default();
    }
    Ok(())
}

/// Joins the words of a command line. A word with a space gets quotes, as with GRUB.
fn command_line(words: &[String]) -> Result<String, String> {
    let words = words.iter().map(|word| match word.contains(' ') {
        true => format!("\"{word}\""),
        false => word.clone(),
    });
    let line = words.collect::<Vec<_>>().join(" ");
    if line.len() > MAX_COMMAND_LINE {
        return Err(format!(
            "the command line is longer than {MAX_COMMAND_LINE} bytes"
        ));
    }
    if !line.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err("the command line has characters that cannot be printed".into());
    }
    Ok(line)
}

/// Returns the file system and the path of the file `name`. The file system that named it is searched first; in each,
/// both `name` and `name` below /boot are tried.
fn locate<'a>(
    places: &'a [Place],
    first: usize,
    name: &str,
) -> Result<(&'a FileSystem, String), String> {
    // GRUB's name of a device, `(hd0,gpt1)/vmlinuz`.
    let path = match name.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        Some((_, path)) => path,
        None => name,
    };
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let path = format!("/{}", parts.join("/"));
    if path.len() > MAX_PATH || parts.is_empty() {
        return Err(format!("`{name}` is not a path"));
    }
    let below = format!("/boot{path}");
    let own = places.iter().skip(first).take(1);
    let others = places.iter().enumerate().filter(|(i, _)| *i != first);
    for place in own.chain(others.map(|(_, place)| place)) {
        for path in [&path, &below] {
            if place.system.has(path)? {
                return Ok((&place.system, path.clone()));
            }
        }
    }
    Err(format!("there is no file {path}"))
}

#[cfg(test)]
#[path = "finder_test.rs"]
mod finder_test;
