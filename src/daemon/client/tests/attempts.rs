//! When a request is sent again, and when not.

use std::io::Read as _;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Instant;

use super::*;

/// Serves one request, then closes as a draining worker does.
fn hello_then(end: impl FnOnce(Peer) + Send + 'static) -> Worker {
    Worker::start(move |listener| {
        let mut first = Peer::accept(&listener);
        first.hello();
        end(first);
        Peer::accept(&listener).hello();
    })
}

#[test]
fn a_connection_serves_many_requests() {
    let worker = Worker::serve(|mut peer| {
        for _ in 0..100 {
            peer.hello();
        }
        assert!(peer.frame().is_none());
    });
    let group = pools(&[&worker]);
    for _ in 0..100 {
        let front = FakeFront::default();
        assert_eq!(forward(&group, &front), outcome::DONE);
        assert_eq!(*front.seen.borrow(), complete(b"hello"));
        assert!(front.logged.borrow().is_empty());
    }
    drop(group);
    worker.finish();
}

#[test]
fn what_closes_the_connection_keeps_it_from_being_used_again() {
    for flags in [flag::END | flag::CLOSE, flag::END] {
        let worker = Worker::start(move |listener| {
            for _ in 0..2 {
                let mut peer = Peer::accept(&listener);
                peer.expect(Kind::Request);
                let mut frame = reply_frame("200 OK", &[], 5, b"hello", flags);
                if flags == flag::END {
                    // Bytes behind the end of an answer: nobody knows what they are.
                    frame.push(0);
                }
                peer.send(&frame);
                assert!(peer.frame().is_none());
            }
        });
        let group = pools(&[&worker]);
        for _ in 0..2 {
            let front = FakeFront::default();
            assert_eq!(forward(&group, &front), outcome::DONE);
            assert_eq!(front.data(), b"hello");
        }
        worker.finish();
    }
}

#[test]
fn goaway_on_an_idle_connection_is_not_noticed() {
    let worker = hello_then(|mut peer| peer.put(Kind::GoAway, 0, 0, b""));
    let group = pools(&[&worker]);
    for _ in 0..2 {
        let front = FakeFront::default();
        assert_eq!(forward(&group, &front), outcome::DONE);
        assert_eq!(*front.seen.borrow(), complete(b"hello"));
        assert_eq!(front.code(), None);
    }
    worker.finish();
}

#[test]
fn a_slot_whose_worker_takes_its_leave_is_not_suspect() {
    for (says_so, suspect) in [(true, false), (false, true)] {
        let (ended, has_ended) = std::sync::mpsc::channel();
        let worker = hello_then(move |mut peer| {
            if says_so {
                peer.put(Kind::GoAway, 0, 0, b"");
            }
            drop(peer);
            ended.send(()).unwrap();
        });
        let group = pools(&[&worker]);
        assert_eq!(forward(&group, &FakeFront::default()), outcome::DONE);
        has_ended.recv().unwrap();
        assert_eq!(forward(&group, &FakeFront::default()), outcome::DONE);
        assert_eq!(group.is_suspect(0), suspect);
        worker.finish();
    }
}

#[test]
fn an_idle_connection_that_died_is_not_noticed() {
    let worker = hello_then(drop);
    let group = pools(&[&worker]);
    for _ in 0..2 {
        assert_eq!(forward(&group, &FakeFront::default()), outcome::DONE);
    }
    worker.finish();
}

#[test]
fn a_request_that_was_not_read_is_sent_again() {
    let worker = hello_then(|mut peer| {
        // Takes a part of the second request and dies.
        let mut some = [0; 20];
        peer.0.read_exact(&mut some).unwrap();
    });
    let group = pools(&[&worker]);
    for _ in 0..2 {
        assert_eq!(forward(&group, &FakeFront::default()), outcome::DONE);
    }
    worker.finish();
}

#[test]
fn a_request_that_was_refused_is_sent_again() {
    for kind in [Kind::GoAway, Kind::Retry] {
        let worker = hello_then(move |mut peer| {
            peer.expect(Kind::Request);
            peer.put(kind, flag::CLOSE, Refused::Draining as u16, b"");
        });
        let group = pools(&[&worker]);
        for _ in 0..2 {
            assert_eq!(forward(&group, &FakeFront::default()), outcome::DONE);
        }
        worker.finish();
    }
}

/// What a REQUEST says of attempts to send it: connections, refusals.
fn attempts(request: &(Header, Vec<u8>)) -> (u16, u16) {
    decode(request.0, &request.1, |request| {
        (request.head.daemon_connects, request.head.daemon_restarts)
    })
    .unwrap()
}

