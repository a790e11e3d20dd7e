//! What goes to the control plane next, and what its answers allow the gateway to delete.

/// What was asked of the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The store that the records lie in.
    pub epoch: u64,
    /// Their class, as a number.
    pub class: u8,
    /// The checksum of the request.
    pub checksum: u32,
    /// Everything below this sequence was settled before.
    pub floor: u64,
    /// The highest sequence that was ever given in this epoch and class.
    pub given: u64,
}

/// What the control plane says it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The store that the answer is about.
    pub epoch: u64,
    /// The class that the answer is about.
    pub class: u8,
    /// The checksum of the request that it answers.
    pub checksum: u32,
    /// Everything up to this sequence is settled there.
    pub high_water: u64,
}

/// An answer that nobody should give. Nothing may be deleted because of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Alarm {
    /// The answer is about another store.
    #[error(
        "the control plane answered for store epoch {answered:016x} when asked about {asked:016x}; nothing was deleted"
    )]
    OtherEpoch {
        /// What was asked about.
        asked: u64,
        /// What the answer says.
        answered: u64,
    },
    /// The answer is about another class.
    #[error("the control plane answered for class {answered} when asked about class {asked}; nothing was deleted")]
    OtherClass {
        /// What was asked about.
        asked: u8,
        /// What the answer says.
        answered: u8,
    },
    /// The answer is to another request, or the request was changed on its way.
    #[error(
        "the control plane answered a request with the checksum {answered:08x} when that of {asked:08x} was sent; nothing was deleted"
    )]
    OtherRequest {
        /// What was sent.
        asked: u32,
        /// What the answer says.
        answered: u32,
    },
    /// The control plane claims to hold what does not exist.
    #[error(
        "the control plane claims to hold everything up to {high_water}, but only {given} was ever given; nothing was deleted"
    )]
    NeverGiven {
        /// What the answer says.
        high_water: u64,
        /// The highest sequence there is.
        given: u64,
    },
    /// The control plane does not even have what the request itself told it is settled.
    #[error(
        "the control plane holds everything up to {high_water} only, but was told that everything below {floor} is settled; nothing was deleted"
    )]
    WentBack {
        /// What the answer says.
        high_water: u64,
        /// What the request said.
        floor: u64,
    },
}

/// Whether an answer confirms everything that was sent, so that it may be deleted.
///
/// # Errors
/// The answer contradicts what is known: delete nothing, and report it.
pub fn confirms(sent: Sent, answer: Answer) -> Result<(), Alarm> {
    if answer.epoch != sent.epoch {
        Err(Alarm::OtherEpoch { asked: sent.epoch, answered: answer.epoch })
    } else if answer.class != sent.class {
        Err(Alarm::OtherClass { asked: sent.class, answered: answer.class })
    } else if answer.checksum != sent.checksum {
        Err(Alarm::OtherRequest { asked: sent.checksum, answered: answer.checksum })
    } else if answer.high_water > sent.given {
        Err(Alarm::NeverGiven { high_water: answer.high_water, given: sent.given })
    } else if answer.high_water.saturating_add(1) < sent.floor {
        Err(Alarm::WentBack { high_water: answer.high_water, floor: sent.floor })
    } else {
        Ok(())
    }
}

/// What waits of one class: sequences from `first` up to, without, `next`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The lowest sequence that the control plane does not know of, or `next` if there is none: below it nothing exists
    /// any more.
    pub first: u64,
    /// The sequence that the next record will have.
    pub next: u64,
}

impl Waiting {
    fn is_empty(self) -> bool {
        self.first >= self.next
    }
}

/// What is sent next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Records of high priority, from the first one that waits.
    High,
    /// Normal records, from the first one that waits.
    Backlog,
    /// Normal records above this sequence: those that came since the backlog was noticed.
    Live {
        /// The sequence.
        after: u64,
    },
}

/// Lets normal records that are made now pass those that have waited for long.
///
/// When more than [`BACKLOG`](Self::BACKLOG) normal records wait, what comes from then on is live and goes first, but for
/// every [`SHARE`](Self::SHARE)th time, which is the backlog's: so it drains also while live records alone would fill the
/// link. When it has drained up to where the live ones began, order is as before.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    // The highest sequence that is not live any more, while there is a backlog.
    passed: Option<u64>,
    // Live turns since the backlog had one.
    live: u32,
}

