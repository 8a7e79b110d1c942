//! permessage-deflate [12, 13] and the examples of RFC 7692.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::*;

const TEXT_COMPRESSED: u8 = FIN | RSV1 | TEXT;
const BINARY_COMPRESSED: u8 = FIN | RSV1 | BINARY;

/// As a client compresses, at zlib's best.
pub(super) fn compress(message: &[u8]) -> Vec<u8> {
    let mut state = Compress::new(Compression::best(), false);
    let mut out = Vec::with_capacity(message.len() * 2 + 100);
    state
        .compress_vec(message, &mut out, FlushCompress::Sync)
        .unwrap();
    assert_eq!(state.total_in() as usize, message.len());
    if message.is_empty() {
        // There is nothing to flush, so zlib flushes nothing.
        return vec![0];
    }
    assert!(out.ends_with(&[0, 0, 0xff, 0xff]));
    out.truncate(out.len() - 4);
    out
}

/// As a client inflates.
fn inflate(payload: &[u8], largest: usize) -> Vec<u8> {
    let mut state = Decompress::new(false);
    let mut out = Vec::with_capacity(largest + 1);
    let all = [payload, &[0, 0, 0xff, 0xff]].concat();
    state
        .decompress_vec(&all, &mut out, FlushDecompress::Sync)
        .unwrap();
    assert_eq!(state.total_in() as usize, all.len());
    out
}

fn limited(max_message: usize) -> Connection {
    Connection::new(Limits { max_message }, Some(Deflate { window: None }))
}

#[test]
fn the_examples_of_the_rfc_say_hello() {
    let examples: [&[u8]; 5] = [
        // One block.
        b"\xf2\x48\xcd\xc9\xc9\x07\x00",
        // Not compressed.
        b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00",
        // BFINAL.
        b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00",
        // Two blocks.
        b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00",
        // BFINAL, and another with it.
        b"\xf3\x48\x05\x00\xcb\xc9\xc9\x07\x00\x00",
    ];
    for example in examples {
        let (events, _) = receive(compressing(), &frame(FIN | RSV1 | TEXT, example));
        assert_eq!(events, [text("Hello")], "{example:x?}");
        // In fragments of any size, with the bit in the first only.
        for size in 1..example.len() {
            let mut sent = frame(RSV1 | TEXT, "");
            for piece in example.chunks(size) {
                sent.extend(frame(CONTINUE, piece));
                sent.extend(frame(FIN | PONG, ""));
            }
            sent.extend(frame(FIN | CONTINUE, ""));
            let (mut events, _) = receive(compressing(), &sent);
            assert_eq!(events.pop(), Some(text("Hello")));
        }
    }
}

#[test]
fn empty_messages_are_empty() {
    for payload in [&b""[..], b"\x00", b"\x03\x00", b"\x02\x00"] {
        let (events, _) = receive(compressing(), &frame(FIN | RSV1 | TEXT, payload));
        assert_eq!(events, [text("")], "{payload:x?}");
    }
}

#[test]
fn context_is_not_taken_over() {
    // The RFC's second Hello refers to the first.
    let mut sent = frame(FIN | RSV1 | TEXT, b"\xf2\x48\xcd\xc9\xc9\x07\x00");
    sent.extend(frame(FIN | RSV1 | TEXT, b"\xf2\x00\x11\x00\x00"));
    fails(compressing(), &sent, &[text("Hello")], 1007);
}

#[test]
fn compressed_and_plain_messages_take_turns() {
    let mut state = 0x2545_f491_4f6c_dd1d;
    let mut sent = Vec::new();
    let mut expected = Vec::new();
    for size in [
        0,
        16,
        64,
        256,
        1024,
        4096,
        8192,
        16_384,
        32_768,
        65_536,
        131_072,
        MAX_MESSAGE,
    ] {
        let noise = random_bytes(&mut state, size / 2);
        let message = [&noise[..], &vec![b'*'; size / 2]].concat();
        sent.extend(frame(FIN | RSV1 | BINARY, compress(&message)));
        sent.extend(frame(FIN | BINARY, &message));
        expected.extend([Event::Binary(message.clone()), Event::Binary(message)]);
    }
    for piece in [usize::MAX, 1000] {
        let (events, _) = in_pieces(compressing(), &sent, || piece);
        assert!(events == expected);
    }
}

#[test]
fn text_must_be_utf8_when_inflated() {
    for invalid in [&b"\xff"[..], b"Hello \xed\xa0\x80", b"cut \xe2\x82"] {
        let sent = frame(FIN | RSV1 | TEXT, compress(invalid));
        fails(compressing(), &sent, &[], 1007);
    }
    // What is on the way is not text yet.
    let packed = compress("Gr\u{fc}\u{df}e".as_bytes());
    assert!(str::from_utf8(&packed).is_err());
    let (events, _) = receive(compressing(), &frame(FIN | RSV1 | TEXT, packed));
    assert_eq!(events, [text("Gr\u{fc}\u{df}e")]);
}

#[test]
fn the_bit_is_for_first_frames_of_agreed_compression() {
    fails(plain(), &frame(FIN | RSV1 | TEXT, "Hello"), &[], 1002);
    let mut sent = frame(RSV1 | TEXT, b"\xf2\x48\xcd");
    sent.extend(frame(FIN | RSV1 | CONTINUE, b"\xc9\xc9\x07\x00"));
    fails(compressing(), &sent, &[], 1002);
    fails(compressing(), &frame(FIN | RSV1 | PING, ""), &[], 1002);
}

