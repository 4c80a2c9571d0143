use super::*;
use proptest::prelude::*;
use std::io::Write as _;

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    file
}

fn read(bytes: &[u8]) -> Result<(Vec<u8>, Vec<u8>), FormatError> {
    let file = file(bytes);
    let header = Header::read(&file)?;
    Ok((header.state(&file)?, header.table(&file)?))
}

#[test]
fn a_written_file_is_read_back() {
    let bytes = encode(b"{\"a\": 1}", b"table");
    let (state, table) = read(&bytes).unwrap();
    assert_eq!(
        (state.as_slice(), table.as_slice()),
        (&b"{\"a\": 1}"[..], &b"table"[..])
    );
    read(&encode(b"", b"")).unwrap();
}

#[test]
fn each_truncation_and_each_flipped_bit_is_an_error() {
    let bytes = encode(b"the state", b"the table");
    for len in 0..bytes.len() {
        let error = read(&bytes[..len]).unwrap_err();
        let cut = matches!(error, FormatError::Truncated { .. } | FormatError::Magic);
        assert!(cut, "{len}: {error}");
    }
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        read(&changed).unwrap_err();
    }
}

#[test]
fn a_later_version_and_another_format_have_different_errors() {
    let mut bytes = encode(b"", b"");
    bytes[8] = 99;
    assert!(matches!(read(&bytes), Err(FormatError::Version(99))));
    assert!(matches!(read(&[7; 100]), Err(FormatError::Magic)));
    assert!(matches!(read(b""), Err(FormatError::Magic)));
}

#[test]
fn wrong_lengths_allocate_nothing() {
    for (at, name) in [(16, "state"), (24, "table")] {
        let mut bytes = encode(b"x", b"y");
        bytes[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..36]);
        bytes[36..40].copy_from_slice(&crc.to_le_bytes());
        let error = read(&bytes).unwrap_err();
        assert!(
            matches!(error, FormatError::TooLarge(part) if part == name),
            "{error}"
        );
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), magic: bool) {
        let mut all = if magic { MAGIC.to_vec() } else { Vec::new() };
        all.extend(bytes);
        // The bytes may be valid by chance. Reading them must not panic.
        let _ = read(&all);
    }
}
