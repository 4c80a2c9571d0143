//! The source files that name a virtio device, its section of the configuration or its metrics. A new device should need
//! few: its own file, its section's file, its row in the table of sections, and its schema.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A device, the words that name it in source code, and the files that contain one of these words.
struct Device {
    name: &'static str,
    /// Whole words. A word that ends with `*` matches all words with that beginning.
    words: &'static [&'static str],
    /// Paths of files, or of a folder with all files in it.
    files: &'static [&'static str],
    /// Whether preparing the device on the host is the jailer's work. All of the jailer then may name it, and is not
    /// searched.
    jailer_prepares_it: bool,
}

const DEVICES: &[Device] = &[
    Device {
        name: "entropy",
        words: &["Entropy", "entropy", "Rng*", "rng"],
        files: &[
            "devices/src/lib.rs",
            "devices/src/rng.rs",
            "jailer/src/bin/bantamctl/commands/create.rs",
            "resources/openapi.yaml",
            "resources/src/sections/entropy.rs",
            "resources/src/sections/mod.rs",
        ],
        jailer_prepares_it: false,
    },
    Device {
        name: "balloon",
        words: &["Balloon*", "balloon*", "set_balloon"],
        files: &[
            "devices/src/balloon/",
            "devices/src/lib.rs",
            "devices/src/virtio/report.rs",
            "devices/src/virtio/update.rs",
            "resources/openapi.yaml",
            "resources/src/config_file.rs",
            "resources/src/lib.rs",
            "resources/src/requests/update.rs",
            "resources/src/sections/balloon.rs",
            "resources/src/sections/mod.rs",
            "vmm/src/api/routes.rs",
            "vmm/src/control/command.rs",
            "vmm/src/control/configure.rs",
            "vmm/src/control/lifecycle.rs",
            "vmm/src/control/operate.rs",
            "vmm/src/control/query.rs",
        ],
        jailer_prepares_it: false,
    },
    Device {
        name: "vsock",
        words: &["Vsock*", "vsock*", "set_vsock", "bind_vsock"],
        files: &[
            "devices/src/lib.rs",
            "devices/src/vsock/",
            "resources/openapi.yaml",
            "resources/src/config_file.rs",
            "resources/src/lib.rs",
            "resources/src/requests/deprecated.rs",
            "resources/src/requests/snapshot.rs",
            "resources/src/sections/mod.rs",
            "resources/src/sections/vsock.rs",
            "vmm/src/control/configure.rs",
            "vmm/src/machine/lent.rs",
            "vmm/src/metrics/requests.rs",
            "vmm/src/process/check.rs",
        ],
        jailer_prepares_it: false,
    },
    Device {
        name: "block",
        words: &[
            "Block", "block", "Block*", "Drive*", "drive", "drives", "drive_id",
        ],
        files: &[
            "devices/src/block/",
            "devices/src/lib.rs",
            "resources/openapi.yaml",
            "resources/src/config_file.rs",
            "resources/src/lib.rs",
            "resources/src/requests/snapshot.rs",
            "resources/src/requests/update.rs",
            "resources/src/sections/boot_source.rs",
            "resources/src/sections/drive.rs",
            "resources/src/sections/memory_hotplug.rs",
            "resources/src/sections/mod.rs",
            "vmm/src/api/routes.rs",
            "vmm/src/control/command.rs",
            "vmm/src/control/configure.rs",
            "vmm/src/control/fork_child.rs",
            "vmm/src/control/fork_parent.rs",
            "vmm/src/control/lifecycle.rs",
            "vmm/src/control/operate.rs",
            "vmm/src/fork/wire.rs",
            "vmm/src/machine/builder.rs",
            "vmm/src/machine/error.rs",
            "vmm/src/metrics/reporter.rs",
            "vmm/src/metrics/requests.rs",
            "vmm/src/process/check.rs",
            "vmm/src/process/cli.rs",
            "vmm/src/seccomp/filters.rs",
            "vmm/src/seccomp/rules.rs",
        ],
        jailer_prepares_it: true,
    },
    Device {
        name: "net",
        words: &[
            "Net",
            "NetMetrics",
            "NetOptions",
            "NetworkInterface",
            "network_interfaces",
            "network-interfaces",
            "iface_id",
        ],
        files: &[
            "devices/src/net/",
            "resources/openapi.yaml",
            "resources/src/config_file.rs",
            "resources/src/requests/snapshot.rs",
            "resources/src/requests/update.rs",
            "resources/src/sections/host_network.rs",
            "resources/src/sections/mmds.rs",
            "resources/src/sections/mod.rs",
            "resources/src/sections/network.rs",
            "vmm/src/api/routes.rs",
            "vmm/src/control/configure.rs",
            "vmm/src/control/controller.rs",
            "vmm/src/control/fork_child.rs",
            "vmm/src/control/lifecycle.rs",
            "vmm/src/control/operate.rs",
            "vmm/src/control/save_restore.rs",
            "vmm/src/machine/lent.rs",
            "vmm/src/metrics/requests.rs",
            "vmm/src/process/check.rs",
            "vmm/src/process/cli.rs",
        ],
        jailer_prepares_it: true,
    },
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns the source files below `directory`, tests aside.
fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            sources(&path, found);
        } else if name.ends_with(".rs")
            && !name.ends_with("_test.rs")
            && !["testing.rs", "fixtures.rs", "test_image.rs"].contains(&name)
        {
            found.push(path);
        }
    }
}

/// Returns the code of a file: without comments and without tests at its end.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines = code.lines();
    let lines = lines.map(|line| {
        let end = line
            .match_indices("//")
            .map(|(at, _)| at)
            // Not the `//` of an address in a string.
            .find(|at| !line[..*at].ends_with(':'));
        &line[..end.unwrap_or(line.len())]
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn names(code: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let (word, open) = match word.strip_suffix('*') {
        Some(start) => (start, true),
        None => (word, false),
    };
    code.match_indices(word).any(|(at, _)| {
        let starts = !code[..at].ends_with(is_part);
        starts && (open || !code[at + word.len()..].starts_with(is_part))
    })
}

#[test]
fn each_device_is_named_in_the_listed_files_only() {
    let root = root();
    let mut files = Vec::new();
    for crate_name in ["boot", "devices", "jailer", "resources", "vmm"] {
        sources(&root.join(crate_name).join("src"), &mut files);
    }
    files.push(root.join("resources/openapi.yaml"));
    for device in DEVICES {
        let named: BTreeSet<String> = files
            .iter()
            .filter(|file| {
                let text = fs::read_to_string(file).unwrap();
                let code = match file.extension().is_some_and(|e| e == "rs") {
                    true => code(&text),
                    false => text,
                };
                device.words.iter().any(|word| names(&code, word))
            })
            .map(|file| file.strip_prefix(&root).unwrap().display().to_string())
            .filter(|file| !(device.jailer_prepares_it && file.starts_with("jailer/")))
            .map(|file| {
                let folder = device
                    .files
                    .iter()
                    .find(|listed| listed.ends_with('/') && file.starts_with(**listed));
                folder.map_or(file, ToString::to_string)
            })
            .collect();
        let listed: BTreeSet<String> = device.files.iter().map(ToString::to_string).collect();
        let new: Vec<_> = named.difference(&listed).collect();
        let gone: Vec<_> = listed.difference(&named).collect();
        assert!(
            new.is_empty() && gone.is_empty(),
            "{}: named in {new:#?}, which the list lacks; not named in {gone:#?}, which the list has",
            device.name
        );
    }
}
