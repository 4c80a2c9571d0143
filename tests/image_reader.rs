//! The program that reads guests' images, as the jailer runs it: what it finds, what it may do, and that no image makes
//! it hang or break. Run as root.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "a test that cannot go on fails"
)]

#[path = "../jailer/src/bin/image_reader/test_image.rs"]
mod test_image;

use jailer::error::{self, Error};
use jailer::image::{Destination, Found, extract};
use jailer::sys::dir::Dir;
use jailer::undo::Undo;
use nix::sys::signal::Signal;
use nix::unistd::Gid;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

const GROUP: u32 = 31235;

/// Held by each test: a reader inherits all descriptors until it closes them, and other threads open more.
static ALONE: Mutex<()> = Mutex::new(());

/// Puts the reader beside this program, where the library looks for it.
fn setup() -> MutexGuard<'static, ()> {
    let alone = ALONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let reader = std::env::current_exe()
        .unwrap()
        .with_file_name("bantam-image-reader");
    let _ = fs::remove_file(&reader);
    fs::copy(env!("CARGO_BIN_EXE_bantam-image-reader"), &reader).unwrap();
    alone
}

/// A directory in place of a jail's root.
struct Jail {
    dir: tempfile::TempDir,
    root: Dir,
}

impl Jail {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("jail")).unwrap();
        let root = Dir::open(&dir.path().join("jail")).unwrap();
        Self { dir, root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("jail").join(name)
    }

    fn extract(&self, image: &Path, undo: &mut Undo) -> Result<Found, Error> {
        let to = Destination {
            directory: &self.root,
            group: Gid::from_raw(GROUP),
            kernel: "kernel",
            initrd: "initrd",
        };
        extract(&to, File::open(image).unwrap(), "the image", undo)
    }

    /// The message of the error.
    fn fails(&self, image: &Path) -> String {
        let error = self.extract(image, &mut Undo::uninterrupted()).unwrap_err();
        assert_eq!(error.status(), 152, "{error}");
        error::chain(&error)
    }
}

/// A disk with an ext4 partition without checksums, or with a FAT one.
fn image(dir: &Path, kind: &str) -> PathBuf {
    let config = b"menuentry a { linux /k ro\n initrd /boot/i }";
    let contents: test_image::Contents<'_> = match kind {
        "linux" => &[
            ("/boot/grub/grub.cfg", config),
            ("/k", b"-> boot/k-1"),
            ("/boot/k-1", &[1; 5000]),
            ("/boot/i", &[2; 9000]),
        ],
        _ => &[
            (
                "/loader/entries/a long name.conf",
                b"linux /k\noptions x\ninitrd /i",
            ),
            ("/k", &[1; 5000]),
            ("/i", &[2; 9000]),
        ],
    };
    let part = match kind {
        "linux" => test_image::ext4_with(dir, 8, contents, "^metadata_csum"),
        _ => test_image::fat(dir, 2, contents),
    };
    test_image::disk(dir, "gpt", &[(kind, &part)])
}

#[test]
fn the_kernel_and_the_initrd_are_found() {
    let _alone = setup();
    for (kind, line) in [("uefi", "x"), ("linux", "ro")] {
        let jail = Jail::new();
        let path = image(jail.dir.path(), kind);
        let mut undo = Undo::uninterrupted();
        let found = jail.extract(&path, &mut undo).unwrap();
        assert_eq!((found.command_line.as_str(), found.initrd), (line, true));
        assert_eq!(fs::read(jail.path("kernel")).unwrap(), [1; 5000]);
        assert_eq!(fs::read(jail.path("initrd")).unwrap(), [2; 9000]);
        fs::write(&path, [0; 4096]).unwrap();
        let error = jail.fails(&path);
        assert!(error.contains("no partition table"), "{error}");
    }
}

#[test]
fn the_files_belong_to_root_and_a_failure_leaves_none() {
    let _alone = setup();
    let jail = Jail::new();
    let kernel = vec![3; 700_000];
    let config = b"menuentry a { linux /boot/k ro\n initrd /boot/i }";
    let contents: test_image::Contents<'_> = &[
        ("/boot/grub/grub.cfg", config),
        ("/boot/k", &kernel),
        ("/boot/i", b"initrd"),
    ];
    let path = test_image::ext4(jail.dir.path(), 8, contents);
    let mut undo = Undo::uninterrupted();
    let found = jail.extract(&path, &mut undo).unwrap();
    assert_eq!((found.command_line.as_str(), found.initrd), ("ro", true));
    assert_eq!(fs::read(jail.path("kernel")).unwrap(), kernel);
    for name in ["kernel", "initrd"] {
        let m = jail.path(name).metadata().unwrap();
        assert_eq!((m.uid(), m.gid(), m.mode() & 0o7777), (0, GROUP, 0o440));
    }
    drop(undo);
    assert_eq!(jail.root.names().unwrap(), [] as [&str; 0]);

    // The kernel is found, but not the initrd.
    let path = test_image::ext4(jail.dir.path(), 8, &contents[..2]);
    let error = jail.fails(&path);
    assert!(
        error.contains("no kernel was found in the image"),
        "{error}"
    );
    assert!(error.contains("there is no file /boot/i"), "{error}");
    assert_eq!(jail.root.names().unwrap(), [] as [&str; 0]);
}

