//! Records on their way from the gateway's outbox to the cloud store.

use serde::{Deserialize, Serialize};

use crate::bounded;

/// Most entries of one request, over all its ranges: enough that the round trip does not matter, few enough to be
/// stored in one breath.
pub const MAX_ENTRIES: usize = 4_096;

/// The gateway ends a range when its bodies reach this many bytes, well below
/// [`MAX_BODY_BYTES`](crate::MAX_BODY_BYTES) with everything around them.
pub const MAX_RANGE_BYTES: usize = 1 << 20;

/// Most [`Gone::tally`] entries: streams times reasons, for the streams that a gateway usually has.
pub const MAX_TALLY: usize = 64;

/// Which of a store epoch's sequences a record is counted in. Each class has a high-water mark of its own, so that
/// what is urgent passes a backlog of what is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Class {
    /// In the order they were committed.
    Normal,
    /// Before every normal record that waits.
    High,
}

impl Class {
    /// All classes, the one to be served first in front.
    pub const ALL: [Self; 2] = [Self::High, Self::Normal];

    /// The number under which a class is stored.
    pub const fn number(self) -> u8 {
        match self {
            Self::Normal => 0,
            Self::High => 1,
        }
    }
}

/// One life of a gateway's store: drawn at random when the database is created or restored, so that a sequence that
/// starts again is never taken for the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StoreEpoch(pub u64);

/// When a record was made, as the gateway knew it. Nothing is ever ordered by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Wall clock, microseconds since 1970-01-01 UTC; wrong if the gateway's clock was.
    pub wall_us: u64,
    /// Microseconds since the gateway's system started.
    pub monotonic_us: u64,
    /// Which start of the gateway's system that was.
    pub boot: u64,
    /// Whether the wall clock was synchronised then, as far as the gateway's system knew.
    pub synchronised: bool,
}

/// The event that a record came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Who sent the event.
    pub device: String,
    /// The event's topic.
    pub topic: String,
    /// Boot epoch and sequence of the event, if it had an identity.
    pub identity: Option<(u64, u64)>,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The cloud stream it belongs to.
    pub stream: String,
    /// The function that emitted it.
    pub function: String,
    /// The event it came from.
    pub origin: Origin,
    /// When the function ran.
    pub stamp: Stamp,
    /// What the function emitted. On the wire as it would be byte by byte, but copied as a whole.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

impl Record {
    /// The checksum (CRC-32, IEEE) over every field, with which a record is stored on either side: it makes a flipped
    /// bit visible, and tells whether a sequence that comes again brings the same record.
    pub fn checksum(&self) -> u32 {
        crc32fast::hash(&crate::encode(self))
    }
}

/// Why a record does not exist any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It waited for longer than its stream's time to live.
    Expired,
    /// Its stream or the outbox was full, and it was the oldest.
    Oldest,
    /// The outbox was full, and its priority was the lowest.
    Lowest,
    /// Its stream or the outbox was full, and its neighbour was kept to stand for both.
    Thinned,
    /// Its stream or the outbox was full when it came.
    Refused,
    /// The gateway's disk lost it. The only reason that is no policy: what has it counts as missing.
    Damaged,
}

impl Reason {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] = [Self::Expired, Self::Oldest, Self::Lowest, Self::Thinned, Self::Refused, Self::Damaged];

    /// Its name, in snake_case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Oldest => "oldest",
            Self::Lowest => "lowest",
            Self::Thinned => "thinned",
            Self::Refused => "refused",
            Self::Damaged => "damaged",
        }
    }
}

/// So many records of a stream that do not exist any more, for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// The cloud stream; empty where nobody knows it any more.
    pub stream: String,
    /// Why.
    pub reason: Reason,
    /// How many; not 0.
    pub count: u64,
}

/// Consecutive sequences of which nothing exists any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// What they were: together as many as there are sequences. Not empty, at most [`MAX_TALLY`], no pair of stream
    /// and reason twice.
    #[serde(deserialize_with = "bounded::list")]
    pub tally: Vec<Tally>,
}

