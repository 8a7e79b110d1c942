//! A tunnel between two ends in memory.

use std::collections::VecDeque;

use super::*;
use crate::daemon::wire::{Header, Kind, flag};

/// An end user who reads as much as `room` says.
#[derive(Default)]
struct Person {
    /// What it sends, read by read.
    says: VecDeque<Vec<u8>>,
    /// It has gone when it has said everything.
    leaves: bool,
    got: Vec<u8>,
    /// What the socket has not taken.
    kept: VecDeque<u8>,
    room: usize,
    /// Writing fails.
    gone: bool,
    lines: Vec<String>,
    largest_write: usize,
}

impl Person {
    fn reading() -> Person {
        Person {
            room: usize::MAX,
            ..Person::default()
        }
    }

    fn saying(pieces: &[&[u8]]) -> Person {
        Person {
            says: pieces.iter().map(|piece| piece.to_vec()).collect(),
            ..Person::reading()
        }
    }
}

impl EndUser for Person {
    fn read(&mut self, take: &mut dyn FnMut(&[u8])) -> Read {
        match self.says.pop_front() {
            // As filters do now and then.
            Some(bytes) if bytes.is_empty() => Read::Some,
            Some(bytes) => {
                let (one, other) = bytes.split_at(bytes.len() / 2);
                take(one);
                take(other);
                Read::Some
            }
            None if self.leaves => Read::Gone,
            None => Read::Nothing,
        }
    }

    fn write(&mut self, bytes: &[u8], pieces: &[Range<usize>]) -> Result<(), Gone> {
        if self.gone {
            return Err(Gone);
        }
        let sum = pieces.iter().map(|piece| piece.len()).sum();
        // Beyond twice the window, httpd blocks.
        assert!(self.kept.is_empty() || self.kept.len() + sum < 2 * 1000);
        self.largest_write = self.largest_write.max(sum);
        for piece in pieces {
            self.kept.extend(&bytes[piece.clone()]);
        }
        Ok(())
    }

    fn is_backed_up(&mut self) -> bool {
        let now = self.kept.len().min(self.room);
        self.room -= now;
        self.got.extend(self.kept.drain(..now));
        !self.kept.is_empty() && !self.gone
    }

    fn log(&mut self, level: u16, source: Option<(&[u8], u32)>, line: &[u8]) {
        let place = source.map(|(file, line)| (String::from_utf8_lossy(file).into_owned(), line));
        let line = String::from_utf8_lossy(line);
        self.lines.push(format!("{level} {place:?} {line}"));
    }
}

/// A worker that takes as much as `room` says.
#[derive(Default)]
struct Application {
    says: VecDeque<u8>,
    /// What follows when it has said everything.
    then: Option<Received>,
    got: Vec<u8>,
    room: usize,
    deaf: bool,
}

impl Application {
    fn listening() -> Application {
        Application {
            room: usize::MAX,
            ..Application::default()
        }
    }

    fn say(&mut self, kind: Kind, flags: u8, payload: &[u8]) -> &mut Application {
        let header = Header {
            flags,
            aux: 6,
            ..Header::new(kind, payload.len() as u32)
        };
        self.says.extend(header.encode());
        self.says.extend(payload);
        self
    }
}

impl Worker for Application {
    fn receive(&mut self, room: &mut [u8]) -> Received {
        if self.says.is_empty() {
            return self.then.unwrap_or(Received::Nothing);
        }
        let count = room.len().min(self.says.len());
        for (place, byte) in room.iter_mut().zip(self.says.drain(..count)) {
            *place = byte;
        }
        Received::Bytes(count)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<usize, Gone> {
        if self.deaf {
            return Err(Gone);
        }
        let count = bytes.len().min(self.room);
        self.room -= count;
        self.got.extend_from_slice(&bytes[..count]);
        Ok(count)
    }
}

const PATIENCE: Duration = Duration::from_secs(60);

struct Play {
    tunnel: Tunnel,
    person: Person,
    application: Application,
    buffer: Buffer,
    now: Instant,
}

impl Play {
    fn new(person: Person, application: Application) -> Play {
        Play {
            tunnel: Tunnel::new(b"", PATIENCE),
            person,
            application,
            buffer: Buffer::new(1000),
            now: Instant::now(),
        }
    }

    fn turn(&mut self, ready: Ready) -> Turn {
        self.tunnel.turn(
            &mut self.person,
            &mut self.application,
            &mut self.buffer,
            ready,
            self.now,
        )
    }

    /// Turns until there is nothing to do but to wait, as one that is driven by level-triggered
    /// events.
    fn run(&mut self) -> Turn {
        let mut turns = 0;
        loop {
            turns += 1;
            assert!(turns < 10_000, "it turns and turns");
            match self.turn(Ready::ALL) {
                Turn::Again => {}
                Turn::Wait(wants)
                    if wants.worker_read
                        && (!self.application.says.is_empty()
                            || self.application.then.is_some()) => {}
                turn => return turn,
            }
        }
    }

