//! Which run comes next, on which thread, and what a run may remember.
//!
//! A **lane** is one function's events of one partition. Within a lane runs happen one at a time and in order; lanes run
//! in parallel. Which function is next is a matter of what each has used (`turns` decides), so that one with many
//! busy lanes, or with long runs, does not crowd out the others.
//!
//! Nobody else writes a lane's state, so what the lane last read or wrote *is* its state, whether or not the commit has
//! happened yet. That is why a run sees the writes of runs that still wait for their commit, and why a lane's memory may
//! be dropped only when nothing of it is uncommitted.
//!
//! ```text
//! push ──▶ waiting ──take──▶ running ──done──▶ uncommitted ──committed──▶ (idle, may be forgotten)
//! ```
//!
//! If a commit fails, everything is thrown away by [`Lanes::reset`]; nothing of it was acknowledged, so it all comes
//! again. What a thread still holds from before the reset is recognised by its generation and ignored.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Bound;

use crate::dedup::Seen;
use crate::state::StateValue;
use crate::turns::Turns;

/// A small number that stands for a function's name, the same for the life of a gateway's store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionId(pub u32);

/// What runs in order: one function's events of one partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneKey {
    /// The function.
    pub function: FunctionId,
    /// The partition.
    pub partition: Arc<str>,
}

/// Names a lane until it is forgotten or the lanes are reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId {
    generation: u64,
    number: u64,
}

/// What a lane remembers of its function's state and of the sources that it heard.
#[derive(Debug, Default)]
pub struct Memory {
    state: BTreeMap<Vec<u8>, Option<StateValue>>,
    seen: BTreeMap<Arc<str>, Seen>,
    bytes: usize,
}

// Roughly what a map entry costs beside its key and value.
const ENTRY_BYTES: usize = 64;

impl Memory {
    /// The value of a key as this lane knows it, for an event of this time; the outer `None`: unknown, ask the store.
    pub fn state(&self, key: &[u8], time_us: u64) -> Option<Option<Arc<[u8]>>> {
        let known = self.state.get(key)?;
        Some(known.as_ref().filter(|value| value.is_there(time_us)).map(|value| value.bytes.clone()))
    }

    /// The first key with this prefix after this one of which the lane knows a value, or knows that there is none for an
    /// event of this time.
    pub fn next_key(&self, prefix: &[u8], after: &[u8], time_us: u64) -> Option<(&[u8], bool)> {
        let from = if after < prefix { Bound::Included(prefix) } else { Bound::Excluded(after) };
        let (key, value) = self.state.range::<[u8], _>((from, Bound::Unbounded)).next()?;
        let there = value.as_ref().is_some_and(|value| value.is_there(time_us));
        key.starts_with(prefix).then_some((key.as_slice(), there))
    }

    /// Remembers a value that was read or written.
    pub fn set_state(&mut self, key: &[u8], value: Option<StateValue>) {
        let bytes = |value: &Option<StateValue>| value.as_ref().map_or(0, |value| value.bytes.len());
        let added = bytes(&value);
        match self.state.get_mut(key) {
            Some(known) => {
                self.bytes -= bytes(known);
                *known = value;
            }
            None => {
                self.bytes += key.len() + ENTRY_BYTES;
                self.state.insert(key.into(), value);
            }
        }
        self.bytes += added;
    }

    /// What is known of a source; `None`: unknown, ask the store.
    pub fn seen(&mut self, source: &str) -> Option<&mut Seen> {
        self.seen.get_mut(source)
    }

    /// Remembers a source as the store has it.
    pub fn set_seen(&mut self, source: &Arc<str>, seen: Seen) {
        if self.seen.insert(source.clone(), seen).is_none() {
            self.bytes += source.len() + ENTRY_BYTES + crate::dedup::MAX_ROW_BYTES;
        }
    }

