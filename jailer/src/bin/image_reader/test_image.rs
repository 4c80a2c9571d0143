//! Images for tests, made with the tools that administrators use.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub const MIB: u64 = 1 << 20;

/// Files with their contents; contents that begin with `-> ` make a symbolic link.
pub type Contents<'a> = &'a [(&'a str, &'a [u8])];

/// An ext4 file system of `mib` with `contents`.
pub fn ext4(dir: &Path, mib: u64, contents: Contents<'_>) -> PathBuf {
    ext4_with(dir, mib, contents, "extent")
}

/// As [`ext4`], with `features`, of which a `^` removes one.
pub fn ext4_with(dir: &Path, mib: u64, contents: Contents<'_>, features: &str) -> PathBuf {
    let (tree, image) = (dir.join("tree"), dir.join("ext4"));
    let _ = fs::remove_dir_all(&tree);
    let _ = fs::remove_file(&image);
    fs::create_dir(&tree).unwrap();
    for (path, bytes) in contents {
        let path = tree.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match std::str::from_utf8(bytes)
            .ok()
            .and_then(|t| t.strip_prefix("-> "))
        {
            Some(to) => std::os::unix::fs::symlink(to, path).unwrap(),
            None => fs::write(path, bytes).unwrap(),
        }
    }
    let size = format!("{mib}M");
    run(
        Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-O", features, "-d"])
            .arg(tree)
            .arg(&image)
            .arg(size),
        "",
    );
    image
}

/// A FAT file system with `contents`.
pub fn fat(dir: &Path, mib: u64, contents: Contents<'_>) -> PathBuf {
    let path = dir.join("fat");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    file.set_len(mib * MIB).unwrap();
    fatfs::format_volume(&mut file, fatfs::FormatVolumeOptions::new()).unwrap();
    let system = fatfs::FileSystem::new(&mut file, fatfs::FsOptions::new()).unwrap();
    for (path, bytes) in contents {
        let mut at = system.root_dir();
        let mut parts = path.split('/').filter(|part| !part.is_empty()).peekable();
        while let Some(part) = parts.next() {
            match parts.peek() {
                Some(_) => at = at.create_dir(part).unwrap(),
                None => at.create_file(part).unwrap().write_all(bytes).unwrap(),
            }
        }
    }
    system.unmount().unwrap();
    path
}

/// A disk whose table is of `kind`, `gpt` or `dos`, with `parts`: each a type of sfdisk's and its bytes.
pub fn disk(dir: &Path, kind: &str, parts: &[(&str, &Path)]) -> PathBuf {
    let image = dir.join("disk");
    let mut script = format!("label: {kind}\n");
    let mut at = MIB;
    let mut places = Vec::new();
    for (name, path) in parts {
        let len = fs::metadata(path).unwrap().len();
        if *name != "extended" {
            places.push((at, path));
            script.push_str(&format!(
                "start={}, size={}, type={name}\n",
                at / 512,
                len / 512
            ));
            at += len + MIB;
            continue;
        }
        script.push_str(&format!("start={}, type=extended\n", at / 512));
        at += MIB;
    }
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&image)
        .unwrap();
    file.set_len(at + MIB).unwrap();
    for (at, path) in places {
        file.seek(SeekFrom::Start(at)).unwrap();
        std::io::copy(&mut File::open(path).unwrap(), &mut file).unwrap();
    }
    run(Command::new("sfdisk").arg("-q").arg(&image), &script);
    image
}

fn run(command: &mut Command, input: &str) {
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success(), "{command:?}");
}

/// All of `path`.
pub fn bytes(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

/// Returns a runner of property tests: it runs the same cases each time, and BANTAM_CASES of them.
pub fn properties(reduced: u32) -> proptest::test_runner::TestRunner {
    let cases = std::env::var("BANTAM_CASES").map_or(reduced, |n| n.parse().unwrap());
    proptest::test_runner::TestRunner::new(proptest::test_runner::Config {
        cases,
        rng_seed: proptest::test_runner::RngSeed::Fixed(0x62_616e_7461_6d21),
        failure_persistence: None,
        max_shrink_iters: 100,
        ..Default::default()
    })
}
