//! Headers of proxies, as anybody may send them: from a stranger they change nothing, and what a
//! trusted proxy appends is found whatever stands before it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rwsgi::exchange::forwarded::{Element, from_the_right};
use rwsgi::exchange::subnet::{self, Subnet};

fuzz_target!(|data: &[u8]| {
    let _ = Subnet::parse(data);
    let _ = subnet::address(data);
    for element in from_the_right(data) {
        let _ = Element::parse(element);
    }
    let appended = [&b"for=192.0.2.1"[..], b"for=\"[::1]:80\";host=\"a,\\\"b\""];
    let value = [data, appended[1], appended[0]].join(&b", "[..]);
    let mut found = from_the_right(&value);
    assert_eq!(found.next(), Some(appended[0]));
    assert_eq!(found.next(), Some(appended[1]));
});
