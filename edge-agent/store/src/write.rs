//! What is written, and what is read back.

use std::sync::Arc;

use agent_core::Event;
use agent_core::effect::{Effects, PublishFlags};
use agent_core::event::Payload;
use agent_core::pace::Metered;
use serde::{Deserialize, Serialize};
use sync_protocol::dead::Command;
use sync_protocol::fleet::FunctionStatus;
use sync_protocol::records::{Class, Reason, Stamp, StoreEpoch};
use sync_protocol::usage::Counts;

use crate::blobs::{Blob, ContentDigest, WatchedFile};
use crate::queue::Queue;
use crate::schedules::Scheduled;
use agent_core::FunctionId;

/// The largest record, encoded, in bytes: with a request around it, it must fit into one body of the sync protocol, or
/// it would stand in the way of all that come after it for good.
pub const MAX_RECORD_BYTES: usize = sync_protocol::MAX_BODY_BYTES - 1024;

/// One write of a group.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all are outcomes, and a box for each would cost more")]
pub enum Write {
    /// A function handled an event, or could not.
    Outcome(Outcome),
    /// The control plane has what was sent to it in these ranges (first and last sequence). What lies wholly within one
    /// is settled, records and runs alike; a run that has grown beyond its range since then stays, to be told again.
    /// Below the mark it changes nothing; beyond the last record of the commits before this one it is refused, so
    /// compare an answer with what was sent first.
    Delivered {
        /// The class.
        class: Class,
        /// The ranges.
        ranges: Vec<(u64, u64)>,
    },
    /// Records that wait are given up. What is told to the control plane in their place is how many there were of each
    /// stream. Sequences that are none that waits are passed over.
    Dropped {
        /// The class.
        class: Class,
        /// The sequences, in order.
        sequences: Vec<u64>,
        /// Why.
        reason: Reason,
    },
    /// Every publish up to this id was taken by the broker. Below what is known already it changes nothing; beyond the
    /// last publish of the commits before this one it is refused.
    Published {
        /// The id.
        up_to: u64,
    },
    /// Records that wait cannot be read, and never will be, as [`Damage`](crate::Damage) names them. They are passed over,
    /// told to the control plane as gone, and kept as [`Missing`]. Below the mark it changes nothing; refused unless
    /// `last` was given in an earlier commit.
    Lost {
        /// The class.
        class: Class,
        /// The first sequence.
        first: u64,
        /// The last.
        last: u64,
        /// What is wrong with them, for a person.
        reason: String,
    },
    /// The control plane was told of the [`Untold`](crate::Untold) of this id.
    Told {
        /// The id.
        id: u64,
    },
    /// The system has been up for so long since this boot, in microseconds.
    Powered {
        /// The number of the boot.
        boot: u64,
        /// How long.
        monotonic_us: u64,
    },
    /// What was used of a metered link.
    Metered(Metered),
    /// A message cannot be read, and never will be, as [`Damage`](crate::Damage) names it. It is deleted.
    MessageLost {
        /// Its id.
        id: u64,
    },
    /// An HTTP request was tried, and is to be tried again. If it is not there any more, nothing changes.
    Requested {
        /// Its message.
        id: u64,
        /// Not before this time by the wall clock, microseconds since 1970-01-01 UTC.
        due_us: u64,
        /// How often it was sent so far.
        attempts: u32,
    },
    /// An HTTP request is over: it goes, and its answer comes as a message to a function, in one transaction. If the request is
    /// not there any more, nothing changes: it was answered before.
    Answered {
        /// The message of the request.
        id: u64,
        /// Name of the function that gets the answer.
        to: String,
        /// The answer.
        event: Event,
    },
    /// Up to which moment a schedule was served.
    Scheduled(Scheduled),
    /// Values of state that no event of this time or later finds are deleted, at most [`EXPIRE_ROWS`](crate::EXPIRE_ROWS) of
    /// them: [`Reader::has_ended_state`](crate::Reader::has_ended_state) says whether there are more.
    StateEnded {
        /// The time, microseconds since 1970-01-01 UTC.
        time_us: u64,
    },
    /// What the control plane asks to be done with dead letters. All of it is done, and the number of the command
    /// noted, or nothing; one that was done before changes nothing. Letters that are not there are told as gone.
    Command {
        /// The command.
        command: Command,
        /// When it came.
        stamp: Stamp,
    },
    /// The control plane is to be told what functions used and measured, up to and with this group: that becomes records of
    /// the stream [`sync_protocol::usage::STREAM`], and adding up begins anew. Nothing, if there is nothing to tell.
    TellUsage {
        /// When.
        stamp: Stamp,
    },
    /// What becomes of a blob.
    Blob(BlobWrite),
    /// The files of these contents, which nothing referred to, are gone. One that something refers to again stays.
    ContentsGone(Vec<ContentDigest>),
    /// What is remembered of the file of a watched folder under this path; `None`: nothing any more.
    Watched(String, Option<WatchedFile>),
    /// What runs of the function of this name; `None`: nothing any more.
    Deployment(String, Option<Deployment>),
}

/// A range of a queue that is lost, for good and known to be. There is never more than one row of these for each row
/// that was lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// The life of the store that numbered them; 0: it could not be read.
    pub epoch: StoreEpoch,
    /// Which queue.
    pub queue: Queue,
    /// The first number.
    pub first: u64,
    /// The last; `None`: nobody knows how many there were.
    pub last: Option<u64>,
    /// What is wrong with them, for a person.
    pub reason: String,
}

