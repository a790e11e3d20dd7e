//! What becomes of events, and what is on disk when they are acknowledged.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, mpsc};

use agent_core::effect::Priority;
use agent_core::event::EventKind;
use agent_core::retention::{Quota, Retention, StreamPolicy, WhenFull};
use agent_core::{Event, Identity};
use edge_agent::plan::{Active, OnTrial, TrialEnd};
use function_package::Package;
use sync_protocol::records::{Class, Reason};
use sync_protocol::usage::Counts;

use crate::running::{DEADLINE, MANIFEST, Running, Saboteur, ready, traps_on_x, trusted, version};

/// Takes all its fuel, on the topics below `burn`.
fn burner(fuel: u64) -> Active {
    let module = r#"(module
        (memory (export "memory") 1)
        (func (export "edge_alloc") (param i32) (result i32) (i32.const 1024))
        (func (export "edge_handle") (param i32 i32) (result i32) (loop $l (br $l)) unreachable))"#;
    let manifest = format!(
        "manifest = 1\nname = \"burner\"\nversion = \"1.0.0\"\n[[trigger]]\nmqtt = \"burn/#\"\n[limits]\nfuel = {fuel}\n"
    );
    let package = Package::pack(&wat::parse_str(module).unwrap(), &manifest).unwrap();
    trusted(ready(&package))
}

fn burning(device: &str) -> Event {
    Event::new(EventKind::Mqtt, device, "burn/it", *b"", 0)
}

#[test]
fn a_function_that_burns_for_long_on_every_worker_lets_others_pass() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(dir.path());
    // Half a second on each of the two workers, and more on a busy machine.
    running.run_all([("burner", burner(400_000_000)), ("f", trusted(version(&traps_on_x())))]);
    let (burned, burns) = mpsc::channel();
    for device in ["one", "two"] {
        let burned = burned.clone();
        let acknowledge = Box::new(move |_| burned.send(()).unwrap());
        running.runtime.block_on(running.pipeline.submit(burning(device), acknowledge));
    }
    for sequence in 1..=5 {
        running.submit(sequence, b"quick").recv_timeout(DEADLINE).unwrap();
    }
    assert_eq!(burns.try_recv(), Err(mpsc::TryRecvError::Empty));
    assert_eq!(running.records().len(), 5);
    for _ in 0..2 {
        burns.recv_timeout(DEADLINE).unwrap();
    }
    assert_eq!(running.reader.dead_letters(0, 10).unwrap().len(), 2);
    running.stop();
}

#[test]
fn a_flood_of_events_for_a_slow_function_leaves_room_for_others() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path());
    running.run_all([("burner", burner(200_000)), ("f", trusted(version(&traps_on_x())))]);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let pipeline = running.pipeline.clone();
    let flood = std::thread::spawn(move || {
        let flood = async {
            for event in 0.. {
                let device = format!("{}", event % 10);
                pipeline.submit(burning(&device), Box::new(|_| ())).await;
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            tokio::select! { () = flood => {}, _ = stopped => {} }
        });
    });
    let begun = std::time::Instant::now();
    while running.pipeline.in_flight() < 1_000 {
        assert!(begun.elapsed() < DEADLINE);
        std::thread::yield_now();
    }
    for sequence in 1..=20 {
        running.submit(sequence, b"quick").recv_timeout(DEADLINE).unwrap();
        assert!(running.pipeline.in_flight() < edge_agent::limits::EVENTS_IN_FLIGHT / 2);
    }
    stop.send(()).unwrap();
    flood.join().unwrap();
    running.stop();
}

/// What a function's runs used, over all devices.
fn used(running: &Running, function: &str) -> Counts {
    let totals = running.pipeline.totals.read();
    totals.parts().iter().find(|part| part.function == function).map(|part| part.devices[""]).unwrap_or_default()
}

