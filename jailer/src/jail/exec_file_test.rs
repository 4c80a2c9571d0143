use super::*;
use std::os::unix::fs::PermissionsExt as _;

/// An ELF header for `machine` with one program header of `kind`.
fn elf(machine: u8, kind: u8) -> Vec<u8> {
    let mut file = vec![0; 120];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    file[18] = machine;
    file[32] = 64;
    file[54] = 56;
    file[56] = 1;
    file[64] = kind;
    file
}

fn open(content: &[u8], mode: u32) -> Result<ExecFile, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("program");
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    ExecFile::open(&path)
}

#[test]
fn a_static_program_is_accepted() {
    open(&elf(62, 1), 0o755).unwrap();
}

#[test]
fn a_program_that_cannot_run_in_a_jail_is_refused_with_a_remedy() {
    for (content, mode, part) in [
        (elf(62, 3), 0o755, "build it static"),
        (elf(62, 1), 0o644, "chmod 755"),
        (elf(183, 1), 0o755, "another processor"),
        (elf(62, 1)[..100].to_vec(), 0o755, ""),
        (elf(62, 1)[..66].to_vec(), 0o755, "truncated"),
        (b"#!/bin/sh\n".to_vec(), 0o755, "shorter"),
        ([b'#'; 100].to_vec(), 0o755, "not a 64-bit ELF"),
        (Vec::new(), 0o755, "shorter"),
    ] {
        match open(&content, mode) {
            Err(message) => assert!(message.contains(part), "`{part}` is not in: {message}"),
            Ok(_) => assert_eq!(part, "", "taken, but expected `{part}`"),
        }
    }
    let missing = ExecFile::open(Path::new("/nonexistent/bantam")).unwrap_err();
    assert!(missing.contains("/nonexistent/bantam"), "{missing}");
    let directory = ExecFile::open(Path::new("/")).unwrap_err();
    assert!(directory.contains("not a file"), "{directory}");
}

#[test]
fn headers_that_point_beyond_the_end_do_not_panic() {
    let mut file = elf(62, 1);
    file[32..40].fill(0xff);
    file[54..58].fill(0xff);
    assert!(open(&file, 0o755).unwrap_err().contains("truncated"));
}
