//! Random commits, failures and restarts against a model that is nothing but maps.

use std::collections::BTreeMap;

use agent_core::effect::Effect;
use agent_core::retention::Refused;
use agent_store::{Deployment, ErrorKind, OutcomeResult, Write, inspect};
use proptest::prelude::*;
use sync_protocol::dead::STREAM;
use sync_protocol::fleet::FunctionStatus;
use sync_protocol::records::{Class, Reason};

use crate::fixture::{Fixture, dead, emit_to, outcome, publish, told};
use crate::sequences::{Block, Sequences, Slot};

const FUNCTIONS: [&str; 2] = ["mean", "alert"];
const NAMES: [&str; 2] = ["a", "b"];

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<Small>),
    /// A group whose last write is refused.
    Fail(Vec<Small>),
    Refuse(Option<Vec<usize>>),
    Reopen,
}

/// A write with small numbers for names.
#[derive(Clone, Debug)]
enum Small {
    Run {
        function: usize,
        partition: usize,
        seen: Option<(usize, u8)>,
        /// When the event came, in seconds.
        time_s: u8,
        effects: Vec<SmallEffect>,
    },
    Dead {
        function: usize,
    },
    Nothing,
    /// Values that ended up to this second are deleted.
    Ended(u8),
    /// From and to, as percentages of all that was there before the group.
    Delivered(Class, u64, u64),
    Dropped(Class, Vec<u64>, usize),
    Lost(Class, u64, u64),
    /// Up to this percentage of what waits.
    Published(u64),
    Deployed {
        function: usize,
        number: Option<u64>,
    },
}

#[derive(Clone, Debug)]
enum SmallEffect {
    /// Key, value, its length, and for how many seconds.
    Put(u8, u8, usize, Option<u8>),
    Delete(u8),
    Emit(Class, usize, u8, usize),
    Publish(u8),
}

const STREAMS: [&str; 3] = ["a", "b", "c"];

/// Function, partition, and key or source.
type Key = (usize, usize, Vec<u8>);

#[derive(Clone, Debug, PartialEq)]
struct Model {
    // With the time of their end in seconds.
    state: BTreeMap<Key, (Vec<u8>, Option<u64>)>,
    seen: BTreeMap<Key, Vec<u8>>,
    records: [Sequences; 2],
    // Names of streams; `None`: all of them.
    refused: Option<Vec<usize>>,
    publishes: Queue,
    dead_letters: u64,
    deployments: BTreeMap<String, u64>,
}

/// Every body that was ever put in, how many of them before the present group, and how many are done.
#[derive(Clone, Debug, Default, PartialEq)]
struct Queue {
    bodies: Vec<Vec<u8>>,
    settled: usize,
    done: usize,
}

impl Queue {
    fn advance(&mut self, percent: u64) -> u64 {
        self.done += (self.settled - self.done) * percent as usize / 100;
        self.done as u64
    }
}

impl Model {
    fn new() -> Self {
        Self {
            state: BTreeMap::new(),
            seen: BTreeMap::new(),
            records: Default::default(),
            refused: Some(Vec::new()),
            publishes: Queue::default(),
            dead_letters: 0,
            deployments: BTreeMap::new(),
        }
    }

    fn of(&mut self, class: Class) -> &mut Sequences {
        &mut self.records[usize::from(class.number())]
    }

    fn group(&mut self, it: &mut Fixture, group: &[Small]) -> Vec<Write> {
        self.publishes.settled = self.publishes.bodies.len();
        for sequences in &mut self.records {
            sequences.begin_group();
        }
        group.iter().map(|write| self.apply(it, write)).collect()
    }

