//! A gateway in memory that runs one function: what all commands share that run one on this machine.
//!
//! It routes, keeps lanes, state and the marks of handled events as a gateway does, by the gateway's own code, and loads
//! by the gateway's own loader. It has no clock and no chance of its own: the same events and seed give the same runs.
//! What it holds grows with the state that the function keeps, as a gateway's disk does.

mod bytes;
mod event;
mod fixture;
mod show;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_core::dedup::{Seen, Verdict};
use agent_core::state::expiry_us;
use agent_core::{Effect, Effects, Event, Filter, StateValue};
use agent_functions::{Engine, Function, LogLine, Outcome, ReadError, Reads, Secrets, Spec, Trap, TrapKind};
use function_abi::{BLOB_DIGEST, EventKind};
use function_package::{Digest, Manifest, Package, Partition, Presence, Trigger};

pub(crate) use bytes::text;
pub(crate) use event::{FIRST_TIME_US, Incoming, Numbering};
pub(crate) use fixture::Fixture;
pub(crate) use show::{Hide, Kind, Shown, lines, title};

use crate::args::Over;
use crate::failure::Failure;

/// What random numbers begin with where nothing else is said.
pub(crate) const SEED: u64 = 1;

/// How often a gateway deletes state whose time has ended.
const DELETE_EVERY_US: u64 = 60_000_000;

/// What a gateway and a deployment set.
#[derive(Default)]
pub(crate) struct Setting {
    pub(crate) config: BTreeMap<String, String>,
    pub(crate) secrets: BTreeMap<String, String>,
}

impl Setting {
    /// This, with what the command line says over it.
    pub(crate) fn with(mut self, over: &Over) -> Self {
        self.config.extend(over.config.iter().cloned());
        self.secrets.extend(over.secrets.iter().cloned());
        self
    }
}

/// The gateway.
pub(crate) struct Local {
    function: Function,
    manifest: Manifest,
    filters: Vec<Filter>,
    lanes: BTreeMap<Arc<str>, Lane>,
    /// Bytes of the keys and values of all lanes.
    state_bytes: u64,
    /// When state that had ended was deleted last.
    deleted_us: u64,
    /// By bucket and name.
    blobs: BTreeMap<String, Arc<[u8]>>,
    seed: u64,
}

/// What the events of one partition leave behind.
#[derive(Default)]
struct Lane {
    state: BTreeMap<Vec<u8>, StateValue>,
    seen: BTreeMap<Arc<str>, Seen>,
}

/// What came of one event.
pub(crate) struct Ran {
    pub(crate) how: How,
    /// Units of fuel; 0 if the function did not run.
    pub(crate) fuel: u64,
    pub(crate) memory_bytes: usize,
    pub(crate) took: Duration,
    pub(crate) logs: Vec<LogLine>,
    pub(crate) logs_dropped: u64,
}

/// How an event ended.
pub(crate) enum How {
    Done(Effects),
    Failed(Trap),
    /// It was handled before, or nobody can know whether it was: the gateway does not run the function on it.
    Known(Verdict),
    /// The blob has this content already, so nothing is told of it.
    Unchanged,
    /// No trigger matches its topic: the gateway acknowledges it and keeps nothing.
    Unwanted,
}

/// What one run reads.
struct LaneReads<'a> {
    lane: &'a Lane,
    state_bytes: u64,
    time_us: u64,
    blobs: &'a BTreeMap<String, Arc<[u8]>>,
    /// The name of the event's blob.
    event: &'a str,
}

impl LaneReads<'_> {
    fn blob(&self, name: &str) -> Option<&Arc<[u8]>> {
        // A run may read no other content by its digest than that of its event.
        self.blobs.get(if name.starts_with(BLOB_DIGEST) { self.event } else { name })
    }
}

impl Reads for LaneReads<'_> {
    fn state(&mut self, key: &[u8]) -> Result<Option<Arc<[u8]>>, ReadError> {
        let value = self.lane.state.get(key).filter(|value| value.is_there(self.time_us));
        Ok(value.map(|value| value.bytes.clone()))
    }

    fn next_key(&mut self, prefix: &[u8], after: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        let from = if after < prefix { Bound::Included(prefix) } else { Bound::Excluded(after) };
        let values = self.lane.state.range::<[u8], _>((from, Bound::Unbounded));
        let mut values = values.take_while(|(key, _)| key.starts_with(prefix));
        Ok(values.find(|(_, value)| value.is_there(self.time_us)).map(|(key, _)| key.clone()))
    }

    fn state_bytes(&mut self) -> Result<u64, ReadError> {
        Ok(self.state_bytes)
    }

    fn blob_size(&mut self, name: &str) -> Result<Option<u64>, ReadError> {
        Ok(self.blob(name).map(|blob| blob.len() as u64))
    }

    fn blob_piece(&mut self, name: &str, offset: u64, len: usize) -> Result<Option<Vec<u8>>, ReadError> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let piece = |blob: &Arc<[u8]>| blob.iter().skip(from).take(len).copied().collect();
        Ok(self.blob(name).map(piece))
    }
}

