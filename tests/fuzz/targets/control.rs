//! Messages between supervisor and worker, both ways.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rwsgi::daemon::control::{FromWorker, LARGEST, ToWorker};

fuzz_target!(|packet: &[u8]| {
    if packet.len() > LARGEST / 2 {
        return;
    }
    if let Ok(message) = FromWorker::decode(packet) {
        assert_eq!(FromWorker::decode(&message.encode()), Ok(message));
    }
    if let Ok(message) = ToWorker::decode(packet) {
        assert_eq!(ToWorker::decode(&message.encode()), Ok(message));
    }
});