    /// Does what the write says, and says it in the store's words.
    fn apply(&mut self, it: &mut Fixture, write: &Small) -> Write {
        match write {
            Small::Run { function, partition, seen, time_s, effects } => {
                let mut listed = Vec::new();
                for effect in effects {
                    listed.push(self.effect(*function, *partition, *time_s, effect));
                }
                let number = it.store.function(FUNCTIONS[*function]).unwrap();
                let Write::Outcome(mut outcome) = outcome(number, OutcomeResult::Effects(listed)) else {
                    unreachable!("an outcome was asked for");
                };
                outcome.partition = NAMES[*partition].into();
                outcome.event.time_us = u64::from(*time_s) * 1_000_000;
                if let Some((source, value)) = seen {
                    self.seen.insert((*function, *partition, NAMES[*source].into()), vec![*value]);
                    outcome.seen = Some((NAMES[*source].into(), vec![*value]));
                }
                Write::Outcome(outcome)
            }
            Small::Dead { function } => {
                self.dead_letters += 1;
                let body = told(it.store.epoch(), self.dead_letters);
                let refused = self.refused.is_none();
                self.of(Class::High).push(if refused {
                    Slot::Gone(STREAM.into(), Reason::Refused)
                } else {
                    Slot::Record(STREAM.into(), body)
                });
                outcome(it.store.function(FUNCTIONS[*function]).unwrap(), OutcomeResult::Dead(dead()))
            }
            Small::Nothing => outcome(it.function, OutcomeResult::Nothing),
            Small::Ended(time_s) => {
                self.state.retain(|_, (_, ends_s)| ends_s.is_none_or(|ends_s| ends_s > u64::from(*time_s)));
                Write::StateEnded { time_us: u64::from(*time_s) * 1_000_000 }
            }
            Small::Delivered(class, from, to) => {
                let (first, last) = self.of(*class).between(*from, *to);
                self.of(*class).deliver(first, last);
                Write::Delivered { class: *class, ranges: vec![(first, last)] }
            }
            Small::Dropped(class, percents, reason) => {
                let mut sequences: Vec<_> = percents.iter().map(|at| self.of(*class).between(*at, *at).0).collect();
                sequences.sort_unstable();
                let reason = Reason::ALL[*reason];
                self.of(*class).give_up(&sequences, reason);
                Write::Dropped { class: *class, sequences, reason }
            }
            Small::Lost(class, from, to) => {
                let (first, last) = self.of(*class).between(*from, *to);
                let (first, last) = self.of(*class).lose(first, last);
                Write::Lost { class: *class, first, last, reason: "the model says so".into() }
            }
            Small::Published(percent) => Write::Published { up_to: self.publishes.advance(*percent) },
            Small::Deployed { function, number } => {
                let name = FUNCTIONS[*function].to_owned();
                match number {
                    Some(number) => self.deployments.insert(name.clone(), *number),
                    None => self.deployments.remove(&name),
                };
                Write::Deployment(name, number.map(deployment))
            }
        }
    }

    fn effect(&mut self, function: usize, partition: usize, time_s: u8, effect: &SmallEffect) -> Effect {
        match *effect {
            SmallEffect::Put(key, value, size, ttl_s) => {
                let ends_s = ttl_s.map(|ttl_s| u64::from(time_s) + u64::from(ttl_s));
                self.state.insert((function, partition, vec![key]), (vec![value; size], ends_s));
                Effect::StatePut { key: vec![key], value: vec![value; size], ttl_s: ttl_s.map(u32::from) }
            }
            SmallEffect::Delete(key) => {
                self.state.remove(&(function, partition, vec![key]));
                Effect::StateDelete { key: vec![key] }
            }
            SmallEffect::Emit(class, stream, value, size) => {
                let refused = self.refused.as_ref().is_none_or(|streams| streams.contains(&stream));
                self.of(class).push(if refused {
                    Slot::Gone(STREAMS[stream].into(), Reason::Refused)
                } else {
                    Slot::Record(STREAMS[stream].into(), vec![value; size])
                });
                emit_to(STREAMS[stream], class, &vec![value; size])
            }
            SmallEffect::Publish(value) => {
                self.publishes.bodies.push(vec![value]);
                publish("t", &[value])
            }
        }
    }

