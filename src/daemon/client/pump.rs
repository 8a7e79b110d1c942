//! The answer of a worker, on its way to the end user.

use core::ops::Range;
use std::fs::File;
use std::os::fd::AsRawFd;

use super::backlog::Part;
use super::buffers::Buffers;
use super::connection::Received;
use super::frames::{LARGEST_KEPT, Step};
use super::front::Front;
use super::output::Output;
use super::pools::{Lease, Pools};
use super::retry::Event;
use super::upload;
use super::{Call, file, head};
use crate::daemon::wire::{FileRange, Header, Kind, LogLine, Read, Refused, flag, reply};
use crate::exchange::abi::outcome;
use crate::exchange::response::ResponseHead;
use crate::exchange::{Interface, Level, MayBlock, Send, Source, Text};
use crate::httpd::hooks::child::level_of;
use crate::messages::{DAEMON_BAD_ANSWER, DAEMON_BAD_FILE, DAEMON_CUT};

/// With less room than this, what has been received is handed on, or kept elsewhere, first.
const LEAST_ROOM: usize = 8 * 1024;

/// How an attempt ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// With an answer or without: this is what the handler returns.
    Outcome(i32),
    /// Without a (whole) answer.
    Lost {
        /// What happened.
        event: Event,
        /// The worker had answered something.
        answered: bool,
    },
}

/// One attempt whose REQUEST has been sent.
pub struct Pump<'a, F> {
    pub(super) front: &'a F,
    pub(super) pools: &'a Pools,
    pub(super) call: &'a Call<'a>,
    /// The connection, until the worker has nothing more to say.
    pub(super) lease: Option<Lease<'a>>,
    pub(super) buffers: &'a mut Buffers,
    /// A frame has been seen.
    answered: bool,
    /// The head has been given to `front`.
    pub(super) started: bool,
    /// The end user is watched while the worker is silent.
    pub(super) watches: bool,
    /// Body bytes that may still come, where Content-Length says so.
    allowed: Option<u64>,
    /// A response without a body, whatever its head says.
    bodyless: bool,
    /// Bytes of trailers that have come.
    trailers: usize,
    /// What has been received and not handed on.
    pub(super) output: Output,
}

impl<'a, F: Front> Pump<'a, F> {
    /// The attempt on `lease`.
    pub fn new(
        front: &'a F,
        pools: &'a Pools,
        call: &'a Call<'a>,
        lease: Lease<'a>,
        buffers: &'a mut Buffers,
    ) -> Self {
        buffers.incoming.reset();
        buffers.pieces.clear();
        buffers.descriptors.clear();
        Pump {
            front,
            pools,
            call,
            lease: Some(lease),
            buffers,
            answered: false,
            started: false,
            watches: call.target.interface != Interface::Wsgi,
            allowed: None,
            bodyless: false,
            trailers: 0,
            output: Output::default(),
        }
    }

    /// The attempt is over.
    pub fn lost(&self, event: Event) -> End {
        End::Lost {
            event,
            answered: self.answered,
        }
    }

    /// The request could not be sent: the worker has gone, with or without saying so before.
    #[cold]
    pub fn not_sent(&mut self) -> End {
        self.buffers.incoming.make_room();
        if let Received::Bytes(_) = self.receive(libc::MSG_DONTWAIT)
            && let Ok(Step::Frame { header, .. }) = self.buffers.incoming.step()
            && header.kind == Kind::GoAway
        {
            return self.lost(Event::GoAway);
        }
        self.lost(Event::SendFailed)
    }

    /// Passes the answer on, to its end.
    #[inline]
    pub fn run(&mut self) -> End {
        let end = self.run_to_end();
        if self.output.flush && matches!(end, End::Lost { .. }) {
            // What was to be flushed before the end of the connection had not gone out yet. It may
            // take a while; the connection is of no more use.
            self.lease = None;
            if let Err(end) = self.pass_all(Send::Flush) {
                return end;
            }
        }
        end
    }

