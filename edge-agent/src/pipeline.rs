//! The way of an event through the agent:
//!
//! ```text
//! inlet ──submit──▶ plan (which functions?) ──▶ lanes ──▶ workers (run) ──▶ writer (one transaction) ──▶ acknowledge
//! ```
//!
//! An event is acknowledged when the outcome of every function that wanted it is on disk, and not before. An
//! acknowledgement that is dropped unused is none: the sender sends again. That is all the error handling there is
//! behind a failed commit: everything in flight is dropped, and comes again.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use agent_core::Event;
use agent_core::effect::Response;
use agent_core::lanes::{LaneId, LaneKey, Lanes, Turn};
use agent_core::retention::Retention;
use agent_store::Uses;
use arc_swap::ArcSwap;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::blobs::Blobs;
use crate::clock::Clock;
use crate::counters::Counters;
use crate::limits;
use crate::plan::{Plan, Slot};
use crate::totals::Totals;

mod blobs;
pub mod evidence;
pub mod recording;
pub mod worker;
pub mod writer;

/// What acknowledges an event to its sender. Dropped without being called, the event is not acknowledged.
pub type Acknowledge = Box<dyn FnOnce(Settled) + Send>;

/// What came of an event, when it is on disk.
#[derive(Debug, Default)]
pub struct Settled {
    /// The answer that a function gave, if one did.
    pub response: Option<Response>,
    /// What a function failed with, if one did: the event is in the dead letters then, or is tried again.
    pub failure: Option<String>,
}

/// What led to an event that is for one function.
#[derive(Debug, Default)]
pub struct Origin {
    /// What is used up with its outcome.
    pub uses: Uses,
    /// How often it was given to the function before.
    pub attempts: u32,
}

/// The part of the pipeline that everybody shares.
pub struct Pipeline {
    lanes: Mutex<LanesState>,
    work: Condvar,
    // How often everything in flight was thrown away. Changed and compared by whoever has the lanes.
    generation: AtomicU64,
    plan: ArcSwap<Plan>,
    /// Signalled when the plan was replaced.
    pub plan_changed: Notify,
    /// Signalled when the trial of a function has come to its end.
    pub trial_ended: Notify,
    room: Arc<Semaphore>,
    writer: writer::Sender,
    /// What was counted.
    pub counters: Arc<Counters>,
    /// What functions used and measured.
    pub totals: Totals,
    /// The clocks.
    pub clock: Clock,
    /// What becomes of records that wait.
    pub retention: Arc<Retention>,
    /// The contents of blobs.
    pub blobs: Arc<Blobs>,
    /// Runs that somebody wants recorded.
    pub recordings: Arc<recording::Recordings>,
}

struct LanesState {
    lanes: Lanes<Job>,
    // Workers that wait for work, and how many of them were woken and have not come yet: waking is a system call.
    idle: usize,
    woken: usize,
    stopping: bool,
}

impl LanesState {
    // How many workers are to be woken for so many lanes that may have something to do. Those that are on their way take of
    // it what they find.
    fn wake(&mut self, lanes: usize) -> usize {
        let wake = lanes.min(self.idle - self.woken);
        self.woken += wake;
        wake
    }

    // A worker waits no more. If it woke by itself it counts as one that was woken; that one finds another's work or none.
    fn rested(&mut self) {
        self.idle -= 1;
        self.woken = self.woken.saturating_sub(1);
    }
}

/// One function's part in one event.
pub struct Job {
    slot: Arc<Slot>,
    // Its lane's, as it was when the event came: a new version may divide its events otherwise.
    partition: Arc<str>,
    event: Arc<InFlight>,
}

/// An event that is not yet on disk.
pub struct InFlight {
    event: Event,
    // Outcomes that are not yet on disk.
    remaining: AtomicUsize,
    acknowledge: Mutex<Option<Acknowledge>>,
    settled: Mutex<Settled>,
    origin: Origin,
    _room: Room,
}

/// What an event in flight takes: of the room for all events, and of that of each function that wants it.
struct Room {
    _all: OwnedSemaphorePermit,
    _functions: Vec<OwnedSemaphorePermit>,
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").finish_non_exhaustive()
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("function", &self.slot.name).field("event", &self.event.event).finish()
    }
}

/// Bytes of payload for which one unit of room is taken; every event takes at least one.
const ROOM_UNIT: u32 = limits::BYTES_IN_FLIGHT / limits::EVENTS_IN_FLIGHT as u32;