impl Turns {
    /// Sequences that may wait without being a backlog: what one request takes, so that passing them would gain nothing.
    pub const BACKLOG: u64 = 4_096;
    /// One of so many turns is the backlog's, if it and live records both wait.
    pub const SHARE: u32 = 4;

    /// What to send; `None`: nothing waits.
    pub fn next(&mut self, high: Waiting, normal: Waiting) -> Option<Next> {
        match self.passed {
            Some(passed) if normal.first > passed => self.passed = None,
            None if normal.next.saturating_sub(normal.first) > Self::BACKLOG => self.passed = Some(normal.next - 1),
            _ => {}
        }
        if !high.is_empty() {
            return Some(Next::High);
        }
        if normal.is_empty() {
            return None;
        }
        match self.passed {
            Some(after) if normal.next > after + 1 && self.live + 1 < Self::SHARE => {
                self.live += 1;
                Some(Next::Live { after })
            }
            _ => {
                self.live = 0;
                Some(Next::Backlog)
            }
        }
    }

    /// Live records were delivered up to this sequence.
    pub fn delivered_live(&mut self, last: u64) {
        if let Some(passed) = &mut self.passed {
            *passed = last.max(*passed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: Sent = Sent { epoch: 7, class: 0, checksum: 0xabc, floor: 11, given: 20 };

    fn answer(high_water: u64) -> Answer {
        Answer { epoch: 7, class: 0, checksum: 0xabc, high_water }
    }

    #[test]
    fn only_an_answer_to_this_request_that_can_be_true_confirms_it() {
        for possible in 10..=20 {
            assert_eq!(confirms(SENT, answer(possible)), Ok(()));
        }
        assert_eq!(confirms(SENT, answer(21)), Err(Alarm::NeverGiven { high_water: 21, given: 20 }));
        assert_eq!(confirms(SENT, answer(u64::MAX)), Err(Alarm::NeverGiven { high_water: u64::MAX, given: 20 }));
        assert_eq!(confirms(SENT, answer(9)), Err(Alarm::WentBack { high_water: 9, floor: 11 }));
        assert_eq!(confirms(SENT, Answer { epoch: 8, ..answer(20) }), Err(Alarm::OtherEpoch { asked: 7, answered: 8 }));
        assert_eq!(confirms(SENT, Answer { class: 1, ..answer(20) }), Err(Alarm::OtherClass { asked: 0, answered: 1 }));
        assert_eq!(
            confirms(SENT, Answer { checksum: 1, ..answer(20) }),
            Err(Alarm::OtherRequest { asked: 0xabc, answered: 1 })
        );
    }

    const NONE: Waiting = Waiting { first: 1, next: 1 };

    fn waiting(first: u64, next: u64) -> Waiting {
        Waiting { first, next }
    }

    #[test]
    fn high_goes_before_normal_and_nothing_is_nothing() {
        let mut turns = Turns::default();
        assert_eq!(turns.next(NONE, NONE), None);
        assert_eq!(turns.next(waiting(3, 4), waiting(1, 9_000)), Some(Next::High));
        assert_eq!(turns.next(NONE, waiting(1, 5)), Some(Next::Backlog));
    }

    #[test]
    fn a_short_queue_stays_in_order() {
        let mut turns = Turns::default();
        for next in 2..Turns::BACKLOG {
            assert_eq!(turns.next(NONE, waiting(1, next)), Some(Next::Backlog));
        }
    }

    #[test]
    fn live_records_pass_a_backlog_and_leave_it_its_share() {
        let mut turns = Turns::default();
        let (mut first, mut next) = (1, 10_001);
        assert_eq!(turns.next(NONE, waiting(first, next)), Some(Next::Backlog));
        let mut served = (0, 0);
        // Live records without end: each turn finds one.
        for _ in 0..100 {
            next += 1;
            match turns.next(NONE, waiting(first, next)).unwrap() {
                Next::Live { after } => {
                    assert!(after >= 10_000);
                    turns.delivered_live(next - 1);
                    served.0 += 1;
                }
                Next::Backlog => {
                    first += 10;
                    served.1 += 1;
                }
                Next::High => unreachable!(),
            }
        }
        assert_eq!(served, (75, 25));
        // The backlog is through, and with it what passed it.
        first = next;
        assert_eq!(turns.next(NONE, waiting(first, next + 1)), Some(Next::Backlog));
        assert_eq!(turns.next(NONE, waiting(first, next + 2)), Some(Next::Backlog));
    }
}
