use super::*;
use crate::image::test_image;
use std::os::unix::fs::FileExt as _;

/// What a helper does with an image: its frames' marks, or why there are no more.
fn marks(image: File) -> Result<String, String> {
    let mut undo = Undo::new(|| Ok(()));
    let _others = crate::tool::STARTING.read();
    let mut helper = Helper::start(image).unwrap();
    let mut order = frames::Order::default();
    let mut marks = String::new();
    loop {
        let mut header = [0; frames::HEADER];
        if helper.fill(&mut header, &mut undo).unwrap().is_none() {
            return Err(helper.verdict());
        }
        let (mark, len) = order.next(header).unwrap();
        marks.push(char::from(header[0]));
        let mut bytes = vec![0; len];
        helper.fill(&mut bytes, &mut undo).unwrap();
        match mark {
            Mark::End => return Ok(marks),
            Mark::Error => return Err(String::from_utf8(bytes).unwrap()),
            _ => {}
        }
    }
}

/// A disk with an ext4 partition whose checksums nobody looks at, or with a FAT one.
fn image(dir: &std::path::Path, kind: &str) -> std::path::PathBuf {
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
fn an_image_is_read_by_a_process_that_can_do_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), "uefi");
    assert_eq!(marks(File::open(&path).unwrap()).unwrap(), "CKIZ");
    let path = image(dir.path(), "linux");
    assert_eq!(marks(File::open(&path).unwrap()).unwrap(), "CKIZ");
    std::fs::write(&path, [0; 4096]).unwrap();
    let error = marks(File::open(&path).unwrap()).unwrap_err();
    assert!(error.contains("no partition table"), "{error}");
}

/// Runs `work` as the helper runs its own.
fn confined(work: fn()) -> WaitStatus {
    let nowhere = state::directory("empty").unwrap();
    let (rules, parent) = (rules().unwrap(), nix::unistd::getpid());
    let (image, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let _others = crate::tool::STARTING.read();
    let child = duplicate(|| {
        confine(&image, &to, &nowhere, parent, &rules).map(|files| {
            std::mem::forget(files);
            work();
        })
    });
    sandbox::ended(child.unwrap()).unwrap()
}

#[test]
fn what_it_must_not_do_ends_it() {
    assert!(matches!(confined(|| ()), WaitStatus::Exited(_, 0)));
    let forbidden: [(&str, fn()); 5] = [
        ("open a file", || drop(File::open("/"))),
        ("make a process", || drop(duplicate(|| Ok(())))),
        ("signal another", || {
            let _ = kill(Pid::from_raw(1), None);
        }),
        ("make a socket", || {
            let _ = std::net::UdpSocket::bind("127.0.0.1:0");
        }),
        ("become another", || {
            let _ = nix::unistd::setuid(nix::unistd::Uid::from_raw(0));
        }),
    ];
    for (what, work) in forbidden {
        let status = confined(work);
        assert!(
            matches!(status, WaitStatus::Signaled(_, Signal::SIGSYS, _)),
            "{what}: {status:?}"
        );
    }
    // Memory beyond its bound is not there.
    let status = confined(|| drop(std::hint::black_box(vec![1_u8; 2 << 30])));
    assert!(matches!(status, WaitStatus::Signaled(..)), "{status:?}");
}

#[test]
fn whatever_is_in_an_image_the_helper_ends_by_itself() {
    damage("linux");
}

#[test]
fn whatever_is_in_a_fat_image_the_helper_ends_by_itself() {
    damage("uefi");
}

/// Changes some bytes of an image, again and again, where there are any but zeroes.
fn damage(kind: &str) {
    use proptest::prelude::*;
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), kind);
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
            let said = marks(File::open(&path).unwrap());
            for (block, at, _, len) in &changes {
                let range = block + at..(block + at + len).min(original.len());
                let bytes = &original[range.clone()];
                file.write_all_at(bytes, range.start as u64).unwrap();
            }
            // Others' readers may break off; ours do not.
            let error = said.err().unwrap_or_default();
            prop_assert!(!error.contains("src/image/"), "{error}");
            prop_assert!(!error.contains("takes"), "{error}");
            prop_assert!(started.elapsed() < LIMIT);
            Ok(())
        })
        .unwrap();
}