impl Pipeline {
    /// A pipeline whose outcomes go to this writer.
    pub fn new(
        writer: writer::Sender,
        counters: Arc<Counters>,
        clock: Clock,
        retention: Arc<Retention>,
        blobs: Arc<Blobs>,
    ) -> Arc<Self> {
        Arc::new(Self {
            lanes: Mutex::new(LanesState {
                lanes: Lanes::new(limits::LANE_MEMORY),
                idle: 0,
                woken: 0,
                stopping: false,
            }),
            work: Condvar::new(),
            generation: AtomicU64::new(0),
            plan: ArcSwap::default(),
            plan_changed: Notify::new(),
            trial_ended: Notify::new(),
            room: Arc::new(Semaphore::new(limits::EVENTS_IN_FLIGHT)),
            writer,
            counters,
            totals: Totals::default(),
            clock,
            retention,
            blobs,
            recordings: Arc::default(),
        })
    }

    /// Takes an event. Waits while as many events are in flight as may be, in all or of a function that wants it.
    ///
    /// An event that no function wants is acknowledged at once and not stored.
    pub async fn submit(&self, event: Event, acknowledge: Acknowledge) {
        self.submit_in(None, event, acknowledge).await;
    }

    /// As [`submit`](Self::submit), for whoever has much on the way: if anything was thrown away since this was the
    /// [`generation`](Self::generation), the event is dropped as well. Otherwise it could overtake those that were, and they
    /// would come again from further back than is remembered.
    pub async fn submit_in(&self, generation: Option<u64>, event: Event, acknowledge: Acknowledge) {
        let plan = self.plan.load_full();
        let mut numbers = Vec::new();
        plan.route(&event, &mut numbers);
        if numbers.is_empty() {
            self.counters.received.add(1);
            self.counters.unmatched.add(1);
            acknowledge(Settled::default());
            return;
        }
        let slots = numbers.iter().map(|number| plan.slot(*number));
        let Some(room) = self.room_for(&event, slots.clone()).await else { return };
        self.counters.received.add(1);
        let event = InFlight::new(event, Origin::default(), numbers.len(), acknowledge, room);
        self.push(generation, slots, &event);
    }

    /// Changes when everything in flight is thrown away.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Takes an event that is for one function. Waits while as many events are in flight as may be, in all or of this function.
    pub async fn submit_to(&self, slot: &Arc<Slot>, event: Event, origin: Origin, acknowledge: Acknowledge) {
        let Some(room) = self.room_for(&event, [slot].into_iter()).await else { return };
        self.counters.received.add(1);
        let event = InFlight::new(event, origin, 1, acknowledge, room);
        self.push(None, [slot].into_iter(), &event);
    }

