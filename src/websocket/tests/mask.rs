//! Unmasking.

use super::*;
use crate::websocket::mask::apply;

#[test]
fn words_and_bytes_give_the_same() {
    let mut state = 0x2545_f491_4f6c_dd1d;
    for length in 0..100 {
        let bytes = random_bytes(&mut state, length);
        let mask = [1, 0x20, 0x83, 0xff];
        let expected: Vec<u8> = bytes
            .iter()
            .enumerate()
            .map(|(at, byte)| byte ^ mask[at % 4])
            .collect();
        for start in 0..length.min(9) {
            let mut unmasked = bytes.clone();
            let (head, tail) = unmasked.split_at_mut(start);
            apply(head, mask);
            let mut rotated = mask;
            rotated.rotate_left(start % 4);
            apply(tail, rotated);
            assert_eq!(unmasked, expected);
        }
    }
}
