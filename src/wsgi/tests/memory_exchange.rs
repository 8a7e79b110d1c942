//! An exchange without a server: it remembers what the gateway did.

use std::cell::RefCell;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd};

use crate::exchange::memory::Borrowed;
use crate::exchange::response::ResponseHead;
use crate::exchange::{BodyError, ClientGone, Exchange, Level, MayBlock, Send, Wait};

/// A request body that arrives in pieces and may fail at its end.
#[derive(Clone, Copy, Default)]
pub struct RequestBody<'a> {
    /// Each is there only after a read that may block.
    pub pieces: &'a [&'a [u8]],
    /// The status of the failure that follows the pieces.
    pub failure: Option<u16>,
}

/// What came out.
#[derive(Debug, Default)]
pub struct Recorded {
    /// The gateway's outcome.
    pub outcome: i32,
    /// The status line.
    pub status: String,
    /// Header fields, Content-Length among them.
    pub headers: Vec<(String, String)>,
    /// Each `send` with the data since the one before.
    pub sends: Vec<(Send, Vec<u8>)>,
    /// Whether the response was cut.
    pub aborted: bool,
    /// Lines of the error log.
    pub log: Vec<(Level, String)>,
    /// Reads that were allowed to block.
    pub blocking_reads: usize,
}

impl Recorded {
    /// The whole response body.
    pub fn body(&self) -> Vec<u8> {
        self.sends.iter().flat_map(|(_, d)| d.clone()).collect()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.body()).unwrap()
    }

    /// Whether a line of the log contains `text`.
    pub fn logged(&self, text: &str) -> bool {
        self.log.iter().any(|(_, line)| line.contains(text))
    }

    /// Asserts that nothing of level error or worse was logged.
    pub fn assert_quiet(&self) {
        let loud: Vec<_> = self
            .log
            .iter()
            .filter(|(l, _)| *l <= Level::Warning)
            .collect();
        assert!(loud.is_empty(), "{loud:?}");
    }
}

/// The exchange.
pub struct MemoryExchange<'a> {
    state: RefCell<State<'a>>,
}

struct State<'a> {
    record: Recorded,
    pending: Vec<u8>,
    lent: Vec<Borrowed>,
    pieces: Vec<&'a [u8]>,
    arrived: Vec<u8>,
    failure: Option<u16>,
    gone_after: Option<usize>,
}

impl<'a> MemoryExchange<'a> {
    /// `gone_after`: the client is gone after so many sends.
    pub fn new(body: RequestBody<'a>, gone_after: Option<usize>) -> Self {
        MemoryExchange {
            state: RefCell::new(State {
                record: Recorded::default(),
                pending: Vec::new(),
                lent: Vec::new(),
                pieces: body.pieces.iter().rev().copied().collect(),
                arrived: Vec::new(),
                failure: body.failure,
                gone_after,
            }),
        }
    }

    /// What happened.
    pub fn recorded(self, outcome: i32) -> Recorded {
        let mut record = self.state.into_inner().record;
        record.outcome = outcome;
        record
    }
}

impl Exchange for MemoryExchange<'_> {
    fn read(&self, buffer: &mut [u8], wait: Wait<'_>) -> Result<usize, BodyError> {
        assert!(!buffer.is_empty());
        let state = &mut *self.state.borrow_mut();
        if state.arrived.is_empty() {
            if matches!(wait, Wait::No) {
                return Err(BodyError::WouldBlock);
            }
            state.record.blocking_reads += 1;
            match (state.pieces.pop(), state.failure) {
                (Some(piece), _) => state.arrived = piece.to_vec(),
                (None, Some(status)) => return Err(BodyError::Failed { status }),
                (None, None) => return Ok(0),
            }
        }
        let length = buffer.len().min(state.arrived.len());
        buffer[..length].copy_from_slice(&state.arrived[..length]);
        state.arrived.drain(..length);
        Ok(length)
    }

    fn start(&self, head: &ResponseHead<'_>) {
        let text = |bytes: &[u8]| bytes.iter().map(|&c| char::from(c)).collect::<String>();
        let record = &mut self.state.borrow_mut().record;
        assert!(record.sends.is_empty(), "start after send");
        record.status = text(head.status_line.bytes());
        let fields = head.headers.items().iter();
        record.headers = fields
            .map(|field| (text(field.name.bytes()), text(field.value.bytes())))
            .collect();
        if head.content_length >= 0 {
            let length = head.content_length.to_string();
            record.headers.push(("Content-Length".to_owned(), length));
        }
    }

    fn append(&self, data: &[u8]) {
        self.append_borrowed_now();
        self.state.borrow_mut().pending.extend_from_slice(data);
    }

    fn append_borrowed(&self, data: Borrowed) {
        self.state.borrow_mut().lent.push(data);
        self.append_borrowed_now();
    }

    fn append_file(&self, fd: i32, offset: u64, length: u64) -> Result<(), i32> {
        // SAFETY: the caller's descriptor is open; the duplicate is ours.
        let mut file = unsafe {
            let duplicate = BorrowedFd::borrow_raw(fd).try_clone_to_owned().unwrap();
            std::fs::File::from_raw_fd(duplicate.into_raw_fd())
        };
        file.seek(SeekFrom::Start(offset)).unwrap();
        let pending = &mut self.state.borrow_mut().pending;
        file.take(length).read_to_end(pending).unwrap();
        Ok(())
    }

    fn send(&self, how: Send, _: &MayBlock) -> Result<(), ClientGone> {
        let state = &mut *self.state.borrow_mut();
        if state
            .gone_after
            .is_some_and(|after| state.record.sends.len() >= after)
        {
            return Err(ClientGone);
        }
        let data = core::mem::take(&mut state.pending);
        state.record.sends.push((how, data));
        Ok(())
    }

    fn abort(&self, _: &MayBlock) {
        self.state.borrow_mut().record.aborted = true;
    }

    fn log(&self, level: Level, _: bool, line: &[u8]) {
        let line = String::from_utf8_lossy(line).into_owned();
        self.state.borrow_mut().record.log.push((level, line));
    }

    fn client_gone(&self) -> bool {
        false
    }
}

impl MemoryExchange<'_> {
    /// Reads what was lent at once: the order of the body stays, and the memory is valid now.
    fn append_borrowed_now(&self) {
        let state = &mut *self.state.borrow_mut();
        for lent in state.lent.drain(..) {
            // SAFETY: valid until the next send, by the contract of `Borrowed`.
            let data = unsafe { core::slice::from_raw_parts(lent.as_ptr(), lent.len()) };
            state.pending.extend_from_slice(data);
        }
    }
}
