//! Sizes [1], pings [2], reserved bits [3] and opcodes [4], fragments [5].

use super::*;

const SIZES: [usize; 10] = [
    0,
    1,
    125,
    126,
    127,
    128,
    65_535,
    65_536,
    65_537,
    MAX_MESSAGE,
];

#[test]
fn messages_of_all_sizes_arrive_however_they_are_cut() {
    for size in SIZES {
        let bytes = vec![b'*'; size];
        let messages = [
            (TEXT, text(str::from_utf8(&bytes).unwrap())),
            (BINARY, Event::Binary(bytes.clone())),
        ];
        for (opcode, event) in messages {
            let sent = frame(FIN | opcode, &bytes);
            for piece in [usize::MAX, 997, 1] {
                let (events, out) = in_pieces(plain(), &sent, || piece);
                assert!(events == [event.clone()], "{size} in {piece}");
                assert!(out.is_empty());
            }
        }
    }
}

#[test]
fn messages_of_all_sizes_are_sent() {
    let mut connection = plain();
    for size in SIZES {
        let mut out = Vec::new();
        let data = vec![b'*'; size];
        connection.send_text(str::from_utf8(&data).unwrap(), &mut out);
        connection.send_binary(&data, &mut out);
        let expected = [(FIN | TEXT, data.clone()), (FIN | BINARY, data)];
        assert!(frames(&out) == expected, "{size}");
    }
}

#[test]
fn a_short_message_costs_its_own_memory_only() {
    let (events, _) = receive(plain(), &frame(FIN | BINARY, [7; 1000]));
    let [Event::Binary(bytes)] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(bytes.capacity(), 1000);
    let (events, _) = in_pieces(plain(), &frame(FIN | BINARY, [7; 100_000]), || 999);
    let [Event::Binary(bytes)] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(bytes.capacity(), 100_000);
}

#[test]
fn an_idle_connection_is_small() {
    assert!(
        size_of::<Connection>() <= 256,
        "{}",
        size_of::<Connection>()
    );
}

#[test]
fn pings_are_answered_with_their_payload() {
    for payload in [
        &b""[..],
        b"Hello, world!",
        b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff",
        &[0xfe; 125],
    ] {
        for piece in [usize::MAX, 1] {
            let mut connection = plain();
            let mut out = Vec::new();
            let mut events = Vec::new();
            for piece in frame(FIN | PING, payload).chunks(piece) {
                connection.receive(piece, &mut out, &mut events);
            }
            assert_eq!(events, [Event::Ping]);
            assert_eq!(frames(&out), [(FIN | PONG, payload.to_vec())]);
        }
    }
}

#[test]
fn ten_pings_get_ten_pongs_and_one_event() {
    let mut sent = Vec::new();
    for number in 0..10 {
        sent.extend(frame(FIN | PING, [number]));
    }
    let (events, answers) = receive(plain(), &sent);
    assert_eq!(events, [Event::Ping]);
    let expected: Vec<_> = (0..10).map(|number| (FIN | PONG, vec![number])).collect();
    assert_eq!(answers, expected);
}

#[test]
fn pongs_are_only_told() {
    let mut sent = frame(FIN | PONG, "unsolicited");
    sent.extend(frame(FIN | PONG, ""));
    let (events, answers) = receive(plain(), &sent);
    let expected = [
        Event::Pong(b"unsolicited".to_vec()),
        Event::Pong(Vec::new()),
    ];
    assert_eq!(events, expected);
    assert_eq!(answers, []);
}

#[test]
fn our_pings_carry_what_is_asked_up_to_their_limit() {
    let mut connection = plain();
    let mut out = Vec::new();
    connection.ping(b"abc", &mut out);
    connection.ping(&[1; 200], &mut out);
    let expected = [(FIN | PING, b"abc".to_vec()), (FIN | PING, vec![1; 125])];
    assert_eq!(frames(&out), expected);
}

#[test]
fn reserved_bits_fail() {
    for opcode in [TEXT, BINARY, CLOSE, PING, PONG] {
        for bits in 1..8 {
            let mut sent = frame(FIN | TEXT, "Hello");
            sent.extend(frame(FIN | bits << 4 | opcode, "Hello"));
            sent.extend(frame(FIN | PING, ""));
            fails(plain(), &sent, &[text("Hello")], 1002);
            if bits != 4 || opcode >= CLOSE {
                fails(compressing(), &sent, &[text("Hello")], 1002);
            }
        }
    }
}