#[test]
fn every_run_is_metered_also_what_a_trial_ran_twice_and_no_duplicate() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path());
    running.run("f", trusted(version(&traps_on_x())));
    for (sequence, payload) in [(1, b"good"), (1, b"good"), (2, b"xxxx")] {
        running.submit(sequence, payload).recv_timeout(DEADLINE).unwrap();
    }
    let before = used(&running, "f");
    assert_eq!((before.invocations, before.failed, before.bytes_in), (2, 1, 8));
    // The stream's name and the body of the run that emitted.
    assert_eq!((before.bytes_out, before.memory_peak_bytes), (1 + 4, 65_536));
    assert!(before.fuel > 0 && before.busy_ns > 0);
    // The new version traps, and the previous one handles the event.
    let (good, bad) = (Arc::new(version(&traps_on_x())), Arc::new(version("(i32.const 1)")));
    running.run("f", Active { current: bad, trial: Some(OnTrial::new(Some(good), 7)) });
    running.submit(3, b"more").recv_timeout(DEADLINE).unwrap();
    let after = used(&running, "f");
    assert_eq!((after.invocations, after.failed, after.bytes_in, after.bytes_out), (4, 2, 16, 10));
    running.stop();
}

#[test]
fn time_in_which_a_run_is_paused_for_others_is_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path());
    running.run_all([("burner", burner(100_000_000)), ("other", burner(100_000_000))]);
    let (burned, burns) = mpsc::channel();
    let begun = std::time::Instant::now();
    for device in ["one", "two", "three"] {
        let burned = burned.clone();
        let acknowledge = Box::new(move |_| burned.send(()).unwrap());
        running.runtime.block_on(running.pipeline.submit(burning(device), acknowledge));
    }
    for _ in 0..3 {
        burns.recv_timeout(DEADLINE).unwrap();
    }
    let took = begun.elapsed().as_nanos() as u64;
    let [one, other] = ["burner", "other"].map(|function| used(&running, function));
    assert_eq!((one.invocations, other.invocations, one.fuel), (3, 3, 300_000_000));
    // Two workers have no more time than twice what passed.
    assert!(one.busy_ns + other.busy_ns <= 2 * took, "{one:?} {other:?} in {took}");
    running.stop();
}

#[test]
fn an_event_is_acknowledged_with_its_effects_on_disk_and_a_retry_has_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(dir.path());
    running.run("f", trusted(version(&traps_on_x())));
    running.submit(1, b"one").recv_timeout(DEADLINE).unwrap();
    assert_eq!(running.records(), [b"one"]);
    running.submit(1, b"one").recv_timeout(DEADLINE).unwrap();
    running.submit(2, b"two").recv_timeout(DEADLINE).unwrap();
    assert_eq!(running.records(), [b"one", b"two"]);
    assert_eq!(running.pipeline.counters.duplicates.get(), 1);
    running.stop();

    // The memory of it survives a restart.
    let mut running = Running::start(dir.path());
    running.run("f", trusted(version(&traps_on_x())));
    running.submit(2, b"two").recv_timeout(DEADLINE).unwrap();
    assert_eq!(running.records().len(), 2);
    running.stop();
}

#[test]
fn a_trap_is_an_outcome_and_the_event_is_in_the_dead_letters() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(dir.path());
    running.run("f", trusted(version(&traps_on_x())));
    running.submit(1, b"x").recv_timeout(DEADLINE).unwrap();
    running.submit(2, b"fine").recv_timeout(DEADLINE).unwrap();
    assert_eq!(running.records(), [b"fine"]);
    let dead = running.reader.dead_letters(0, 10).unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!(&*dead[0].event.payload, b"x");
    assert!(dead[0].dead.reason.contains("\"f\" 1.0.0"), "{}", dead[0].dead.reason);
    running.stop();
}

#[test]
fn a_failed_commit_acknowledges_nothing_and_everything_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(dir.path());
    running.run("f", trusted(version(&traps_on_x())));
    running.submit(1, b"one").recv_timeout(DEADLINE).unwrap();
    let saboteur = Saboteur::at_work(dir.path());
    let before = running.pipeline.generation();
    let waiting: Vec<_> = (2..10).map(|sequence| running.submit(sequence, b"more")).collect();
    for seen in waiting {
        // Closed without a word: not acknowledged, and never to be.
        assert_eq!(seen.recv_timeout(DEADLINE), Err(mpsc::RecvTimeoutError::Disconnected));
    }
    assert!(running.pipeline.counters.resets.get() > 0);
    saboteur.stops();
    // What came after those on the same connection: handled, it would make them too old.
    let late = running.submit_in(Some(before), 1_000, b"late");
    assert_eq!(late.recv_timeout(DEADLINE), Err(mpsc::RecvTimeoutError::Disconnected));
    let now = Some(running.pipeline.generation());
    for sequence in 1..10 {
        running.submit_in(now, sequence, b"more").recv_timeout(DEADLINE).unwrap();
    }
    let records = running.records();
    assert_eq!(records.len(), 9);
    assert_eq!(records[0], b"one");
    running.stop();
}