    /// How much it holds, in bytes, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What a thread is given to do.
#[derive(Debug)]
pub struct Turn<J> {
    /// Give it back to [`Lanes::done`].
    pub lane: LaneId,
    /// The event to handle.
    pub job: J,
    /// The lane's memory; give it back to [`Lanes::done`].
    pub memory: Memory,
}

/// All lanes of the gateway. Holds a job for each event that was pushed and not yet taken; the inlets bound that number.
#[derive(Debug)]
pub struct Lanes<J> {
    generation: u64,
    next: u64,
    lanes: BTreeMap<u64, Lane<J>>,
    by_key: BTreeMap<LaneKey, u64>,
    // Lanes to run.
    turns: Turns,
    // Lanes that could be forgotten, the one that has been idle longest first.
    idle: BTreeMap<u64, u64>,
    tick: u64,
    idle_bytes: usize,
    limits: MemoryLimits,
}

/// How much the lanes may remember, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct MemoryLimits {
    /// Of one lane: beyond it the lane waits for its commits and then begins anew from the store.
    pub lane: usize,
    /// Of all idle lanes together: beyond it the one that has been idle longest is forgotten.
    pub idle: usize,
}

#[derive(Debug)]
struct Lane<J> {
    key: LaneKey,
    jobs: VecDeque<J>,
    // `None` while a thread has it.
    memory: Option<Memory>,
    uncommitted: u32,
    queued: bool,
    idle_since: Option<u64>,
}

impl<J> Lanes<J> {
    /// No lanes yet.
    pub fn new(limits: MemoryLimits) -> Self {
        Self {
            generation: 0,
            next: 0,
            lanes: BTreeMap::new(),
            by_key: BTreeMap::new(),
            turns: Turns::default(),
            idle: BTreeMap::new(),
            tick: 0,
            idle_bytes: 0,
            limits,
        }
    }

    /// Puts a job at the end of its lane.
    pub fn push(&mut self, key: LaneKey, job: J) {
        let number = match self.by_key.get(&key) {
            Some(&number) => number,
            None => {
                let number = self.next;
                self.next += 1;
                self.by_key.insert(key.clone(), number);
                let memory = Some(Memory::default());
                let lane = Lane { key, jobs: VecDeque::new(), memory, uncommitted: 0, queued: false, idle_since: None };
                self.lanes.insert(number, lane);
                number
            }
        };
        if let Some(lane) = self.lanes.get_mut(&number) {
            lane.jobs.push_back(job);
        }
        self.settle(number);
    }

    /// The next run, if any lane has one.
    pub fn take(&mut self) -> Option<Turn<J>> {
        loop {
            let number = self.turns.take()?;
            if let Some(turn) = self.turn(number) {
                return Some(turn);
            }
        }
    }

    /// The run of another function that is to come before this one goes on, if there is one; `fuel` is what this one took
    /// since it was last said.
    pub fn take_before(&mut self, id: LaneId, fuel: u64) -> Option<Turn<J>> {
        if id.generation != self.generation {
            return self.take();
        }
        let function = self.lanes.get(&id.number)?.key.function;
        self.turns.charge(function, fuel);
        loop {
            let number = self.turns.take_before(function)?;
            if let Some(turn) = self.turn(number) {
                return Some(turn);
            }
        }
    }

    fn turn(&mut self, number: u64) -> Option<Turn<J>> {
        let lane = self.lanes.get_mut(&number)?;
        lane.queued = false;
        let (job, memory) = (lane.jobs.pop_front()?, lane.memory.take()?);
        Some(Turn { lane: LaneId { generation: self.generation, number }, job, memory })
    }

    /// A run is over and its outcome is with the writer; `fuel` is what it took since that was last said.
    pub fn done(&mut self, id: LaneId, memory: Memory, fuel: u64) {
        if id.generation != self.generation {
            return;
        }
        if let Some(lane) = self.lanes.get_mut(&id.number) {
            self.turns.charge(lane.key.function, fuel);
            lane.memory = Some(memory);
            lane.uncommitted += 1;
        }
        self.settle(id.number);
    }

    /// So many runs of a lane are on disk.
    pub fn committed(&mut self, id: LaneId, runs: u32) {
        if id.generation != self.generation {
            return;
        }
        if let Some(lane) = self.lanes.get_mut(&id.number) {
            lane.uncommitted = lane.uncommitted.saturating_sub(runs);
        }
        self.settle(id.number);
    }

    /// Whether a lane's name is from after the last reset: if not, nothing of it may be written.
    pub fn is_current(&self, id: LaneId) -> bool {
        id.generation == self.generation
    }

    /// Forgets everything; answers the jobs that were not taken yet.
    pub fn reset(&mut self) -> Vec<J> {
        let limits = self.limits;
        let generation = self.generation + 1;
        let old = core::mem::replace(self, Self::new(limits));
        self.generation = generation;
        old.lanes.into_values().flat_map(|lane| lane.jobs).collect()
    }

