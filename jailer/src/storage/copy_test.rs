use super::*;

#[test]
fn bytes_that_cannot_be_shared_are_copied() {
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (directory.path().join("f"), directory.path().join("t"));
    let content: Vec<u8> = (0..3_000_001_u32)
        .map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1])
        .collect();
    std::fs::write(&from, &content).unwrap();
    let target = File::create(&to).unwrap();
    let source = File::open(&from).unwrap();
    let end = content.len() as u64;
    for kind in [Target::Device, Target::Empty] {
        target.set_len(0).unwrap();
        copy_bytes(&source, &target, 1, end, kind).unwrap();
        assert_eq!(std::fs::read(&to).unwrap()[1..], content[1..]);
    }
    assert!(copy_bytes(&source, &target, 0, end + 1, Target::Empty).is_err());
}

#[test]
fn zeros_of_a_file_without_known_holes_become_holes() {
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (directory.path().join("f"), directory.path().join("t"));
    let mut content = vec![0; (3 << 20) + 77];
    content[(1 << 20) + 5] = 1;
    std::fs::write(&from, &content).unwrap();
    let (source, target) = (File::open(&from).unwrap(), File::create(&to).unwrap());
    target.set_len(content.len() as u64).unwrap();
    let end = content.len() as u64;
    copy_bytes(&source, &target, 0, end, Target::Empty).unwrap();
    assert!(std::fs::read(&to).unwrap() == content);
    let used = std::os::unix::fs::MetadataExt::blocks(&target.metadata().unwrap()) * 512;
    assert!(used <= 128 << 10, "{used}");
}

#[test]
fn a_device_s_former_contents_are_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (directory.path().join("f"), directory.path().join("t"));
    let size = 9 << 20;
    let file = File::create(&from).unwrap();
    file.set_len(5 << 20).unwrap();
    file.write_all_at(b"a", 0).unwrap();
    file.write_all_at(b"z", 4 << 20).unwrap();
    std::fs::write(&to, vec![0xaa; size]).unwrap();
    let target = OpenOptions::new().write(true).open(&to).unwrap();
    let mut undo = Undo::new(|| Ok(()));
    let source = Source::open(&from).unwrap();
    let copied = source.copy_to_device(&target, size as u64, &mut undo);
    copied.unwrap().unwrap();
    let mut expected = vec![0; size];
    (expected[0], expected[4 << 20]) = (b'a', b'z');
    assert!(std::fs::read(&to).unwrap() == expected);
}
