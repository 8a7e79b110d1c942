//! The client against workers that follow a script, over real sockets.

mod answers;
mod asgi;
mod attempts;
mod bodies;
mod front;
mod slow;
mod worker;

use core::time::Duration;
use std::os::unix::ffi::OsStrExt;

use self::front::{FakeFront, Seen};
use self::worker::{Peer, Worker, reply_frame};
use super::{Call, Pools, Settings};
use crate::daemon::wire::request::decode;
use crate::daemon::wire::{Header, Kind, Refused, flag};
use crate::exchange::abi::outcome;
use crate::exchange::{
    AsgiSettings, Authorization, Interface, Opt, RequestHead, Site, Slice, Target, Text,
};

/// A group of these workers, impatient.
fn pools(workers: &[&Worker]) -> Pools {
    Pools::new(settings(workers))
}

fn settings(workers: &[&Worker]) -> Settings {
    Settings {
        group: b"site".to_vec(),
        sockets: workers
            .iter()
            .map(|worker| worker.path.as_os_str().as_bytes().to_vec())
            .collect(),
        connect_timeout: Duration::from_millis(400),
        socket_timeout: Duration::from_secs(20),
        ..Settings::default()
    }
}

/// Forwards a request and gives the outcome.
fn forward(pools: &Pools, front: &FakeFront) -> i32 {
    forward_query(pools, front, b"")
}

fn forward_query(pools: &Pools, front: &FakeFront, query: &[u8]) -> i32 {
    forward_as(pools, front, query, Interface::Wsgi)
}

fn forward_as(pools: &Pools, front: &FakeFront, query: &[u8], interface: Interface) -> i32 {
    const EMPTY: Text<'static> = Text::EMPTY;
    let head = RequestHead {
        site: Site {
            server_software: EMPTY,
            server_name: EMPTY,
            server_addr: EMPTY,
            server_port: EMPTY,
            server_admin: Opt::NONE,
            document_root: EMPTY,
            context_prefix: Opt::NONE,
            context_document_root: Opt::NONE,
            request_scheme: EMPTY,
            script_filename: EMPTY,
            process_group: "site".into(),
            application_group: EMPTY,
            callable_object: EMPTY,
            request_handler: EMPTY,
            listener_host: EMPTY,
            listener_port: EMPTY,
        },
        method: "POST".into(),
        request_uri: "/".into(),
        script_name: EMPTY,
        mount_point: Opt::NONE,
        path_info: "/".into(),
        query_string: Text::new(query),
        protocol: "HTTP/1.1".into(),
        remote_addr: EMPTY,
        remote_port: 1,
        https: false,
        authorization: Authorization::Hidden,
        request_time_us: 7,
        accept_time_us: 0,
        daemon_connects: 0,
        daemon_restarts: 0,
        daemon_time_us: 0,
        server_pid: 1,
        request_id: Opt::NONE,
        connection_id: Opt::NONE,
        headers: Slice::new(&[]),
        variables: Slice::new(&[]),
    };
    let target = Target {
        script: "/srv/app.wsgi".into(),
        mtime_us: 5,
        resource: "/srv/app.wsgi".into(),
        reloading: true,
        keep_on_failure: true,
        handler_script: false,
        interface,
        callable_is_default: false,
        asgi: AsgiSettings::DEFAULT,
    };
    let call = Call {
        head: &head,
        target,
        ignore_activity: false,
        log_level: 6,
    };
    super::forward(pools, front, &call)
}

/// The body that came with a REQUEST, and whether that is all.
fn body_of((header, payload): &(Header, Vec<u8>)) -> (Vec<u8>, bool) {
    decode(*header, payload, |request| {
        assert!(request.head.accept_time_us > request.head.request_time_us);
        (request.body.to_vec(), request.body_complete)
    })
    .unwrap()
}

/// What a complete response with this body looks like.
fn complete(body: &[u8]) -> Vec<Seen> {
    vec![Seen::Start(200), Seen::Data(body.to_vec()), Seen::End]
}