impl Local {
    /// Loads a function as a gateway would that has these secrets, with a deployment's configuration.
    pub(crate) fn load(package: &Package, setting: Setting, seed: u64) -> Result<Self, Failure> {
        let manifest = package.manifest().clone();
        let spec = Spec::of(&manifest, &setting.config).map_err(Failure::Spec)?;
        let filters = filters(&manifest).map(Filter::new).collect::<Result<_, _>>().map_err(Failure::Trigger)?;
        let engine = Engine::with_secrets(Secrets::new(setting.secrets));
        let function = engine.load(spec, package.bytes()).map_err(Failure::Load)?;
        Ok(Self {
            function,
            manifest,
            filters,
            lanes: BTreeMap::new(),
            state_bytes: 0,
            deleted_us: 0,
            blobs: BTreeMap::new(),
            seed,
        })
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Forgets all events, as if none had come.
    pub(crate) fn reset(&mut self, seed: u64) {
        self.lanes.clear();
        (self.state_bytes, self.deleted_us) = (0, 0);
        self.blobs.clear();
        self.seed = seed;
    }

    /// Gives the function one event.
    pub(crate) fn run(&mut self, event: &Event) -> Ran {
        let stored;
        let event = if event.kind == EventKind::Blob {
            let Some(told) = self.store_blob(event) else { return Ran::without(How::Unchanged) };
            stored = told;
            &stored
        } else {
            event
        };
        let Some(event) = self.route(event) else { return Ran::without(How::Unwanted) };
        let event = &*event;
        self.delete_ended(event.time_us);
        let partition: Arc<str> = match self.manifest.partition {
            Partition::Device => event.device.clone(),
            Partition::Topic => event.topic.clone(),
            Partition::Function => "".into(),
        };
        let lane = self.lanes.entry(partition).or_default();
        if let Some(identity) = &event.identity {
            let seen = lane.seen.entry(identity.source.clone()).or_default();
            match seen.judge(identity, event.content()) {
                Verdict::New => {}
                known => return Ran::without(How::Known(known)),
            }
        }
        // As a gateway's worker draws them.
        self.seed = self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let began = Instant::now();
        let (state_bytes, time_us) = (self.state_bytes, event.time_us);
        let mut reads = LaneReads { lane, state_bytes, time_us, blobs: &self.blobs, event: &event.topic };
        let run = self.function.run(event, &mut reads, self.seed);
        let took = began.elapsed();
        if let Some(identity) = &event.identity {
            lane.seen.entry(identity.source.clone()).or_default().mark(identity, event.content());
        }
        let how = match run.outcome {
            Outcome::Done(effects) => {
                lane.take(&effects, event.time_us, &mut self.state_bytes, &mut self.blobs);
                How::Done(effects)
            }
            Outcome::Failed(trap) => How::Failed(self.without_name(trap)),
            Outcome::Abandoned(error) => {
                let message = error.to_string();
                How::Failed(Trap { kind: TrapKind::EngineFault, message })
            }
        };
        Ran {
            how,
            fuel: run.fuel,
            memory_bytes: run.memory_bytes,
            took,
            logs: run.logs,
            logs_dropped: run.logs_dropped,
        }
    }

    /// Deletes state that has ended, as often as a gateway does.
    fn delete_ended(&mut self, time_us: u64) {
        if time_us < self.deleted_us.saturating_add(DELETE_EVERY_US) {
            return;
        }
        self.deleted_us = time_us;
        for lane in self.lanes.values_mut() {
            for (key, value) in lane.state.extract_if(.., |_, value| !value.is_there(time_us)) {
                self.state_bytes -= size(&key, &value);
            }
        }
    }

    /// Stores the blob that an event brings as its payload; the event as a gateway makes it, if that changed anything.
    fn store_blob(&mut self, event: &Event) -> Option<Event> {
        let content = event.payload.clone();
        let (digest, size) = (Digest::of(&content), content.len());
        if self.blobs.insert(event.topic.to_string(), content.clone()).is_some_and(|before| before == content) {
            return None;
        }
        let (bucket, name) = event.topic.split_once('/').unwrap_or((&event.topic, ""));
        let (digest, size) = (hex::encode(digest.as_bytes()), size.to_string());
        let mut told = event.clone();
        told.payload = [].into();
        let said = [("digest", digest.as_str()), ("size", &size), ("bucket", bucket), ("name", name), ("attempt", "1")];
        told.attributes.extend(said.map(|(name, value)| (name.to_owned(), value.to_owned())));
        Some(told)
    }

    /// The event as the function sees it, if a trigger is for it.
    fn route<'e>(&self, event: &'e Event) -> Option<Cow<'e, Event>> {
        let has =
            |fits: &dyn Fn(&Trigger) -> bool| self.manifest.triggers.iter().any(fits).then_some(Cow::Borrowed(event));
        match event.kind {
            EventKind::Mqtt => {
                self.filters.iter().any(|filter| filter.matches(&event.topic)).then_some(Cow::Borrowed(event))
            }
            EventKind::Http => self.manifest.triggers.iter().find_map(|trigger| places(trigger, event)),
            EventKind::Schedule => {
                has(&|trigger| matches!(trigger, Trigger::Schedule { name, .. } if **name == *event.topic))
            }
            EventKind::Queue => has(&|trigger| matches!(trigger, Trigger::Queue { queue } if **queue == *event.topic)),
            // Its own requests lead to them, or those of functions that nobody here knows.
            EventKind::Answer => Some(Cow::Borrowed(event)),
            EventKind::Device => has(&|trigger| {
                let fits = |change: &Option<Presence>| change.is_none_or(|change| change.name() == &*event.topic);
                matches!(trigger, Trigger::Device { change } if fits(change))
            }),
            EventKind::Blob => {
                has(&|trigger| matches!(trigger, Trigger::Blob { pattern } if pattern.matches(&event.topic)))
            }
            _ => None,
        }
    }

    /// Here it is known which function failed; and a new version alone changes no snapshot.
    fn without_name(&self, trap: Trap) -> Trap {
        let name = format!("function {:?} {}: ", self.manifest.name, self.manifest.version);
        let message = trap.message.strip_prefix(&name).map(str::to_owned).unwrap_or(trap.message);
        Trap { kind: trap.kind, message }
    }
}

