//! Requests for ASGI: answers that are long in coming, end users who leave meanwhile, interim
//! responses, and event loops in this process.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

use super::worker::{interim_frame, reply_frame, trailers_frame};
use super::*;
use crate::daemon::client::connection::{Watch, wait};
use crate::daemon::client::frames::LARGEST_KEPT;
use crate::daemon::wire::HEADER;
use crate::exchange::Level;

/// Longer than the first wait for an answer.
const SILENCE: Duration = Duration::from_millis(700);

fn forward_asgi(pools: &Pools, front: &FakeFront) -> i32 {
    forward_as(pools, front, b"", Interface::Asgi)
}

/// What is there longer than any limit of [`impatient`] allows.
fn still_there(peer: &Peer) -> bool {
    let watch = Watch {
        fd: peer.0.as_raw_fd(),
        events: libc::POLLIN | libc::POLLRDHUP,
    };
    wait([watch], SILENCE) == [0]
}

/// A group whose workers may be silent for less than [`SILENCE`].
fn impatient(workers: &[&Worker]) -> Settings {
    Settings {
        socket_timeout: Duration::from_millis(400),
        ..settings(workers)
    }
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

/// Nobody is to blame for an end user who has gone.
fn assert_left(front: &FakeFront, outcome: i32) {
    assert_eq!(outcome, outcome::CUT);
    assert!(front.gone.get());
    let logged = front.logged.borrow();
    assert!(
        logged.iter().all(|(level, _)| *level == Level::Debug),
        "{logged:?}"
    );
}

/// An event loop of this process that follows a script; gives its connections to it.
fn local(script: impl FnOnce(Receiver<Peer>) + Send + 'static) -> (Pools, JoinHandle<()>) {
    let (give, take) = channel();
    let give = Mutex::new(give);
    let group = Pools::local(
        Settings {
            group: b"shop".to_vec(),
            ..impatient(&[])
        },
        Box::new(move || {
            let (ours, theirs) = UnixStream::pair().unwrap();
            // Whatever mode it comes in.
            ours.set_nonblocking(true).unwrap();
            give.lock().unwrap().send(Peer(theirs)).ok()?;
            Some(OwnedFd::from(ours))
        }),
    );
    (group, std::thread::spawn(move || script(take)))
}

#[test]
fn an_answer_that_comes_soon_costs_no_look_at_the_end_user() {
    let worker = Worker::serve(|mut peer| {
        peer.hello();
        peer.frame();
    });
    let group = pools(&[&worker]);
    let front = FakeFront::default();
    assert_eq!(forward_asgi(&group, &front), outcome::DONE);
    assert_eq!(*front.seen.borrow(), complete(b"hello"));
    assert_eq!(front.looks.get(), 0);
    drop(group);
    worker.finish();
}

#[test]
fn connections_that_have_served_asgi_are_not_used_for_wsgi() {
    let worker = Worker::start(|listener| {
        let mut wsgi = Peer::accept(&listener);
        wsgi.hello();
        let mut asgi = Peer::accept(&listener);
        asgi.hello();
        wsgi.hello();
        // What is to be decided goes with those.
        asgi.hello();
        asgi.hello();
        assert!(wsgi.frame().is_none() && asgi.frame().is_none());
    });
    let group = pools(&[&worker]);
    for interface in [
        Interface::Wsgi,
        Interface::Asgi,
        Interface::Wsgi,
        Interface::Auto,
        Interface::Asgi,
    ] {
        let front = FakeFront::default();
        assert_eq!(forward_as(&group, &front, b"", interface), outcome::DONE);
    }
    assert_eq!(group.idle(0), 2);
    drop(group);
    worker.finish();
}

#[test]
fn an_end_user_who_leaves_while_an_answer_is_waited_for() {
    let (user_leaves, leave) = channel();
    let worker = Worker::serve(move |mut peer| {
        peer.expect(Kind::Request);
        user_leaves.send(()).unwrap();
        // The client closes: the application learns it.
        assert!(peer.frame().is_none());
    });
    let (front, far) = connected();
    let user = std::thread::spawn(move || {
        leave.recv().unwrap();
        drop(far);
    });
    let group = pools(&[&worker]);
    assert_left(&front, forward_asgi(&group, &front));
    assert!(front.seen.borrow().is_empty());
    assert_eq!(group.idle(0), 0);
    worker.finish();
    user.join().unwrap();
}

#[test]
fn an_end_user_who_leaves_in_the_pause_of_a_stream() {
    let worker = Worker::serve(move |mut peer| {
        peer.expect(Kind::Request);
        peer.reply(-1, b"event", flag::FLUSH);
        assert!(peer.frame().is_none());
    });
    let (front, mut far) = connected();
    let user = std::thread::spawn(move || {
        let mut event = [0; 5];
        std::io::Read::read_exact(&mut far, &mut event).unwrap();
    });
    let group = pools(&[&worker]);
    assert_left(&front, forward_asgi(&group, &front));
    assert_eq!(front.data(), b"event");
    worker.finish();
    user.join().unwrap();
}

#[test]
fn an_end_user_without_a_socket_is_asked_for() {
    let worker = Worker::serve(|mut peer| {
        peer.expect(Kind::Request);
        assert!(peer.frame().is_none());
    });
    let front = FakeFront {
        gone_after_looks: Some(2),
        ..FakeFront::default()
    };
    let group = pools(&[&worker]);
    assert_left(&front, forward_asgi(&group, &front));
    worker.finish();
}

#[test]
fn wsgi_requests_are_not_watched() {
    let worker = Worker::serve(|mut peer| {
        peer.expect(Kind::Request);
        assert!(still_there(&peer));
        peer.reply(5, b"hello", flag::END);
        peer.frame();
    });
    let (front, far) = connected();
    drop(far);
    let group = pools(&[&worker]);
    forward(&group, &front);
    assert_eq!(front.looks.get(), 0);
    drop(group);
    worker.finish();
}

#[test]
fn silence_before_the_answer_has_its_limit() {
    for interface in [Interface::Asgi, Interface::Auto] {
        let worker = Worker::serve(|mut peer| {
            peer.expect(Kind::Request);
            assert!(peer.frame().is_none());
        });
        let (front, _far) = connected();
        let group = Pools::new(impatient(&[&worker]));
        assert_eq!(forward_as(&group, &front, b"", interface), 504);
        assert_eq!(front.code().as_deref(), Some("RWSGI0302"));
        worker.finish();
    }
}

#[test]
fn silence_within_the_answer_has_none() {
    let worker = Worker::serve(|mut peer| {
        peer.expect(Kind::Request);
        peer.reply(-1, b"one ", flag::FLUSH);
        assert!(still_there(&peer));
        peer.put(Kind::Data, flag::END, 0, b"two");
        peer.frame();
    });
    let (front, _far) = connected();
    let group = Pools::new(impatient(&[&worker]));
    assert_eq!(forward_asgi(&group, &front), outcome::DONE);
    assert_eq!(front.data(), b"one two");
    drop(group);
    worker.finish();
}

#[test]
fn interim_responses_come_before_the_response() {
    let worker = Worker::serve(|mut peer| {
        peer.expect(Kind::Request);
        peer.send(&interim_frame(
            "103 Early Hints",
            &[("Link", "</a.css>"), ("Link", "</b.css>")],
        ));
        peer.put(Kind::Log, 0, Level::Info as u16, b"a line");
        peer.send(&interim_frame("102", &[]));
        peer.reply(5, b"hello", flag::END);
        peer.frame();
    });
    let front = FakeFront::default();
    let group = pools(&[&worker]);
    assert_eq!(forward_asgi(&group, &front), outcome::DONE);
    let link = |value: &str| ("Link".to_owned(), value.to_owned());
    assert_eq!(
        *front.seen.borrow(),
        [
            Seen::Interim(103, vec![link("</a.css>"), link("</b.css>")]),
            Seen::Interim(102, vec![]),
            Seen::Start(200),
            Seen::Data(b"hello".to_vec()),
            Seen::End,
        ]
    );
    assert_eq!(group.idle(0), 1);
    drop(group);
    worker.finish();
}

#[test]
fn bad_interim_responses_are_502() {
    let whole = interim_frame("103 Early Hints", &[]);
    let header = Header::new(Kind::Interim, 10).encode();
    let cut: Vec<u8> = [&header[..], &whole[HEADER..HEADER + 10]].concat();
    for frame in [
        interim_frame("101 Switching Protocols", &[]),
        interim_frame("200 OK", &[]),
        interim_frame("103 Early Hints", &[("Link", "a\r\nb")]),
        interim_frame("103 Early Hints", &[("Connection", "close")]),
        cut,
    ] {
        let worker = Worker::serve(move |mut peer| {
            peer.expect(Kind::Request);
            peer.send(&frame);
            assert!(peer.frame().is_none());
        });
        let front = FakeFront::default();
        assert_eq!(forward_asgi(&pools(&[&worker]), &front), 502);
        assert!(front.seen.borrow().is_empty());
        assert_eq!(front.code().as_deref(), Some("RWSGI0306"));
        worker.finish();
    }
}

#[test]
fn no_interim_response_follows_the_head() {
    let worker = Worker::serve(move |mut peer| {
        peer.expect(Kind::Request);
        peer.reply(-1, b"", 0);
        peer.send(&interim_frame("103 Early Hints", &[]));
        assert!(peer.frame().is_none());
    });
    let front = FakeFront::default();
    assert_eq!(forward_asgi(&pools(&[&worker]), &front), 502);
    assert_eq!(*front.seen.borrow(), [Seen::Start(200)]);
    worker.finish();
}

#[test]
fn trailers_follow_the_body() {
    let worker = Worker::serve(|mut peer| {
        peer.expect(Kind::Request);
        peer.reply(-1, b"hello", 0);
        peer.send(&trailers_frame(&[("X-Sum", "1"), ("X-Sum", "2")], -1));
        peer.put(Kind::Data, flag::END, 0, b"");
        peer.frame();
    });
    let front = FakeFront::default();
    let group = pools(&[&worker]);
    assert_eq!(forward_asgi(&group, &front), outcome::DONE);
    let sum = |value: &str| ("X-Sum".to_owned(), value.to_owned());
    let seen = front.seen.borrow();
    assert!(
        seen.contains(&Seen::Trailers(vec![sum("1"), sum("2")])),
        "{seen:?}"
    );
    assert_eq!(seen.last(), Some(&Seen::End));
    assert_eq!(front.data(), b"hello");
    assert_eq!(group.idle(0), 1);
    drop(group);
    worker.finish();
}

#[test]
fn bad_trailers_cut_the_response() {
    for frame in [
        trailers_frame(&[("X-Sum", "a\r\nb")], -1),
        trailers_frame(&[("Connection", "close")], -1),
        trailers_frame(&[("Content-Length", "5")], -1),
        trailers_frame(&[], 5),
    ] {
        let worker = Worker::serve(move |mut peer| {
            peer.expect(Kind::Request);
            peer.reply(-1, b"hello", flag::FLUSH);
            peer.send(&frame);
            while peer.frame().is_some() {}
        });
        let front = FakeFront::default();
        forward_asgi(&pools(&[&worker]), &front);
        let seen = front.seen.borrow();
        assert!(!seen.contains(&Seen::End), "{seen:?}");
        assert!(!seen.iter().any(|seen| matches!(seen, Seen::Trailers(_))));
        assert_eq!(front.code().as_deref(), Some("RWSGI0306"));
        worker.finish();
    }
}

#[test]
fn trailers_without_end_cut_the_response() {
    let long = "a".repeat(30_000);
    let frame = trailers_frame(&[("X-Sum", &long)], -1);
    let most = LARGEST_KEPT / (frame.len() - HEADER);
    let worker = Worker::serve(move |mut peer| {
        peer.expect(Kind::Request);
        let head = reply_frame("200 OK", &[], -1, b"hello", flag::FLUSH);
        peer.send(&head);
        for _ in 0..=most {
            peer.send(&frame);
        }
        assert!(peer.frame().is_none());
    });
    let front = FakeFront::default();
    forward_asgi(&pools(&[&worker]), &front);
    let seen = front.seen.borrow();
    let trailers = seen.iter().filter(|seen| matches!(seen, Seen::Trailers(_)));
    assert_eq!(trailers.count(), most);
    assert!(!seen.contains(&Seen::End));
    assert_eq!(front.code().as_deref(), Some("RWSGI0306"));
    worker.finish();
}

#[test]
fn trailers_before_the_head_are_502() {
    let worker = Worker::serve(move |mut peer| {
        peer.expect(Kind::Request);
        peer.send(&trailers_frame(&[("X-Sum", "1")], -1));
        assert!(peer.frame().is_none());
    });
    let front = FakeFront::default();
    assert_eq!(forward_asgi(&pools(&[&worker]), &front), 502);
    assert!(front.seen.borrow().is_empty());
    worker.finish();
}

#[test]
fn a_request_that_had_an_interim_response_is_not_sent_again() {
    let worker = Worker::serve(|mut peer| {
        peer.expect(Kind::Request);
        peer.send(&interim_frame("103 Early Hints", &[]));
        peer.put(Kind::GoAway, 0, 0, b"");
    });
    let front = FakeFront::default();
    assert_eq!(forward_asgi(&pools(&[&worker]), &front), 502);
    assert_eq!(front.code().as_deref(), Some("RWSGI0303"));
    worker.finish();
}

#[test]
fn a_loop_of_this_process_keeps_its_connections() {
    let (group, loop_) = local(|connections| {
        let mut peer = connections.recv().unwrap();
        peer.hello();
        peer.hello();
        drop(peer);
        // One that it has closed while idle is replaced.
        let mut peer = connections.recv().unwrap();
        peer.hello();
        assert!(peer.frame().is_none());
    });
    for _ in 0..3 {
        let front = FakeFront::default();
        assert_eq!(forward_asgi(&group, &front), outcome::DONE);
        assert_eq!(*front.seen.borrow(), complete(b"hello"));
        assert_eq!(front.code(), None);
    }
    assert_eq!(group.idle(0), 1);
    drop(group);
    loop_.join().unwrap();
}

#[test]
fn a_loop_of_this_process_may_be_silent_while_the_end_user_waits() {
    let (group, loop_) = local(|connections| {
        let mut peer = connections.recv().unwrap();
        peer.expect(Kind::Request);
        assert!(still_there(&peer));
        peer.reply(5, b"hello", flag::END);
        peer.expect(Kind::Request);
        assert!(peer.frame().is_none());
    });
    let (front, _far) = connected();
    assert_eq!(forward_asgi(&group, &front), outcome::DONE);
    let (front, far) = connected();
    drop(far);
    assert_left(&front, forward_asgi(&group, &front));
    loop_.join().unwrap();
}

#[test]
fn messages_about_a_loop_of_this_process_name_it() {
    let (group, loop_) = local(|connections| {
        let mut peer = connections.recv().unwrap();
        peer.expect(Kind::Request);
    });
    let front = FakeFront::default();
    assert_eq!(forward_asgi(&group, &front), 502);
    let logged = front.logged.borrow();
    let (_, line) = &logged[0];
    let who = "RWSGI0303: the event loop of this process for the application group 'shop' ended";
    assert!(line.starts_with(who), "{line}");
    loop_.join().unwrap();
}

#[test]
fn without_a_loop_nothing_is_said_twice() {
    let group = Pools::local(impatient(&[]), Box::new(|| None));
    let front = FakeFront::default();
    assert_eq!(forward_asgi(&group, &front), 500);
    assert!(front.logged.borrow().is_empty());
}
