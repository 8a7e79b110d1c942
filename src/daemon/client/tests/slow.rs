//! End users who read slowly, or not at all, while a worker has much to say.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::channel;

use super::*;
use crate::daemon::wire::FileRange;

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|i| (i / 11) as u8).collect()
}

/// A front with a socket, and the end user's end of it.
fn connected() -> (FakeFront, UnixStream) {
    let (user, far) = UnixStream::pair().unwrap();
    let front = FakeFront {
        socket: Some(user),
        ..FakeFront::default()
    };
    (front, far)
}

/// The worker is done with all of `frames` before the end user reads the first byte.
fn worker_is_done_first(frames: Vec<Vec<u8>>, file: Option<File>, expected: &[u8], buffer: usize) {
    let (done, is_done) = channel();
    let worker = Worker::serve(move |mut peer| {
        peer.expect(Kind::Request);
        let last = frames.len() - 1;
        for (index, frame) in frames.iter().enumerate() {
            match &file {
                Some(file) if index == last => peer.send_with(frame, file),
                _ => peer.send(frame),
            }
        }
        // The client has closed or will send something else: it has all of it, and the socket's
        // own buffer is empty.
        done.send(()).unwrap();
        peer.frame();
    });
    let group = Pools::new(Settings {
        response_buffer: buffer,
        ..settings(&[&worker])
    });
    let (front, mut far) = connected();
    let expected_length = expected.len();
    let reader = std::thread::spawn(move || {
        is_done.recv().unwrap();
        let mut all = vec![0; expected_length];
        far.read_exact(&mut all).unwrap();
        all
    });
    assert_eq!(forward(&group, &front), outcome::DONE);
    assert_eq!(group.idle(0), 1);
    assert!(reader.join().unwrap() == expected);
    assert!(front.data() == expected);
    assert_eq!(front.seen.borrow().last(), Some(&Seen::End));
    drop(group);
    worker.finish();
}

fn data(payload: &[u8], flags: u8) -> Vec<u8> {
    let header = Header {
        flags,
        ..Header::new(Kind::Data, payload.len() as u32)
    };
    [&header.encode()[..], payload].concat()
}

#[test]
fn a_large_response_leaves_the_worker_at_once() {
    let body = bytes(3_000_000);
    let frame = reply_frame("200 OK", &[], body.len() as i64, &body, flag::END);
    worker_is_done_first(vec![frame], None, &body, 8 << 20);
}

#[test]
fn so_does_a_stream() {
    let body = bytes(2_000_000);
    let mut frames = vec![reply_frame("200 OK", &[], -1, b"", flag::FLUSH)];
    frames.extend(body.chunks(1_000).map(|chunk| data(chunk, flag::FLUSH)));
    frames.push(data(b"", flag::END));
    worker_is_done_first(frames, None, &body, 8 << 20);
}

#[test]
fn files_keep_their_place() {
    let path = worker::path();
    std::fs::write(&path, b"the file").unwrap();
    let file = File::open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    let body = bytes(1_500_000);
    let range = FileRange {
        offset: 4,
        length: 4,
    };
    let frames = vec![
        reply_frame("200 OK", &[], -1, &body, flag::FLUSH),
        range.encode(flag::END, 0).to_vec(),
    ];
    worker_is_done_first(frames, Some(file), &[&body[..], b"file"].concat(), 8 << 20);
}

