//! What becomes of a worker's answer.

use std::fs::File;
use std::io::{Read as _, Write as _};

use super::*;
use crate::daemon::wire::FileRange;
use crate::exchange::Level;

/// Serves one request with `script`; gives outcome and front, and whether the connection was kept.
fn answered(
    front: FakeFront,
    script: impl FnOnce(&mut Peer) + Send + 'static,
) -> (i32, FakeFront, bool) {
    let worker = Worker::serve(move |mut peer| {
        peer.expect(Kind::Request);
        script(&mut peer);
        // Open until the client closes.
        assert!(peer.frame().is_none());
    });
    let group = pools(&[&worker]);
    let outcome = forward(&group, &front);
    let kept = group.idle(0) == 1;
    drop(group);
    worker.finish();
    (outcome, front, kept)
}

#[test]
fn a_body_in_many_frames() {
    let (outcome, front, kept) = answered(FakeFront::default(), |peer| {
        peer.reply(-1, b"one ", 0);
        peer.put(Kind::Data, 0, 1, b"two ");
        peer.put(Kind::Log, 0, Level::Info as u16, b"a line");
        peer.put(Kind::Data, 0, 1, b"three");
        peer.put(Kind::Data, flag::END, 1, b"");
    });
    assert_eq!((outcome, kept), (outcome::DONE, true));
    assert_eq!(*front.seen.borrow(), complete(b"one two three"));
    assert_eq!(*front.logged.borrow(), [(Level::Info, "a line".to_owned())]);
}

#[test]
fn large_bodies_are_whole() {
    let body: Vec<u8> = (0..3_000_000_u32).map(|i| (i / 7) as u8).collect();
    let sent = body.clone();
    let (outcome, front, kept) = answered(FakeFront::default(), move |peer| {
        peer.reply(sent.len() as i64, &sent[..1_000_001], 0);
        for piece in sent[1_000_001..].chunks(333_333) {
            let flags = if piece.as_ptr_range().end == sent.as_ptr_range().end {
                flag::END
            } else {
                0
            };
            peer.put(Kind::Data, flags, 1, piece);
        }
    });
    assert_eq!((outcome, kept), (outcome::DONE, true));
    assert!(*front.seen.borrow() == complete(&body));
}

#[test]
fn a_whole_response_has_a_length_however_it_arrives() {
    for (size, flags, status, length) in [
        (5, flag::END, "200 OK", -1),
        (500_000, flag::END, "200 OK", 500_000),
        (500_000, flag::END | flag::BAD, "200 OK", -1),
        (500_000, 0, "200 OK", -1),
        (500_000, flag::END, "304 Not Modified", -1),
    ] {
        let frame = reply_frame(status, &[], -1, &vec![1; size], flags);
        let (_, front, _) = answered(FakeFront::default(), move |peer| {
            peer.send(&frame);
            if flags & flag::END == 0 {
                peer.put(Kind::Data, flag::END, 0, b"");
            }
        });
        assert_eq!(front.length.get(), length, "{size} {flags} {status}");
        assert_eq!(front.data().len(), size);
    }
}