    /// How many jobs wait, over all lanes. Walks the lanes: for tests and shutdown, not for each event.
    pub fn waiting(&self) -> usize {
        self.lanes.values().map(|lane| lane.jobs.len()).sum()
    }

    // Puts a lane where it belongs after anything about it changed: in the queue, among the idle ones, or nowhere.
    fn settle(&mut self, number: u64) {
        let Some(lane) = self.lanes.get_mut(&number) else { return };
        if let Some(tick) = lane.idle_since.take() {
            self.idle.remove(&tick);
            self.idle_bytes -= lane.memory.as_ref().map_or(0, Memory::bytes);
        }
        // A thread has it; `done` comes here again.
        let Some(memory) = &mut lane.memory else { return };
        if memory.bytes() > self.limits.lane {
            if lane.uncommitted > 0 {
                // `committed` comes here again.
                return;
            }
            *memory = Memory::default();
        }
        if !lane.jobs.is_empty() {
            if !lane.queued {
                lane.queued = true;
                self.turns.push(lane.key.function, number);
            }
        } else if lane.uncommitted == 0 {
            self.idle_bytes += memory.bytes();
            lane.idle_since = Some(self.tick);
            self.idle.insert(self.tick, number);
            self.tick += 1;
            self.forget();
        }
    }

