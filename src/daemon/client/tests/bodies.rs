//! The request's body on its way to the worker.

use super::front::Body;
use super::*;
use crate::daemon::wire::{INLINE_BODY, Read};

fn front(body: impl IntoIterator<Item = Body>) -> FakeFront {
    FakeFront {
        body: core::cell::RefCell::new(body.into_iter().collect()),
        ..FakeFront::default()
    }
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|i| (i / 3) as u8).collect()
}

/// Asks for body bytes; gives them and the flags of the last frame.
fn ask(peer: &mut Peer, wanted: u32, limit: u32) -> (Vec<u8>, u8) {
    peer.send(&Read { wanted, limit }.encode());
    let mut all = Vec::new();
    loop {
        let (header, payload) = peer.expect(Kind::Body);
        all.extend_from_slice(&payload);
        assert!(all.len() <= limit as usize);
        if header.flags != 0 {
            return (all, header.flags);
        }
        assert!(!payload.is_empty(), "an empty frame that says nothing");
    }
}

fn served(front: &FakeFront, script: impl FnOnce(&mut Peer) + Send + 'static) -> i32 {
    let worker = Worker::serve(move |mut peer| {
        script(&mut peer);
        peer.reply(5, b"hello", flag::END);
        assert!(peer.frame().is_none(), "something follows the body");
    });
    let group = pools(&[&worker]);
    let outcome = forward(&group, front);
    assert_eq!(group.idle(0), 1);
    drop(group);
    worker.finish();
    outcome
}

#[test]
fn a_small_body_that_has_arrived_rides_on_the_request() {
    for length in [1, 4096, INLINE_BODY] {
        let front = front([Body::Here(bytes(length))]);
        let outcome = served(&front, move |peer| {
            let request = peer.expect(Kind::Request);
            assert_eq!(body_of(&request), (bytes(length), true));
        });
        assert_eq!(outcome, outcome::DONE);
        assert_eq!(front.waits.get(), 0);
    }
}

#[test]
fn no_body_is_complete_at_once() {
    let front = FakeFront::default();
    let outcome = served(&front, |peer| {
        let request = peer.expect(Kind::Request);
        assert_eq!(body_of(&request), (Vec::new(), true));
    });
    assert_eq!(outcome, outcome::DONE);
}

#[test]
fn what_has_not_arrived_is_sent_when_it_is_asked_for() {
    let front = front([Body::Here(bytes(100)), Body::Later(bytes(50))]);
    served(&front, |peer| {
        let request = peer.expect(Kind::Request);
        assert_eq!(body_of(&request), (bytes(100), false));
        assert_eq!(ask(peer, 1, 65_536), (bytes(50), flag::END));
    });
    assert_eq!(front.waits.get(), 1);
}

#[test]
fn an_application_that_does_not_read_gets_no_body() {
    let front = front([Body::Here(bytes(50_000)), Body::Later(bytes(50))]);
    served(&front, |peer| {
        let request = peer.expect(Kind::Request);
        assert_eq!(body_of(&request), (bytes(INLINE_BODY), false));
    });
    assert_eq!(front.waits.get(), 0);
}

#[test]
fn the_limit_holds_and_the_end_rides_on_the_last_bytes() {
    let front = front([Body::Here(bytes(INLINE_BODY)), Body::Here(bytes(500_000))]);
    served(&front, |peer| {
        peer.expect(Kind::Request);
        let all = bytes(500_000);
        let (first, flags) = ask(peer, 1, 1_000);
        assert_eq!((&first[..], flags), (&all[..1_000], flag::GRANT_DONE));
        let (second, flags) = ask(peer, 300_000, 300_000);
        assert!(second == all[1_000..301_000] && flags == flag::GRANT_DONE);
        let (rest, flags) = ask(peer, 1, 1 << 20);
        assert!(rest == all[301_000..] && flags == flag::END);
    });
}

#[test]
fn only_what_is_wanted_is_waited_for() {
    let pieces = (0..5).map(|_| Body::Later(bytes(1_000)));
    let front = front(pieces);
    served(&front, |peer| {
        peer.expect(Kind::Request);
        let (some, flags) = ask(peer, 1_500, 10_000);
        assert_eq!((some.len(), flags), (2_000, flag::GRANT_DONE));
        let (some, flags) = ask(peer, 1, 10_000);
        assert_eq!((some.len(), flags), (1_000, flag::GRANT_DONE));
        let (some, flags) = ask(peer, 10_000, 10_000);
        assert_eq!((some.len(), flags), (2_000, flag::END));
    });
    assert_eq!(front.waits.get(), 5);
}

#[test]
fn nothing_is_read_before_the_end_user_may_go_on() {
    let mut front = front([Body::Here(bytes(100))]);
    front.expects_continue = true;
    served(&front, |peer| {
        let request = peer.expect(Kind::Request);
        assert_eq!(body_of(&request), (Vec::new(), false));
        assert_eq!(ask(peer, 1, 1_000), (bytes(100), flag::END));
    });
    assert_eq!(front.waits.get(), 1);
}

