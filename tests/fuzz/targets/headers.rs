//! The rules for header names and response heads that both modes apply.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rwsgi::exchange::response;
use rwsgi::exchange::slashes;

fuzz_target!(|bytes: &[u8]| {
    let once = slashes::collapse(bytes);
    assert_eq!(slashes::collapse(&once), once);
    if let Ok(status) = response::parse_status(bytes) {
        assert!((200..=999).contains(&status));
    }
});
