use super::*;
use nix::sys::stat::stat;
use std::io::Write as _;

fn in_directory(directory: &Path) -> Record {
    Record {
        directory: Dir::open(directory).unwrap(),
        name: "g.0".into(),
        made: Made::default(),
    }
}

#[test]
fn a_record_is_read_as_written_and_an_empty_one_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let mut record = in_directory(directory.path());
    let made = Made {
        cgroups: vec!["/nonexistent/group".into()],
        tables: vec!["bantam-g".into()],
        ..Made::default()
    };
    record.write(made.clone()).unwrap();
    assert_eq!(read(&record.directory, "g.0").unwrap(), made);
    let mut seen = None;
    record
        .clear(|made| {
            seen = Some(made.tables.clone());
            Ok(())
        })
        .unwrap();
    assert_eq!(seen.unwrap(), ["bantam-g"]);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_changed_image_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    for name in ["new", "written", "replaced"] {
        std::fs::write(path(name), "").unwrap();
    }
    let image = |name: &str| Image::new(path(name), &stat(&path(name)).unwrap());
    let images = ["new", "written", "replaced"].map(image).to_vec();
    std::fs::File::open(path("written"))
        .unwrap()
        .set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    std::fs::rename(path("replaced"), path("kept")).unwrap();
    std::fs::write(path("replaced"), "").unwrap();
    images.iter().for_each(|image| image.remove().unwrap());
    assert!(!path("new").exists());
    assert!(path("written").exists() && path("replaced").exists() && path("kept").exists());
}

#[test]
fn guests_of_one_id_in_two_directories_have_two_records() {
    assert_ne!(
        fingerprint(Path::new("/srv/jailer/bantam")),
        fingerprint(Path::new("/srv/other/bantam"))
    );
}

#[test]
fn an_image_that_a_guest_has_used_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    for ran in [true, false] {
        std::fs::write(&path, "").unwrap();
        let mut record = in_directory(directory.path());
        assert!(record.handover().unwrap().is_none());
        let images = vec![Image::new(path.clone(), &stat(&path).unwrap())];
        record
            .write(Made {
                images,
                ..Made::default()
            })
            .unwrap();
        let mut handover = record.handover().unwrap().unwrap();
        if ran {
            handover.write_all(b"s").unwrap();
        }
        record.remove_images().unwrap();
        record.clear(|_| Ok(())).unwrap();
        assert_eq!(path.exists(), ran);
    }
}
