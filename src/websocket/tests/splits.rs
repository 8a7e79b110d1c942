//! Streams of frames cut anywhere, and damaged ones [9.3 to 9.6].

use super::*;

/// A stream that says something of everything and ends with a close.
fn stream(state: &mut u64, compressed: bool) -> Vec<u8> {
    let mut all = Vec::new();
    for size in [0, 3, 125, 126, 30_000] {
        let binary = random_bytes(state, size);
        let words = "Gr\u{fc}\u{df}e, \u{1f600}! ".repeat(size / 20 + 1);
        all.extend(frame(FIN | TEXT, &words));
        all.extend(frame(FIN | BINARY, &binary));
        all.extend(frame(FIN | PONG, "pong"));
        for (opcode, message) in [(TEXT, words.as_bytes()), (BINARY, &binary[..])] {
            let packed = compression::compress(message);
            let (bit, message) = if compressed {
                (RSV1, &packed[..])
            } else {
                (0, message)
            };
            let mut first = bit | opcode;
            let mut rest = message;
            while !rest.is_empty() {
                let (piece, later) = rest.split_at((random(state) % (size + 2)).min(rest.len()));
                all.extend(frame(first, piece));
                all.extend(frame(FIN | PING, random_bytes(state, size % 11)));
                first = CONTINUE;
                rest = later;
            }
            all.extend(frame(FIN | first, ""));
        }
    }
    all.extend(frame(FIN | CLOSE, b"\x03\xe8bye"));
    all
}

#[test]
fn any_split_says_the_same() {
    let mut state = 0x2545_f491_4f6c_dd1d;
    for (make, compressed) in [(plain as fn() -> Connection, false), (compressing, true)] {
        let stream = stream(&mut state, compressed);
        let (whole, answers) = in_pieces(make(), &stream, || usize::MAX);
        assert_eq!(whole.len(), 5 * 5 + 1);
        assert!(matches!(
            whole.last(),
            Some(Event::Closed { code: 1000, .. })
        ));
        let pongs = frames(&answers);
        assert!(pongs.len() > 10);
        for largest in [1, 2, 9, 100, 5_000, 60_000] {
            for _ in 0..3 {
                let (split, sent) = in_pieces(make(), &stream, || random(&mut state) % largest);
                assert!(split == whole, "pieces up to {largest}");
                assert!(sent == answers, "pieces up to {largest}");
            }
        }
    }
}

#[test]
fn damaged_streams_give_no_panic_and_the_same_for_any_split() {
    let mut state = 0x9e37_79b9_7f4a_7c15;
    let mut failed = 0;
    for (make, compressed) in [(plain as fn() -> Connection, false), (compressing, true)] {
        let good = stream(&mut state, compressed)[..3_000].to_vec();
        for _ in 0..1_500 {
            let mut bytes = good.clone();
            for _ in 0..3 {
                let at = random(&mut state) % bytes.len();
                bytes[at] = random(&mut state) as u8;
            }
            let (whole, answers) = in_pieces(make(), &bytes, || usize::MAX);
            let (split, sent) = in_pieces(make(), &bytes, || random(&mut state) % 40);
            assert_eq!(split, whole);
            assert_eq!(sent, answers);
            frames(&answers);
            failed += usize::from(matches!(whole.last(), Some(Event::Failed { .. })));
        }
    }
    assert!(failed > 500, "{failed}");
}

#[test]
fn noise_gives_no_panic() {
    let mut state = 0xd1b5_4a32_d192_ed03;
    for _ in 0..5_000 {
        let length = random(&mut state) % 200;
        let mut bytes = random_bytes(&mut state, length);
        // Often enough something that goes on for a while.
        for at in (0..length).step_by(8) {
            if let [first, second, ..] = &mut bytes[at..] {
                *first &= 0xcf;
                *second = 0x80 | (*second & 0x0f);
            }
        }
        let (whole, answers) = in_pieces(compressing(), &bytes, || usize::MAX);
        let (split, sent) = in_pieces(compressing(), &bytes, || random(&mut state) % 10);
        assert_eq!((split, sent), (whole, answers));
    }
}