#[test]
fn a_version_that_traps_where_the_previous_one_does_not_is_sent_back_and_the_event_is_handled() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(dir.path());
    let (good, bad) = (Arc::new(version(&traps_on_x())), Arc::new(version("(i32.const 1)")));
    running.run("f", Active { current: bad, trial: Some(OnTrial::new(Some(good), 7)) });
    // Both trap on this one: the event is to blame, and nobody is sent back.
    running.submit(1, b"x").recv_timeout(DEADLINE).unwrap();
    assert_eq!(running.trial_end("f"), None);
    running.submit(2, b"fine").recv_timeout(DEADLINE).unwrap();
    assert!(matches!(running.trial_end("f"), Some(TrialEnd::Failed(why)) if why.contains("unreachable")));
    // What comes before it is settled changes nothing of that.
    running.submit(3, b"fine").recv_timeout(DEADLINE).unwrap();
    assert!(matches!(running.trial_end("f"), Some(TrialEnd::Failed(_))));
    running.runtime.block_on(running.pipeline.trial_ended.notified());
    assert_eq!(running.records(), [b"fine", b"fine"]);
    running.stop();
}

#[test]
fn a_version_that_handles_its_first_events_passes() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path());
    let good = Arc::new(version(&traps_on_x()));
    running.run("f", Active { current: good, trial: Some(OnTrial::new(None, 3)) });
    for sequence in 1..=u64::from(agent_core::deploy::TRIAL_EVENTS) {
        assert_eq!(running.trial_end("f"), None);
        running.submit(sequence, b"fine").recv_timeout(DEADLINE).unwrap();
    }
    assert_eq!(running.trial_end("f"), Some(TrialEnd::Passed));
    running.stop();
}

#[test]
fn events_of_one_device_stay_in_order_whatever_they_share_a_commit_with() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(dir.path());
    running.run("f", trusted(version(&traps_on_x())));
    let order = Arc::new(Mutex::new(Vec::new()));
    let (done, all) = mpsc::channel();
    for sequence in 1..=100u64 {
        let event = Event {
            identity: Some(Identity { source: "d".into(), boot: 1, sequence }),
            ..Event::new(EventKind::Mqtt, "d", "a/b", sequence.to_string().into_bytes(), 0)
        };
        let (order, done) = (order.clone(), done.clone());
        let acknowledge = Box::new(move |_| {
            order.lock().unwrap().push(sequence);
            done.send(()).unwrap();
        });
        running.runtime.block_on(running.pipeline.submit(event, acknowledge));
    }
    for _ in 0..100 {
        all.recv_timeout(DEADLINE).unwrap();
    }
    assert!(order.lock().unwrap().is_sorted());
    let bodies: Vec<u64> =
        running.records().iter().map(|body| std::str::from_utf8(body).unwrap().parse().unwrap()).collect();
    assert_eq!(bodies, (1..=100).collect::<Vec<_>>());
    running.stop();
}

fn stream(policy: StreamPolicy) -> Retention {
    Retention { outbox: None, streams: BTreeMap::from([("s".to_owned(), policy)]) }
}

