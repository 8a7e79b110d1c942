//! UTF-8 in text messages [6].

use super::*;

const VALID: &[&[u8]] = &[
    b"",
    "Hello-\u{b5}@\u{df}\u{f6}\u{e4}\u{fc}\u{e0}\u{e1}-UTF-8!!".as_bytes(),
    "\u{3ba}\u{1f79}\u{3c3}\u{3bc}\u{3b5}".as_bytes(),
    // The first and last of each length.
    b"\x00",
    b"\x7f",
    b"\xc2\x80",
    b"\xdf\xbf",
    b"\xe0\xa0\x80",
    b"\xef\xbf\xbf",
    b"\xf0\x90\x80\x80",
    b"\xf4\x8f\xbf\xbf",
    // Beside the surrogates.
    b"\xed\x9f\xbf",
    b"\xee\x80\x80",
    b"\xef\xbf\xbd",
    // What is no character is valid all the same.
    b"\xef\xbf\xbe",
    b"\xf0\x9f\xbf\xbe",
    b"\xf3\xaf\xbf\xbf",
    b"\xef\xbb\xbf",
];

/// Sequences that are invalid at their end, and valid so far before it.
const INVALID: &[&[u8]] = &[
    // Lone continuation bytes.
    b"\x80",
    b"\xbf",
    b"ok\x80",
    // Starts without continuation.
    b"\xc3 ",
    b"\xe2\x82 ",
    b"\xf0\x9f\x98 ",
    b"\xc3\xc3",
    // Bytes that never occur.
    b"\xfe",
    b"\xff",
    b"\xf8",
    b"\xfc",
    b"\xf5",
    // Overlong.
    b"\xc0",
    b"\xc1",
    b"\xe0\x80",
    b"\xe0\x9f",
    b"\xf0\x80",
    b"\xf0\x8f",
    // Surrogates, alone and paired.
    b"\xed\xa0",
    b"\xed\xbf",
    // Beyond Unicode.
    b"\xf4\x90",
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0",
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90",
];

/// A message in frames of `size` bytes, without its last frame.
fn unfinished(message: &[u8], size: usize) -> Vec<u8> {
    let mut sent = frame(TEXT, "");
    for piece in message.chunks(size) {
        sent.extend(frame(CONTINUE, piece));
    }
    sent
}

#[test]
fn valid_text_arrives_however_it_is_cut() {
    for valid in VALID {
        let expected = [text(str::from_utf8(valid).unwrap())];
        for size in [1, 2, 3, 100] {
            let mut sent = unfinished(valid, size);
            sent.extend(frame(FIN | CONTINUE, ""));
            for piece in [1, usize::MAX] {
                let (events, _) = in_pieces(plain(), &sent, || piece);
                assert_eq!(events, expected);
                let (events, _) = in_pieces(plain(), &frame(FIN | TEXT, valid), || piece);
                assert_eq!(events, expected);
            }
        }
    }
}

#[test]
fn invalid_text_fails_at_its_first_byte() {
    for invalid in INVALID {
        // Whole.
        fails(plain(), &frame(FIN | TEXT, invalid), &[], 1007);
        // Between valid text.
        let around = [b"before", *invalid, b"after"].concat();
        fails(plain(), &frame(FIN | TEXT, around), &[], 1007);
        // In frames, without the end: not later than with the byte that is wrong.
        for size in [1, 2, 3, 100] {
            fails(plain(), &unfinished(invalid, size), &[], 1007);
        }
        let (good, _) = invalid.split_at(invalid.len() - 1);
        let (events, _) = receive(plain(), &unfinished(good, 1));
        assert_eq!(events, [], "{invalid:x?}");
        // In the middle of a frame of which more is to come.
        let mut sent = header(FIN | TEXT, 1000, [0; 4]);
        sent.extend_from_slice(invalid);
        fails(plain(), &sent, &[], 1007);
        sent.pop();
        for piece in [1, usize::MAX] {
            let (events, _) = in_pieces(plain(), &sent, || piece);
            assert_eq!(events, [], "{invalid:x?}");
        }
    }
}

#[test]
fn text_that_ends_within_a_character_fails() {
    let whole = "\u{df}\u{20ac}\u{1f600}";
    for end in 0..whole.len() {
        let bytes = &whole.as_bytes()[..end];
        let mut fragmented = unfinished(bytes, 1);
        fragmented.extend(frame(FIN | CONTINUE, ""));
        for sent in [frame(FIN | TEXT, bytes), fragmented] {
            if whole.is_char_boundary(end) {
                let (events, _) = receive(plain(), &sent);
                assert_eq!(events, [text(&whole[..end])]);
            } else {
                fails(plain(), &sent, &[], 1007);
            }
        }
    }
}

#[test]
fn binary_messages_need_not_be_utf8() {
    for invalid in INVALID {
        let (events, _) = receive(plain(), &frame(FIN | BINARY, invalid));
        assert_eq!(events, [Event::Binary(invalid.to_vec())]);
    }
}

#[test]
fn every_character_is_whole_across_frames() {
    for character in '\0'..=char::MAX {
        // Every one of the ends of the planes and blocks is among them.
        if u32::from(character) % 61 != 0 && u32::from(character) & 0xff < 0xfc {
            continue;
        }
        let mut buffer = [0; 4];
        let whole = character.encode_utf8(&mut buffer);
        let mut sent = unfinished(whole.as_bytes(), 1);
        sent.extend(frame(FIN | CONTINUE, ""));
        let (events, _) = receive(plain(), &sent);
        assert_eq!(events, [text(whole)]);
    }
}
