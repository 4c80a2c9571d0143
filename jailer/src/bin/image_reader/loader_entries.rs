//! Boot-loader entries, a file each (the UAPI Group's Boot Loader Specification, type 1), for systemd-boot and for
//! GRUB's `blscfg`.

use crate::boot::Boot;
use crate::file_system::FileSystem;
use std::cmp::Ordering;

/// Longest file, in bytes; entries have about ten lines.
const MAX_FILE: u64 = 64 << 10;
/// Most entries.
const MAX_ENTRIES: usize = 256;

/// An entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoaderEntry {
    /// Its file's name without `.conf` and the boot counter.
    pub id: String,
    /// Its title in a menu.
    pub title: String,
    /// The kernel.
    pub kernel: String,
    /// The command line.
    pub options: String,
    /// The files of the initrd, separated by spaces.
    pub initrds: String,
    version: String,
    sort_key: String,
    machine: String,
}

impl LoaderEntry {
    /// Reads the entry in the file `name`; `None` if it boots no kernel.
    pub fn parse(name: &str, text: &str) -> Option<Self> {
        let id = name.strip_suffix(".conf")?;
        let mut entry = Self {
            id: id.split('+').next().unwrap_or(id).to_owned(),
            ..Self::default()
        };
        for line in text.lines() {
            let line = line.trim();
            let (key, value) = line.split_once([' ', '\t']).unwrap_or((line, ""));
            let value = value.trim();
            let add = |to: &mut String| {
                if !to.is_empty() {
                    to.push(' ');
                }
                to.push_str(value);
            };
            match key {
                "title" => value.clone_into(&mut entry.title),
                "version" => value.clone_into(&mut entry.version),
                "sort-key" => value.clone_into(&mut entry.sort_key),
                "machine-id" => value.clone_into(&mut entry.machine),
                "linux" => value.clone_into(&mut entry.kernel),
                "options" => add(&mut entry.options),
                "initrd" => add(&mut entry.initrds),
                _ => {}
            }
        }
        (!entry.kernel.is_empty()).then_some(entry)
    }

    /// Returns what it boots, without expansion of variables.
    pub fn boot(&self) -> Boot {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        Boot {
            kernel: self.kernel.clone(),
            arguments: words(&self.options),
            initrds: words(&self.initrds),
        }
    }

    /// Compares by the order of a menu: the newest first.
    fn order(&self, other: &Self) -> Ordering {
        let keys = (self.sort_key.as_str(), other.sort_key.as_str());
        match keys {
            ("", "") => compare_versions(&other.id, &self.id),
            ("", _) => Ordering::Greater,
            (_, "") => Ordering::Less,
            (a, b) => a
                .cmp(b)
                .then_with(|| self.machine.cmp(&other.machine))
                .then_with(|| compare_versions(&other.version, &self.version))
                .then_with(|| compare_versions(&other.id, &self.id)),
        }
    }
}

/// Returns the entries in the directory `path`, in a menu's order; `None` if there is no such directory.
pub fn read(system: &FileSystem, path: &str) -> Result<Option<Vec<LoaderEntry>>, String> {
    let Some(names) = system.names(path)? else {
        return Ok(None);
    };
    let mut entries = Vec::new();
    let names = names.iter().filter(|name| name.ends_with(".conf"));
    for name in names.take(MAX_ENTRIES) {
        let file = format!("{path}/{name}");
        if let Some(bytes) = system.read(&file, MAX_FILE)? {
            entries.extend(LoaderEntry::parse(name, &String::from_utf8_lossy(&bytes)));
        }
    }
    entries.sort_by(LoaderEntry::order);
    Ok(Some(entries))
}

/// Returns the default entry of the loader's configuration `config`, or else the first one.
pub fn default<'a>(entries: &'a [LoaderEntry], config: &str) -> Option<&'a LoaderEntry> {
    let mut lines = config.lines();
    let wanted = lines.find_map(|line| {
        line.trim()
            .strip_prefix("default")?
            .split_whitespace()
            .next()
    });
    let wanted = wanted.map(|pattern| pattern.strip_suffix(".conf").unwrap_or(pattern));
    let named = wanted.and_then(|pattern| {
        let mut all = entries.iter();
        all.find(|entry| matches(pattern.as_bytes(), entry.id.as_bytes()))
    });
    named.or_else(|| entries.first())
}

/// Returns whether `text` matches the pattern, in which `*` and `?` are wildcards.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || text.get(t) == Some(c) => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|c| *c == b'*')
}

/// Compares versions (the specification, "Version Comparison"): numbers by value, and `~` sorts before the end.
fn compare_versions(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    let rank = |text: &[u8]| match text.first() {
        Some(b'~') => 0,
        None => 1,
        Some(_) => 2,
    };
    loop {
        let (Some((x, rest_a)), Some((y, rest_b))) = (a.split_first(), b.split_first()) else {
            return rank(a).cmp(&rank(b));
        };
        let ((number_a, after_a), (number_b, after_b)) = (number(a), number(b));
        let order = if number_a.is_some() && number_b.is_some() {
            (a, b) = (after_a, after_b);
            number_a.cmp(&number_b)
        } else {
            let order = rank(a).cmp(&rank(b)).then(x.cmp(y));
            (a, b) = (rest_a, rest_b);
            order
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// Returns the number that `text` begins with, as its length and digits without leading zeros, and the rest of `text`.
fn number(text: &[u8]) -> (Option<(usize, &[u8])>, &[u8]) {
    let len = text.iter().take_while(|c| c.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(len);
    let zeroes = digits.iter().take_while(|c| **c == b'0').count();
    let (_, digits) = digits.split_at(zeroes);
    ((len > 0).then_some((digits.len(), digits)), rest)
}

#[cfg(test)]
#[path = "loader_entries_test.rs"]
mod loader_entries_test;