#[test]
fn a_stream_that_is_full_refuses_records_and_says_so_and_events_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let quota = Some(Quota { bytes: 1_000, when_full: WhenFull::RefuseNew });
    let retention = stream(StreamPolicy { quota, ..StreamPolicy::default() });
    let mut running = Running::start_with(dir.path(), retention);
    running.run("f", trusted(version(&traps_on_x())));
    for sequence in 1..=10 {
        // Each in a commit of its own.
        running.submit(sequence, &[b'a'; 300]).recv_timeout(DEADLINE).unwrap();
    }
    let kept = running.records().len() as u64;
    assert!((1..=3).contains(&kept), "{kept}");
    let refused: u64 = running.gone().iter().map(|tally| tally.count).sum();
    assert_eq!((kept + refused, running.pipeline.counters.handled.get()), (10, 10));
    assert!(running.gone().iter().all(|tally| tally.stream == "s" && tally.reason == Reason::Refused));
    running.stop();

    // It is still full after a restart.
    let quota = Some(Quota { bytes: 1_000, when_full: WhenFull::RefuseNew });
    let mut running = Running::start_with(dir.path(), stream(StreamPolicy { quota, ..StreamPolicy::default() }));
    running.run("f", trusted(version(&traps_on_x())));
    running.submit(11, b"a").recv_timeout(DEADLINE).unwrap();
    assert_eq!(running.records().len() as u64, kept);
    running.stop();
}

#[test]
fn a_streams_priority_decides() {
    let dir = tempfile::tempdir().unwrap();
    let policy = StreamPolicy { priority: Some(Priority::High), ..StreamPolicy::default() };
    let mut running = Running::start_with(dir.path(), stream(policy));
    running.run("f", trusted(version(&traps_on_x())));
    running.submit(1, b"urgent").recv_timeout(DEADLINE).unwrap();
    assert_eq!((running.waiting(Class::High), running.records().len()), (vec![b"urgent".to_vec()], 0));
    running.stop();
}

/// Does what the payload says: `p` and a letter puts the key of that letter, `d` deletes it, `l` emits the first key, and
/// after each key the next one.
fn walker() -> Active {
    let module = r#"(module
        (import "edge_v1" "emit" (func $emit (param i32 i32 i32 i32 i32)))
        (import "edge_v1" "state_put" (func $put (param i32 i32 i32 i32)))
        (import "edge_v1" "state_delete" (func $delete (param i32 i32)))
        (import "edge_v1" "state_next" (func $next (param i32 i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "s")
        (global $n (mut i32) (i32.const 0))
        (func (export "edge_alloc") (param i32) (result i32) (i32.const 1024))
        (func (export "edge_handle") (param i32 i32) (result i32)
            (local $payload i32)
            (local.set $payload (i32.add (local.get 0) (i32.load offset=48 (local.get 0))))
            (if (i32.eq (i32.load8_u (local.get $payload)) (i32.const 112))
                (then (call $put (i32.add (local.get $payload) (i32.const 1)) (i32.const 1) (i32.const 0) (i32.const 1))))
            (if (i32.eq (i32.load8_u (local.get $payload)) (i32.const 100))
                (then (call $delete (i32.add (local.get $payload) (i32.const 1)) (i32.const 1))))
            (if (i32.eq (i32.load8_u (local.get $payload)) (i32.const 108))
                (then (block $end (loop $again
                    (global.set $n (call $next (i32.const 0) (i32.const 0)
                        (i32.const 8) (global.get $n) (i32.const 8) (i32.const 8)))
                    (br_if $end (i32.lt_s (global.get $n) (i32.const 0)))
                    (call $emit (i32.const 0) (i32.const 1) (i32.const 8) (global.get $n) (i32.const 0))
                    (br $again)))))
            (i32.const 0)))"#;
    let package = Package::pack(&wat::parse_str(module).unwrap(), MANIFEST).unwrap();
    trusted(ready(&package))
}

#[test]
fn the_keys_of_the_state_are_those_of_the_store_and_of_what_its_lane_did_since() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(dir.path());
    running.run("f", walker());
    let mut sequence = 0;
    let mut give = |running: &Running, steps: &[&str]| {
        for step in steps {
            sequence += 1;
            running.submit(sequence, step.as_bytes()).recv_timeout(DEADLINE).unwrap();
        }
    };
    give(&running, &["pb", "pd", "pa", "dd", "l"]);
    assert_eq!(running.records(), [b"a", b"b"]);
    running.stop();
    // The store has these; the lane, which begins anew, knows more.
    let mut running = Running::start(dir.path());
    running.run("f", walker());
    give(&running, &["pc", "da", "l"]);
    assert_eq!(running.records()[2..], [b"b", b"c"]);
    running.stop();
}
