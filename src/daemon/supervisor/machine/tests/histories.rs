//! Many random histories, in which the machine must keep its promises.

use super::*;

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
    for seed in 1..400_u64 {
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