#[test]
fn an_empty_body_ends_when_it_is_read() {
    let front = front([Body::Later(Vec::new())]);
    served(&front, |peer| {
        let request = peer.expect(Kind::Request);
        assert_eq!(body_of(&request), (Vec::new(), false));
        assert_eq!(ask(peer, 1, 1_000), (Vec::new(), flag::END));
    });
}

#[test]
fn a_lost_body_is_said_and_the_worker_answers() {
    for first in [Body::Here(bytes(10)), Body::Failed(413)] {
        let front = front([first, Body::Failed(413)]);
        let worker = Worker::serve(|mut peer| {
            let request = peer.expect(Kind::Request);
            assert!(!body_of(&request).1);
            peer.send(
                &Read {
                    wanted: 1,
                    limit: 9,
                }
                .encode(),
            );
            let (header, _) = peer.expect(Kind::BodyFailed);
            assert_eq!(header.aux, 413);
            peer.put(Kind::Status, flag::END, header.aux, b"");
        });
        assert_eq!(forward(&pools(&[&worker]), &front), 413);
        assert_eq!(front.code(), None);
        worker.finish();
    }
}

#[test]
fn what_was_said_goes_out_before_the_body_is_waited_for() {
    let front = front([Body::Later(bytes(10))]);
    let worker = Worker::serve(|mut peer| {
        peer.expect(Kind::Request);
        peer.reply(-1, b"who?", 0);
        assert_eq!(ask(&mut peer, 1, 100), (bytes(10), flag::END));
        peer.put(Kind::Data, flag::END, 0, b" you!");
        assert!(peer.frame().is_none());
    });
    assert_eq!(forward(&pools(&[&worker]), &front), outcome::DONE);
    worker.finish();
    assert_eq!(
        *front.seen.borrow(),
        [
            Seen::Start(200),
            Seen::Data(b"who?".to_vec()),
            Seen::Flush,
            Seen::Data(b" you!".to_vec()),
            Seen::End
        ]
    );
}

#[test]
fn a_worker_that_answers_before_it_has_the_body() {
    let front = front([Body::Later(bytes(10))]);
    let worker = Worker::serve(|mut peer| {
        peer.expect(Kind::Request);
        peer.send(
            &Read {
                wanted: 1,
                limit: 9,
            }
            .encode(),
        );
        peer.put(Kind::Status, flag::END | flag::CLOSE, 504, b"");
    });
    let group = pools(&[&worker]);
    assert_eq!(forward(&group, &front), 504);
    assert_eq!(group.idle(0), 0);
    worker.finish();
}

#[test]
fn a_worker_that_dies_during_an_upload() {
    let pieces = (0..200).map(|_| Body::Here(bytes(60_000)));
    let front = front(pieces);
    let worker = Worker::serve(|mut peer| {
        peer.expect(Kind::Request);
        let limit = 1 << 24;
        peer.send(
            &Read {
                wanted: limit,
                limit,
            }
            .encode(),
        );
        peer.expect(Kind::Body);
    });
    assert_eq!(forward(&pools(&[&worker]), &front), 502);
    assert_eq!(front.code().as_deref(), Some("RWSGI0303"));
    // The rest of the body was not read for nobody.
    assert!(front.body.borrow().len() > 100);
    worker.finish();
}

/// A front whose end user has sent the head and is silent; the second is the end user's socket.
fn silent() -> (FakeFront, std::os::unix::net::UnixStream) {
    let (user, far) = std::os::unix::net::UnixStream::pair().unwrap();
    let front = FakeFront {
        socket: Some(user),
        ..front([Body::Later(bytes(10))])
    };
    (front, far)
}

#[test]
fn a_worker_that_dies_while_the_end_user_is_silent() {
    let (front, _far) = silent();
    let worker = Worker::serve(|mut peer| {
        peer.expect(Kind::Request);
        peer.send(
            &Read {
                wanted: 1,
                limit: 9,
            }
            .encode(),
        );
    });
    assert_eq!(forward(&pools(&[&worker]), &front), 502);
    assert_eq!(front.waits.get(), 0);
    assert!(front.closes.get());
    worker.finish();
}

#[test]
fn an_end_user_who_is_silent_for_too_long() {
    let (front, _far) = silent();
    front.timeout.set(Duration::from_millis(50));
    served(&front, |peer| {
        peer.expect(Kind::Request);
        // The server would find the time over; this one finds the body.
        assert_eq!(ask(peer, 1, 1_000), (bytes(10), flag::END));
    });
    assert_eq!(front.waits.get(), 1);
    assert_eq!(front.timeout.get(), Duration::from_millis(50));
}
