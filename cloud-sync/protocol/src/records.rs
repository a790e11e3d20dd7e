//! Records on their way from the gateway's outbox to the cloud store.

use serde::{Deserialize, Serialize};

/// Most records of one range: enough that the round trip does not matter, few enough to be stored in one breath.
pub const MAX_RANGE_RECORDS: usize = 4_096;

/// The gateway ends a range when its bodies reach this many bytes, well below
/// [`MAX_BODY_BYTES`](crate::MAX_BODY_BYTES) with everything around them.
pub const MAX_RANGE_BYTES: usize = 1 << 20;

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
    /// What the function emitted.
    pub body: Vec<u8>,
}

impl Record {
    /// The checksum (CRC-32, IEEE) over every field, with which a record is stored on either side: it makes a flipped
    /// bit visible, and tells whether a sequence that comes again brings the same record.
    pub fn checksum(&self) -> u32 {
        crc32fast::hash(&crate::encode(self))
    }
}

/// A range of one class's sequence, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The store that the records lie in.
    pub epoch: StoreEpoch,
    /// Whose sequence this is.
    pub class: Class,
    /// Sequence of the first record, from 1; the others follow without gaps.
    pub first: u64,
    /// Nothing below this sequence exists on the gateway any more: it was answered for, or is lost. If the control
    /// plane lacks something below it, that is missing for good, and it says so instead of waiting for it.
    pub floor: u64,
    /// Checksum over the records' checksums, see [`range_checksum`].
    pub checksum: u32,
    /// The records; not empty, at most [`MAX_RANGE_RECORDS`].
    pub records: Vec<Record>,
}

/// What the control plane holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The epoch of the request.
    pub epoch: StoreEpoch,
    /// The class of the request.
    pub class: Class,
    /// Everything up to this sequence is on the control plane's disk. 0: nothing.
    pub high_water: u64,
}

/// The checksum of a range: CRC-32 (IEEE) over the little-endian checksums of its records.
pub fn range_checksum(records: &[Record]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for record in records {
        hasher.update(&record.checksum().to_le_bytes());
    }
    hasher.finalize()
}
