//! Whose turn it is: of the functions that have something to run, the one that has used least.
//!
//! Each function has a meter of what its runs took, in fuel. A function that had nothing to run for a while begins where the
//! others are: nobody saves up turns. This is fair queueing by virtual time (Demers, Keshav and Shenker, 1989), with the cost
//! known only after the fact.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::lanes::FunctionId;

/// What a run costs beside its fuel: to make an instance, and to bring its outcome to the writer; some 20 µs.
const PER_RUN: u64 = 16_000;

/// Functions with their lanes that have something to run, by number.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    functions: BTreeMap<FunctionId, Share>,
    // Of those that have something to run: what they used.
    order: BTreeSet<(u64, FunctionId)>,
    // What whoever had the last turn had used.
    now: u64,
}

#[derive(Debug, Default)]
struct Share {
    used: u64,
    ready: VecDeque<u64>,
}

impl Turns {
    /// A lane has something to run; one that is not here already.
    pub(crate) fn push(&mut self, function: FunctionId, lane: u64) {
        let share = self.functions.entry(function).or_default();
        if share.ready.is_empty() {
            share.used = share.used.max(self.now);
            self.order.insert((share.used, function));
        }
        share.ready.push_back(lane);
    }

    /// The lane whose turn it is.
    pub(crate) fn take(&mut self) -> Option<u64> {
        let (used, function) = *self.order.first()?;
        self.now = self.now.max(used);
        let lane = self.functions.get_mut(&function)?.ready.pop_front();
        self.charge(function, PER_RUN);
        lane
    }

    /// The lane whose turn it is, if that is of a function that has used less than this one.
    pub(crate) fn take_before(&mut self, function: FunctionId) -> Option<u64> {
        let used = self.functions.get(&function).map_or(0, |share| share.used);
        let (first, other) = *self.order.first()?;
        if other == function || first >= used { None } else { self.take() }
    }

    /// A function used so much.
    pub(crate) fn charge(&mut self, function: FunctionId, fuel: u64) {
        let share = self.functions.entry(function).or_default();
        self.order.remove(&(share.used, function));
        share.used = share.used.saturating_add(fuel);
        if !share.ready.is_empty() {
            self.order.insert((share.used, function));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    const A: FunctionId = FunctionId(1);
    const B: FunctionId = FunctionId(2);

    #[test]
    fn functions_take_turns_however_many_lanes_they_have() {
        let mut turns = Turns::default();
        for lane in 0..10 {
            turns.push(A, lane);
        }
        for lane in 10..12 {
            turns.push(B, lane);
        }
        let order: Vec<u64> = core::iter::from_fn(|| turns.take()).take(5).collect();
        assert_eq!(order, [0, 10, 1, 11, 2]);
    }

    #[test]
    fn nobody_saves_up_turns() {
        let mut turns = Turns::default();
        for lane in 0..100 {
            turns.push(A, lane);
            turns.take();
            turns.charge(A, 1_000_000);
        }
        for lane in 0..4 {
            turns.push(A, lane);
            turns.push(B, 10 + lane);
        }
        let order: Vec<u64> = core::iter::from_fn(|| turns.take()).collect();
        // Not all of B first, although it used nothing yet; but what A used last counts.
        assert_eq!(order.iter().position(|lane| *lane < 10), Some(4));
        turns.charge(B, 1_000_000_000);
        turns.push(A, 1);
        turns.push(B, 11);
        assert_eq!(turns.take(), Some(1));
    }

    proptest! {
        /// Two functions that always have something to run get the same fuel, whatever their runs cost.
        #[test]
        fn fuel_is_shared_evenly(costs in (0u64..2_000_000, 0u64..2_000_000)) {
            let mut turns = Turns::default();
            turns.push(A, 0);
            turns.push(B, 1);
            let mut used = [0u64; 2];
            for _ in 0..1_000 {
                let lane = turns.take().unwrap();
                let (function, cost) = if lane == 0 { (A, costs.0) } else { (B, costs.1) };
                used[lane as usize] += cost + PER_RUN;
                turns.charge(function, cost);
                turns.push(function, lane);
            }
            prop_assert!(used[0].abs_diff(used[1]) <= costs.0.max(costs.1) + PER_RUN);
        }
    }
}
