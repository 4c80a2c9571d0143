use super::*;

/// A header of version 3 with a disk of `size` bytes, changed by `change`.
fn header(size: u64, change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut header = vec![0; HEADER];
    header[..4].copy_from_slice(b"QFI\xfb");
    header[7] = 3;
    header[24..32].copy_from_slice(&size.to_be_bytes());
    change(&mut header);
    header
}

#[test]
fn the_size_of_a_standalone_image_is_read() {
    assert_eq!(parse(&header(5 << 30, |_| {})), Ok(5 << 30));
    assert_eq!(parse(&header(512, |h| h[7] = 2)[..72]), Ok(512));
}

#[test]
fn an_image_that_refers_to_another_file_is_refused() {
    for (part, header) in [
        ("backing file", header(512, |h| h[15] = 1)),
        ("backing file", header(512, |h| h[8] = 1)),
        ("backing file", header(512, |h| h[19] = 1)),
        ("another file", header(512, |h| h[79] = 4)),
        ("encrypted", header(512, |h| h[35] = 1)),
        ("version is 4", header(512, |h| h[7] = 4)),
        ("not a qcow2", header(512, |h| h[0] = 0)),
        ("not a qcow2", header(512, |_| {})[..71].to_vec()),
        ("not a qcow2", Vec::new()),
    ] {
        let text = parse(&header).unwrap_err();
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}
