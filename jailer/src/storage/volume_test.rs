use super::*;
use nix::unistd::{getegid, geteuid};
use std::os::unix::fs::FileExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

const MIB: u64 = 1 << 20;

fn me() -> Owner {
    Owner {
        uid: geteuid(),
        gid: getegid(),
    }
}

fn drive(size_mib: Option<u64>, template: Option<PathBuf>) -> Drive {
    Drive {
        drive_id: "d".into(),
        size_mib,
        template,
        ..Drive::default()
    }
}

fn check(drive: &Drive, path: &Path) -> Result<NewVolume, String> {
    let mut problems = Vec::new();
    let volume = NewVolume::check("drives[0]", drive, path.into(), &mut problems);
    let text = problems.iter().map(|p| format!("{p}\n")).collect();
    volume.ok_or(text)
}

fn entries(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).unwrap();
    let mut names: Vec<_> = entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Makes a template with data at its start, a large hole, and data before its odd end.
fn template(directory: &Path) -> (PathBuf, u64) {
    let path = directory.join("template");
    let file = File::create(&path).unwrap();
    let size = 200 * MIB + 1000;
    file.set_len(size).unwrap();
    file.write_all_at(b"start", 0).unwrap();
    file.write_all_at(b"end", size - 3).unwrap();
    (path, size)
}

#[test]
fn an_empty_image_is_sparse_and_private() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.img");
    let volume = check(&drive(Some(20 << 10), None), &path).unwrap();
    let mut undo = Undo::new(|| Ok(()));
    volume.create(me(), &mut undo).unwrap();
    undo.keep();
    let metadata = path.metadata().unwrap();
    assert_eq!(metadata.len(), (20 << 10) * MIB);
    assert!(metadata.blocks() < 16, "{} blocks", metadata.blocks());
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    assert_eq!(entries(directory.path()), ["a.img"]);
}

#[test]
fn a_template_is_copied_with_its_holes_and_extended() {
    let directory = tempfile::tempdir().unwrap();
    let (from, size) = template(directory.path());
    let path = directory.path().join("a.img");
    let volume = check(&drive(Some(300), Some(from)), &path).unwrap();
    let mut undo = Undo::new(|| Ok(()));
    volume.create(me(), &mut undo).unwrap();
    undo.keep();
    let metadata = path.metadata().unwrap();
    assert_eq!(metadata.len(), 300 * MIB);
    assert!(
        metadata.blocks() * 512 < MIB,
        "{} blocks",
        metadata.blocks()
    );
    let file = File::open(&path).unwrap();
    let mut part = [0; 5];
    file.read_exact_at(&mut part, 0).unwrap();
    assert_eq!(&part, b"start");
    file.read_exact_at(&mut part, size - 3).unwrap();
    assert_eq!(&part, b"end\0\0");
}

#[test]
fn the_default_size_is_the_template_s_rounded_to_sectors() {
    let directory = tempfile::tempdir().unwrap();
    let (from, _) = template(directory.path());
    let path = directory.path().join("a.img");
    let volume = check(&drive(None, Some(from)), &path).unwrap();
    assert_eq!(volume.request.size, 200 * MIB + 1024);
}

#[test]
fn a_failed_start_leaves_no_image() {
    let directory = tempfile::tempdir().unwrap();
    let (from, _) = template(directory.path());
    for steps in 0.. {
        let path = directory.path().join("a.img");
        let volume = check(&drive(Some(300), Some(from.clone())), &path).unwrap();
        let mut left = steps;
        let mut undo = Undo::new(move || match left {
            0 => Err(Error::Stopped(nix::sys::signal::Signal::SIGTERM)),
            _ => {
                left -= 1;
                Ok(())
            }
        });
        let created = volume.create(me(), &mut undo).is_ok();
        drop(undo);
        assert_eq!(
            entries(directory.path()),
            ["template"],
            "after step {steps}"
        );
        if created {
            assert!(steps >= 2, "too few steps");
            return;
        }
    }
}

#[test]
fn a_file_of_another_process_is_neither_replaced_nor_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.img");
    let volume = check(&drive(Some(1), None), &path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    let mut undo = Undo::new(|| Ok(()));
    let error = volume.create(me(), &mut undo).unwrap_err();
    assert!(error.to_string().contains("a.img"), "{error}");
    drop(undo);
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");

    std::fs::remove_file(&path).unwrap();
    let volume = check(&drive(Some(1), None), &path).unwrap();
    let mut undo = Undo::new(|| Ok(()));
    volume.create(me(), &mut undo).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "another").unwrap();
    drop(undo);
    assert_eq!(std::fs::read(&path).unwrap(), b"another");
}

#[test]
fn an_impossible_image_is_reported_before_anything_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let (from, _) = template(directory.path());
    let image = directory.path().join("a.img");
    for (drive, path, parts) in [
        (
            drive(None, None),
            image.clone(),
            vec!["drives[0].path_on_host", "size_mib"],
        ),
        (
            drive(Some(10), Some(from)),
            image.clone(),
            vec![
                "drives[0].size_mib",
                "less than the 201 MiB of its template",
            ],
        ),
        (
            drive(Some(1), Some("/nonexistent/t".into())),
            "/nonexistent/a.img".into(),
            vec!["drives[0].template: cannot open /nonexistent/t", "mkdir -p"],
        ),
        (
            drive(None, Some("/dev/null".into())),
            image,
            vec!["neither a file nor a block device"],
        ),
    ] {
        let text = check(&drive, &path).unwrap_err();
        for part in parts {
            assert!(text.contains(part), "`{part}` is not in: {text}");
        }
    }
    assert_eq!(entries(directory.path()), ["template"]);
}