    fn wants(&mut self) -> Wants {
        match self.run() {
            Turn::Wait(wants) => wants,
            turn => panic!("{turn:?}"),
        }
    }
}

/// A tunnel in which nothing is the matter waits for this.
const IDLE: Wants = Wants {
    user_read: true,
    user_write: false,
    worker_read: true,
    worker_write: false,
    until: None,
};

#[test]
fn bytes_go_both_ways() {
    let person = Person::saying(&[b"hello", b"", b"worker"]);
    let mut play = Play::new(person, Application::listening());
    play.application
        .say(Kind::Data, flag::FLUSH, b"hello ")
        .say(Kind::Log, 0, b"a line")
        .say(Kind::Data, 0, b"client");
    assert_eq!(play.wants(), IDLE);
    assert_eq!(play.person.got, b"hello client");
    assert_eq!(play.application.got, b"helloworker");
    assert_eq!(play.person.lines, ["6 None a line"]);
    assert_eq!(play.tunnel.sent(), 12);
    play.application.say(Kind::Data, flag::END, b"bye");
    assert_eq!(play.run(), Turn::Over(End::Done));
    assert_eq!(play.person.got, b"hello clientbye");
}

#[test]
fn what_came_early_comes_first() {
    let mut application = Application::default();
    application.say(Kind::Data, 0, b"early");
    let early: Vec<u8> = application.says.drain(..).collect();
    // Cut in the middle of the frame.
    let (early, rest) = early.split_at(10);
    application.says.extend(rest);
    let mut play = Play::new(Person::reading(), application);
    play.tunnel = Tunnel::new(early, PATIENCE);
    play.wants();
    assert_eq!(play.person.got, b"early");
}

#[test]
fn all_that_came_early_may_be_the_end() {
    let mut application = Application::default();
    application.say(Kind::Data, flag::END, b"early end");
    let early: Vec<u8> = application.says.drain(..).collect();
    let mut play = Play::new(Person::reading(), application);
    play.tunnel = Tunnel::new(&early, PATIENCE);
    assert_eq!(play.run(), Turn::Over(End::Done));
    assert_eq!(play.person.got, b"early end");
}

#[test]
fn a_slow_client_stops_the_worker_and_nothing_else() {
    let mut play = Play::new(Person::reading(), Application::listening());
    play.person.room = 2_500;
    play.application.say(Kind::Data, 0, &[7; 100_000]);
    let wants = play.wants();
    assert!(!wants.worker_read && wants.user_write && wants.user_read);
    assert!(wants.until == Some(play.now + PATIENCE));
    // At most one buffer full has been read of what was not taken.
    assert!(play.application.says.len() > 100_000 - 2_500 - 2 * 1000);
    play.person.says.push_back(b"still here".to_vec());
    play.wants();
    assert_eq!(play.application.got, b"still here");
    play.person.room = usize::MAX;
    assert_eq!(play.wants(), IDLE);
    assert_eq!(play.person.got.len(), 100_000);
    assert!(play.person.largest_write <= 1000);
}

#[test]
fn a_slow_worker_stops_the_client_and_nothing_else() {
    let pieces = vec![&[7; 600][..]; 50];
    let mut play = Play::new(Person::saying(&pieces), Application::listening());
    play.application.room = 1_000;
    play.application.say(Kind::Data, 0, b"news");
    let wants = play.wants();
    assert!(!wants.user_read && wants.worker_write && wants.worker_read);
    assert_eq!((wants.user_write, wants.until), (false, None));
    assert_eq!(play.person.got, b"news");
    // One read, in two pieces, and no more is kept.
    assert_eq!(play.tunnel.unsent.len(), 200);
    assert_eq!(play.person.says.len(), 48);
    play.application.room = usize::MAX;
    assert_eq!(play.wants(), IDLE);
    assert_eq!(play.application.got.len(), 30_000);
    assert_eq!(play.tunnel.unsent.capacity(), 0);
}

#[test]
fn others_have_their_turn() {
    let pieces = vec![&b"x"[..]; 100];
    let mut play = Play::new(Person::saying(&pieces), Application::listening());
    assert_eq!(play.turn(Ready::ALL), Turn::Again);
    assert_eq!(play.application.got.len(), ROUNDS as usize);
    play.application.say(Kind::Data, 0, &[7; 100_000]);
    play.turn(Ready::ALL);
    assert_eq!(play.person.got.len() + 8, ROUNDS as usize * 1000);
    // Without being told that there is more.
    while play.turn(Ready::default()) == Turn::Again {}
    assert_eq!(play.application.got.len(), 100);
}

#[test]
fn a_client_that_goes_is_heard_to_the_end() {
    let mut play = Play::new(
        Person::saying(&[&[1; 500], &[2; 500]]),
        Application::listening(),
    );
    play.person.leaves = true;
    play.application.room = 700;
    // The second read does not go through, so the end is not seen yet.
    assert!(play.wants().worker_write);
    play.application.room = 0;
    play.wants();
    play.application.room = usize::MAX;
    assert_eq!(play.run(), Turn::Over(End::UserGone));
    assert_eq!(play.application.got.len(), 1000);
}

#[test]
fn a_worker_that_does_not_listen_to_last_words_is_left() {
    let mut play = Play::new(Person::saying(&[b"last words"]), Application::listening());
    play.application.room = 4;
    play.wants();
    play.tunnel.phase = Phase::Leaving(play.now + LAST_WORDS);
    let wants = play.wants();
    assert_eq!(wants.until, Some(play.now + LAST_WORDS));
    assert!(wants.worker_write && !wants.user_read && !wants.worker_read && !wants.user_write);
    play.now += LAST_WORDS;
    assert_eq!(play.run(), Turn::Over(End::UserGone));
}

#[test]
fn a_worker_that_listens_no_longer_is_heard_to_the_end() {
    let mut play = Play::new(Person::saying(&[b"to nobody"]), Application::listening());
    play.application.deaf = true;
    play.turn(Ready {
        user_read: true,
        ..Ready::default()
    });
    play.application
        .say(Kind::Data, 0, b"a word and ")
        .say(Kind::Data, flag::END, b"an end")
        .then = Some(Received::Eof);
    assert_eq!(play.run(), Turn::Over(End::Done));
    assert_eq!(play.person.got, b"a word and an end");
    assert!(play.tunnel.unsent.is_empty());
}

#[test]
fn the_death_of_a_worker_is_told_between_messages() {
    for then in [Received::Eof, Received::Reset] {
        let mut play = Play::new(Person::reading(), Application::listening());
        play.application.say(Kind::Data, 0, b"whole").then = Some(then);
        assert_eq!(play.run(), Turn::Over(End::Died));
        assert_eq!(play.person.got, b"whole\x88\x02\x03\xf4");
    }
}

#[test]
fn the_death_of_a_worker_in_a_message_is_not_told() {
    let mut play = Play::new(Person::reading(), Application::listening());
    play.application.say(Kind::Data, 0, b"half a message");
    play.application.says.truncate(12);
    play.application.then = Some(Received::Eof);
    assert_eq!(play.run(), Turn::Over(End::Died));
    assert_eq!(play.person.got, b"half");
}

#[test]
fn what_is_no_frame_ends_it() {
    let mut play = Play::new(Person::reading(), Application::listening());
    play.application
        .say(Kind::Data, 0, b"good")
        .say(Kind::Reply, 0, b"");
    assert_eq!(play.run(), Turn::Over(End::Malformed));
    assert_eq!(play.person.got, b"good\x88\x02\x03\xf4");
}

#[test]
fn the_client_gets_everything_before_the_end() {
    let mut play = Play::new(Person::reading(), Application::listening());
    play.person.room = 3;
    play.application.say(Kind::Data, flag::END, b"much to say");
    let wants = play.wants();
    assert!(wants.user_write && !wants.user_read && !wants.worker_read && !wants.worker_write);
    play.person.room = usize::MAX;
    assert_eq!(play.run(), Turn::Over(End::Done));
    assert_eq!(play.person.got, b"much to say");
}

#[test]
fn a_client_that_takes_nothing_is_given_up() {
    for flags in [0, flag::END] {
        let mut play = Play::new(Person::reading(), Application::listening());
        play.person.room = 0;
        play.application.say(Kind::Data, flags, b"news");
        play.turn(Ready::ALL);
        play.now += PATIENCE / 2;
        let woken = Ready {
            worker_read: true,
            user_read: true,
            user_write: false,
        };
        assert!(matches!(play.turn(woken), Turn::Wait(_)));
        // It takes a little.
        play.person.room = 1;
        assert!(matches!(play.turn(Ready::ALL), Turn::Wait(_)));
        play.now += PATIENCE / 2;
        assert!(matches!(play.turn(woken), Turn::Wait(_)));
        play.now += PATIENCE / 2;
        assert_eq!(play.turn(woken), Turn::Over(End::Stalled));
    }
}

#[test]
fn a_client_to_whom_nothing_can_be_sent_has_gone() {
    let mut play = Play::new(Person::reading(), Application::listening());
    play.person.gone = true;
    play.application.say(Kind::Data, 0, b"news");
    assert_eq!(play.run(), Turn::Over(End::UserGone));
}

#[test]
fn a_process_that_ends_says_so() {
    let mut play = Play::new(Person::reading(), Application::listening());
    play.application.say(Kind::Data, 0, b"whole");
    assert_eq!(play.wants(), IDLE);
    play.tunnel.stop(&mut play.person);
    assert_eq!(play.run(), Turn::Over(End::Stopped));
    assert_eq!(play.person.got, b"whole\x88\x02\x03\xf4");
    // Once is enough.
    play.tunnel.stop(&mut play.person);
    assert_eq!(play.person.kept.len(), 0);
}

#[test]
fn an_idle_tunnel_is_small() {
    let mut play = Play::new(Person::saying(&[&[1; 3000]]), Application::listening());
    play.application.room = 10;
    play.application
        .say(Kind::Data, 0, &[7; 3000])
        .say(Kind::Log, 0, &[b'x'; 3000]);
    play.wants();
    play.application.room = usize::MAX;
    play.wants();
    let Tunnel { early, unsent, .. } = &play.tunnel;
    assert_eq!((early.capacity(), unsent.capacity()), (0, 0));
    assert!(size_of::<Tunnel>() < 256);
}
