//! Single decisions.

use super::*;

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
