use super::*;
use crate::test_image::{self, Contents};
use std::fs::File;
use std::path::Path;

#[derive(Debug, Default, PartialEq)]
struct Taken {
    line: String,
    kernel: Vec<u8>,
    initrd: Vec<u8>,
}

impl Sink for Taken {
    fn command_line(&mut self, line: &str) -> Result<(), String> {
        self.line = line.into();
        Ok(())
    }
    fn kernel(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.kernel.extend(bytes);
        Ok(())
    }
    fn initrd(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.initrd.extend(bytes);
        Ok(())
    }
}

fn look(path: &Path) -> Result<Taken, String> {
    let file = File::open(path).unwrap();
    let len = file.metadata().unwrap().len();
    let mut taken = Taken::default();
    find(&Window::new(file, len), &mut taken).map(|()| taken)
}

const CONFIG: &[u8] =
    b"menuentry a { linux /boot/k-1 root=UUID=1 ro 'a b'\n initrd /boot/m /boot/i-1 }";

#[test]
fn a_kernel_is_found_in_a_root_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let contents: Contents<'_> = &[
        ("/boot/grub/grub.cfg", CONFIG),
        ("/boot/k-1", b"kernel"),
        ("/boot/m", b"micro"),
        ("/boot/i-1", b"initrd"),
    ];
    let root = test_image::ext4(dir.path(), 8, contents);
    let expected = Taken {
        line: "root=UUID=1 ro \"a b\"".into(),
        kernel: b"kernel".into(),
        initrd: b"micro\0\0\0initrd".into(),
    };
    assert_eq!(look(&root).unwrap(), expected);
    for kind in ["gpt", "dos"] {
        let disk = test_image::disk(dir.path(), kind, &[("linux", &root)]);
        assert_eq!(look(&disk).unwrap(), expected, "{kind}");
    }
}

#[test]
fn a_kernel_is_found_in_a_boot_partition_and_by_loader_entries() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let empty = test_image::ext4(dir.path(), 8, &[("/etc/hostname", b"h")]);
    std::fs::rename(empty, &a).unwrap();
    let boot: Contents<'_> = &[
        (
            "/grub2/grub.cfg",
            b"load_env\nset default=$saved_entry\nblscfg",
        ),
        (
            "/grub2/grubenv",
            b"# GRUB Environment Block\nsaved_entry=f-1\n####",
        ),
        ("/loader/entries/f-1.conf", b"linux /k-1\noptions one"),
        ("/loader/entries/f-2.conf", b"linux /k-2\noptions two"),
        ("/k-1", b"1"),
        ("/k-2", b"2"),
    ];
    std::fs::rename(test_image::ext4(dir.path(), 8, boot), &b).unwrap();
    let disk = test_image::disk(dir.path(), "gpt", &[("linux", &a), ("linux", &b)]);
    assert_eq!(look(&disk).unwrap().line, "one");

    let esp = test_image::fat(
        dir.path(),
        8,
        &[
            ("/loader/loader.conf", b"default d-*"),
            (
                "/loader/entries/d-1.conf",
                b"linux /d/1/linux\ninitrd /d/1/initrd\noptions ro",
            ),
            ("/loader/entries/x-2.conf", b"linux /none"),
            ("/d/1/linux", b"k"),
            ("/d/1/initrd", b"i"),
        ],
    );
    let disk = test_image::disk(dir.path(), "gpt", &[("uefi", &esp), ("linux", &a)]);
    let taken = look(&disk).unwrap();
    assert_eq!((taken.line.as_str(), &taken.kernel[..]), ("ro", &b"k"[..]));
}

#[test]
fn an_error_lists_the_searched_places() {
    let dir = tempfile::tempdir().unwrap();
    for (contents, parts) in [
        (
            &[("/boot/k", &b"k"[..])][..],
            &[
                "in partition 1 (ext4): no grub.cfg in /boot/grub, /boot/grub2",
                "/boot/loader/entries",
            ][..],
        ),
        (
            &[("/boot/grub/grub.cfg", CONFIG)],
            &["in partition 1 (ext4): by /boot/grub/grub.cfg: there is no file /boot/k-1"],
        ),
        (
            &[("/boot/grub/grub.cfg", b"menuentry x { chainloader +1 }")],
            &["/boot/grub/grub.cfg: its default entry loads no Linux kernel"],
        ),
        (
            &[("/boot/grub/grub.cfg", CONFIG), ("/boot/k-1", b"")],
            &["/boot/k-1 is empty"],
        ),
        (
            &[("/boot/grub/grub.cfg", b"linux /k \x07"), ("/k", b"k")],
            &["cannot be printed"],
        ),
        (
            &[("/boot/grub/grub.cfg", b"-> grub.cfg")],
            &["/boot/grub/grub.cfg: "],
        ),
    ] {
        let root = test_image::ext4(dir.path(), 8, contents);
        let disk = test_image::disk(dir.path(), "gpt", &[("linux", &root)]);
        let error = look(&disk).unwrap_err();
        for part in parts {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
    let other = dir.path().join("other");
    std::fs::write(&other, [&b"XFSB"[..], &[0; 4096]].concat()).unwrap();
    let error = look(&other).unwrap_err();
    assert!(
        error.contains("the whole disk (XFS): is not supported"),
        "{error}"
    );
    for (len, part) in [
        (0, "it has 0 bytes"),
        (100, "no disk"),
        (1 << 20, "no partition table"),
    ] {
        std::fs::write(&other, vec![0; len]).unwrap();
        let error = look(&other).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_command_line_is_limited() {
    let long = vec!["a".repeat(MAX_COMMAND_LINE), String::new()];
    assert!(command_line(&long).is_err());
    assert_eq!(command_line(&[]).unwrap(), "");
}
