//! The machine driven without processes: single decisions, and many random histories that must
//! keep its promises.

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

#[test]
fn deaths_at_start_wait_longer_and_longer() {
    let mut world = World::new(config(1));
    let begin = world.now;
    let mut starts = Vec::new();
    while world.now < begin + 60_000 {
        for id in world.starting() {
            starts.push(world.now - begin);
            world.die(id, death(Ended::Exit(1)));
        }
        world.wait(50);
    }
    assert_eq!(starts[..5], [0, 100, 300, 700, 1_500]);
    assert!(starts.len() <= 14, "{starts:?}");
    assert_eq!(world.logged(crate::messages::WORKER_DIED_STARTING), 1);
}

#[test]
fn a_long_life_is_forgiven() {
    let mut world = started(config(1));
    for _ in 0..5 {
        let id = world.serving()[0];
        world.wait(1_500);
        world.die(id, killed());
        let next = world.starting();
        assert_eq!(next.len(), 1);
        world.ready(next[0]);
    }
    assert_eq!(world.logged(crate::messages::WORKER_DIED), 5);
}

#[test]
fn the_held_back_successor_of_maximum_requests_steps_in_for_a_dead_one() {
    let mut world = started(config(1));
    let old = world.serving()[0];
    let reason = Reason::MaximumRequests;
    world.say(old, FromWorker::Retire { reason });
    let new = world.starting()[0];
    world.ready(new);
    assert_eq!(world.serving(), [old]);
    world.die(old, killed());
    assert_eq!(world.serving(), [new]);
}

#[test]
fn the_same_state_of_a_script_is_not_taken_over_again_and_again() {
    let mut world = started(config(1));
    let stale = |mtime_us| FromWorker::Stale {
        script: script("app"),
        mtime_us,
    };
    let old = world.serving()[0];
    world.say(old, stale(7));
    let new = world.starting()[0];
    world.ready(new);
    world.say(new, stale(7));
    assert!(world.starting().is_empty());
    assert!(world.heard.iter().any(|action| matches!(
        action,
        Action::Send {
            message: ToWorker::StaysOld { retry_ms: 1000, .. },
            ..
        }
    )));
    // Another state is taken over at once, and this one after a while.
    world.say(new, stale(8));
    let newer = world.starting()[0];
    world.ready(newer);
    world.wait(1_000);
    world.say(newer, stale(8));
    assert_eq!(world.starting().len(), 1);
}

#[test]
fn idle_workers_are_replaced_by_empty_ones() {
    let mut world = started(GroupConfig {
        inactivity_timeout: 10,
        imports: vec![script("import")],
        ..config(1)
    });
    let old = world.serving()[0];
    world.say(
        old,
        FromWorker::Loaded {
            script: script("app"),
        },
    );
    let sample = Sample {
        activity_ms: world.now,
        ..Sample::default()
    };
    world.wait(10_001);
    world.report(Event::Sampled {
        worker: old,
        sample,
    });
    let new = world.starting()[0];
    assert_eq!(world.fakes[&new].load.imports, [script("import")]);
    assert_eq!(world.fakes[&new].load.required, []);
}

#[test]
fn a_worker_that_cannot_be_spawned_is_tried_again() {
    let mut machine = Machine::new(config(1));
    let spawn = |actions: &[Action]| {
        actions.iter().find_map(|action| match action {
            Action::Spawn { worker, .. } => Some(*worker),
            _ => None,
        })
    };
    let worker = spawn(&machine.handle(1000, Event::Begin)).unwrap();
    let why = "no memory".to_owned();
    let actions = machine.handle(1000, Event::NotSpawned { worker, why });
    assert_eq!(spawn(&actions), None);
    assert_eq!(machine.deadline(), Some(1100));
    assert!(spawn(&machine.handle(1100, Event::Time)).is_some());
}

#[test]
fn request_limits_grow_with_the_logarithm_of_the_threads() {
    let limit = |threads| {
        limits::request_limit_ms(&GroupConfig {
            threads,
            request_timeout: 60,
            ..GroupConfig::default()
        })
    };
    assert_eq!(limit(1), 60_000);
    assert_eq!(limit(15) / 1000, 222);
}

#[test]
fn deaths_are_explained() {
    let kill = killed();
    assert!(kill.describe(false).contains("not sent by the supervisor"));
    assert!(!kill.describe(true).contains("not sent"));
    let out_of_memory = Death {
        out_of_memory: true,
        ..killed()
    };
    assert!(out_of_memory.describe(false).contains("out of memory"));
    let crash = Death {
        last_words: Some("Fatal Python error: x".to_owned()),
        ..death(Ended::Signal {
            number: libc::SIGSEGV,
            core: true,
        })
    };
    assert_eq!(
        crash.describe(false),
        "by signal 11 (SIGSEGV, core dumped); it wrote last: Fatal Python error: x"
    );
}

/// Random numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    fn pick(&mut self, ids: &[WorkerId]) -> Option<WorkerId> {
        (!ids.is_empty()).then(|| ids[self.below(ids.len())])
    }
}

