//! What runs now: the functions, and the table that says which of them wants an event.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};

use agent_core::deploy::{Attempt, Trial, Verdict};
use agent_core::event::EventKind;
use agent_core::{Event, Filter, router::Router};
use agent_functions::{Function, LoadError, Trap};
use agent_store::FunctionId;
use arc_swap::ArcSwap;
use function_package::{Digest, Partition, Retry, Trigger};
use tokio::sync::Semaphore;

use crate::limits;

/// One version of a function.
#[derive(Debug)]
pub struct Version {
    /// Its name.
    pub name: String,
    /// The module with its limits, permissions and configuration.
    pub code: Code,
    /// SHA-256 of its file.
    pub digest: Digest,
    /// Version in its manifest.
    pub version: String,
    /// The configuration that a deployment, or the agent's own, sets over the manifest's.
    pub config: BTreeMap<String, String>,
    /// What it listens to.
    pub filters: Vec<Filter>,
    /// When else it runs.
    pub triggers: Vec<Trigger>,
    /// What becomes of an event on which it fails.
    pub retry: Retry,
    /// What runs in order and shares state.
    pub partition: Partition,
}

/// A module, which is compiled when it is needed first: an agent that starts need not wait for all of its functions.
pub type Code = LazyLock<Result<Function, LoadError>, Box<dyn FnOnce() -> Result<Function, LoadError> + Send>>;

impl Version {
    /// The compiled module. Blocks while it is compiled.
    ///
    /// # Errors
    /// It cannot be: the same every time.
    pub fn function(&self) -> Result<&Function, &LoadError> {
        self.code.as_ref()
    }

    /// The partition that an event belongs to.
    pub fn partition_of(&self, event: &Event) -> Arc<str> {
        match self.partition {
            Partition::Device => event.device.clone(),
            Partition::Topic => event.topic.clone(),
            Partition::Function => "".into(),
        }
    }
}

/// A function's place: it stays when its version changes, so events that wait for it run on what is current then.
#[derive(Debug)]
pub struct Slot {
    /// Its number in the store.
    pub id: FunctionId,
    /// Its name.
    pub name: Arc<str>,
    /// What runs.
    pub active: ArcSwap<Active>,
    /// Why nothing runs, if what was to run cannot be loaded and nothing came before it. No new event comes then; those that
    /// wait are dead letters.
    pub gone: OnceLock<String>,
    /// For its events in flight, so that one slow function leaves room for others.
    pub room: Arc<Semaphore>,
}

impl Slot {
    /// The place of a function that has no events yet.
    pub fn new(id: FunctionId, name: impl Into<Arc<str>>, active: Active) -> Self {
        let room = Arc::new(Semaphore::new(limits::EVENTS_OF_A_FUNCTION));
        Self { id, name: name.into(), active: ArcSwap::from_pointee(active), gone: OnceLock::new(), room }
    }
}

/// What runs in a slot.
#[derive(Debug)]
pub struct Active {
    /// The version that events are given to.
    pub current: Arc<Version>,
    /// While the current version is on trial.
    pub trial: Option<OnTrial>,
}

/// A version on trial.
#[derive(Debug)]
pub struct OnTrial {
    /// What to return to, if there is anything.
    pub previous: Option<Arc<Version>>,
    /// Which deployment it is.
    pub deployment: u64,
    state: Mutex<TrialState>,
}

#[derive(Debug, Default)]
struct TrialState {
    trial: Trial,
    // The first verdict stands.
    ended: Option<TrialEnd>,
}

/// How a trial ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrialEnd {
    /// The version is trusted from now on.
    Passed,
    /// The previous version must return; why, for a person.
    Failed(String),
}

impl OnTrial {
    /// A trial that begins.
    pub fn new(previous: Option<Arc<Version>>, deployment: u64) -> Self {
        Self { previous, deployment, state: Mutex::default() }
    }

    /// Judges how one event went; `trap` is what it failed with, if it did. Whether the trial has come to its end.
    pub fn judge(&self, attempt: Attempt, trap: Option<&Trap>) -> bool {
        let mut state = self.state();
        if state.ended.is_none() {
            state.ended = match state.trial.judge(attempt) {
                Verdict::Undecided => None,
                Verdict::Passed => Some(TrialEnd::Passed),
                Verdict::RollBack => Some(TrialEnd::Failed(trap.map_or_else(String::new, |trap| trap.message.clone()))),
            };
        }
        state.ended.is_some()
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<TrialEnd> {
        self.state().ended.clone()
    }

    fn state(&self) -> MutexGuard<'_, TrialState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All that runs. Replaced as a whole, between two events.
#[derive(Debug, Default)]
pub struct Plan {
    slots: BTreeMap<Arc<str>, Arc<Slot>>,
    by_number: Vec<Arc<Slot>>,
    router: Router<u32>,
}

impl Plan {
    /// The plan with these functions.
    pub fn new(slots: impl IntoIterator<Item = Arc<Slot>>) -> Self {
        let slots: BTreeMap<Arc<str>, Arc<Slot>> = slots.into_iter().map(|slot| (slot.name.clone(), slot)).collect();
        let by_number: Vec<Arc<Slot>> = slots.values().cloned().collect();
        let mut router = Router::default();
        for (number, slot) in (0..).zip(&by_number) {
            for filter in &slot.active.load().current.filters {
                router.insert(filter, number);
            }
        }
        Self { slots, by_number, router }
    }

    /// The functions that want an event that has no addressee, each once.
    pub fn route(&self, event: &Event, found: &mut Vec<u32>) {
        match event.kind {
            EventKind::Mqtt => self.router.route(&event.topic, found),
            EventKind::Device => {
                let wants = |trigger: &Trigger| match trigger {
                    Trigger::Device { change } => change.is_none_or(|change| change.name() == &*event.topic),
                    _ => false,
                };
                let slots = (0..).zip(&self.by_number);
                let wanted = slots.filter(|(_, slot)| slot.active.load().current.triggers.iter().any(wants));
                found.extend(wanted.map(|(number, _)| number));
            }
            _ => {}
        }
    }

    /// The function with a number that [`route`](Self::route) gave.
    pub fn slot(&self, number: u32) -> &Arc<Slot> {
        &self.by_number[number as usize]
    }

    /// The function with this name.
    pub fn find(&self, name: &str) -> Option<&Arc<Slot>> {
        self.slots.get(name)
    }

    /// All functions, by name.
    pub fn slots(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.slots.values()
    }

    /// The functions that want to hear of a blob of this name.
    pub fn blob_readers(&self, name: &str) -> Vec<Arc<str>> {
        let wants = |trigger: &Trigger| matches!(trigger, Trigger::Blob { pattern } if pattern.matches(name));
        let slots = self.slots().filter(|slot| slot.active.load().current.triggers.iter().any(wants));
        slots.map(|slot| slot.name.clone()).collect()
    }

    /// Every topic filter that any function listens to, each once.
    pub fn filters(&self) -> Vec<Filter> {
        let mut filters: Vec<Filter> =
            self.slots().flat_map(|slot| slot.active.load().current.filters.clone()).collect();
        filters.sort_unstable();
        filters.dedup();
        filters
    }
}
