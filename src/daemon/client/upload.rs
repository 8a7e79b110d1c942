//! The answer to READ: body bytes for the worker.

use core::time::Duration;
use std::time::Instant;

use super::buffers::{UPLOAD, room_for_body};
use super::connection::{SendError, Watch, wait};
use super::front::Front;
use super::pump::{End, Pump};
use super::retry::Event;
use crate::daemon::wire::{HEADER, Header, Kind, Read, flag};
use crate::exchange::{BodyError, MayBlock, Wait};

/// A frame that fills slowly is sent after this time: the worker's own patience is limited.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the end user's socket is waited for before the server's filters are asked again: they
/// have time limits of their own (`RequestReadTimeout`).
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// One frame's worth of body.
struct Filled {
    bytes: usize,
    /// The body is complete.
    ended: bool,
    /// Nothing more has arrived.
    dry: bool,
}

/// Sends at least as much of the body as `read` waits for, and then what has arrived, up to its
/// limit.
///
/// # Errors
/// The attempt is over.
pub fn answer<F: Front>(pump: &mut Pump<'_, F>, read: Read) -> Result<(), End> {
    let (wanted, limit) = (read.wanted as usize, read.limit as usize);
    let mut sent = 0;
    loop {
        let filled = match fill(pump, wanted.saturating_sub(sent), limit - sent) {
            Ok(filled) => filled,
            Err(Stop::Failed(status)) => {
                let header = Header {
                    aux: status,
                    ..Header::new(Kind::BodyFailed, 0)
                };
                return send(pump, 0, header).map(drop);
            }
            Err(Stop::WorkerGone) => return Ok(()),
            Err(Stop::End(end)) => return Err(end),
        };
        sent += filled.bytes;
        let done = filled.dry || sent >= limit;
        let header = Header {
            flags: if filled.ended {
                flag::END
            } else if done && sent >= wanted {
                flag::GRANT_DONE
            } else {
                0
            },
            ..Header::new(Kind::Body, filled.bytes as u32)
        };
        if !send(pump, filled.bytes, header)? || header.flags != 0 {
            return Ok(());
        }
    }
}

enum Stop {
    /// The body is lost; an HTTP status.
    Failed(u16),
    /// The worker has gone. What it said before that can still be read.
    WorkerGone,
    End(End),
}

/// Fills a frame: waits for `wanted` bytes as far as they fit, takes at most `limit`.
fn fill<F: Front>(pump: &mut Pump<'_, F>, wanted: usize, limit: usize) -> Result<Filled, Stop> {
    let most = limit.min(UPLOAD);
    let mut bytes = 0;
    let mut waited = None;
    let mut idle = None;
    let ended = loop {
        if bytes > 0 && pump.front.body_ended() {
            break true;
        }
        if bytes == most {
            break false;
        }
        let front = pump.front;
        let continues = front.expects_continue();
        let room = &mut room_for_body(&mut pump.buffers.upload)[HEADER + bytes..HEADER + most];
        let read = if continues {
            Err(BodyError::WouldBlock)
        } else {
            front.read(room, Wait::No)
        };
        let read = match read {
            Err(BodyError::WouldBlock) if bytes >= wanted => {
                return Ok(Filled {
                    bytes,
                    ended: false,
                    dry: true,
                });
            }
            Err(BodyError::WouldBlock) => {
                if !pump.hand_on_before_reading().map_err(Stop::End)? {
                    continue;
                }
                let began = *waited.get_or_insert_with(Instant::now);
                if bytes > 0 && began.elapsed() > PATIENCE {
                    break false;
                }
                let since = *idle.get_or_insert_with(Instant::now);
                let waited = if continues {
                    // Only a read that blocks tells the end user to go on.
                    Waited::Unseen
                } else {
                    pump.wait_for_end_user(since)
                };
                let room =
                    &mut room_for_body(&mut pump.buffers.upload)[HEADER + bytes..HEADER + most];
                match waited {
                    Waited::Arrived => continue,
                    Waited::WorkerGone => return Err(Stop::WorkerGone),
                    Waited::Unseen => front.read(room, Wait::Yes(&MayBlock::detached())),
                    Waited::Overdue => {
                        // The server finds by itself that the time is over.
                        let usual = front.set_write_timeout(Duration::from_millis(1));
                        let read = front.read(room, Wait::Yes(&MayBlock::detached()));
                        front.set_write_timeout(usual);
                        read
                    }
                }
            }
            other => other,
        };
        match read {
            Ok(0) => break true,
            Ok(count) => {
                bytes += count;
                idle = None;
            }
            Err(BodyError::Failed { status }) => return Err(Stop::Failed(status)),
            Err(BodyError::WouldBlock) => return Err(Stop::Failed(400)),
        }
    };
    Ok(Filled {
        bytes,
        ended,
        dry: false,
    })
}

/// Sends a frame whose payload is in place. `false`: the worker has gone; what it said before that
/// can still be read.
fn send<F: Front>(pump: &mut Pump<'_, F>, bytes: usize, header: Header) -> Result<bool, End> {
    let frame = &mut room_for_body(&mut pump.buffers.upload)[..HEADER + bytes];
    frame[..HEADER].copy_from_slice(&header.encode());
    let Some(lease) = &pump.lease else {
        return Err(pump.lost(Event::Eof));
    };
    match lease.connection().send(frame) {
        Ok(()) => Ok(true),
        Err(SendError::Gone) => Ok(false),
        Err(SendError::Timeout) => Err(pump.lost(Event::SendTimeout)),
    }
}

/// What a wait for the end user ended with.
enum Waited {
    /// Something may have arrived.
    Arrived,
    /// The worker has gone.
    WorkerGone,
    /// That cannot be seen here.
    Unseen,
    /// It has taken as long as the end user may need.
    Overdue,
}

impl<F: Front> Pump<'_, F> {
    /// Waits for body bytes with an eye on the worker. Nothing has come `since` then.
    fn wait_for_end_user(&self, since: Instant) -> Waited {
        let (Some(user), Some(lease)) = (self.front.socket(), &self.lease) else {
            return Waited::Unseen;
        };
        let left = self.front.write_timeout().saturating_sub(since.elapsed());
        if left.is_zero() {
            return Waited::Overdue;
        }
        let user = Watch {
            fd: user,
            events: libc::POLLIN,
        };
        let worker = Watch {
            fd: lease.connection().fd(),
            events: 0,
        };
        let [_, gone] = wait([user, worker], left.min(LOOK_AGAIN));
        if gone != 0 {
            Waited::WorkerGone
        } else {
            Waited::Arrived
        }
    }
}