/// One random thing happens.
fn happen(world: &mut World, random: &mut Random) {
    let everybody: Vec<WorkerId> = world.fakes.keys().copied().collect();
    let serving = world.serving();
    let starting = world.starting();
    match random.below(17) {
        0..=3 => {
            if let Some(id) = random.pick(&starting) {
                world.ready(id);
            }
        }
        4 => {
            if let Some(id) = random.pick(&starting) {
                let script = (random.below(2) == 0).then(|| script("app"));
                let text = b"Traceback".to_vec();
                world.say(id, FromWorker::Failed { script, text });
                world.die(id, death(Ended::Exit(1)));
            }
        }
        5 => {
            if let Some(id) = random.pick(&everybody) {
                world.die(id, killed());
            }
        }
        6 => {
            if let Some(id) = random.pick(&serving) {
                let mtime_us = random.below(4) as i64;
                let script = script(["app", "other"][random.below(2)]);
                world.say(id, FromWorker::Stale { script, mtime_us });
            }
        }
        7 => {
            if let Some(id) = random.pick(&serving) {
                let script = script(["app", "other"][random.below(2)]);
                world.say(id, FromWorker::Loaded { script });
            }
        }
        8 => {
            if let Some(id) = random.pick(&serving) {
                let reason = [
                    Reason::MaximumRequests,
                    Reason::GracefulSignal,
                    Reason::CpuTimeLimit,
                ][random.below(3)];
                world.say(id, FromWorker::Retire { reason });
            }
        }
        9 => {
            if let Some(id) = random.pick(&serving) {
                let reason = Reason::MaximumRequests;
                if let Some(fake) = world.fakes.get_mut(&id) {
                    fake.paused = fake.role == Role::Worker;
                }
                world.say(id, FromWorker::Paused { reason });
            }
        }
        10 => {
            if let Some(id) = random.pick(&serving) {
                let fake = world.fakes.get_mut(&id).unwrap();
                fake.serving = false;
                fake.draining = true;
                let reason = Reason::ShutdownSignal;
                world.say(id, FromWorker::Retire { reason });
            }
        }
        11 => {
            if let Some(id) = random.pick(&world.ids(|fake| fake.draining)) {
                world.say(id, FromWorker::Drained);
                world.die(id, death(Ended::Exit(0)));
            }
        }
        14 => {
            if let Some(id) = random.pick(&everybody) {
                // Who closes its channel ends soon, and if not, is killed.
                world.report(Event::Silent { worker: id });
                if let Some(fake) = world.fakes.get_mut(&id) {
                    fake.silent = true;
                }
                let unknown = !world.machine.workers.contains_key(&id);
                if unknown || random.below(2) == 0 {
                    world.fakes.remove(&id);
                    world.die(id, death(Ended::Exit(0)));
                }
            }
        }
        12 if random.below(4) == 0 => world.report(Event::Replace),
        13 => {
            if let Some(id) = random.pick(&serving) {
                let now = world.now;
                let sample = Sample {
                    started: 1,
                    pulse_ms: [now, now - 400_000][usize::from(random.below(8) == 0)],
                    ..Sample::default()
                };
                world.report(Event::Sampled { worker: id, sample });
                if sample_was_a_deadlock(world, id) {
                    world.fakes.get_mut(&id).unwrap().serving = false;
                    world.fakes.get_mut(&id).unwrap().draining = true;
                }
            }
        }
        _ => {
            let ms = [1, 50, 700, 5_000][random.below(4)];
            world.wait(ms);
        }
    }
}

fn sample_was_a_deadlock(world: &World, id: WorkerId) -> bool {
    world.fakes.contains_key(&id)
        && world
            .machine
            .workers
            .get(&id)
            .is_some_and(|worker| worker.state == State::Leaving)
}

fn histories(make: impl Fn(u64) -> GroupConfig) {
    for seed in 1..400 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let config = make(seed);
        let processes = config.processes as usize;
        let mut world = World::new(config);
        world.flaky = seed % 5 == 0;
        for _ in 0..300 {
            happen(&mut world, &mut random);
        }
        world.flaky = false;
        // Left alone, every slot has exactly one worker that serves, and nothing is pending.
        world.settle();
        let workers = |fake: &Fake| fake.role == Role::Worker && fake.serving && !fake.paused;
        let mut slots: Vec<usize> = world
            .ids(workers)
            .iter()
            .map(|id| world.fakes[id].slot)
            .collect();
        slots.sort_unstable();
        assert_eq!(
            slots,
            (0..processes).collect::<Vec<_>>(),
            "seed {seed}: {:?} {:?} {:?}",
            world.machine.slots,
            world.machine.workers,
            world.fakes
        );
        let held = |slot: &Slot| {
            let want = slot.want.map(|want| want.reason);
            matches!(
                want,
                None | Some(Reason::MaximumRequests | Reason::RestartInterval)
            )
        };
        assert!(world.machine.slots.iter().all(held), "seed {seed}");

        world.ending = true;
        if random.below(2) == 0 {
            world.report(Event::ClientsGone);
        }
        world.report(Event::Terminate);
        world.wait(60_000);
        assert!(world.ended, "seed {seed}");
    }
}

#[test]
fn any_history_ends_well() {
    histories(|seed| GroupConfig {
        restart_interval: (seed % 3 == 0).into(),
        startup_timeout: 30 * u32::from(seed % 2 == 0),
        ..config(1 + (seed % 4) as u32)
    });
}

#[test]
fn any_history_with_a_template_ends_well() {
    histories(|seed| GroupConfig {
        preload: true,
        imports: vec![script("app")],
        ..config(1 + (seed % 4) as u32)
    });
}
