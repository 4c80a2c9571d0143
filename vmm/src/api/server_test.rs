use super::*;
use crate::event_loop::MainLoop;
use crate::process::options::SeccompMode;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

#[test]
fn a_client_whose_command_is_dropped_at_the_end_gets_an_answer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let mut main_loop = MainLoop::new().unwrap();
    let options = Options {
        max_body: 100,
        event_loop: main_loop.endpoint(),
        metrics: Arc::default(),
        seccomp: Arc::new(Filters::load(&SeccompMode::Off).unwrap()),
    };
    let queue = Api::start(bind(&path).unwrap(), &Events::default(), options).unwrap();
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    // The command waits in the queue, and the API's thread waits for its answer.
    main_loop.turn().unwrap();
    queue.end();
    // The answer is there already, because the queue was closed first.
    client.set_nonblocking(true).unwrap();
    let mut answer = [0; 12];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 400");
}

#[test]
fn the_process_waits_for_a_thread_that_gets_no_processor_time() {
    let (sender, _receiver) = channel(&Events::default()).unwrap();
    let (_commands, queue) = mpsc::channel();
    let (end, ended) = mpsc::sync_channel(1);
    let delay = Duration::from_millis(500);
    let thread = std::thread::spawn(move || {
        std::thread::sleep(delay);
        end.send(()).unwrap();
    });
    let started = now();
    CommandQueue {
        commands: queue,
        sender,
        ended,
    }
    .end();
    assert!(now().saturating_sub(started) >= delay);
    thread.join().unwrap();
}