#[test]
fn the_worker_is_told_of_earlier_attempts() {
    let worker = Worker::start(move |listener| {
        let mut peer = Peer::accept(&listener);
        assert_eq!(attempts(&peer.expect(Kind::Request)), (1, 0));
        peer.put(Kind::Retry, flag::CLOSE, Refused::Draining as u16, b"");
        let mut peer = Peer::accept(&listener);
        assert_eq!(attempts(&peer.expect(Kind::Request)), (2, 1));
        peer.put(Kind::GoAway, flag::CLOSE, 0, b"");
        let mut peer = Peer::accept(&listener);
        assert_eq!(attempts(&peer.expect(Kind::Request)), (3, 2));
        peer.reply(5, b"hello", flag::END);
        // The next request begins anew.
        assert_eq!(attempts(&peer.expect(Kind::Request)), (1, 0));
        peer.reply(5, b"hello", flag::END);
    });
    let group = pools(&[&worker]);
    for _ in 0..2 {
        assert_eq!(forward(&group, &FakeFront::default()), outcome::DONE);
    }
    worker.finish();
}

#[test]
fn a_line_of_the_log_may_say_where_it_was_made() {
    use crate::daemon::wire::LogLine;
    use crate::exchange::Level;
    let worker = Worker::serve(|mut peer| {
        peer.expect(Kind::Request);
        let line = LogLine {
            file: b"/srv/app.py",
            number: 7,
            line: b"logged",
        };
        peer.put(Kind::Log, flag::SOURCE, 4, &line.encode());
        peer.put(Kind::Log, 0, 4, b"plain");
        peer.reply(5, b"hello", flag::END);
        // Without a length of the file's name it is malformed.
        peer.expect(Kind::Request);
        peer.put(Kind::Log, flag::SOURCE, 4, b"\0\0\0\0\0");
    });
    let group = pools(&[&worker]);
    let front = FakeFront::default();
    assert_eq!(forward(&group, &front), outcome::DONE);
    let logged = front.logged.borrow();
    assert!(
        logged.contains(&(Level::Warning, "logged".to_owned())),
        "{logged:?}"
    );
    assert!(
        logged.contains(&(Level::Warning, "plain".to_owned())),
        "{logged:?}"
    );
    let front = FakeFront::default();
    assert_eq!(forward(&group, &front), 502);
    worker.finish();
}

/// The outcome and code when the worker does `script` after it has read the request; a second
/// request must not come.
fn refused(script: impl FnOnce(&mut Peer) + Send + 'static) -> (i32, Option<String>, FakeFront) {
    let worker = Worker::start(move |listener| {
        let mut peer = Peer::accept(&listener);
        peer.expect(Kind::Request);
        script(&mut peer);
        drop(peer);
        nobody_comes(&listener);
    });
    let group = pools(&[&worker]);
    let front = FakeFront::default();
    let outcome = forward(&group, &front);
    drop(group);
    worker.finish();
    (outcome, front.code(), front)
}

/// Nobody waits in the listener's queue, nor has been there.
fn nobody_comes(listener: &UnixListener) {
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err());
}

fn code(number: u32) -> Option<String> {
    Some(format!("RWSGI{number:04}"))
}

#[test]
fn a_worker_that_dies_with_the_request_is_502() {
    let (status, logged, front) = refused(|_| ());
    assert_eq!((status, logged), (502, code(303)));
    assert!(front.seen.borrow().is_empty());
    let line = front.logged.borrow()[0].1.clone();
    assert!(
        line.contains("'site'") && line.ends_with(": POST /"),
        "{line}"
    );
}

#[test]
fn signs_of_life_make_a_lost_connection_final() {
    let (status, logged, _) = refused(|peer| peer.put(Kind::Log, 0, 6, b"about to die"));
    assert_eq!((status, logged), (502, code(303)));
    // Half a frame is a sign as well.
    let (status, logged, _) = refused(|peer| peer.send(&[1, 2, 3]));
    assert_eq!((status, logged), (502, code(303)));
    let (status, logged, _) = refused(|peer| {
        peer.put(Kind::Log, 0, 6, b"x");
        peer.put(Kind::GoAway, 0, 0, b"");
    });
    assert_eq!((status, logged), (502, code(303)));
}

#[test]
fn reasons_have_their_status_and_code() {
    for (reason, status, number) in [
        (Refused::QueueTimeout as u16, 504, 301),
        (Refused::Version as u16, 500, 305),
        (Refused::Malformed as u16, 502, 306),
        (Refused::Forbidden as u16, 503, 308),
        (999, 502, 306),
    ] {
        let (outcome, logged, _) = refused(move |peer| peer.put(Kind::Retry, 0, reason, b""));
        assert_eq!((outcome, logged), (status, code(number)));
    }
}