    fn forget(&mut self) {
        while self.idle_bytes > self.limits.idle {
            let Some((_, number)) = self.idle.pop_first() else { return };
            if let Some(lane) = self.lanes.remove(&number) {
                self.by_key.remove(&lane.key);
                self.idle_bytes -= lane.memory.as_ref().map_or(0, Memory::bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::vec;

    use proptest::prelude::*;

    use super::*;

    const LIMITS: MemoryLimits = MemoryLimits { lane: 1_000, idle: 2_000 };

    fn key(function: u32, partition: &str) -> LaneKey {
        LaneKey { function: FunctionId(function), partition: partition.into() }
    }

    fn value(bytes: &[u8]) -> Option<StateValue> {
        Some(StateValue { bytes: bytes.into(), expires_us: None })
    }

    #[test]
    fn what_has_ended_is_known_to_be_absent() {
        let mut memory = Memory::default();
        memory.set_state(b"a", Some(StateValue { bytes: b"v".as_slice().into(), expires_us: Some(7) }));
        assert_eq!((memory.state(b"a", 6), memory.state(b"a", 7)), (Some(Some(b"v".as_slice().into())), Some(None)));
        assert_eq!(memory.next_key(b"", b"", 6), Some((b"a".as_slice(), true)));
        assert_eq!(memory.next_key(b"", b"", 7), Some((b"a".as_slice(), false)), "the store may still have it");
    }

    #[test]
    fn a_lane_runs_one_at_a_time_and_lanes_in_parallel() {
        let mut lanes = Lanes::new(LIMITS);
        lanes.push(key(1, "a"), 1);
        lanes.push(key(1, "a"), 2);
        lanes.push(key(1, "b"), 3);
        let first = lanes.take().unwrap();
        let other = lanes.take().unwrap();
        assert_eq!((first.job, other.job), (1, 3));
        assert!(lanes.take().is_none());
        lanes.done(first.lane, first.memory, 0);
        assert_eq!(lanes.take().unwrap().job, 2);
    }

    #[test]
    fn a_long_run_lets_others_pass_until_they_have_used_as_much() {
        let mut lanes = Lanes::new(LIMITS);
        lanes.push(key(1, "a"), 1);
        let long = lanes.take().unwrap();
        assert!(lanes.take_before(long.lane, 1_000_000).is_none());
        lanes.push(key(1, "b"), 1);
        lanes.push(key(2, "x"), 2);
        let other = lanes.take_before(long.lane, 1_000_000).unwrap();
        assert_eq!(other.job, 2);
        // The other lane of the same function is not before it, and nor is who has used more.
        lanes.done(other.lane, other.memory, 5_000_000);
        lanes.push(key(2, "x"), 2);
        assert!(lanes.take_before(long.lane, 1_000_000).is_none());
    }

    #[test]
    fn what_a_run_wrote_is_remembered_until_it_is_committed() {
        let mut lanes = Lanes::new(MemoryLimits { lane: 1_000, idle: 0 });
        lanes.push(key(1, "a"), 1);
        let mut turn = lanes.take().unwrap();
        turn.memory.set_state(b"k", value(b"v"));
        let lane = turn.lane;
        lanes.done(lane, turn.memory, 0);
        lanes.push(key(1, "a"), 2);
        let turn = lanes.take().unwrap();
        assert_eq!(turn.memory.state(b"k", 0), Some(Some(b"v".as_slice().into())));
        lanes.done(lane, turn.memory, 0);
        lanes.committed(lane, 2);
        lanes.push(key(1, "a"), 3);
        assert_eq!(lanes.take().unwrap().memory.state(b"k", 0), None);
    }

    #[test]
    fn a_lane_that_remembers_too_much_waits_for_its_commit() {
        let mut lanes = Lanes::new(LIMITS);
        lanes.push(key(1, "a"), 1);
        lanes.push(key(1, "a"), 2);
        let mut turn = lanes.take().unwrap();
        turn.memory.set_state(b"k", value(&[0; 5_000]));
        lanes.done(turn.lane, turn.memory, 0);
        assert!(lanes.take().is_none());
        lanes.committed(turn.lane, 1);
        assert_eq!(lanes.take().unwrap().memory.bytes(), 0);
    }

    #[test]
    fn a_reset_gives_the_jobs_back_and_ignores_what_was_out() {
        let mut lanes = Lanes::new(LIMITS);
        lanes.push(key(1, "a"), 1);
        lanes.push(key(1, "a"), 2);
        let turn = lanes.take().unwrap();
        assert_eq!(lanes.reset(), [2]);
        lanes.push(key(1, "a"), 3);
        assert!(!lanes.is_current(turn.lane));
        lanes.done(turn.lane, turn.memory, 0);
        assert_eq!(lanes.take().unwrap().job, 3);
    }

    proptest! {
        /// Random pushes, takes, finishes and commits: every job is taken once, a lane's jobs in order and one at a
        /// time, nothing is stuck at the end, and idle memory stays within its bound.
        #[test]
        fn nothing_is_lost_doubled_or_out_of_order(steps in proptest::collection::vec((0u8..4, 0u32..3, 0u8..3), 0..200)) {
            let mut lanes = Lanes::new(MemoryLimits { lane: 300, idle: 600 });
            let mut pushed: BTreeMap<LaneKey, VecDeque<u32>> = BTreeMap::new();
            let (mut running, mut uncommitted): (Vec<Turn<(LaneKey, u32)>>, Vec<LaneId>) = (vec![], vec![]);
            let (mut number, mut out) = (0, 0);
            let finish = |lanes: &mut Lanes<_>, mut turn: Turn<(LaneKey, u32)>, uncommitted: &mut Vec<LaneId>| {
                turn.memory.set_state(&turn.job.1.to_le_bytes(), value(&[0; 40]));
                lanes.done(turn.lane, turn.memory, 0);
                uncommitted.push(turn.lane);
            };
            for (step, function, partition) in steps {
                match step {
                    0 => {
                        let key = key(function, &format!("{partition}"));
                        pushed.entry(key.clone()).or_default().push_back(number);
                        lanes.push(key.clone(), (key, number));
                        number += 1;
                    }
                    1 => if let Some(turn) = lanes.take() {
                        prop_assert!(running.iter().all(|other| other.job.0 != turn.job.0), "two runs in one lane");
                        prop_assert_eq!(pushed.get_mut(&turn.job.0).unwrap().pop_front(), Some(turn.job.1));
                        out += 1;
                        running.push(turn);
                    },
                    2 => if !running.is_empty() {
                        let turn = running.remove(function as usize % running.len());
                        finish(&mut lanes, turn, &mut uncommitted);
                    },
                    _ => for lane in uncommitted.drain(..) { lanes.committed(lane, 1) },
                }
                prop_assert!(lanes.idle_bytes <= 600);
            }
            loop {
                for turn in running.drain(..) { finish(&mut lanes, turn, &mut uncommitted) }
                for lane in uncommitted.drain(..) { lanes.committed(lane, 1) }
                match lanes.take() {
                    None => break,
                    Some(turn) => {
                        prop_assert_eq!(pushed.get_mut(&turn.job.0).unwrap().pop_front(), Some(turn.job.1));
                        out += 1;
                        running.push(turn);
                    }
                }
            }
            prop_assert_eq!(out, number);
        }
    }
}
