//! What an answer of the control plane allows the gateway to delete.

/// A range of one class that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The store it lies in.
    pub epoch: u64,
    /// Its class, as a number.
    pub class: u8,
    /// First sequence of the range.
    pub first: u64,
    /// Last sequence of the range; not below `first`.
    pub last: u64,
}

/// What the control plane says it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The store that the answer is about.
    pub epoch: u64,
    /// The class that the answer is about.
    pub class: u8,
    /// Everything up to this sequence is on its disk.
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
    /// The control plane claims to hold what was never sent to it.
    #[error(
        "the control plane claims to hold everything up to {high_water}, but only {last} was ever sent; nothing was deleted"
    )]
    NeverSent {
        /// What the answer says.
        high_water: u64,
        /// The last sequence that was sent.
        last: u64,
    },
    /// The control plane lost what it had confirmed and the gateway has deleted.
    #[error(
        "the control plane holds everything up to {high_water} only, but had confirmed {confirmed}: it lost records, perhaps by being restored from a backup"
    )]
    WentBack {
        /// What the answer says.
        high_water: u64,
        /// What it had confirmed before.
        confirmed: u64,
    },
}

/// Up to which sequence the gateway may delete, given that everything below `sent.first` was confirmed before.
///
/// An answer within the range just sent is good, also if it covers only a part of it, or nothing.
///
/// # Errors
/// The answer contradicts what is known: delete nothing, and report it.
pub fn deletable(sent: Sent, answer: Answer) -> Result<u64, Alarm> {
    let confirmed = sent.first - 1;
    if answer.epoch != sent.epoch {
        Err(Alarm::OtherEpoch { asked: sent.epoch, answered: answer.epoch })
    } else if answer.class != sent.class {
        Err(Alarm::OtherClass { asked: sent.class, answered: answer.class })
    } else if answer.high_water > sent.last {
        Err(Alarm::NeverSent { high_water: answer.high_water, last: sent.last })
    } else if answer.high_water < confirmed {
        Err(Alarm::WentBack { high_water: answer.high_water, confirmed })
    } else {
        Ok(answer.high_water)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: Sent = Sent { epoch: 7, class: 0, first: 11, last: 20 };

    fn answer(high_water: u64) -> Answer {
        Answer { epoch: 7, class: 0, high_water }
    }

    #[test]
    fn only_an_answer_within_what_was_sent_deletes() {
        assert_eq!(deletable(SENT, answer(20)), Ok(20));
        assert_eq!(deletable(SENT, answer(15)), Ok(15));
        assert_eq!(deletable(SENT, answer(10)), Ok(10));
        assert_eq!(deletable(SENT, answer(21)), Err(Alarm::NeverSent { high_water: 21, last: 20 }));
        assert_eq!(deletable(SENT, answer(u64::MAX)), Err(Alarm::NeverSent { high_water: u64::MAX, last: 20 }));
        assert_eq!(deletable(SENT, answer(9)), Err(Alarm::WentBack { high_water: 9, confirmed: 10 }));
        assert_eq!(
            deletable(SENT, Answer { epoch: 8, ..answer(20) }),
            Err(Alarm::OtherEpoch { asked: 7, answered: 8 })
        );
        assert_eq!(
            deletable(SENT, Answer { class: 1, ..answer(20) }),
            Err(Alarm::OtherClass { asked: 0, answered: 1 })
        );
    }
}