#[test]
fn reserved_opcodes_fail() {
    for opcode in (3..8).chain(11..16) {
        for payload in ["", "Hello"] {
            for first in [opcode, FIN | opcode] {
                let mut sent = frame(FIN | TEXT, "Hello");
                sent.extend(frame(first, payload));
                fails(plain(), &sent, &[text("Hello")], 1002);
            }
        }
    }
}

#[test]
fn control_frames_are_short_and_whole() {
    for opcode in [CLOSE, PING, PONG] {
        fails(plain(), &frame(opcode, ""), &[], 1002);
        // Judged by the header.
        fails(plain(), &header(FIN | opcode, 126, [0; 4]), &[], 1002);
        fails(plain(), &header(FIN | opcode, 1 << 40, [0; 4]), &[], 1002);
    }
    let mut sent = frame(PING, "fragment1");
    sent.extend(frame(FIN | CONTINUE, "fragment2"));
    fails(plain(), &sent, &[], 1002);
}

#[test]
fn fragments_are_put_together() {
    let mut sent = frame(TEXT, "fragment1");
    sent.extend(frame(CONTINUE, ""));
    sent.extend(frame(CONTINUE, "fragment2"));
    sent.extend(frame(FIN | CONTINUE, ""));
    sent.extend(frame(BINARY, ""));
    sent.extend(frame(FIN | CONTINUE, ""));
    for piece in [usize::MAX, 3, 1] {
        let (events, _) = in_pieces(plain(), &sent, || piece);
        let expected = [text("fragment1fragment2"), Event::Binary(Vec::new())];
        assert_eq!(events, expected);
    }
}

#[test]
fn control_frames_come_between_fragments() {
    let mut sent = frame(TEXT, "fragment1");
    sent.extend(frame(FIN | PING, "pongme 1!"));
    sent.extend(frame(CONTINUE, "fragment2"));
    sent.extend(frame(FIN | PONG, "?"));
    sent.extend(frame(FIN | PING, "pongme 2!"));
    sent.extend(frame(FIN | CONTINUE, "fragment3"));
    let (events, answers) = receive(plain(), &sent);
    let expected = [
        Event::Ping,
        Event::Pong(b"?".to_vec()),
        text("fragment1fragment2fragment3"),
    ];
    assert_eq!(events, expected);
    let expected = [
        (FIN | PONG, b"pongme 1!".to_vec()),
        (FIN | PONG, b"pongme 2!".to_vec()),
    ];
    assert_eq!(answers, expected);
}

#[test]
fn continuations_of_nothing_fail() {
    for first in [CONTINUE, FIN | CONTINUE] {
        fails(
            plain(),
            &frame(first, "non-continuation payload"),
            &[],
            1002,
        );
        let mut sent = frame(FIN | TEXT, "Hello");
        sent.extend(frame(first, ""));
        fails(plain(), &sent, &[text("Hello")], 1002);
    }
}

#[test]
fn messages_within_messages_fail() {
    for opcode in [TEXT, BINARY] {
        for first in [opcode, FIN | opcode] {
            let mut sent = frame(TEXT, "fragment1");
            sent.extend(frame(first, "fragment2"));
            fails(plain(), &sent, &[], 1002);
        }
    }
}

#[test]
fn frames_without_a_mask_fail() {
    for first in [FIN | TEXT, FIN | PING, FIN | CLOSE] {
        fails(plain(), &[first, 0], &[], 1002);
        fails(plain(), &[first, 2, b'a', b'b'], &[], 1002);
    }
}

#[test]
fn lengths_are_minimal_and_positive() {
    let long = |length: u64| {
        let mut bytes = vec![FIN | BINARY, 0x80 | 127];
        bytes.extend(length.to_be_bytes());
        bytes.extend([0; 4]);
        bytes
    };
    fails(
        plain(),
        &[FIN | BINARY, 0x80 | 126, 0, 125, 0, 0, 0, 0],
        &[],
        1002,
    );
    fails(plain(), &long(65_535), &[], 1002);
    fails(plain(), &long(1 << 63), &[], 1002);
    fails(plain(), &long(u64::MAX), &[], 1002);
    fails(plain(), &long((1 << 63) - 1), &[], 1009);
}