    fn push<'a>(
        &self,
        generation: Option<u64>,
        slots: impl ExactSizeIterator<Item = &'a Arc<Slot>>,
        event: &Arc<InFlight>,
    ) {
        let jobs = slots.len();
        let mut state = self.lanes();
        if generation.is_some_and(|generation| generation != self.generation()) {
            return;
        }
        for slot in slots {
            let partition = slot.active.load().current.partition_of(&event.event);
            let key = LaneKey { function: slot.id, partition: partition.clone() };
            state.lanes.push(key, Job { slot: slot.clone(), partition, event: event.clone() });
        }
        let wake = state.wake(jobs);
        drop(state);
        (0..wake).for_each(|_| self.work.notify_one());
    }

    /// Puts an event that cannot be handled into the dead letters, and acknowledges it when it is there.
    pub async fn refuse(&self, event: Event, reason: String, acknowledge: Acknowledge) {
        let Some(room) = self.room_for(&event, [].into_iter()).await else { return };
        self.counters.received.add(1);
        tracing::warn!(device = %event.device, topic = %event.topic, reason, "refused an event; it is in the dead letters");
        let event = InFlight::new(event, Origin::default(), 1, acknowledge, room);
        self.writer.finished(writer::Finished::refused(event, reason, self.clock.stamp()));
    }

    // `None` only if a semaphore was closed, which nobody does.
    async fn room_for(&self, event: &Event, slots: impl ExactSizeIterator<Item = &Arc<Slot>>) -> Option<Room> {
        let mut functions = Vec::with_capacity(slots.len());
        // First, so that whoever waits for a slow function holds nothing that others need.
        for slot in slots {
            functions.push(slot.room.clone().acquire_owned().await.ok()?);
        }
        let units = (event.payload.len() as u32).div_ceil(ROOM_UNIT).clamp(1, limits::EVENTS_IN_FLIGHT as u32);
        let all = self.room.clone().acquire_many_owned(units).await.ok()?;
        Some(Room { _all: all, _functions: functions })
    }

    /// What runs now.
    pub fn plan(&self) -> Arc<Plan> {
        self.plan.load_full()
    }

    /// Lets this run from the next event on.
    pub fn set_plan(&self, plan: Plan) {
        self.plan.store(Arc::new(plan));
        self.plan_changed.notify_waiters();
    }

    /// Events that were received and are not yet on disk, about.
    pub fn in_flight(&self) -> usize {
        limits::EVENTS_IN_FLIGHT - self.room.available_permits()
    }

    /// Lets the workers stop once no event waits for them.
    pub fn stop(&self) {
        self.lanes().stopping = true;
        self.work.notify_all();
    }

    /// Whether [`stop`](Self::stop) was called.
    pub fn is_stopping(&self) -> bool {
        self.lanes().stopping
    }

    // The next run; `None` when it is time to stop. Blocks.
    fn next(&self) -> Option<Turn<Job>> {
        let mut state = self.lanes();
        loop {
            if let Some(turn) = state.lanes.take() {
                return Some(turn);
            }
            if state.stopping {
                return None;
            }
            state.idle += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.rested();
        }
    }

    // The run of another function that is to come before this one goes on. Never blocks.
    fn next_before(&self, lane: LaneId, fuel: u64) -> Option<Turn<Job>> {
        self.lanes().lanes.take_before(lane, fuel)
    }

    fn done(&self, lane: LaneId, memory: agent_core::lanes::Memory, fuel: u64) {
        self.lanes().lanes.done(lane, memory, fuel);
        // The lane may have more to do, and the worker that is here comes for its next run anyway; so nobody is woken.
    }

    // So many runs of these lanes are on disk.
    fn settle(&self, lanes: &BTreeMap<LaneId, u32>) {
        let mut state = self.lanes();
        for (&lane, &runs) in lanes {
            state.lanes.committed(lane, runs);
        }
        // A lane that waited for its commit may run again.
        let wake = state.wake(lanes.len());
        drop(state);
        (0..wake).for_each(|_| self.work.notify_one());
    }

    // Drops every event that is not on disk; none of them was acknowledged.
    fn throw_away(&self) {
        let mut state = self.lanes();
        self.generation.fetch_add(1, Ordering::Relaxed);
        let jobs = state.lanes.reset();
        drop(state);
        self.recordings.thrown_away();
        self.counters.resets.add(1);
        drop(jobs);
    }

    fn is_current(&self, lane: LaneId) -> bool {
        self.lanes().lanes.is_current(lane)
    }

    fn lanes(&self) -> MutexGuard<'_, LanesState> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InFlight {
    fn new(event: Event, origin: Origin, functions: usize, acknowledge: Acknowledge, room: Room) -> Arc<Self> {
        Arc::new(Self {
            event,
            remaining: AtomicUsize::new(functions),
            acknowledge: Mutex::new(Some(acknowledge)),
            settled: Mutex::default(),
            origin,
            _room: room,
        })
    }

    fn settled(&self) -> MutexGuard<'_, Settled> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // One more outcome is on disk; true if it was the last.
    fn committed(&self) -> bool {
        if self.remaining.fetch_sub(1, Ordering::AcqRel) != 1 {
            return false;
        }
        if let Some(acknowledge) = self.acknowledge.lock().unwrap_or_else(PoisonError::into_inner).take() {
            acknowledge(std::mem::take(&mut self.settled()));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_woken_once_and_every_lane_finds_one() {
        let lanes = Lanes::new(limits::LANE_MEMORY);
        let mut state = LanesState { lanes, idle: 2, woken: 0, stopping: false };
        assert_eq!((state.wake(1), state.wake(3), state.wake(1)), (1, 1, 0));
        // One has come and waits again: it found nothing, and what comes now is for it.
        state.rested();
        state.idle += 1;
        assert_eq!((state.wake(1), state.wake(1)), (1, 0));
    }
}