#[test]
fn what_is_to_be_flushed_is_not_kept_back() {
    let (user, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
    let front = FakeFront {
        socket: Some(user),
        ..FakeFront::default()
    };
    let (outcome, front, _) = answered(front, move |peer| {
        peer.reply(-1, b"now", flag::FLUSH);
        let mut got = [0; 3];
        far.read_exact(&mut got).unwrap();
        peer.put(Kind::Data, flag::FLUSH, 1, b"and");
        far.read_exact(&mut got).unwrap();
        peer.put(Kind::Data, flag::END, 1, b"then");
        let mut got = [0; 4];
        far.read_exact(&mut got).unwrap();
    });
    assert_eq!(outcome, outcome::DONE);
    assert_eq!(
        *front.seen.borrow(),
        [
            Seen::Start(200),
            Seen::Data(b"now".to_vec()),
            Seen::Flush,
            Seen::Data(b"and".to_vec()),
            Seen::Flush,
            Seen::Data(b"then".to_vec()),
            Seen::End,
        ]
    );
}

#[test]
fn error_pages() {
    for status in [400, 408, 413, 500, 504, 599] {
        let (outcome, front, kept) = answered(FakeFront::default(), move |peer| {
            peer.put(Kind::Status, flag::END, status, b"");
        });
        assert_eq!((outcome, kept), (i32::from(status), true));
        assert!(front.seen.borrow().is_empty() && front.logged.borrow().is_empty());
    }
    for status in [0, 100, 200, 302, 600, 65535] {
        let (outcome, front, kept) = answered(FakeFront::default(), move |peer| {
            peer.put(Kind::Status, flag::END, status, b"");
        });
        assert_eq!((outcome, kept), (502, false));
        assert_eq!(front.code().as_deref(), Some("RWSGI0306"));
    }
}

#[test]
fn bad_heads_are_502() {
    for (line, fields) in [
        ("200 OK\r\nX: y", &[("X-A", "b")][..]),
        ("200 OK", &[("X-A", "b\r\nSet-Cookie: c")]),
        ("200 OK", &[("X A", "b")]),
        ("200 OK", &[("Transfer-Encoding", "chunked")]),
        ("200 OK", &[("Content-Length", "3")]),
        ("100 Continue", &[]),
    ] {
        let frame = reply_frame(line, fields, -1, b"body", flag::END);
        let (outcome, front, kept) = answered(FakeFront::default(), move |peer| peer.send(&frame));
        assert_eq!((outcome, kept), (502, false), "{line}");
        assert!(front.seen.borrow().is_empty());
        assert_eq!(front.code().as_deref(), Some("RWSGI0306"));
    }
}

#[test]
fn frames_out_of_order_are_no_answer() {
    let good = || reply_frame("200 OK", &[], -1, b"", 0);
    let data = |kind| [&Header::new(kind, 0).encode()[..]].concat();
    for bytes in [
        data(Kind::Data),
        data(Kind::Body),
        FileRange {
            offset: 0,
            length: 0,
        }
        .encode(0, 0)
        .to_vec(),
        [good(), good()].concat(),
        vec![0xff; 100],
        [good(), vec![0xff; 100]].concat(),
    ] {
        let (outcome, front, kept) = answered(FakeFront::default(), move |peer| peer.send(&bytes));
        assert_eq!((outcome, kept), (502, false));
        assert_eq!(front.code().as_deref(), Some("RWSGI0306"));
    }
}

#[test]
fn a_worker_that_dies_in_the_middle() {
    // Nothing has gone out yet: there can be an error page.
    let worker = Worker::serve(|mut peer| {
        peer.expect(Kind::Request);
        peer.reply(100, b"beginning", 0);
    });
    let front = FakeFront::default();
    assert_eq!(forward(&pools(&[&worker]), &front), 502);
    assert_eq!(front.code().as_deref(), Some("RWSGI0303"));
    worker.finish();

    let worker = Worker::serve(|mut peer| {
        peer.expect(Kind::Request);
        peer.reply(1_000_000, &[1; 200_000], 0);
    });
    let (user, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        far.read_to_end(&mut all).unwrap();
        all.len()
    });
    let front = FakeFront {
        socket: Some(user),
        ..FakeFront::default()
    };
    assert_eq!(forward(&pools(&[&worker]), &front), outcome::CUT);
    assert_eq!(front.code().as_deref(), Some("RWSGI0304"));
    assert_eq!(front.seen.borrow().last(), Some(&Seen::Abort));
    worker.finish();
    drop(front);
    reader.join().unwrap();
}

#[test]
fn what_was_flushed_before_the_worker_died_goes_out() {
    let worker = Worker::serve(|mut peer| {
        peer.expect(Kind::Request);
        let mut frames = reply_frame("200 OK", &[], -1, b"first", flag::FLUSH);
        let next = Header {
            flags: flag::FLUSH,
            ..Header::new(Kind::Data, 6)
        };
        frames.extend_from_slice(&next.encode());
        frames.extend_from_slice(b"second");
        peer.send(&frames);
    });
    let front = FakeFront::default();
    assert_eq!(forward(&pools(&[&worker]), &front), outcome::CUT);
    assert_eq!(front.data(), b"firstsecond");
    assert_eq!(front.seen.borrow().last(), Some(&Seen::Abort));
    assert_eq!(front.code().as_deref(), Some("RWSGI0304"));
    worker.finish();
}

#[test]
fn a_response_that_the_application_broke_is_cut_without_a_word() {
    let (outcome, front, kept) = answered(FakeFront::default(), |peer| {
        peer.reply(-1, b"beginning", 0);
        peer.put(Kind::Data, flag::END | flag::BAD, 1, b"");
    });
    assert_eq!((outcome, kept), (outcome::CUT, true));
    assert_eq!(
        *front.seen.borrow(),
        [
            Seen::Start(200),
            Seen::Data(b"beginning".to_vec()),
            Seen::Abort
        ]
    );
    assert!(front.logged.borrow().is_empty());
}

#[test]
fn lengths_are_kept() {
    // Less than announced.
    let (outcome, front, _) = answered(FakeFront::default(), |peer| {
        peer.reply(10, b"short", flag::END);
    });
    assert_eq!(outcome, outcome::CUT);
    assert_eq!(front.seen.borrow().last(), Some(&Seen::Abort));
    assert_eq!(front.code().as_deref(), Some("RWSGI0304"));
    // More than announced.
    let (outcome, front, kept) = answered(FakeFront::default(), |peer| {
        peer.reply(5, b"too", 0);
        // No end: it is not waited for.
        peer.put(Kind::Data, 0, 0, b" much");
    });
    assert_eq!((outcome, kept), (outcome::DONE, false));
    assert_eq!(*front.seen.borrow(), complete(b"too m"));
    // A HEAD request has no body, nor has a 304.
    let head = FakeFront {
        head_request: true,
        ..FakeFront::default()
    };
    let (outcome, _, _) = answered(head, |peer| peer.reply(10, b"", flag::END));
    assert_eq!(outcome, outcome::DONE);
    let frame = reply_frame("304 Not Modified", &[], 10, b"", flag::END);
    let (outcome, front, _) = answered(FakeFront::default(), move |peer| peer.send(&frame));
    assert_eq!(outcome, outcome::DONE);
    assert_eq!(*front.seen.borrow(), [Seen::Start(304), Seen::End]);
}