#[test]
fn beyond_the_limit_the_worker_waits() {
    let body = bytes(4_000_000);
    let sent = body.clone();
    let (tell, told) = channel();
    let worker = Worker::serve(move |mut peer| {
        peer.expect(Kind::Request);
        let frame = reply_frame("200 OK", &[], sent.len() as i64, &sent, flag::END);
        // What the client takes and what the sockets hold is less than all of it: the write
        // cannot end before the end user reads.
        peer.0.set_nonblocking(true).unwrap();
        let mut written = 0;
        let mut last = std::time::Instant::now();
        while last.elapsed() < Duration::from_millis(200) {
            match std::io::Write::write(&mut peer.0, &frame[written..]) {
                Ok(count) => {
                    written += count;
                    last = std::time::Instant::now();
                }
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                    let waiting = crate::daemon::client::connection::Watch {
                        fd: std::os::fd::AsRawFd::as_raw_fd(&peer.0),
                        events: libc::POLLOUT,
                    };
                    let rest = Duration::from_millis(50);
                    crate::daemon::client::connection::wait([waiting], rest);
                }
            }
        }
        assert!((1_000_000..2_500_000).contains(&written), "{written}");
        tell.send(()).unwrap();
        peer.0.set_nonblocking(false).unwrap();
        peer.send(&frame[written..]);
        peer.frame();
    });
    let group = Pools::new(Settings {
        response_buffer: 1_000_000,
        ..settings(&[&worker])
    });
    let (front, mut far) = connected();
    let reader = std::thread::spawn(move || {
        told.recv().unwrap();
        let mut all = vec![0; 4_000_000];
        far.read_exact(&mut all).unwrap();
        all
    });
    assert_eq!(forward(&group, &front), outcome::DONE);
    assert!(reader.join().unwrap() == body);
    drop(group);
    worker.finish();
}

#[test]
fn without_a_socket_the_response_is_collected() {
    let body = bytes(2_000_000);
    let sent = body.clone();
    let worker = Worker::serve(move |mut peer| {
        peer.expect(Kind::Request);
        peer.reply(-1, b"", 0);
        for chunk in sent.chunks(100_000) {
            peer.put(Kind::Data, 0, 1, chunk);
        }
        peer.put(Kind::Data, flag::END, 1, b"");
        peer.frame();
    });
    let group = Pools::new(Settings {
        response_buffer: 500_000,
        ..settings(&[&worker])
    });
    let front = FakeFront::default();
    assert_eq!(forward(&group, &front), outcome::DONE);
    assert!(*front.seen.borrow() == complete(&body));
    drop(group);
    worker.finish();
}

#[test]
fn an_end_user_who_leaves_a_backlog() {
    let (done, is_done) = channel();
    let worker = Worker::serve(move |mut peer| {
        peer.expect(Kind::Request);
        peer.reply(-1, &bytes(1_000_000), flag::FLUSH);
        done.send(()).unwrap();
        // The client closes: nobody is there for the rest.
        assert!(peer.frame().is_none());
    });
    let group = pools(&[&worker]);
    let (front, far) = connected();
    let leaver = std::thread::spawn(move || {
        is_done.recv().unwrap();
        drop(far);
    });
    assert_eq!(forward(&group, &front), outcome::CUT);
    assert_eq!(group.idle(0), 0);
    assert!(front.logged.borrow().is_empty());
    leaver.join().unwrap();
    worker.finish();
}

#[test]
fn an_end_user_who_takes_nothing_is_given_up() {
    let worker = Worker::serve(move |mut peer| {
        peer.expect(Kind::Request);
        peer.reply(-1, &bytes(1_000_000), flag::FLUSH);
        assert!(peer.frame().is_none());
    });
    let group = Pools::new(Settings {
        response_timeout: Some(Duration::from_millis(100)),
        ..settings(&[&worker])
    });
    let (front, _far) = connected();
    let usual = front.timeout.get();
    assert_eq!(forward(&group, &front), outcome::CUT);
    assert_eq!(front.timeout.get(), usual);
    assert!(front.logged.borrow().is_empty());
    worker.finish();
}

#[test]
fn a_worker_that_is_silent_with_a_backlog() {
    let (tell, told) = channel();
    let worker = Worker::serve(move |mut peer| {
        peer.expect(Kind::Request);
        peer.reply(-1, &bytes(1_000_000), flag::FLUSH);
        // The client closes.
        assert!(peer.frame().is_none());
        tell.send(()).unwrap();
    });
    let group = Pools::new(Settings {
        socket_timeout: Duration::from_millis(100),
        ..settings(&[&worker])
    });
    let (front, mut far) = connected();
    let reader = std::thread::spawn(move || {
        told.recv().unwrap();
        // What the worker did say arrives.
        let mut all = vec![0; 1_000_000];
        far.read_exact(&mut all).unwrap();
        all
    });
    assert_eq!(forward(&group, &front), outcome::CUT);
    assert!(reader.join().unwrap() == bytes(1_000_000));
    assert_eq!(front.code().as_deref(), Some("RWSGI0304"));
    assert_eq!(front.seen.borrow().last(), Some(&Seen::Abort));
    worker.finish();
}
