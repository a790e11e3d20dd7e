//! What is drawn from a seed: the moments at which something is killed.

use std::fmt;
use std::time::Duration;

/// Numbers from a seed (SplitMix64, after Steele, Lea and Flood, OOPSLA 2014): the same on every machine.
#[derive(Clone, Debug)]
pub struct Dice {
    state: u64,
}

impl Dice {
    /// Dice that throw the same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A number below `end`, or 0. For the small ranges here its bias is of no weight.
    pub fn below(&mut self, end: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end.max(1)
    }

    /// Puts them into another order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Victim {
    /// The agent.
    Agent,
    /// The control plane.
    Cloud,
    /// One connection of a device.
    Connection,
}

/// The way of an event, cut into edges; a kill falls on one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Edge {
    /// At no edge: at a time.
    Time,
    /// A device's PUBLISH was handed to the gateway.
    Received,
    /// The agent is about to write to a file (`pwrite64`): in the middle of a transaction.
    Writing,
    /// The agent has written a transaction and is about to sync it (`fsync` or `fdatasync`).
    Inserted,
    /// The PUBACK has left the gateway and not reached the device: the event is committed, and the device does not know.
    Committed,
    /// The PUBACK was handed to the device.
    Acknowledged,
    /// Records were handed to the control plane.
    Sent,
    /// The control plane begins to answer, and the gateway hears nothing of it.
    Stored,
    /// The answer was handed to the gateway, which may now delete.
    Answered,
    /// The gateway comes with the next records: it has deleted what the last answer confirmed.
    Deleted,
}

/// One kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Who is killed.
    pub victim: Victim,
    /// Where.
    pub edge: Edge,
    /// The how manyth time, from 1, that the edge is reached.
    pub nth: u32,
    /// How long after that; at [`Edge::Time`], after the last restart.
    pub pause: Duration,
}

impl Step {
    /// Whether a process is killed, and not only a connection.
    pub fn is_kill(&self) -> bool {
        self.victim != Victim::Connection
    }
}

/// Every sort of kill. Those of the agent's system calls are left out where they cannot be traced.
const SORTS: [(Victim, Edge); 16] = [
    (Victim::Agent, Edge::Time),
    (Victim::Agent, Edge::Received),
    (Victim::Agent, Edge::Writing),
    (Victim::Agent, Edge::Inserted),
    (Victim::Agent, Edge::Committed),
    (Victim::Agent, Edge::Acknowledged),
    (Victim::Agent, Edge::Sent),
    (Victim::Agent, Edge::Stored),
    (Victim::Agent, Edge::Answered),
    (Victim::Agent, Edge::Deleted),
    (Victim::Cloud, Edge::Time),
    (Victim::Cloud, Edge::Sent),
    (Victim::Cloud, Edge::Stored),
    (Victim::Connection, Edge::Received),
    (Victim::Connection, Edge::Committed),
    (Victim::Connection, Edge::Acknowledged),
];

/// Draws a plan with this many kills of processes; connections are cut in between. Every sort comes once before any comes
/// again.
pub fn draw(seed: u64, kills: usize, system_calls: bool) -> Vec<Step> {
    let mut dice = Dice::new(seed);
    let mut plan = Vec::new();
    let mut killed = 0;
    while killed < kills {
        let mut sorts = SORTS;
        dice.shuffle(&mut sorts);
        for (victim, edge) in sorts {
            if killed == kills {
                break;
            }
            let step = step(&mut dice, victim, edge);
            // Drawn also when it is left out, so that the others are the same with and without.
            if system_calls || !edge.is_system_call() {
                killed += usize::from(step.is_kill());
                plan.push(step);
            }
        }
    }
    plan
}

fn step(dice: &mut Dice, victim: Victim, edge: Edge) -> Step {
    // How often an edge comes in some tenths of a second differs: an event has one PUBLISH and one PUBACK, and many
    // events share a transaction or a delivery.
    let most = match edge {
        Edge::Time => 1,
        Edge::Received | Edge::Committed | Edge::Acknowledged => 60,
        Edge::Writing => 40,
        Edge::Inserted => 15,
        Edge::Sent | Edge::Stored | Edge::Answered | Edge::Deleted => 8,
    };
    let nth = 1 + dice.below(most) as u32;
    // Half of the kills follow their edge at once, the others fall into the milliseconds after it.
    let (at_once, within) = (dice.below(2) == 0, dice.below(5_000));
    let pause = match edge {
        Edge::Time => Duration::from_micros(dice.below(500_000)),
        _ if at_once => Duration::ZERO,
        _ => Duration::from_micros(within),
    };
    Step { victim, edge, nth, pause }
}

impl Edge {
    /// Whether it is a system call of the agent, so that it takes strace to find it.
    pub fn is_system_call(self) -> bool {
        self.system_call().is_some()
    }

    pub(super) fn system_call(self) -> Option<&'static str> {
        match self {
            Self::Writing => Some("pwrite64"),
            Self::Inserted => Some("fsync,fdatasync"),
            _ => None,
        }
    }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Agent => "agent",
            Self::Cloud => "control plane",
            Self::Connection => "connection",
        })
    }
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Time => "at a time",
            Self::Received => "received",
            Self::Writing => "writing",
            Self::Inserted => "inserted",
            Self::Committed => "committed",
            Self::Acknowledged => "acknowledged",
            Self::Sent => "sent",
            Self::Stored => "stored",
            Self::Answered => "answered",
            Self::Deleted => "deleted",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_plan_and_another_seed_another() {
        assert_eq!(draw(7, 100, true), draw(7, 100, true));
        assert_ne!(draw(7, 100, true), draw(8, 100, true));
        let kills = |plan: &[Step]| plan.iter().filter(|step| step.is_kill()).count();
        assert_eq!((kills(&draw(7, 100, true)), kills(&draw(7, 100, false))), (100, 100));
    }

    #[test]
    fn every_sort_is_drawn_before_any_comes_again() {
        let plan = draw(3, 26, true);
        for (victim, edge) in SORTS {
            let times = plan.iter().filter(|step| (step.victim, step.edge) == (victim, edge)).count();
            assert!((1..=2).contains(&times), "{victim} {edge}: {times}");
        }
    }

    #[test]
    fn without_system_calls_the_rest_of_the_plan_is_the_same() {
        let mut all = draw(5, 13 * 4, true);
        all.retain(|step| !step.edge.is_system_call());
        let without = draw(5, 11 * 4, false);
        // The end of the last round may differ: it breaks off with the last kill.
        assert_eq!(all[..13 * 3], without[..13 * 3]);
    }

    #[test]
    fn numbers_are_those_of_the_published_generator() {
        // The first outputs of SplitMix64 for the seed 1234567.
        let mut dice = Dice::new(1_234_567);
        assert_eq!(
            [dice.below(u64::MAX), dice.below(u64::MAX)],
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]
        );
    }
}