    fn run_to_end(&mut self) -> End {
        loop {
            let step = match self.buffers.incoming.step() {
                Ok(step) => step,
                Err(_) => return self.lost(Event::Malformed),
            };
            let done = match step {
                Step::More => self.more(),
                Step::Head { header, head } => self.head(header, head),
                Step::Body {
                    header,
                    bytes,
                    done,
                } => self.body(header, bytes, done),
                Step::Frame { header, payload } => self.frame(header, payload),
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    /// Receives more.
    #[inline]
    fn more(&mut self) -> Result<(), End> {
        if self.buffers.incoming.room() < LEAST_ROOM {
            self.make_room()?;
        }
        if self.output.flush || !self.output.backlog.is_empty() {
            let received = self.receive(libc::MSG_DONTWAIT);
            if received != Received::Nothing {
                return self.received(received);
            }
            self.wait_for_worker()?;
        }
        // A frame that fills the buffer anyway is better taken in one go.
        let fills = self.buffers.incoming.body_left() >= self.buffers.incoming.room();
        let received = self.receive(if fills { libc::MSG_WAITALL } else { 0 });
        if received == Received::Nothing && self.watches {
            return self.wait_and_watch();
        }
        self.received(received)
    }

    fn receive(&mut self, flags: i32) -> Received {
        let Some(lease) = &self.lease else {
            return Received::Eof;
        };
        let Buffers {
            incoming,
            descriptors,
            ..
        } = &mut *self.buffers;
        lease
            .connection()
            .receive(incoming.memory(), descriptors, flags)
    }

    #[inline]
    fn received(&mut self, received: Received) -> Result<(), End> {
        let event = match received {
            Received::Bytes(_) => return Ok(()),
            Received::Eof => Event::Eof,
            Received::Reset => Event::Reset,
            Received::Nothing => Event::Timeout,
        };
        Err(End::Lost {
            event,
            answered: self.answered || !self.buffers.incoming.is_between_frames(),
        })
    }

    fn head(&mut self, header: Header, range: Range<usize>) -> Result<(), End> {
        self.answered = true;
        if self.started {
            return Err(self.lost(Event::Malformed));
        }
        let front = self.front;
        // A whole response that is handed on in pieces has a length all the same: in one piece,
        // httpd would have found it.
        let body = header.length as usize - range.len();
        let whole = header.has(flag::END) && !header.has(flag::BAD);
        let known = (whole && body > self.buffers.incoming.arrived()).then_some(body as i64);
        let taken = reply::decode(self.buffers.incoming.bytes(range), |head| {
            head::check(head)?;
            match known {
                Some(content_length) if head.content_length < 0 && !is_bodyless(head.status) => {
                    front.start(&ResponseHead {
                        content_length,
                        ..*head
                    });
                }
                _ => front.start(head),
            }
            Ok::<_, &'static str>((head.status, head.content_length))
        });
        match taken {
            Ok(Ok((status, length))) => {
                self.started = true;
                self.allowed = u64::try_from(length).ok();
                // RFC 9110 section 8.6: these may name the length of a body that they do not have.
                self.bodyless = is_bodyless(status) || front.is_head();
                Ok(())
            }
            Ok(Err(what)) => Err(self.bad_head(what)),
            Err(_) => Err(self.lost(Event::Malformed)),
        }
    }

    #[cold]
    fn bad_head(&self, what: &str) -> End {
        let line = format!(
            "{DAEMON_BAD_ANSWER}{} sent a response with a bad head ({what}): {}",
            self.pools.who(),
            self.call
        );
        self.front.log(Level::Error, false, line.as_bytes());
        End::Outcome(502)
    }

    /// A response before the response, for example `103 Early Hints`.
    #[cold]
    fn interim(&mut self, payload: Range<usize>) -> Result<(), End> {
        if self.started {
            return Err(self.lost(Event::Malformed));
        }
        let front = self.front;
        let taken = reply::decode(self.buffers.incoming.bytes(payload), |head| {
            head::check_interim(head).map(|()| front.interim(head))
        });
        match taken {
            Ok(Ok(())) => Ok(()),
            Ok(Err(what)) => Err(self.bad_head(what)),
            Err(_) => Err(self.lost(Event::Malformed)),
        }
    }

    /// Fields that the end user shall get behind the body.
    #[cold]
    fn trailers(&mut self, payload: Range<usize>) -> Result<(), End> {
        if !self.started {
            return Err(self.lost(Event::Malformed));
        }
        self.trailers += payload.len();
        let front = self.front;
        let taken = if self.trailers > LARGEST_KEPT {
            Ok(Err("too many trailers"))
        } else {
            reply::decode(self.buffers.incoming.bytes(payload), |head| {
                head::check_trailers(head).map(|()| front.trailers(head.headers.items()))
            })
        };
        match taken {
            Ok(Ok(())) => Ok(()),
            Ok(Err(what)) => {
                let _ = self.bad_head(what);
                Err(self.break_off())
            }
            Err(_) => Err(self.lost(Event::Malformed)),
        }
    }

    #[inline]
    fn body(&mut self, header: Header, mut bytes: Range<usize>, done: bool) -> Result<(), End> {
        if !self.started {
            return Err(self.lost(Event::Malformed));
        }
        if let Some(allowed) = &mut self.allowed {
            // What is beyond Content-Length would be read as the next response.
            let most = usize::try_from(*allowed).unwrap_or(usize::MAX);
            let surplus = bytes.len() > most;
            bytes.end = bytes.end.min(bytes.start.saturating_add(most));
            *allowed -= bytes.len() as u64;
            if surplus {
                return Err(self.surplus(bytes));
            }
        }
        if !bytes.is_empty() {
            self.buffers.pieces.push(bytes);
        }
        if !done {
            return Ok(());
        }
        if header.has(flag::END) {
            return Err(self.end(header));
        }
        self.output.flush |= header.has(flag::FLUSH);
        Ok(())
    }

    /// The response is longer than it had announced: what was announced is all of it, and such a
    /// worker is not listened to any longer.
    #[cold]
    fn surplus(&mut self, last: Range<usize>) -> End {
        self.lease = None;
        self.buffers.pieces.push(last);
        match self.pass_all(Send::End) {
            Ok(()) => End::Outcome(outcome::DONE),
            Err(end) => end,
        }
    }

    /// The frame that ends the response has come.
    #[inline]
    fn end(&mut self, header: Header) -> End {
        self.release(header);
        let missing = self.allowed.unwrap_or(0);
        if header.has(flag::BAD) || (missing > 0 && !self.bodyless) {
            return self.cut(header, missing);
        }
        if self.output.flush && !self.front.has_sent() {
            // The application wanted its beginning sent before its end was known: a length that
            // depends on how fast the frames came would be of no use to anybody.
            if let Err(end) = self.pass_all(Send::Keep) {
                return end;
            }
        }
        match self.pass_all(Send::End) {
            Ok(()) => End::Outcome(outcome::DONE),
            Err(end) => end,
        }
    }

    /// Lets go of the connection: to be used again if nothing speaks against it.
    #[inline]
    fn release(&mut self, header: Header) {
        if let Some(lease) = self.lease.take()
            && !header.has(flag::CLOSE)
            && self.buffers.incoming.is_between_frames()
            && self.buffers.descriptors.is_empty()
        {
            lease.give_back(header.aux);
        }
    }

    /// The response is not complete: the end user must see that.
    #[cold]
    fn cut(&mut self, header: Header, missing: u64) -> End {
        // The worker has logged what it knows of.
        if !header.has(flag::BAD) {
            let line = format!(
                "{DAEMON_CUT}the response was cut short: {} sent {missing} bytes less than it had \
                 announced: {}",
                self.pools.who(),
                self.call
            );
            self.front.log(Level::Error, false, line.as_bytes());
        }
        if let Err(end) = self.pass_all(Send::Keep) {
            return end;
        }
        self.front.abort(&MayBlock::detached());
        End::Outcome(outcome::CUT)
    }

    fn frame(&mut self, header: Header, payload: Range<usize>) -> Result<(), End> {
        match header.kind {
            Kind::GoAway => return Err(self.lost(Event::GoAway)),
            Kind::Retry => {
                return Err(self.lost(match Refused::from_number(header.aux) {
                    Some(refused) => Event::Refused(refused),
                    None => Event::Malformed,
                }));
            }
            _ => self.answered = true,
        }
        match header.kind {
            Kind::Log => {
                let level = level_of(u8::try_from(header.aux).unwrap_or(u8::MAX));
                let line = self.buffers.incoming.bytes(payload);
                if !header.has(flag::SOURCE) {
                    self.front.log(level, false, line);
                    return Ok(());
                }
                let Ok(line) = LogLine::decode(line) else {
                    return Err(self.lost(Event::Malformed));
                };
                let source = Source {
                    file: Text::new(line.file),
                    line: line.number,
                };
                self.front.log_from(level, false, source, line.line);
                Ok(())
            }
            Kind::Read => {
                let Ok(read) = Read::decode(self.buffers.incoming.bytes(payload)) else {
                    return Err(self.lost(Event::Malformed));
                };
                upload::answer(self, read)
            }
            Kind::Status => Err(self.status(header)),
            Kind::File => self.file(header, payload),
            Kind::Interim => self.interim(payload),
            Kind::Switch => Err(self.switch(payload)),
            Kind::Trailers => self.trailers(payload),
            _ => Err(self.lost(Event::Malformed)),
        }
    }

    /// The worker asks for an error page.
    fn status(&mut self, header: Header) -> End {
        if self.started || !(400..=599).contains(&header.aux) {
            return self.lost(Event::Malformed);
        }
        // `aux` is the status here: the load is not known.
        let load = 0;
        self.release(Header {
            aux: load,
            ..header
        });
        End::Outcome(i32::from(header.aux))
    }

    /// The connection becomes a tunnel between the end user and the worker.
    #[cold]
    fn switch(&mut self, head: Range<usize>) -> End {
        let Some(lease) = self.lease.take_if(|_| !self.started) else {
            return self.lost(Event::Malformed);
        };
        self.started = true;
        let front = self.front;
        // Nothing that is said there has a use for descriptors.
        self.buffers.descriptors.clear();
        let incoming = &self.buffers.incoming;
        let taken = reply::decode(incoming.bytes(head), |head| {
            head::check_switch(head)?;
            let socket = lease.into_connection().into_socket();
            Ok::<_, &'static str>(front.switch(head, socket, incoming.rest()))
        });
        match taken {
            Ok(Ok(outcome)) => End::Outcome(outcome),
            Ok(Err(what)) => self.bad_head(what),
            Err(_) => self.lost(Event::Malformed),
        }
    }

    /// A range of a file is part of the response.
    #[cold]
    fn file(&mut self, header: Header, payload: Range<usize>) -> Result<(), End> {
        let range = FileRange::decode(self.buffers.incoming.bytes(payload));
        let (Ok(range), true) = (range, self.started) else {
            return Err(self.lost(Event::Malformed));
        };
        let length = self
            .allowed
            .map_or(range.length, |most| range.length.min(most));
        if let Err(what) = self.append_file(range.offset, length) {
            return Err(self.bad_file(&what));
        }
        if let Some(allowed) = &mut self.allowed {
            *allowed -= length;
        }
        if header.has(flag::END) {
            return Err(self.end(header));
        }
        self.output.flush |= header.has(flag::FLUSH);
        Ok(())
    }

    /// A file cannot become part of the response.
    #[cold]
    pub(super) fn bad_file(&mut self, what: &str) -> End {
        let line = format!(
            "{DAEMON_BAD_FILE}{} sent a file that cannot be used ({what}): {}",
            self.pools.who(),
            self.call
        );
        self.front.log(Level::Error, false, line.as_bytes());
        self.break_off()
    }

    /// The rest of a response that has begun cannot be used.
    fn break_off(&mut self) -> End {
        self.lease = None;
        if self.front.has_sent() {
            self.front.abort(&MayBlock::detached());
            return End::Outcome(outcome::CUT);
        }
        End::Outcome(502)
    }

    fn append_file(&mut self, offset: u64, length: u64) -> Result<(), String> {
        if self.buffers.descriptors.is_empty() {
            return Err("no descriptor came with it".to_owned());
        }
        let file = File::from(self.buffers.descriptors.remove(0));
        file::check(&file, offset, length)?;
        if self.output.backlog.is_empty() && self.buffers.pieces.is_empty() {
            return self
                .front
                .append_unmapped(file.as_raw_fd(), offset, length)
                .map_err(|errno| std::io::Error::from_raw_os_error(errno).to_string());
        }
        self.keep();
        self.output.backlog.push(Part::File {
            file,
            offset,
            length,
        });
        Ok(())
    }
}

/// Whether a response with this status has no body.
fn is_bodyless(status: u16) -> bool {
    matches!(status, 204 | 304)
}
