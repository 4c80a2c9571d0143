use super::*;

#[test]
fn the_console_is_the_serial_port_unless_another_is_named() {
    let found = |line: &str| Found {
        command_line: line.into(),
        initrd: false,
    };
    for (line, more, expected) in [
        ("root=UUID=1 ro", None, "root=UUID=1 ro console=ttyS0"),
        ("ro", Some("quiet"), "ro quiet console=ttyS0"),
        ("console=tty0 ro", Some("quiet"), "console=tty0 ro quiet"),
        ("ro", Some("console=hvc0"), "ro console=hvc0"),
        ("", None, "console=ttyS0"),
        ("noconsole=1", Some(""), "noconsole=1 console=ttyS0"),
    ] {
        assert_eq!(found(line).with(more), expected);
    }
    assert!(found("ro root=/dev/vda1").names_root());
    assert!(!found("ro xroot=1").names_root());
}

#[test]
fn what_is_laid_is_the_superuser_s_and_what_fails_leaves_nothing() {
    use std::os::unix::fs::MetadataExt as _;
    let dir = tempfile::tempdir().unwrap();
    let jail = dir.path().join("jail");
    std::fs::create_dir(&jail).unwrap();
    let root = Dir::open(&jail).unwrap();
    let kernel = vec![3; 700_000];
    let config = b"menuentry a { linux /boot/k ro\n initrd /boot/i }";
    let contents: test_image::Contents<'_> = &[
        ("/boot/grub/grub.cfg", config),
        ("/boot/k", &kernel),
        ("/boot/i", b"initrd"),
    ];
    let path = test_image::ext4(dir.path(), 8, contents);
    let group = Gid::from_raw(31235);
    let mut undo = Undo::new(|| Ok(()));
    let image = File::open(&path).unwrap();
    let _others = crate::tool::STARTING.read();
    let found = lay(&root, group, &image, "i", &mut undo).unwrap();
    assert_eq!((found.command_line.as_str(), found.initrd), ("ro", true));
    assert_eq!(test_image::bytes(&jail.join(KERNEL)), kernel);
    assert_eq!(test_image::bytes(&jail.join(INITRD)), b"initrd");
    for name in [KERNEL, INITRD] {
        let m = jail.join(name).metadata().unwrap();
        assert_eq!((m.uid(), m.gid(), m.mode() & 0o7777), (0, 31235, 0o440));
    }
    drop(undo);
    assert_eq!(root.names().unwrap(), [] as [&str; 0]);

    // The kernel is there, but not all of what else is to be found.
    let path = test_image::ext4(dir.path(), 8, &contents[..2]);
    let image = File::open(&path).unwrap();
    let mut undo = Undo::new(|| Ok(()));
    let error = lay(&root, group, &image, "the image", &mut undo).unwrap_err();
    let text = crate::error::chain(&error);
    assert!(text.contains("no kernel was found in the image"), "{text}");
    assert!(text.contains("there is no file /boot/i"), "{text}");
    drop(undo);
    assert_eq!(root.names().unwrap(), [] as [&str; 0]);
}

#[test]
fn a_signal_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    File::create(&image).unwrap().set_len(1 << 30).unwrap();
    let root = Dir::open(dir.path()).unwrap();
    let image = File::open(image).unwrap();
    let _others = crate::tool::STARTING.read();
    let stop = || Err(Error::Stopped(nix::sys::signal::Signal::SIGINT));
    let mut undo = Undo::new(stop);
    let error = lay(&root, Gid::from_raw(1), &image, "i", &mut undo).unwrap_err();
    assert!(matches!(error, Error::Stopped(_)), "{error}");
}