impl Gone {
    /// How many sequences; `None` if that is more than 64 bits hold, which nobody can mean.
    pub fn count(&self) -> Option<u64> {
        self.tally.iter().try_fold(0u64, |sum, tally| sum.checked_add(tally.count))
    }
}

/// What a gateway has under a sequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// A record; one sequence.
    Record(Record),
    /// Nothing any more; one sequence or many.
    Gone(Gone),
}

impl Entry {
    /// How many sequences it stands for; `None` as for [`Gone::count`].
    pub fn count(&self) -> Option<u64> {
        match self {
            Self::Record(_) => Some(1),
            Self::Gone(gone) => gone.count(),
        }
    }

    fn checksum(&self) -> u32 {
        match self {
            Self::Record(record) => record.checksum(),
            Self::Gone(gone) => crc32fast::hash(&crate::encode(gone)),
        }
    }
}

/// Consecutive sequences, without gaps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The first sequence, from 1.
    pub first: u64,
    /// What there is from it on; not empty.
    #[serde(deserialize_with = "bounded::list")]
    pub entries: Vec<Entry>,
}

impl Range {
    /// The last sequence; `None` if there is none, or none that 64 bits hold.
    pub fn last(&self) -> Option<u64> {
        let count = self.entries.iter().try_fold(0u64, |sum, entry| sum.checked_add(entry.count()?))?;
        self.first.checked_add(count.checked_sub(1)?)
    }
}

/// Ranges of one class's sequences. They may lie anywhere above [`floor`](Self::floor): what is live passes what has
/// waited for long, and what is gone is told first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The store that the sequences belong to.
    pub epoch: StoreEpoch,
    /// Whose sequences these are.
    pub class: Class,
    /// Everything below this sequence was answered for or told as gone. If the control plane lacks something below it,
    /// that is missing for good, and it says so instead of waiting for it.
    pub floor: u64,
    /// Checksum over everything else, see [`checksum_over`](Self::checksum_over).
    pub checksum: u32,
    /// In their order, without overlap; not empty, at most [`MAX_ENTRIES`] entries together.
    #[serde(deserialize_with = "bounded::list")]
    pub ranges: Vec<Range>,
}

impl Request {
    /// A request with its checksum.
    pub fn new(epoch: StoreEpoch, class: Class, floor: u64, ranges: Vec<Range>) -> Self {
        let mut request = Self { epoch, class, floor, checksum: 0, ranges };
        request.checksum = request.checksum_over(&request.entry_checksums());
        request
    }

    /// The checksum of each entry, in order: of a record [`Record::checksum`], of [`Gone`] that of its encoding.
    pub fn entry_checksums(&self) -> Vec<u32> {
        self.ranges.iter().flat_map(|range| &range.entries).map(Entry::checksum).collect()
    }

    /// CRC-32 (IEEE) over epoch, class (as a byte) and floor, and then for each range its first sequence and the
    /// checksums of its entries, which are [`entry_checksums`](Self::entry_checksums). Numbers are little-endian.
    pub fn checksum_over(&self, entry_checksums: &[u32]) -> u32 {
        let mut entries = entry_checksums.iter();
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.epoch.0.to_le_bytes());
        hasher.update(&[self.class.number()]);
        hasher.update(&self.floor.to_le_bytes());
        for range in &self.ranges {
            hasher.update(&range.first.to_le_bytes());
            for checksum in entries.by_ref().take(range.entries.len()) {
                hasher.update(&checksum.to_le_bytes());
            }
        }
        hasher.finalize()
    }
}

/// What the control plane holds: everything that the request of this checksum brought, and more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The epoch of the request.
    pub epoch: StoreEpoch,
    /// The class of the request.
    pub class: Class,
    /// The checksum of the request that this answers, so that an answer to another one is not taken for it.
    pub checksum: u32,
    /// Everything up to this sequence is on the control plane's disk, or known to be gone. 0: nothing.
    pub high_water: u64,
}