/// What came of giving an event to a function.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The function.
    pub function: FunctionId,
    /// Its name.
    pub function_name: Arc<str>,
    /// The partition whose state it saw.
    pub partition: Arc<str>,
    /// The source, and the bytes of [`agent_core::dedup::Seen`] that now hold for it within function and partition.
    /// `None` if the event has no identity.
    pub seen: Option<(Arc<str>, Vec<u8>)>,
    /// What is used up with it.
    pub uses: Uses,
    /// The event.
    pub event: Event,
    /// When the function ran.
    pub stamp: Stamp,
    /// What its runs for this event used; nothing if it did not run. Counted if the outcome changes anything.
    pub usage: Counts,
    /// What came of it.
    pub result: OutcomeResult,
    /// What becomes of blobs, in order, if the result is [`OutcomeResult::Effects`]: in the place of such effects.
    pub blobs: Vec<BlobWrite>,
}

/// What becomes of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobWrite {
    /// A name gets a content. If it has this one already, no event comes of it.
    Put {
        /// Bucket and name.
        name: String,
        /// What it names. The content's file is on the disk, and stays until this is written.
        blob: Blob,
        /// The functions that the event is for: each gets it as a message.
        wanted: Vec<Arc<str>>,
    },
    /// A name is taken away; one that is not there is no error.
    Delete {
        /// Bucket and name.
        name: String,
    },
}

/// What is used up with an outcome, in its transaction: so that what led to the event leads to no other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Uses {
    /// Nothing: the event came from outside.
    #[default]
    Nothing,
    /// The message that the event was. If it is not there, the outcome changes nothing: the message was handled before.
    Message(u64),
    /// Moments of a schedule. If they were served before, the outcome changes nothing.
    Moment(Scheduled),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub enum OutcomeResult {
    /// The effects of a run that succeeded.
    Effects(Effects),
    /// The event goes to the dead letters.
    Dead(Dead),
    /// The event waits as a message to be given to the function once more.
    Retry {
        /// Not before this time by the wall clock, microseconds since 1970-01-01 UTC.
        due_us: u64,
        /// How often it was given to the function so far.
        attempts: u32,
    },
    /// The event is a duplicate: nothing is written, not even [`Outcome::seen`].
    Nothing,
}

/// Why an event went to the dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead {
    /// Version of the function, as in its manifest.
    pub version: String,
    /// SHA-256 of the function's file.
    pub digest: [u8; 32],
    /// What sort of cause.
    pub kind: DeadKind,
    /// The cause, for a person, in one line: names the function and what failed.
    pub reason: String,
    /// More of it; may be empty.
    pub detail: String,
    /// The run that ended so, if there was one.
    pub run: Option<Box<FailedRun>>,
}

/// What is known of a run that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedRun {
    /// Units of fuel that it took.
    pub fuel: u64,
    /// Bytes of memory that it had.
    pub memory_bytes: u64,
    /// The functions that were open, a line for each, the innermost first; a line in parentheses is a remark.
    pub backtrace: Vec<String>,
    /// What makes the run again: bytes of a recording, in which the event's payload is left out, for the letter has it.
    /// Nothing in here reads it. Empty if there is none.
    #[serde(with = "serde_bytes")]
    pub recording: Vec<u8>,
}

/// What sort of cause brought an event to the dead letters. The order is that of the stored numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DeadKind {
    /// The function said that it failed.
    Failed,
    /// The run was ended: a trap, or a limit.
    Trapped,
    /// No function ran, for the event is from further back than is remembered, and may have been handled.
    TooOld,
    /// No function was given the event, for it is not what it claims to be.
    Refused,
}

impl DeadKind {
    /// Its name, in snake_case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Trapped => "trapped",
            Self::TooOld => "too_old",
            Self::Refused => "refused",
        }
    }
}

/// An event in the dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Grows, and is never given twice.
    pub id: u64,
    /// Name of the function.
    pub function: String,
    /// The event.
    pub event: Event,
    /// When it came here.
    pub stamp: Stamp,
    /// Why.
    pub dead: Dead,
}

/// A message to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// From 1, without gaps, in the order of the commits; never given twice in the life of a store epoch.
    pub id: u64,
    /// Who sent the event that it came from.
    pub device: Arc<str>,
    /// The topic.
    pub topic: Arc<str>,
    /// Any bytes.
    pub payload: Payload,
    /// Quality of service and retain.
    pub flags: PublishFlags,
}

/// What runs of a function, and what ran before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// The latest deployment that was tried, whatever came of it; 0: the gateway's own configuration.
    pub deployment: u64,
    /// What came of it.
    pub status: FunctionStatus,
    /// The cause, for a person, where there is one; else empty.
    pub detail: String,
    /// What runs.
    pub current: Option<Installed>,
    /// What to go back to.
    pub previous: Option<Installed>,
    /// SHA-256 of the file that was tried last, if it was not taken or failed its trial.
    pub refused: Option<[u8; 32]>,
}

/// A function as it was installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// The deployment that brought it.
    pub deployment: u64,
    /// SHA-256 of its file.
    pub digest: [u8; 32],
    /// Its version, as in its manifest; for people.
    pub version: String,
    /// Configuration that differs from the manifest's defaults: (key, value).
    pub config: Vec<(String, String)>,
}
