//! Size limits [9], and clients that mean ill.

use super::*;

fn limited(max_message: usize) -> Connection {
    Connection::new(Limits { max_message }, None)
}

#[test]
fn a_message_as_large_as_allowed_arrives() {
    for (first, rest) in [(100, 0), (60, 40), (0, 100)] {
        let mut sent = frame(BINARY, vec![1; first]);
        sent.extend(frame(FIN | CONTINUE, vec![1; rest]));
        let (events, _) = receive(limited(100), &sent);
        assert_eq!(events, [Event::Binary(vec![1; 100])]);
    }
    let (events, _) = receive(limited(0), &frame(FIN | TEXT, ""));
    assert_eq!(events, [text("")]);
}

#[test]
fn a_larger_one_fails_with_its_header() {
    for opcode in [TEXT, BINARY] {
        for length in [101, 200, 70_000, 1 << 40, (1 << 63) - 1] {
            fails(
                limited(100),
                &header(FIN | opcode, length, [0; 4]),
                &[],
                1009,
            );
        }
        let mut sent = frame(opcode, [b'x'; 60]);
        sent.extend(frame(CONTINUE, [b'x'; 40]));
        sent.extend(frame(CONTINUE, ""));
        let (events, _) = receive(limited(100), &sent);
        assert_eq!(events, []);
        sent.extend(header(CONTINUE, 1, [0; 4]));
        fails(limited(100), &sent, &[], 1009);
    }
    fails(limited(0), &header(FIN | TEXT, 1, [0; 4]), &[], 1009);
}

#[test]
fn no_limit_is_none() {
    let (events, _) = receive(limited(usize::MAX), &frame(FIN | BINARY, [1; 70_000]));
    assert!(events == [Event::Binary(vec![1; 70_000])]);
    let (events, _) = receive(limited(usize::MAX), &header(TEXT, (1 << 63) - 1, [0; 4]));
    assert_eq!(events, []);
}

#[test]
fn a_flood_of_pings_into_one_call_gives_bounded_answers() {
    let flood = frame(FIN | PING, [9; 125]).repeat(10_000);
    let mut last = frame(FIN | PING, "the last");
    last.extend(frame(FIN | TEXT, "after it"));
    let mut connection = plain();
    let mut out = Vec::new();
    let mut events = Vec::new();
    connection.receive(&[flood, last].concat(), &mut out, &mut events);
    assert_eq!(events, [Event::Ping, text("after it")]);
    assert!(out.len() < 17 * 1024, "{}", out.len());
    let answers = frames(&out);
    assert!(answers.len() > 100);
    assert_eq!(answers.last(), Some(&(FIN | PONG, b"the last".to_vec())));
}

#[test]
fn pings_to_a_client_that_takes_nothing_wait() {
    let mut connection = plain();
    let mut out = Vec::new();
    let mut events = Vec::new();
    for number in 0..100_000_u32 {
        connection.receive(
            &frame(FIN | PING, number.to_be_bytes()),
            &mut out,
            &mut events,
        );
        events.clear();
    }
    assert!(out.len() < 17 * 1024, "{}", out.len());
    connection.set_unsent(0, &mut out);
    assert!(out.len() < 17 * 1024, "{}", out.len());
    out.clear();
    connection.set_unsent(0, &mut out);
    connection.set_unsent(0, &mut out);
    assert_eq!(
        frames(&out),
        [(FIN | PONG, 99_999_u32.to_be_bytes().to_vec())]
    );
}

#[test]
fn what_waits_elsewhere_counts() {
    let mut connection = plain();
    let mut out = Vec::new();
    let mut events = Vec::new();
    let mut unsent = 0;
    for number in 0..10_000_u32 {
        let ping = frame(FIN | PING, number.to_be_bytes());
        connection.receive(&ping, &mut out, &mut events);
        assert!(matches!(events.pop(), Some(Event::Ping)));
        unsent += core::mem::take(&mut out).len();
        connection.set_unsent(unsent, &mut out);
        assert!(out.is_empty());
    }
    assert!((16 * 1024..17 * 1024).contains(&unsent), "{unsent}");
    connection.set_unsent(100, &mut out);
    let last = [(FIN | PONG, 9_999_u32.to_be_bytes().to_vec())];
    assert_eq!(frames(&out), last);
    connection.set_unsent(usize::MAX, &mut out);
    connection.set_unsent(0, &mut out);
    assert_eq!(frames(&out), last);
}

#[test]
fn a_ping_that_waits_is_forgotten_with_our_close() {
    let mut connection = plain();
    let mut out = vec![0; 20_000];
    let mut events = Vec::new();
    connection.receive(&frame(FIN | PING, "waits"), &mut out, &mut events);
    assert_eq!(out.len(), 20_000);
    connection.close(1000, "", &mut out);
    out.clear();
    connection.set_unsent(0, &mut out);
    assert!(out.is_empty());
}

#[test]
fn many_small_fragments_are_no_burden() {
    let mut sent = frame(BINARY, "");
    sent.extend(frame(CONTINUE, "x").repeat(MAX_MESSAGE - 1));
    sent.extend(frame(FIN | CONTINUE, "x"));
    let (events, _) = receive(plain(), &sent);
    assert!(events == [Event::Binary(vec![b'x'; MAX_MESSAGE])]);
}
