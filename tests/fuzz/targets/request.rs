//! REQUEST frames: whatever a peer sends is refused or understood; what is understood means the
//! same after another trip over the wire.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rwsgi::daemon::wire::{HEADER, Header, request};

fuzz_target!(|bytes: &[u8]| {
    let Some(Ok(header)) = Header::peek(bytes) else {
        return;
    };
    let payload = &bytes[HEADER..];
    let _ = request::decode(header, payload, |first| {
        let mut frame = Vec::new();
        request::encode(first, &mut frame).expect("it has just fitted");
        let header = Header::peek(&frame).expect("a header").expect("a valid one");
        request::decode(header, &frame[HEADER..], |second| {
            assert_eq!(format!("{first:?}"), format!("{second:?}"));
        })
        .expect("our own frame");
    });
});