#[test]
fn an_end_user_who_leaves_ends_it_quietly() {
    let front = FakeFront::default();
    front.leaves_after.set(Some(1));
    let (outcome, front, kept) = answered(front, |peer| {
        peer.reply(-1, b"some", flag::FLUSH);
        let mut more = Header::new(Kind::Data, 1).encode().to_vec();
        more.push(b'x');
        // Until the client has closed.
        while peer.0.write_all(&more).is_ok() {}
    });
    assert_eq!((outcome, kept), (outcome::CUT, false));
    assert!(front.logged.borrow().is_empty());
}

fn temporary(content: &[u8]) -> File {
    let path = worker::path();
    std::fs::write(&path, content).unwrap();
    let file = File::open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file
}

#[test]
fn files() {
    let file = temporary(b"0123456789");
    let (outcome, front, kept) = answered(FakeFront::default(), move |peer| {
        peer.reply(11, b"before ", 0);
        let range = FileRange {
            offset: 2,
            length: 4,
        };
        peer.send_with(&range.encode(flag::END, 1), &file);
    });
    assert_eq!((outcome, kept), (outcome::DONE, true));
    assert_eq!(*front.seen.borrow(), complete(b"before 2345"));
}

#[test]
fn files_that_cannot_be_used() {
    let range = FileRange {
        offset: 0,
        length: 5,
    };
    let range = range.encode(flag::END, 1);
    let short = temporary(b"0123");
    let device = File::open("/dev/zero").unwrap();
    let files = [None, Some(short), Some(device)];
    for file in files {
        let (outcome, front, kept) = answered(FakeFront::default(), move |peer| {
            peer.reply(-1, b"", 0);
            match file {
                Some(file) => peer.send_with(&range, &file),
                None => peer.send(&range),
            }
        });
        assert_eq!((outcome, kept), (502, false));
        assert_eq!(front.code().as_deref(), Some("RWSGI0311"));
    }
}

#[test]
fn descriptors_that_nobody_asked_for_are_closed() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let (outcome, _, kept) = answered(FakeFront::default(), move |peer| {
        let frame = reply_frame("200 OK", &[], 5, b"hello", flag::END);
        peer.send_with(&frame, &writer);
    });
    // Nobody holds the pipe's other end any more.
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    assert_eq!((outcome, kept), (outcome::DONE, false));
}

fn switch_frame(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut frame = reply_frame("101 Switching Protocols", fields, -1, b"", 0);
    frame[4] = Kind::Switch as u8;
    frame
}

#[test]
fn a_switch_hands_the_connection_on_with_what_came_behind_it() {
    let worker = Worker::serve(|mut peer| {
        peer.expect(Kind::Request);
        let mut bytes = switch_frame(&[("Upgrade", "websocket"), ("X-A", "b")]);
        bytes.extend_from_slice(b"the first frames");
        peer.send(&bytes);
        let mut all = Vec::new();
        peer.0.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"raw bytes");
    });
    let group = pools(&[&worker]);
    let front = FakeFront::default();
    assert_eq!(forward(&group, &front), outcome::DONE);
    let seen = [Seen::Switch(b"the first frames".to_vec())];
    assert_eq!(*front.seen.borrow(), seen);
    // Not to be used for another request.
    assert_eq!(group.idle(0), 0);
    let mut socket = File::from(front.tunnel.take().unwrap());
    socket.write_all(b"raw bytes").unwrap();
    drop(socket);
    worker.finish();
    assert!(front.logged.borrow().is_empty());
}

#[test]
fn a_switch_that_may_not_be_is_a_bad_answer() {
    let odd = switch_frame(&[("X-A", "b")]);
    let split = switch_frame(&[("Upgrade", "a\r\nb")]);
    let mut late = reply_frame("200 OK", &[], -1, b"", 0);
    late.extend_from_slice(&switch_frame(&[("Upgrade", "websocket")]));
    for (frame, outcome) in [(odd, 502), (split, 502), (late, 502)] {
        let (result, front, kept) = answered(FakeFront::default(), move |peer| peer.send(&frame));
        assert_eq!((result, kept), (outcome, false));
        assert!(front.tunnel.take().is_none());
        assert!(front.logged.borrow()[0].1.starts_with("RWSGI0306"));
    }
}