    /// Whether the store holds what the model does, and nothing else.
    fn compare(&self, it: &mut Fixture) -> Result<(), TestCaseError> {
        for (index, name) in FUNCTIONS.iter().enumerate() {
            let function = it.store.function(name).unwrap();
            for (partition, partition_name) in NAMES.iter().enumerate() {
                for key in 0..4u8 {
                    let stored = it.reader.state(function, partition_name, &[key]).unwrap();
                    let stored = stored.map(|of| (of.bytes.to_vec(), of.expires_us.map(|us| us / 1_000_000)));
                    prop_assert_eq!(stored.as_ref(), self.state.get(&(index, partition, vec![key])));
                }
                for source in NAMES {
                    let stored = it.reader.seen(function, partition_name, source).unwrap();
                    prop_assert_eq!(stored.as_ref(), self.seen.get(&(index, partition, source.into())));
                }
            }
        }
        for (index, name) in FUNCTIONS.iter().enumerate() {
            let function = it.store.function(name).unwrap();
            let of = self.state.iter().filter(|((function, ..), _)| *function == index);
            let bytes: usize = of.map(|((.., key), (value, _))| key.len() + value.len()).sum();
            prop_assert_eq!(it.store.state_bytes(function), bytes as u64);
            prop_assert_eq!(it.reader.state_bytes(function).unwrap(), bytes as u64);
        }
        let outbox = it.reader.outbox().unwrap();
        let mut by_stream: BTreeMap<String, u64> = BTreeMap::new();
        for class in Class::ALL {
            let sequences = &self.records[usize::from(class.number())];
            let (first, next) = sequences.ends();
            prop_assert_eq!((outbox.class(class).first, outbox.class(class).next), (first, next));
            let blocks = sequences.blocks();
            // From the front to the end, block by block.
            let (mut after, mut found) = (0, Vec::new());
            while let Some(last) = {
                let range = it.reader.range(class, after, 10_000, usize::MAX).unwrap();
                found.extend(Sequences::entries(&range));
                range.last()
            } {
                after = last;
            }
            prop_assert_eq!(&found, &blocks);
            // And from everywhere: what lies in a run that begins before is not handed out.
            for after in (0..next).step_by(1 + next as usize / 20) {
                let range = it.reader.range(class, after, 10_000, usize::MAX).unwrap();
                let expected = blocks.iter().find(|(first, _)| *first > after);
                prop_assert_eq!(Sequences::entries(&range).into_iter().next(), expected.cloned());
            }
            let gone: Vec<_> = it.reader.gone(class, 0, 10_000).unwrap().iter().flat_map(Sequences::entries).collect();
            let is_gone = |entry: &&(u64, Block)| matches!(entry.1, Block::Gone(_));
            prop_assert_eq!(gone, blocks.iter().filter(is_gone).cloned().collect::<Vec<_>>());
            let heads = it.reader.heads(class, 0, Some("b"), 10_000).unwrap().heads;
            let of_b: Vec<_> = sequences.of_stream("b").collect();
            prop_assert_eq!(heads.iter().map(|head| head.sequence).collect::<Vec<_>>(), of_b);
            for stream in STREAMS.into_iter().chain([STREAM]) {
                *by_stream.entry(stream.into()).or_default() += sequences.of_stream(stream).count() as u64;
            }
        }
        let usage = it.reader.usage().unwrap();
        prop_assert_eq!(&usage, it.store.usage());
        by_stream.retain(|_, records| *records > 0);
        let counted = usage.iter().filter(|stream| stream.records > 0);
        prop_assert_eq!(
            counted.map(|stream| (stream.name.to_string(), stream.records)).collect::<BTreeMap<_, _>>(),
            by_stream
        );
        let publishes = it.reader.publishes(0, 10_000).unwrap();
        let ids: Vec<_> = publishes.iter().map(|publish| publish.id as usize).collect();
        let payloads: Vec<_> = publishes.iter().map(|publish| publish.payload.to_vec()).collect();
        prop_assert_eq!(ids, (self.publishes.done + 1..=self.publishes.bodies.len()).collect::<Vec<_>>());
        prop_assert_eq!(payloads, &self.publishes.bodies[self.publishes.done..]);
        prop_assert_eq!(it.reader.dead_letters(0, 10_000).unwrap().len() as u64, self.dead_letters);
        prop_assert_eq!(it.reader.dead_letter_count().unwrap(), self.dead_letters);
        let deployments: BTreeMap<_, _> =
            it.reader.deployments().unwrap().into_iter().map(|(name, row)| (name, row.deployment)).collect();
        prop_assert_eq!(&deployments, &self.deployments);
        Ok(())
    }
}

