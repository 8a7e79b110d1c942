//! A connection to an event loop as an httpd child has it, and a script behind it.

use std::io::{Read as _, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::asgi::house::Embedded;
use crate::asgi::loops;
use crate::daemon::wire::request::{WireRequest, encode};
use crate::daemon::wire::{HEADER, Header, Kind, Read, flag, reply};
use crate::exchange::{
    AsgiSettings, Authorization, Interface, Lifespan, Opt, Pair, RequestHead, Site, Slice, Target,
    Text,
};
use crate::python::runtime;
use crate::wsgi::tests::start_python;

/// The application group of most tests.
const GROUP: &str = "main";

/// A script file.
pub struct Script {
    path: std::path::PathBuf,
    mtime_us: i64,
}

impl Script {
    pub fn new(source: &str) -> Script {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        start_python();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("rwsgi-asgi-{}-{number}.py", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, source).unwrap();
        Script { path, mtime_us: 1 }
    }

    /// Replaces the source; the file is newer then.
    pub fn change(&mut self, source: &str) {
        std::fs::write(&self.path, source).unwrap();
        self.mtime_us += 1;
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A request to be sent.
pub struct Call<'a> {
    pub script: &'a Script,
    pub method: &'a str,
    pub protocol: &'a str,
    pub uri: &'a str,
    pub script_name: &'a str,
    pub path_info: &'a str,
    pub query: &'a str,
    pub headers: &'a [(&'a str, &'a str)],
    pub variables: &'a [(&'a str, &'a str)],
    pub https: bool,
    pub body: &'a [u8],
    pub complete: bool,
    pub interface: Interface,
    pub callable: &'a str,
    pub asgi: AsgiSettings,
    pub authorization: Authorization,
    pub group: &'a str,
}

impl<'a> Call<'a> {
    pub fn to(script: &'a Script) -> Call<'a> {
        Call {
            script,
            method: "GET",
            protocol: "HTTP/1.1",
            uri: "/path?query",
            script_name: "",
            path_info: "/path",
            query: "query",
            headers: &[("Host", "example.com")],
            variables: &[],
            https: false,
            body: b"",
            complete: true,
            interface: Interface::Asgi,
            callable: "application",
            asgi: AsgiSettings {
                lifespan: Lifespan::Off,
                ..AsgiSettings::DEFAULT
            },
            authorization: Authorization::Hidden,
            group: GROUP,
        }
    }

    pub fn frame(&self) -> Vec<u8> {
        fn pairs<'a>(items: &'a [(&'a str, &'a str)]) -> Vec<Pair<'a>> {
            let pair = |(name, value): &(&'a str, &'a str)| Pair {
                name: Text::from(name.as_bytes()),
                value: Text::from(value.as_bytes()),
            };
            items.iter().map(pair).collect()
        }
        let path = self.script.path.to_str().unwrap();
        let (headers, variables) = (pairs(self.headers), pairs(self.variables));
        let request = WireRequest {
            head: RequestHead {
                site: Site {
                    server_software: "test".into(),
                    server_name: "example.com".into(),
                    server_addr: "192.0.2.1".into(),
                    server_port: "8080".into(),
                    server_admin: Opt::NONE,
                    document_root: "/srv".into(),
                    context_prefix: Opt::NONE,
                    context_document_root: Opt::NONE,
                    request_scheme: "http".into(),
                    script_filename: path.into(),
                    process_group: Text::EMPTY,
                    application_group: self.group.into(),
                    callable_object: self.callable.into(),
                    request_handler: "wsgi-script".into(),
                    listener_host: Text::EMPTY,
                    listener_port: "8080".into(),
                },
                method: self.method.into(),
                request_uri: self.uri.into(),
                script_name: self.script_name.into(),
                mount_point: Opt::NONE,
                path_info: self.path_info.into(),
                query_string: self.query.into(),
                protocol: self.protocol.into(),
                remote_addr: "192.0.2.9".into(),
                remote_port: 4711,
                https: self.https,
                authorization: self.authorization,
                request_time_us: 0,
                accept_time_us: 0,
                daemon_time_us: 0,
                daemon_connects: 1,
                daemon_restarts: 0,
                server_pid: 1,
                request_id: Opt::NONE,
                connection_id: Opt::NONE,
                headers: Slice::new(&headers),
                variables: Slice::new(&variables),
            },
            target: Target {
                script: path.into(),
                mtime_us: self.script.mtime_us,
                resource: path.into(),
                reloading: true,
                keep_on_failure: true,
                handler_script: false,
                interface: self.interface,
                callable_is_default: self.callable == "application",
                asgi: self.asgi,
            },
            ignore_activity: false,
            log_level: 8,
            body: self.body,
            body_complete: self.complete,
        };
        let mut frame = Vec::new();
        encode(&request, &mut frame).unwrap();
        frame
    }
}

/// A frame of the server.
#[derive(Debug)]
pub struct Frame {
    pub header: Header,
    pub payload: Vec<u8>,
}

/// What came for a request.
#[derive(Debug, Default)]
pub struct Answer {
    /// Of the reply, or that of an error page.
    pub status: u16,
    /// An error page was asked for.
    pub is_error: bool,
    pub headers: Vec<(String, String)>,
    pub content_length: i64,
    pub body: Vec<u8>,
    pub log: Vec<String>,
    pub flags: u8,
    /// Frames with a part of the response.
    pub parts: usize,
}

impl Answer {
    pub fn text(&self) -> &str {
        core::str::from_utf8(&self.body).unwrap()
    }

    pub fn is_cut(&self) -> bool {
        self.flags & flag::BAD != 0
    }

    pub fn logged(&self, what: &str) -> bool {
        self.log.iter().any(|line| line.contains(what))
    }
}

/// A connection.
pub struct Client {
    pub stream: UnixStream,
}

impl Client {
    pub fn new() -> Client {
        Client::of(GROUP)
    }

    /// A connection to the loop of an application group.
    pub fn of(group: &str) -> Client {
        start_python();
        let runtime = runtime::runtime().unwrap();
        let fd = loops::connect(runtime, group.as_bytes(), &Embedded).expect("there is a loop");
        let stream = UnixStream::from(fd);
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Client { stream }
    }

    pub fn send(&mut self, call: &Call<'_>) {
        self.stream.write_all(&call.frame()).unwrap();
    }

    pub fn frame(&mut self) -> Option<Frame> {
        let mut header = [0; HEADER];
        match self.stream.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return None,
            Err(error) => panic!("nothing comes: {error}"),
        }
        let header = Header::decode(header).unwrap();
        let mut payload = vec![0; header.length as usize];
        self.stream.read_exact(&mut payload).unwrap();
        Some(Frame { header, payload })
    }

    /// Waits for the end of the connection.
    pub fn wait_for_end(&mut self) {
        let mut rest = Vec::new();
        self.stream
            .read_to_end(&mut rest)
            .expect("the server closes");
    }

    /// The next frame that is no line of the log.
    pub fn frame_of(&mut self, kind: Kind) -> Frame {
        loop {
            let frame = self.frame().expect("the connection goes on");
            if frame.header.kind != Kind::Log {
                assert_eq!(frame.header.kind, kind, "{frame:?}");
                return frame;
            }
        }
    }

    pub fn body(&mut self, data: &[u8], flags: u8) {
        let header = Header {
            flags,
            ..Header::new(Kind::Body, data.len() as u32)
        };
        self.stream
            .write_all(&[&header.encode(), data].concat())
            .unwrap();
    }

    /// Reads an answer to its end; asked for body, sends `portions`.
    pub fn answer_with(&mut self, portions: &[&[u8]]) -> Answer {
        let mut answer = Answer::default();
        let mut portions = portions.iter();
        loop {
            let Some(frame) = self.frame() else {
                panic!("the connection ended: {answer:?}");
            };
            match frame.header.kind {
                Kind::Log => answer
                    .log
                    .push(String::from_utf8_lossy(&frame.payload).into_owned()),
                Kind::Read => {
                    let read = Read::decode(&frame.payload).unwrap();
                    assert!(read.wanted > 0);
                    let portion = portions.next().expect("more was asked for than there is");
                    let flags = if portions.len() == 0 {
                        flag::END
                    } else {
                        flag::GRANT_DONE
                    };
                    self.body(portion, flags);
                }
                Kind::Status => {
                    answer.status = frame.header.aux;
                    answer.is_error = true;
                }
                Kind::Reply => {
                    let length = reply::head_length(&frame.payload).unwrap().unwrap();
                    reply::decode(&frame.payload[..length], |head| {
                        answer.status = head.status;
                        answer.content_length = head.content_length;
                        for pair in head.headers.items() {
                            let text = |text: &Text<'_>| {
                                String::from_utf8_lossy(text.bytes()).into_owned()
                            };
                            answer.headers.push((text(&pair.name), text(&pair.value)));
                        }
                    })
                    .unwrap();
                    answer.body.extend_from_slice(&frame.payload[length..]);
                    answer.parts += 1;
                }
                Kind::Data => {
                    answer.body.extend_from_slice(&frame.payload);
                    answer.parts += 1;
                }
                other => panic!("unexpected {other:?}"),
            }
            if frame.header.has(flag::END) {
                answer.flags = frame.header.flags;
                return answer;
            }
        }
    }

    pub fn answer(&mut self) -> Answer {
        self.answer_with(&[])
    }

    pub fn call(&mut self, call: &Call<'_>) -> Answer {
        self.send(call);
        self.answer()
    }
}

/// One request on a connection of its own.
pub fn get(script: &Script) -> Answer {
    Client::new().call(&Call::to(script))
}
