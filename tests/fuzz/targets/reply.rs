//! REPLY heads, as an httpd child reads them from a worker that may be hostile.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rwsgi::daemon::wire::{FileRange, Read, reply};

fuzz_target!(|payload: &[u8]| {
    let _ = Read::decode(payload);
    let _ = FileRange::decode(payload);
    let Some(Ok(length)) = reply::head_length(payload) else {
        return;
    };
    let Some(head) = payload.get(..length) else {
        return;
    };
    let _ = reply::decode(head, |first| {
        let mut frame = Vec::new();
        reply::encode(first, &mut frame).expect("it has just fitted");
        reply::finish(&mut frame, 0, 0, 0);
        reply::decode(&frame[rwsgi::daemon::wire::HEADER..], |second| {
            assert_eq!(format!("{first:?}"), format!("{second:?}"));
        })
        .expect("our own head");
    });
});