impl Lane {
    /// Commits.
    fn take(
        &mut self,
        effects: &Effects,
        time_us: u64,
        state_bytes: &mut u64,
        blobs: &mut BTreeMap<String, Arc<[u8]>>,
    ) {
        for effect in effects {
            let (key, new) = match effect {
                Effect::StatePut { key, value, ttl_s } => {
                    let expires_us = expiry_us(time_us, *ttl_s);
                    (key, Some(StateValue { bytes: value.as_slice().into(), expires_us }))
                }
                Effect::StateDelete { key } => (key, None),
                Effect::BlobPut { name, body, .. } => {
                    blobs.insert(name.clone(), body.as_slice().into());
                    continue;
                }
                Effect::BlobDelete { name } => {
                    blobs.remove(name);
                    continue;
                }
                Effect::Emit { .. }
                | Effect::Publish { .. }
                | Effect::Enqueue { .. }
                | Effect::Respond(_)
                | Effect::TwinReport { .. }
                | Effect::Count { .. }
                | Effect::Observe { .. }
                | Effect::Request(_) => continue,
            };
            *state_bytes += new.as_ref().map_or(0, |value| size(key, value));
            let old = match new {
                Some(value) => self.state.insert(key.clone(), value),
                None => self.state.remove(key),
            };
            *state_bytes -= old.map_or(0, |value| size(key, &value));
        }
    }
}

/// What a value counts.
fn size(key: &[u8], value: &StateValue) -> u64 {
    (key.len() + value.bytes.len()) as u64
}

impl Ran {
    /// The function did not see the event.
    fn without(how: How) -> Self {
        Self { how, fuel: 0, memory_bytes: 0, took: Duration::ZERO, logs: Vec::new(), logs_dropped: 0 }
    }

    /// Whether the function saw the event.
    pub(crate) fn was_run(&self) -> bool {
        matches!(self.how, How::Done(_) | How::Failed(_))
    }
}

/// A request with what stands in the places of a route, if it fits.
fn places<'e>(trigger: &Trigger, event: &'e Event) -> Option<Cow<'e, Event>> {
    let Trigger::Http { route, .. } = trigger else { return None };
    let asked = event.attributes.iter().any(|(name, value)| name == "method" && value == route.method());
    let places = route.places(&event.topic).filter(|_| asked)?;
    let mut event = event.clone();
    event.attributes.extend(places.into_iter().map(|(name, value)| (format!("path.{name}"), value)));
    Some(Cow::Owned(event))
}

/// The topic filters that a function listens to.
pub(crate) fn filters(manifest: &Manifest) -> impl Iterator<Item = &str> {
    manifest.triggers.iter().filter_map(|trigger| match trigger {
        Trigger::Mqtt { filter } => Some(filter.as_str()),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
