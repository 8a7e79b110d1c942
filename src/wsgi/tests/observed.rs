//! What is measured of a request when somebody wants to know.

use super::memory_exchange::RequestBody;
use super::{Call, PIECES, unvalidated, validated};
use crate::metrics::observation::{self, Reader};

#[test]
fn reads_and_writes_are_counted() {
    observation::want(Reader::Metrics);
    let app = validated(
        "environ['wsgi.input'].readline()\n\
         environ['wsgi.input'].read(3)\n\
         environ['wsgi.input'].read(1000)\n\
         def body():\n    yield b'12'\n    yield b'345'\n    yield b'6'\n\
         start_response('202 Accepted', TEXT)\n\
         return body()",
    );
    let answer = app.call(Call {
        method: "POST",
        headers: &[("Content-Length", "13")],
        body: PIECES,
        ..Call::default()
    });
    answer.assert_quiet();
    let observation = observation::of_this_thread();
    let figures = observation.figures();
    assert_eq!(figures.input_bytes, 13);
    // Three pieces and the end.
    assert_eq!(figures.input_reads, 4);
    assert_eq!((figures.output_writes, figures.output_bytes), (3, 6));
    // At least the first time, and around each block.
    assert!(figures.gil_waits >= 4, "{figures:?}");
    assert_eq!(observation.status(), 202);
    let times = observation.times();
    assert_eq!(times.request_start_us, 1_500_000);
    assert_eq!((times.queue_start_us, times.daemon_start_us), (0, 0));
    assert!(times.application_start_us > 1_600_000_000_000_000);
}

#[test]
fn times_are_those_of_the_right_part() {
    observation::want(Reader::Metrics);
    let app = unvalidated(
        "import time\n\
         deadline = time.thread_time() + 0.05\n\
         while time.thread_time() < deadline:\n    pass\n\
         start_response('200 OK', TEXT)\n\
         return [b'']",
    );
    let answer = app.get();
    answer.assert_quiet();
    let observation = observation::of_this_thread();
    let figures = observation.figures();
    assert!(figures.input_us + figures.output_us < 20_000, "{figures:?}");
    // Nothing of an earlier request is left.
    assert_eq!((figures.input_reads, figures.output_writes), (0, 1));
}

#[test]
fn a_failure_has_the_status_that_the_client_sees() {
    observation::want(Reader::Metrics);
    unvalidated("start_response('200 OK', TEXT)\nraise ValueError").get();
    assert_eq!(observation::of_this_thread().status(), 500);
    let app = unvalidated("return [environ['wsgi.input'].read()]");
    app.call(Call {
        method: "POST",
        body: RequestBody {
            pieces: &[],
            failure: Some(408),
        },
        ..Call::default()
    });
    assert_eq!(observation::of_this_thread().status(), 408);
}

#[test]
fn events_hear_of_a_request_whose_last_write_is_done() {
    observation::want(Reader::Events);
    let app = unvalidated("start_response('200 OK', TEXT)\nreturn [b'all']");
    let answer = app.get();
    assert_eq!(answer.body(), b"all");
    assert_eq!(answer.sends.len(), 1);
    assert_eq!(answer.outcome, crate::exchange::abi::outcome::DONE);
}
