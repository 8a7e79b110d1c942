//! The text form of a group's configuration.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rwsgi::daemon::group::GroupConfig;

fuzz_target!(|text: &[u8]| {
    if let Ok(config) = GroupConfig::decode(text) {
        let again = GroupConfig::decode(&config.encode()).expect("our own text");
        // Not by `==`: a number may be NaN.
        assert_eq!(format!("{config:?}"), format!("{again:?}"));
    }
});