#[test]
fn a_signal_stops_the_reader() {
    let _alone = setup();
    let jail = Jail::new();
    let image = jail.dir.path().join("image");
    File::create(&image).unwrap().set_len(1 << 30).unwrap();
    let mut undo = Undo::new(|| Err(Error::Stopped(Signal::SIGINT)));
    let error = jail.extract(&image, &mut undo).unwrap_err();
    assert!(matches!(error, Error::Stopped(_)), "{error}");
}

#[test]
fn a_missing_or_unsafe_reader_is_named_with_the_remedy() {
    let _alone = setup();
    let jail = Jail::new();
    let path = image(jail.dir.path(), "uefi");
    let reader = std::env::current_exe()
        .unwrap()
        .with_file_name("bantam-image-reader");
    let mode = |mode: u32| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(&reader, mode).unwrap();
    };
    mode(0o777);
    let error = jail.fails(&path);
    assert!(error.contains("others may write to"), "{error}");
    mode(0o700);
    let error = jail.fails(&path);
    assert!(error.contains("could not be started"), "{error}");
    mode(0o755);
    std::os::unix::fs::chown(&reader, Some(GROUP), None).unwrap();
    let error = jail.fails(&path);
    assert!(error.contains("belongs to user"), "{error}");
    fs::remove_file(&reader).unwrap();
    if !Path::new("/usr/libexec/bantam/bantam-image-reader").exists() {
        let error = jail.fails(&path);
        for part in ["/usr/libexec/bantam", "install the package", "cargo build"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
    assert_eq!(jail.root.names().unwrap(), [] as [&str; 0]);
}

#[test]
fn the_reader_has_the_image_and_the_pipe_and_nothing_else() {
    let _alone = setup();
    let jail = Jail::new();
    let path = image(jail.dir.path(), "linux");
    let trace = jail.dir.path().join("trace");
    let me = std::process::id().to_string();
    let mut strace = std::process::Command::new("strace")
        .args(["-f", "-q", "-s", "128", "-p", &me, "-o"])
        .arg(&trace)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while !fs::read_to_string(format!("/proc/{me}/status"))
        .unwrap()
        .contains(&format!("TracerPid:\t{}", strace.id()))
    {
        assert!(started.elapsed() < Duration::from_secs(20), "no strace");
        std::thread::sleep(Duration::from_millis(5));
    }
    jail.extract(&path, &mut Undo::uninterrupted()).unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(strace.id().cast_signed()),
        Signal::SIGINT,
    )
    .unwrap();
    strace.wait().unwrap();
    let trace = fs::read_to_string(trace).unwrap();
    let executed = trace.lines().find(|line| line.contains("execveat("));
    let executed = executed.unwrap_or_else(|| panic!("{trace}"));
    // No environment, and by a descriptor.
    assert!(executed.contains("/* 0 vars */"), "{executed}");
    assert!(executed.contains("AT_EMPTY_PATH"), "{executed}");
    let process = executed.split_whitespace().next().unwrap();
    let own: Vec<_> = trace
        .lines()
        .filter(|line| line.starts_with(process))
        .collect();
    let at = |part: &str| own.iter().position(|line| line.contains(part));
    let order = [
        at("chroot(\".\")"),
        at("setresuid(65534"),
        at("close_range(3,"),
        at("execveat("),
        at("prctl(PR_SET_DUMPABLE, SUID_DUMP_DISABLE)"),
        at("seccomp(SECCOMP_SET_MODE_FILTER"),
        at("pread64(0"),
    ];
    assert!(order.iter().all(Option::is_some), "{order:?}\n{trace}");
    assert!(order.is_sorted(), "{order:?}\n{trace}");
}

#[test]
fn a_damaged_linux_image_does_not_break_the_reader() {
    damage("linux");
}

#[test]
fn a_damaged_fat_image_does_not_break_the_reader() {
    damage("uefi");
}

/// Changes some bytes of an image, again and again, where they are not zero.
fn damage(kind: &str) {
    use proptest::prelude::*;
    let _alone = setup();
    let jail = Jail::new();
    let path = image(jail.dir.path(), kind);
    let original = test_image::bytes(&path);
    let blocks = original.chunks(64).enumerate();
    let used = blocks.filter(|(_, block)| block.iter().any(|byte| !matches!(byte, 0..=2)));
    let used: Vec<usize> = used.map(|(i, _)| i * 64).collect();
    let bytes = prop::sample::select(vec![0_u8, 1, 2, 0x7f, 0x80, 0xff]);
    let change = (prop::sample::select(used), 0..64_usize, bytes, 1..9_usize);
    let changes = prop::collection::vec(change, 1..30);
    let file = File::options().read(true).write(true).open(&path).unwrap();
    test_image::properties(100)
        .run(&changes, |changes| {
            for (block, at, byte, len) in &changes {
                let bytes = vec![*byte; *len];
                file.write_all_at(&bytes, (block + at) as u64).unwrap();
            }
            let started = Instant::now();
            let mut undo = Undo::uninterrupted();
            let found = jail.extract(&path, &mut undo);
            drop(undo);
            for (block, at, _, len) in &changes {
                let range = block + at..(block + at + len).min(original.len());
                let bytes = &original[range.clone()];
                file.write_all_at(bytes, range.start as u64).unwrap();
            }
            // The parsers of file systems may panic; the project's own code must not.
            let error = found.map_or_else(|e| error::chain(&e), |_| String::new());
            prop_assert!(!error.contains("image_reader/"), "{error}");
            prop_assert!(!error.contains("takes"), "{error}");
            prop_assert!(started.elapsed() < Duration::from_secs(120));
            Ok(())
        })
        .unwrap();
}