fn deployment(number: u64) -> Deployment {
    Deployment {
        deployment: number,
        status: FunctionStatus::Running,
        detail: String::new(),
        current: None,
        previous: None,
        refused: None,
    }
}

fn class() -> impl Strategy<Value = Class> {
    prop_oneof![Just(Class::Normal), Just(Class::High)]
}

fn effect() -> impl Strategy<Value = SmallEffect> {
    prop_oneof![
        (0..4u8, any::<u8>(), 0..3000usize, proptest::option::of(1..30u8))
            .prop_map(|(key, value, size, ttl_s)| SmallEffect::Put(key, value, size, ttl_s)),
        (0..4u8).prop_map(SmallEffect::Delete),
        (class(), 0..3usize, any::<u8>(), 0..6000usize)
            .prop_map(|(class, stream, value, size)| SmallEffect::Emit(class, stream, value, size)),
        any::<u8>().prop_map(SmallEffect::Publish),
    ]
}

/// All of it as often as not, for an empty queue is where numbers might start again.
fn percent() -> impl Strategy<Value = u64> {
    prop_oneof![0..=100u64, Just(100)]
}

fn small() -> impl Strategy<Value = Small> {
    let seen = proptest::option::of((0..2usize, any::<u8>()));
    prop_oneof![
        6 => (0..2usize, 0..2usize, seen, 0..50u8, proptest::collection::vec(effect(), 0..6)).prop_map(
            |(function, partition, seen, time_s, effects)| Small::Run { function, partition, seen, time_s, effects }
        ),
        1 => (0..60u8).prop_map(Small::Ended),
        1 => (0..2usize).prop_map(|function| Small::Dead { function }),
        1 => Just(Small::Nothing),
        2 => (class(), prop_oneof![Just(0), percent()], percent())
            .prop_map(|(class, from, to)| Small::Delivered(class, from, to)),
        2 => (class(), proptest::collection::vec(0..=100u64, 0..12), 0..Reason::ALL.len())
            .prop_map(|(class, at, reason)| Small::Dropped(class, at, reason)),
        1 => (class(), percent(), percent()).prop_map(|(class, from, to)| Small::Lost(class, from, to)),
        1 => percent().prop_map(Small::Published),
        1 => (0..2usize, proptest::option::of(any::<u64>()))
            .prop_map(|(function, number)| Small::Deployed { function, number }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let group = || proptest::collection::vec(small(), 0..8);
    let refused = proptest::option::of(proptest::collection::vec(0..3usize, 0..2));
    prop_oneof![
        6 => group().prop_map(Step::Commit),
        2 => group().prop_map(Step::Fail),
        1 => refused.prop_map(Step::Refuse),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_what_the_model_says(steps in proptest::collection::vec(step(), 1..16)) {
        let (mut it, mut model) = (Fixture::new(), Model::new());
        for step in steps {
            match step {
                Step::Commit(group) => {
                    let writes = model.group(&mut it, &group);
                    let committed = it.store.commit(&writes).unwrap();
                    let counts = model.records.each_ref().map(|sequences| sequences.ends().1 - 1);
                    prop_assert_eq!(committed.records, counts);
                    prop_assert_eq!(committed.publishes, model.publishes.bodies.len() as u64);
                    prop_assert_eq!((committed.dead_letters, committed.leftover), (model.dead_letters, 0));
                }
                Step::Fail(group) => {
                    let mut forgotten = model.clone();
                    let mut writes = forgotten.group(&mut it, &group);
                    writes.push(Write::Published { up_to: u64::MAX });
                    let error = it.store.commit(&writes).unwrap_err();
                    prop_assert_eq!((error.kind(), error.write()), (ErrorKind::Other, Some(writes.len() - 1)));
                }
                Step::Refuse(streams) => {
                    it.store.refuse(match &streams {
                        None => Refused::All,
                        Some(streams) => Refused::Streams(streams.iter().map(|of| STREAMS[*of].into()).collect()),
                    });
                    model.refused = streams;
                }
                Step::Reopen => {
                    it = it.reopen();
                    model.refused = Some(Vec::new());
                }
            }
            model.compare(&mut it)?;
        }
        let survey = inspect(it.dir.path(), |_| true).unwrap();
        prop_assert!(survey.is_whole(), "{:?}", survey);
    }
}
