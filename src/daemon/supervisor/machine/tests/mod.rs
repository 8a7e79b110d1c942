//! The machine driven without processes, in a world that does what it says and checks what it may
//! say.

mod decisions;
mod histories;

use std::collections::BTreeMap;

use super::*;

fn config(processes: u32) -> GroupConfig {
    GroupConfig {
        name: b"site".to_vec(),
        processes,
        threads: 2,
        ..GroupConfig::default()
    }
}

fn script(name: &str) -> Script {
    Script {
        application_group: b"group".to_vec(),
        path: format!("/srv/{name}").into_bytes(),
    }
}

fn death(ended: Ended) -> Death {
    Death {
        ended,
        out_of_memory: false,
        out_of_cpu_time: false,
        last_words: None,
        running: Vec::new(),
    }
}

fn killed() -> Death {
    death(Ended::Signal {
        number: libc::SIGKILL,
        core: false,
    })
}

/// A worker as the world sees it.
#[derive(Clone, Debug)]
struct Fake {
    role: Role,
    slot: usize,
    ready: bool,
    serving: bool,
    paused: bool,
    draining: bool,
    silent: bool,
    load: Load,
}

/// The machine and a world that does what it says, and checks what it may say.
struct World {
    machine: Machine,
    now: u64,
    fakes: BTreeMap<WorkerId, Fake>,
    spawned: usize,
    /// Some processes cannot be started.
    flaky: bool,
    ending: bool,
    ended: bool,
    /// Everything that was logged or sent since it was last taken.
    heard: Vec<Action>,
}

impl World {
    fn new(config: GroupConfig) -> World {
        let mut world = World {
            machine: Machine::new(config),
            now: 1_000_000,
            fakes: BTreeMap::new(),
            spawned: 0,
            flaky: false,
            ending: false,
            ended: false,
            heard: Vec::new(),
        };
        world.report(Event::Begin);
        world
    }

    fn report(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in self.machine.handle(self.now, event) {
                self.act(&action, &mut events);
                self.heard.push(action);
            }
        }
    }

    fn act(&mut self, action: &Action, events: &mut Vec<Event>) {
        match action {
            Action::Spawn {
                worker,
                slot,
                role,
                load,
            } => {
                if self.flaky && self.spawned % 13 == 12 {
                    self.spawned += 1;
                    events.push(Event::NotSpawned {
                        worker: *worker,
                        why: "no memory".to_owned(),
                    });
                    return;
                }
                self.add(*worker, *slot, *role, load.clone());
                events.push(Event::Spawned {
                    worker: *worker,
                    pid: 1000 + *worker,
                });
            }
            Action::Fork {
                template,
                worker,
                slot,
            } => {
                let parent = &self.fakes[template];
                assert!(parent.ready && parent.role == Role::Template);
                let load = parent.load.clone();
                self.add(*worker, *slot, Role::Worker, load);
            }
            Action::Send { worker, message } => self.tell(*worker, message),
            Action::Kill { worker, signal } => {
                if *signal == libc::SIGKILL && self.fakes.remove(worker).is_some() {
                    events.push(Event::Died {
                        worker: *worker,
                        death: killed(),
                    });
                }
            }
            Action::Log { .. } | Action::LogRunning { .. } | Action::Look => {}
            Action::End => {
                assert!(!self.ended && self.fakes.is_empty() && self.ending);
                self.ended = true;
            }
        }
    }

    fn add(&mut self, id: WorkerId, slot: usize, role: Role, load: Load) {
        assert!(!self.ending, "a process is started while the group ends");
        assert!(slot < self.machine.slots.len());
        self.spawned += 1;
        let fake = Fake {
            role,
            slot,
            ready: false,
            serving: false,
            paused: false,
            draining: false,
            silent: false,
            load,
        };
        assert!(self.fakes.insert(id, fake).is_none(), "a number twice");
        let there =
            |fake: &&Fake| fake.slot == slot && fake.role == role && !fake.draining && !fake.silent;
        // The one that serves, the one that starts, and one that has failed but lives yet.
        assert!(self.fakes.values().filter(there).count() <= 3);
    }

    fn tell(&mut self, id: WorkerId, message: &ToWorker) {
        // Messages to the dead are lost.
        let Some(fake) = self.fakes.get_mut(&id) else {
            return;
        };
        match message {
            ToWorker::Go => {
                assert!(fake.ready && !fake.draining);
                fake.serving = true;
                fake.paused = false;
            }
            ToWorker::Drain { reason } => {
                assert!(!fake.draining);
                fake.draining = true;
                let was_serving = core::mem::take(&mut fake.serving);
                let (slot, role) = (fake.slot, fake.role);
                if was_serving && *reason != Reason::ShutdownSignal && role == Role::Worker {
                    let successor = self
                        .fakes
                        .values()
                        .any(|other| other.slot == slot && other.serving);
                    assert!(successor, "slot {slot} has nobody who serves");
                }
            }
            _ => {}
        }
    }

    fn say(&mut self, worker: WorkerId, message: FromWorker) {
        self.report(Event::Said { worker, message });
    }

    fn ready(&mut self, id: WorkerId) {
        self.fakes.get_mut(&id).unwrap().ready = true;
        self.say(id, FromWorker::Ready { pid: 1000 + id });
    }

    fn die(&mut self, id: WorkerId, death: Death) {
        self.fakes.remove(&id);
        self.report(Event::Died { worker: id, death });
    }

    /// Time passes, timer by timer.
    fn wait(&mut self, ms: u64) {
        let end = self.now + ms;
        while let Some(at) = self.machine.deadline().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.report(Event::Time);
        }
        self.now = end;
        self.report(Event::Time);
    }

    /// The workers that are being started.
    fn starting(&self) -> Vec<WorkerId> {
        self.ids(|fake| !fake.ready && !fake.draining)
    }

    fn serving(&self) -> Vec<WorkerId> {
        self.ids(|fake| fake.serving)
    }

    fn ids(&self, which: impl Fn(&Fake) -> bool) -> Vec<WorkerId> {
        self.fakes
            .iter()
            .filter(|(_, fake)| which(fake))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Everybody who starts becomes ready, and who drains ends, until nothing moves.
    fn settle(&mut self) {
        for _ in 0..200 {
            for id in self.starting() {
                if self.fakes.contains_key(&id) {
                    self.ready(id);
                }
            }
            for id in self.ids(|fake| fake.draining) {
                self.say(id, FromWorker::Drained);
                self.die(id, death(Ended::Exit(0)));
            }
            self.wait(200);
        }
    }

    fn logged(&self, code: Code) -> usize {
        self.heard
            .iter()
            .filter(
                |action| matches!(action, Action::Log { code: Some(found), .. } if *found == code),
            )
            .count()
    }
}

fn started(config: GroupConfig) -> World {
    let mut world = World::new(config);
    for id in world.starting() {
        world.ready(id);
    }
    world.heard.clear();
    world
}