#[test]
fn damaged_data_fails() {
    // Block type 3; a stored block whose lengths differ; a distance before the start.
    for payload in [
        &b"\x06"[..],
        b"\x00\x05\x00\x05\x00Hello",
        b"\xf2\x00\x11\x00\x00",
    ] {
        fails(
            compressing(),
            &frame(FIN | RSV1 | BINARY, payload),
            &[],
            1007,
        );
    }
}

#[test]
fn bombs_fail_when_they_reach_the_limit() {
    let bomb = compress(&vec![0; 16 << 20]);
    assert!(bomb.len() < 20_000);
    fails(compressing(), &frame(FIN | RSV1 | BINARY, &bomb), &[], 1009);
    for size in [0, 1, 1000, 70_000] {
        let packed = compress(&vec![7; size]);
        let (events, _) = receive(limited(size), &frame(FIN | RSV1 | BINARY, &packed));
        assert!(events == [Event::Binary(vec![7; size])], "{size}");
        if size > 0 {
            fails(
                limited(size - 1),
                &frame(FIN | RSV1 | BINARY, &packed),
                &[],
                1009,
            );
        }
    }
}

#[test]
fn what_grew_when_compressed_is_judged_by_its_own_size() {
    let mut state = 0x9e37_79b9_7f4a_7c15;
    for size in [0, 1, 100, 100_000] {
        let noise = random_bytes(&mut state, size);
        let packed = compress(&noise);
        assert!(packed.len() > size);
        let (events, _) = receive(limited(size), &frame(FIN | RSV1 | BINARY, packed));
        assert!(events == [Event::Binary(noise)], "{size}");
    }
    // Far more than that is refused with the header.
    let sent = header(FIN | RSV1 | BINARY, 1_000 + 200, [0; 4]);
    fails(limited(1_000), &sent, &[], 1009);
    // Or, of nothing but empty blocks, when there are too many.
    let mut sent = frame(RSV1 | BINARY, "");
    for _ in 0..100 {
        sent.extend(frame(CONTINUE, b"\x00\x00\x00\xff\xff".repeat(10)));
    }
    fails(limited(1_000), &sent, &[], 1009);
}

#[test]
fn an_inflated_message_does_not_hold_twice_its_memory() {
    let mut state = 0x9e37_79b9_7f4a_7c15;
    for message in [random_bytes(&mut state, 50_000), vec![0; 70_000], vec![1]] {
        let sent = frame(FIN | RSV1 | BINARY, compress(&message));
        let (events, _) = receive(compressing(), &sent);
        let [Event::Binary(bytes)] = &events[..] else {
            panic!("{events:?}");
        };
        assert!(*bytes == message);
        assert!(
            bytes.capacity() <= 2 * bytes.len() + 1,
            "{}",
            bytes.capacity()
        );
    }
}

/// Letters that begin anew after so many, and cannot be compressed but for that: to half their size.
fn letters(state: &mut u64, distance: usize, size: usize) -> String {
    let line: String = (0..distance)
        .map(|_| (b'a' + (random(state) % 16) as u8) as char)
        .collect();
    let mut all = line.repeat(size / distance + 1);
    all.truncate(size);
    all
}

#[test]
fn messages_are_sent_compressed_within_the_window() {
    let mut state = 0x2545_f491_4f6c_dd1d;
    for window in [None, Some(9), Some(10), Some(12), Some(15), Some(9), None] {
        let limits = Limits {
            max_message: MAX_MESSAGE,
        };
        let mut connection = Connection::new(limits, Some(Deflate { window }));
        for (distance, size) in [(50, 200), (200, 10_000), (1_500, 60_000), (5_000, 100_000)] {
            let message = letters(&mut state, distance, size);
            let mut out = Vec::new();
            connection.send_text(&message, &mut out);
            connection.send_binary(message.as_bytes(), &mut out);
            let sent = frames(&out);
            let [(TEXT_COMPRESSED, one), (BINARY_COMPRESSED, two)] = &sent[..] else {
                panic!("{window:?} {size}");
            };
            assert!(one == two);
            assert!(inflate(one, size) == message.as_bytes());
            // It shrinks to a fraction if the window reaches back to where it begins anew.
            let reached = distance < 1 << window.unwrap_or(15);
            assert_eq!(one.len() < size * 2 / 5, reached, "{window:?} {size}");
        }
    }
}

#[test]
fn what_does_not_shrink_is_sent_as_it_is() {
    let mut state = 0x9e37_79b9_7f4a_7c15;
    let mut connection = compressing();
    for size in [0, 1, 16, 127, 128, 1_000, 70_000, 300_000] {
        let mut out = b"before".to_vec();
        let noise = random_bytes(&mut state, size);
        connection.send_binary(&noise, &mut out);
        assert!(frames(&out[6..]) == [(FIN | BINARY, noise)], "{size}");
    }
    let mut out = Vec::new();
    connection.send_text("too short to be worth it, too short", &mut out);
    assert_eq!(frames(&out)[0].0, FIN | TEXT);
}

#[test]
fn every_thread_has_a_pair_of_its_own() {
    std::thread::spawn(|| {
        let (events, _) = receive(compressing(), &frame(FIN | RSV1 | TEXT, compress(b"Hello")));
        assert_eq!(events, [text("Hello")]);
        let mut out = Vec::new();
        compressing().send_text(&"Hello".repeat(100), &mut out);
        assert_eq!(frames(&out)[0].0, TEXT_COMPRESSED);
    })
    .join()
    .unwrap();
}
