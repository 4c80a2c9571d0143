use super::*;
use crate::image::test_image;
use std::os::unix::fs::FileExt as _;

/// What a helper does with an image: its frames' marks, or how it ended.
fn marks(image: File) -> Result<String, String> {
    let mut undo = Undo::new(|| Ok(()));
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
        if matches!(mark, Mark::End | Mark::Error) {
            return Ok(marks);
        }
    }
}

fn image(dir: &std::path::Path) -> std::path::PathBuf {
    let config = b"menuentry a { linux /boot/k ro\n initrd /boot/i }";
    let root = test_image::ext4(
        dir,
        8,
        &[
            ("/boot/grub/grub.cfg", config),
            ("/boot/k", &[1; 5000]),
            ("/boot/i", &[2; 9000]),
        ],
    );
    let esp = test_image::fat(
        dir,
        2,
        &[
            ("/loader/entries/a.conf", b"linux /k\noptions x"),
            ("/k", &[1; 5000]),
        ],
    );
    test_image::disk(dir, "gpt", &[("linux", &root), ("uefi", &esp)])
}

#[test]
fn an_image_is_read_by_a_process_that_can_do_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path());
    assert_eq!(marks(File::open(&path).unwrap()).unwrap(), "CKIZ");
    std::fs::write(&path, [0; 4096]).unwrap();
    assert_eq!(marks(File::open(&path).unwrap()).unwrap(), "E");
}

/// Runs `work` as the helper runs its own.
fn confined(work: fn()) -> WaitStatus {
    let nowhere = state::directory("empty").unwrap();
    let (rules, parent) = (rules().unwrap(), nix::unistd::getpid());
    let (image, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
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
    use proptest::prelude::*;
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path());
    let original = test_image::bytes(&path);
    // Where something is: the rest is zeroes.
    let blocks: Vec<usize> = original
        .chunks(512)
        .enumerate()
        .filter(|(_, block)| block.iter().any(|byte| *byte != 0))
        .map(|(i, _)| i * 512)
        .collect();
    let change = (
        prop::sample::select(blocks),
        0..512_usize,
        prop::sample::select(vec![0_u8, 1, 0x7f, 0x80, 0xff]),
        1..9_usize,
    );
    let changes = prop::collection::vec(change, 1..40);
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let started = Instant::now();
    test_image::properties(100)
        .run(&changes, |changes| {
            for (block, at, byte, len) in &changes {
                file.write_all_at(&vec![*byte; *len], (block + at) as u64)
                    .unwrap();
            }
            let said = marks(File::open(&path).unwrap());
            for (block, at, _, len) in &changes {
                let range = block + at..(block + at + len).min(original.len());
                file.write_all_at(&original[range.clone()], range.start as u64)
                    .unwrap();
            }
            prop_assert!(said.is_ok(), "{said:?}");
            Ok(())
        })
        .unwrap();
    assert!(started.elapsed() < Duration::from_secs(300));
}
