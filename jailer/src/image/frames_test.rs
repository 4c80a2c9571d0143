use super::*;

/// Reads the written frames as the library does; returns each frame's mark and length.
fn hear(bytes: &[u8]) -> Result<Vec<(Mark, usize)>, &'static str> {
    let (mut order, mut rest, mut heard) = (Order::default(), bytes, Vec::new());
    while let Some((header, more)) = rest.split_first_chunk::<HEADER>() {
        let (mark, len) = order.next(*header)?;
        heard.push((mark, len));
        rest = more.get(len..).unwrap_or_default();
    }
    Ok(heard)
}

fn said(frames: &[(Mark, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (mark, text) in frames {
        write(&mut bytes, *mark, text).unwrap();
    }
    bytes
}

#[test]
fn frames_are_read_as_written() {
    let kernel = vec![1; MAX_FRAME + 7];
    let bytes = said(&[
        (Mark::CommandLine, b"ro"),
        (Mark::Kernel, &kernel),
        (Mark::Initrd, b"i"),
        (Mark::End, b""),
    ]);
    let expected = [
        (Mark::CommandLine, 2),
        (Mark::Kernel, MAX_FRAME),
        (Mark::Kernel, 7),
        (Mark::Initrd, 1),
        (Mark::End, 0),
    ];
    assert_eq!(hear(&bytes).unwrap(), expected);
    let long = vec![b'e'; 1 << 20];
    let bytes = said(&[(Mark::CommandLine, b""), (Mark::Error, &long)]);
    assert_eq!(hear(&bytes).unwrap().len(), 2);
}

#[test]
fn frames_out_of_order_or_too_long_are_refused() {
    let line: (Mark, &[u8]) = (Mark::CommandLine, b"ro");
    let long = vec![b'a'; MAX_COMMAND_LINE + 1];
    for frames in [
        &[(Mark::Kernel, &b"k"[..])][..],
        &[line, (Mark::End, b"")],
        &[line, (Mark::Initrd, b"i")],
        &[line, line],
        &[
            line,
            (Mark::Kernel, b"k"),
            (Mark::Initrd, b"i"),
            (Mark::Kernel, b"k"),
        ],
        &[(Mark::CommandLine, &long)],
        &[line, (Mark::Kernel, b"k"), (Mark::End, b"more")],
    ] {
        assert!(hear(&said(frames)).is_err(), "{frames:?}");
    }
    assert!(hear(b"x\0\0\0\0").is_err());
    assert!(hear(b"C\xff\xff\xff\xff").is_err());
    let mut order = Order::default();
    order.next(*b"C\0\0\0\0").unwrap();
    let frames = (0..).take_while(|_| order.next(*b"K\0\0\x04\0").is_ok());
    assert_eq!(frames.count() as u64, MAX_KERNEL / MAX_FRAME as u64);
}
