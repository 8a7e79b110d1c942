//! The closing handshake [7].

use super::*;
use crate::websocket::is_close_code;

fn closed(code: u16, reason: &str) -> Event {
    Event::Closed {
        code,
        reason: reason.to_owned(),
    }
}

fn payload(code: u16, reason: &[u8]) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend(reason);
    payload
}

#[test]
fn a_close_is_told_and_answered_with_itself() {
    let longest = "*".repeat(123);
    for (code, reason) in [
        (1000, ""),
        (1000, "Hello World!"),
        (3000, "\u{1f600}"),
        (1001, &longest),
    ] {
        let payload = payload(code, reason.as_bytes());
        for piece in [usize::MAX, 1] {
            let (events, out) = in_pieces(plain(), &frame(FIN | CLOSE, &payload), || piece);
            assert_eq!(events, [closed(code, reason)]);
            assert_eq!(frames(&out), [(FIN | CLOSE, payload.clone())]);
        }
    }
    let (events, answers) = receive(plain(), &frame(FIN | CLOSE, ""));
    assert_eq!(events, [closed(1005, "")]);
    assert_eq!(answers, [(FIN | CLOSE, Vec::new())]);
}

#[test]
fn nothing_counts_after_the_close() {
    let mut sent = frame(TEXT, "fragment1");
    sent.extend(frame(FIN | CLOSE, payload(1000, b"")));
    sent.extend(frame(FIN | CONTINUE, "fragment2"));
    sent.extend(frame(FIN | PING, "Hello"));
    sent.extend(frame(FIN | CLOSE, payload(1001, b"")));
    sent.extend([0xff; 100]);
    for piece in [usize::MAX, 1] {
        let (events, out) = in_pieces(plain(), &sent, || piece);
        assert_eq!(events, [closed(1000, "")]);
        assert_eq!(frames(&out), [(FIN | CLOSE, payload(1000, b""))]);
    }
}

#[test]
fn invalid_payloads_fail() {
    fails(plain(), &frame(FIN | CLOSE, "*"), &[], 1002);
    fails(plain(), &frame(FIN | CLOSE, [b'*'; 126]), &[], 1002);
    let reason = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80\x65\x64";
    fails(
        plain(),
        &frame(FIN | CLOSE, payload(1000, reason)),
        &[],
        1007,
    );
    fails(
        plain(),
        &frame(FIN | CLOSE, payload(1000, &reason[..3])),
        &[],
        1007,
    );
}

#[test]
fn codes_are_those_of_the_registry() {
    let mut valid = Vec::new();
    for code in 0..=u16::MAX {
        let (events, _) = receive(plain(), &frame(FIN | CLOSE, payload(code, b"")));
        match &events[..] {
            [Event::Closed { code: said, .. }] if *said == code => valid.push(code),
            [Event::Failed { code: 1002, .. }] => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(is_close_code(code), valid.last() == Some(&code));
    }
    let expected: Vec<u16> = (1000..=1003)
        .chain(1007..=1014)
        .chain(3000..=4999)
        .collect();
    assert_eq!(valid, expected);
}

#[test]
fn our_close_comes_first_and_once() {
    let mut connection = plain();
    let mut out = Vec::new();
    let mut events = Vec::new();
    assert!(connection.can_send());
    connection.receive(&frame(TEXT, "never finished"), &mut out, &mut events);
    connection.close(1001, "going", &mut out);
    assert!(!connection.can_send());
    connection.close(1000, "again", &mut out);
    connection.send_text("late", &mut out);
    connection.send_binary(b"late", &mut out);
    connection.ping(b"late", &mut out);
    connection.set_unsent(0, &mut out);
    // What was on its way is ignored.
    let mut sent = frame(FIN | CONTINUE, "on its way \u{e4}");
    sent.extend(frame(FIN | TEXT, b"\xff"));
    sent.extend(frame(FIN | BINARY, [0; 1000]));
    sent.extend(frame(FIN | PING, "on its way"));
    connection.receive(&sent, &mut out, &mut events);
    assert_eq!(events, []);
    assert!(!connection.is_closed());
    connection.receive(
        &frame(FIN | CLOSE, payload(1001, b"seen")),
        &mut out,
        &mut events,
    );
    assert_eq!(events, [closed(1001, "seen")]);
    assert!(connection.is_closed());
    assert_eq!(frames(&out), [(FIN | CLOSE, payload(1001, b"going"))]);
}

#[test]
fn errors_after_our_close_are_told_and_not_answered() {
    let mut connection = plain();
    let mut out = Vec::new();
    let mut events = Vec::new();
    connection.close(1000, "", &mut out);
    let before = out.clone();
    connection.receive(&frame(FIN | CONTINUE, ""), &mut out, &mut events);
    assert!(matches!(events[..], [Event::Failed { code: 1002, .. }]));
    assert!(connection.is_closed());
    assert_eq!(out, before);
}

#[test]
fn codes_that_may_not_be_sent_are_left_out() {
    for code in [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, u16::MAX] {
        let mut out = Vec::new();
        plain().close(code, "reason", &mut out);
        assert_eq!(frames(&out), [(FIN | CLOSE, Vec::new())]);
    }
}

#[test]
fn long_reasons_are_cut_between_characters() {
    let mut out = Vec::new();
    plain().close(1000, &"\u{20ac}".repeat(100), &mut out);
    plain().close(1000, &format!("x{}", "\u{20ac}".repeat(100)), &mut out);
    let expected = [
        (FIN | CLOSE, payload(1000, "\u{20ac}".repeat(41).as_bytes())),
        (
            FIN | CLOSE,
            payload(1000, format!("x{}", "\u{20ac}".repeat(40)).as_bytes()),
        ),
    ];
    assert_eq!(frames(&out), expected);
}
