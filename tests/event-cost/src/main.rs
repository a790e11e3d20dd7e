//! The way of an event through the agent, or a part of it, on one thread and so often: `event-cost PART EVENTS PACKAGE`.
//!
//! `cargo xtask test` runs it under callgrind with two numbers of events; the difference is what an event takes, whatever
//! the start takes, on every machine the same. What is around it in the agent (sockets, tasks, locks between threads)
//! depends on how threads meet, and is not here.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use agent_core::dedup::Seen;
use agent_core::event::EventKind;
use agent_core::lanes::{LaneKey, Lanes, MemoryLimits};
use agent_core::router::Router;
use agent_core::{Effects, Event, Filter, FunctionId, Identity};
use agent_functions::{Engine, Function, NoReads, Outcome, Spec};
use agent_store::{OutcomeResult, Store, Uses, Write};
use function_package::{Package, Trigger};
use sync_protocol::records::Stamp;
use sync_protocol::usage::Counts;

type Fallible<T = ()> = Result<T, Box<dyn Error>>;

/// Functions beside the one that is run, each with a filter of its own.
const OTHERS: u32 = 1_000;

/// Devices that take turns.
const DEVICES: u64 = 16;

/// Outcomes of one commit.
const GROUP: usize = 64;

/// Events for which everything is there in time, so that nothing is counted that only the first few take.
const WARM_UP: u64 = 256;

fn main() -> Fallible {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [part, events, package] = &arguments[..] else { return Err("usage: event-cost PART EVENTS PACKAGE".into()) };
    let mut way = Way::new(Path::new(package))?;
    let events: u64 = events.parse()?;
    match part.as_str() {
        "route" => (0..events + WARM_UP).try_for_each(|number| way.route(&event(number)).map(drop)),
        "run" => (0..events + WARM_UP).try_for_each(|number| way.run(&event(number), number).map(drop)),
        "commit" => {
            let (effects, _) = way.run(&event(0), 0)?;
            for number in 0..events + WARM_UP {
                way.write(event(number), None, effects.clone())?;
            }
            way.commit()
        }
        "whole" => (0..events + WARM_UP).try_for_each(|number| way.whole(number)).and_then(|()| way.commit()),
        _ => Err(format!("there is no part {part:?}; there are route, run, commit and whole").into()),
    }
}

struct Way {
    router: Router<u32>,
    lanes: Lanes<Event>,
    function: Function,
    id: FunctionId,
    name: Arc<str>,
    store: Store,
    group: Vec<Write>,
    ran: BTreeMap<agent_core::lanes::LaneId, u32>,
    // The last, so that the store is closed before its folder is gone.
    _folder: tempfile::TempDir,
}

impl Way {
    fn new(package: &Path) -> Fallible<Self> {
        let package = Package::open(std::fs::read(package)?)?;
        let mut router = Router::default();
        for trigger in &package.manifest().triggers {
            if let Trigger::Mqtt { filter } = trigger {
                router.insert(&Filter::new(filter)?, 0);
            }
        }
        for other in 1..=OTHERS {
            router.insert(&Filter::new(&format!("plant/line-{}/machine-{other}/+", other % 10))?, other);
        }
        let spec = Spec::of(package.manifest(), &BTreeMap::new())?;
        let name: Arc<str> = spec.name.as_str().into();
        let function = Engine::new().load(spec, package.bytes())?;
        let folder = tempfile::tempdir()?;
        let mut store = Store::open(folder.path())?;
        let id = store.function(&name)?;
        let lanes = Lanes::new(MemoryLimits { lane: 4 << 20, idle: 16 << 20 });
        let (group, ran) = (Vec::new(), BTreeMap::new());
        Ok(Self { router, lanes, function, id, name, store, group, ran, _folder: folder })
    }

    fn route(&self, event: &Event) -> Fallible<u32> {
        let mut found = Vec::new();
        self.router.route(&event.topic, &mut found);
        match found[..] {
            [one] => Ok(one),
            _ => Err(format!("{} functions want {}", found.len(), event.topic).into()),
        }
    }

    // What is to be done, and the fuel that it took to find out.
    fn run(&self, event: &Event, seed: u64) -> Fallible<(Effects, u64)> {
        let run = self.function.run(event, &mut NoReads, seed);
        match run.outcome {
            Outcome::Done(effects) => Ok((effects, run.fuel)),
            Outcome::Failed(trap) => Err(trap.into()),
            Outcome::Abandoned(error) => Err(error.into()),
        }
    }

    fn write(&mut self, event: Event, seen: Option<(Arc<str>, Vec<u8>)>, effects: Effects) -> Fallible {
        let stamp = Stamp { wall_us: event.time_us, monotonic_us: event.time_us, boot: 1, synchronised: true };
        self.group.push(Write::Outcome(agent_store::Outcome {
            function: self.id,
            function_name: self.name.clone(),
            partition: event.device.clone(),
            seen,
            uses: Uses::Nothing,
            event,
            stamp,
            result: OutcomeResult::Effects(effects),
            blobs: Vec::new(),
            usage: Counts { invocations: 1, fuel: 20_000, busy_ns: 20_000, ..Counts::default() },
        }));
        if self.group.len() == GROUP { self.commit() } else { Ok(()) }
    }

    fn commit(&mut self) -> Fallible {
        self.store.commit(&self.group)?;
        self.group.clear();
        for (lane, runs) in std::mem::take(&mut self.ran) {
            self.lanes.committed(lane, runs);
        }
        Ok(())
    }

    // As `edge-agent/src/pipeline.rs` and its worker and writer do it.
    fn whole(&mut self, number: u64) -> Fallible {
        let event = event(number);
        self.route(&event)?;
        self.lanes.push(LaneKey { function: self.id, partition: event.device.clone() }, event);
        let mut turn = self.lanes.take().ok_or("no lane has a turn")?;
        let (event, memory) = (turn.job, &mut turn.memory);
        let identity = event.identity.clone().ok_or("an event without an identity")?;
        if memory.seen(&identity.source).is_none() {
            memory.set_seen(&identity.source, Seen::default());
        }
        let (effects, fuel) = self.run(&event, number)?;
        let seen = memory.seen(&identity.source).ok_or("the lane forgot a source")?;
        seen.mark(&identity, event.content());
        let seen = (identity.source.clone(), seen.to_bytes());
        self.lanes.done(turn.lane, turn.memory, fuel);
        *self.ran.entry(turn.lane).or_default() += 1;
        self.write(event, Some(seen), effects)
    }
}

fn event(number: u64) -> Event {
    let device: Arc<str> = format!("thermostat-{:02}", number % DEVICES).into();
    let topic = format!("sensors/{device}/temperature");
    let payload = format!(r#"{{"time":"2013-07-04 00:00:{:02}","fahrenheit":{}.25}}"#, number % 60, 60 + number % 30);
    Event {
        identity: Some(Identity { source: device.clone(), boot: 1, sequence: 1 + number / DEVICES }),
        ..Event::new(EventKind::Mqtt, device, topic.as_str(), payload.as_bytes(), 1_700_000_000_000_000 + number)
    }
}