#[test]
fn silence_is_504() {
    let worker = Worker::serve(|mut peer| {
        peer.expect(Kind::Request);
        // The client closes.
        assert!(peer.frame().is_none());
    });
    let group = Pools::new(Settings {
        socket_timeout: Duration::from_millis(50),
        ..settings(&[&worker])
    });
    let front = FakeFront::default();
    assert_eq!(forward(&group, &front), 504);
    assert_eq!(front.code(), code(302));
    worker.finish();
}

#[test]
fn three_fresh_connections_are_tried() {
    let worker = Worker::start(|listener| {
        for _ in 0..3 {
            // Closed with the request unread.
            drop(Peer::accept(&listener));
        }
        nobody_comes(&listener);
    });
    let group = pools(&[&worker]);
    let front = FakeFront::default();
    assert_eq!(forward(&group, &front), 503);
    assert_eq!(front.code(), code(309));
    assert!(front.retry.get() > 0);
    worker.finish();
}

#[test]
fn a_slot_that_failed_is_avoided() {
    let bad = Worker::start(|listener| {
        let mut peer = Peer::accept(&listener);
        peer.expect(Kind::Request);
    });
    let good = Worker::start(|listener| {
        let mut peers = Vec::new();
        for _ in 0..20 {
            let mut peer = peers.pop().unwrap_or_else(|| Peer::accept(&listener));
            peer.hello();
            peers.push(peer);
        }
    });
    let group = pools(&[&bad, &good]);
    let mut failed = 0;
    let mut served = 0;
    while served < 20 {
        match forward(&group, &FakeFront::default()) {
            outcome::DONE => served += 1,
            status => {
                assert_eq!(status, 502);
                failed += 1;
                // From now on the other one is taken, for longer than this test lasts.
                group.suspect(0);
            }
        }
        if failed == 0 && served == 10 {
            // It was not drawn yet: end its script.
            let path = settings(&[&bad]);
            assert_eq!(forward(&Pools::new(path), &FakeFront::default()), 502);
            group.suspect(0);
            failed = 1;
        }
    }
    assert_eq!(failed, 1);
    drop(group);
    bad.finish();
    good.finish();
}

#[test]
fn nobody_listens() {
    let group = Pools::new(Settings {
        sockets: vec![worker::path().as_os_str().as_bytes().to_vec()],
        ..settings(&[])
    });
    let front = FakeFront::default();
    let began = Instant::now();
    assert_eq!(forward(&group, &front), 503);
    let took = began.elapsed();
    assert!((400..3_000).contains(&took.as_millis()), "{took:?}");
    assert_eq!(front.code(), code(300));
    assert!(front.retry.get() > 0);
}

#[test]
fn a_listener_that_comes_in_time_is_found() {
    let path = worker::path();
    let group = Pools::new(Settings {
        connect_timeout: Duration::from_secs(20),
        sockets: vec![path.as_os_str().as_bytes().to_vec()],
        ..settings(&[])
    });
    let place = path.clone();
    let (ready, go) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        go.recv().unwrap();
        let listener = UnixListener::bind(&place).unwrap();
        Peer::accept(&listener).hello();
    });
    ready.send(()).unwrap();
    assert_eq!(forward(&group, &FakeFront::default()), outcome::DONE);
    thread.join().unwrap();
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_full_queue_is_waited_for() {
    let path = worker::path();
    let listener = UnixListener::bind(&path).unwrap();
    // SAFETY: an open socket. There is always one place more than was asked for.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let waiting = UnixStream::connect(&path).unwrap();
    let group = |connect_timeout| {
        Pools::new(Settings {
            connect_timeout,
            sockets: vec![path.as_os_str().as_bytes().to_vec()],
            ..settings(&[])
        })
    };
    let front = FakeFront::default();
    let began = Instant::now();
    assert_eq!(forward(&group(Duration::from_millis(300)), &front), 503);
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(front.code(), code(300));
    assert!(front.logged.borrow()[0].1.contains("full"));
    assert!(front.retry.get() > 0);

    let thread = std::thread::spawn(move || {
        let (_first, _) = listener.accept().unwrap();
        Peer::accept(&listener).hello();
    });
    let front = FakeFront::default();
    assert_eq!(
        forward(&group(Duration::from_secs(20)), &front),
        outcome::DONE
    );
    thread.join().unwrap();
    drop(waiting);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn what_the_system_refuses_is_said_at_once() {
    let mut long = settings(&[]);
    long.sockets = vec![vec![b'x'; 200]];
    let front = FakeFront::default();
    assert_eq!(forward(&Pools::new(long), &front), 503);
    assert_eq!(front.code(), code(310));
}

#[test]
fn a_head_that_is_too_large_is_not_sent() {
    let front = FakeFront::default();
    let group = Pools::new(settings(&[]));
    let query = vec![b'q'; 5 * 1024 * 1024];
    assert_eq!(forward_query(&group, &front, &query), 431);
    assert_eq!(front.code(), code(307));
}
