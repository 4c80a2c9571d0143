use super::super::clone_file::clone_file;
use super::*;
use crate::machine::memory::page::PAGE;
use std::os::unix::net::UnixListener;

fn layer(bytes: u64, runs: Option<Vec<(u64, u64)>>) -> Layer {
    let file = Arc::new(mapping::file_in_memory(c"layer", bytes).unwrap());
    Layer { file, runs }
}

#[test]
fn descriptors_arrive_with_their_message() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let image = tempfile::tempfile().unwrap();
    let child = std::thread::spawn(move || {
        let images = [("d".to_owned(), image)];
        let parent = ParentConnection::send_hello(listener.accept().unwrap().0, &images).unwrap();
        let (point, descriptors): (PointMessage, _) = receive(&parent.0).unwrap();
        (point, descriptors.len())
    });
    let to = ChildConnection::receive_hello(UnixStream::connect(&path).unwrap()).unwrap();
    assert_eq!(to.images.len(), 1);
    assert_eq!(to.images[0].0, "d");
    let runs = Some(vec![(PAGE, PAGE)]);
    let point = ForkPoint {
        state: mapping::file_in_memory(c"state", 10).unwrap(),
        layers: Layers(vec![layer(4 * PAGE, None), layer(4 * PAGE, runs.clone())]),
    };
    to.send_point(&point, &Overrides::default()).unwrap();
    let (point, descriptors) = child.join().unwrap();
    assert_eq!(descriptors, 3);
    assert_eq!(point.layers, [None, runs]);
    assert_eq!(point.own, Overrides::default());
}

#[test]
fn messages_of_another_protocol_are_refused() {
    let header = |len: u32| [MAGIC.as_slice(), &len.to_le_bytes()].concat();
    for bytes in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        header(u32::MAX),
        [header(3), b"{}".to_vec()].concat(),
        [header(2), b"[]".to_vec()].concat(),
        header(7)[..5].to_vec(),
    ] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (&theirs).write_all(&bytes).unwrap();
        drop(theirs);
        let got = receive::<Hello>(&ours);
        assert!(got.is_err(), "{bytes:?}");
    }
}

#[test]
fn invalid_layers_are_refused() {
    let bytes = 8 * PAGE;
    let upper =
        |runs: &[(u64, u64)]| Layers(vec![layer(bytes, None), layer(bytes, Some(runs.to_vec()))]);
    assert_eq!(upper(&[(0, PAGE), (2 * PAGE, PAGE)]).check(bytes), Ok(()));
    for runs in [
        &[(0, bytes + PAGE)][..],
        &[(1, PAGE)],
        &[(0, 1)],
        &[(PAGE, PAGE), (0, PAGE)],
        &[(0, 2 * PAGE), (PAGE, PAGE)],
        &[(u64::MAX - PAGE + 1, PAGE)],
    ] {
        assert!(upper(runs).check(bytes).is_err(), "{runs:?}");
    }
    assert!(Layers(Vec::new()).check(bytes).is_err());
    assert!(
        Layers(vec![layer(PAGE, None)]).check(bytes).is_err(),
        "shorter"
    );
    let twice = Layers(vec![layer(bytes, None), layer(bytes, None)]);
    assert!(twice.check(bytes).is_err());
    assert!(
        Layers(vec![layer(bytes, Some(Vec::new()))])
            .check(bytes)
            .is_err()
    );
}

#[test]
fn a_sealed_file_can_only_be_read() {
    let file = mapping::file_in_memory(c"sealed", PAGE).unwrap();
    file.write_all_at(b"before", 0).unwrap();
    mapping::seal(&file).unwrap();
    mapping::seal(&file).unwrap();
    assert!(file.write_all_at(b"after", 0).is_err());
    assert!(file.set_len(0).is_err());
    let on_disk = File::open("/proc/self/exe").unwrap();
    mapping::seal(&on_disk).unwrap();
}

#[test]
fn a_file_system_without_clones_returns_unsupported() {
    let (from, to) = (
        tempfile::tempfile().unwrap(),
        mapping::file_in_memory(c"to", 0).unwrap(),
    );
    let error = clone_file(&from, &to).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{error}");
}
