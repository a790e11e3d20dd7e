//! The gateway's store: SQLite and nothing else.
//!
//! One [`Store`] writes, on one thread; any number of [`Reader`]s read beside it, each with a connection of its own. No
//! clock, no network, no other thread: what is to be stored comes in, and [`Committed`] says what there is to do.
//!
//! # What is on the disk
//!
//! `lock` is locked by the one process that writes, and says how far the store had come. `store.db` is an SQLite database in WAL mode, written with
//! `synchronous=FULL`, so that a commit that came back is on the disk:
//!
//! | table | row | key |
//! |---|---|---|
//! | `meta` | a number: the epoch, the marks of the queues, the count of the dead letters, the last command that was done | name |
//! | `functions` | the small number that stands for a function's name, never given twice, and how much state it has | number |
//! | `state` | a value that a function stored, and when it ends | function, partition, key |
//! | `seen` | which events of a source were handled | function, partition, source |
//! | `outbox_normal`, `outbox_high` | a record for the control plane, or a run of sequences of which nothing is left to send; a table for each class | sequence, of a run the first |
//! | `streams` | how much of each stream these hold | number |
//! | `boots` | how long the system was up before and in each of its starts | number of the boot |
//! | `publishes` | an MQTT message to be published | id |
//! | `dead_letters` | an event that could not be handled | id |
//! | `deployments` | what runs of a function | function's name |
//! | `missing` | a range of a queue that is lost for good | number |
//! | `messages` | an event that waits to be given to a function | id |
//! | `usage` | what the runs of a commit, or of many, used and measured | number |
//! | `schedules` | up to which moment a schedule was served | function, schedule |
//! | `blobs` | which content has a name, with its type | bucket and name |
//! | `contents` | the length of a content, and whether anything refers to it; the content is a file elsewhere | digest |
//! | `watched` | a file of a watched folder, as it was when it was stored | path |
//!
//! Each class of records keeps its gapless sequence until the control plane knows of every one of them. A record that is
//! given up, or cannot be read, leaves its sequence behind in a run that says how many there were of which stream and why; a
//! record that was delivered before others that still wait leaves its sequence in a run that is settled.
//!
//! What a device is said to be becomes a record of the stream `@twin`. Each dead letter is told of by two records of the stream `@dead`, in the transactions that store and that end it.
//!
//! What functions used and measured is added up in `usage` until records of the stream `@usage` take the place of its rows.
//!
//! `condemned` is there while a damaged store is being replaced, `quarantine-N` holds the files of one that was.
//!
//! # When it is damaged
//!
//! [`Store::open`] refuses a store whose head, small tables or ends of queues are damaged, and one that is behind what
//! `lock` says of it: that lost commits, which SQLite does not notice. Damage in the middle is found when it is read.
//! [`Store::open_or_recover`] moves the files aside, makes a fresh store with a new, higher epoch, and carries over every
//! row that is whole. What waits keeps its order and its content (also the identity of the event it came from), and gets
//! new numbers. What is lost is in `missing`, with the numbers and the epoch it had.
//!
//! What this cannot do: a record that was delivered is carried over again if the mark that says so is lost with the
//! database and `lock` does not have it either, and then the control plane holds it twice, under two epochs. A publish is
//! handed over once more in the same case, and the gateway's own events that come of publishes have the epoch in their
//! identity, so a function may handle them a second time. Where a source's handled events are lost, a retry of them has
//! its effects again. A value of state that is lost is gone, and the function finds none. Commits that touched no queue
//! (state alone, dead letters, deployments, usage) leave no trace in `lock`, so that losing just these goes unnoticed; so does
//! the loss of the last commits when a power cut took the newest note in `lock` along, which is not synced.
//!
//! # Invariants
//!
//! - **All or nothing.** A [`Store::commit`] is one transaction.
//! - **The three queues have no gaps.** `outbox_normal`, `outbox_high` and `publishes` count from 1, each number is
//!   given once in the life of an epoch, and is covered by a row until the mark of its queue in `meta` has passed it.
//!   The next number follows from the highest row and the mark, whichever is higher, so it outlives an empty
//!   table. A number that no row covers above the mark is damage.
//! - **The mark counts, not the rows.** What lies at or below a mark is never handed out again, even if its row is
//!   still there: rows are deleted a bounded number for each commit.
//! - **A flipped bit is seen.** SQLite does not notice one inside a value. Every value has a CRC-32 (IEEE) beside it, for
//!   everything but single items of the queues, the dead letters, `missing` and `usage` over the key as well, that is verified whenever the row
//!   is read. A row that fails is an error which names it; it is never skipped unless [`Write::Lost`] says so, which
//!   leaves a row in `missing`. Names in `functions` are compared with their index
//!   on opening.
//! - **Values carry a version** in their first byte where they are more than bytes: records that of the sync protocol,
//!   whose encoding they have, all others that of this crate.
//! - **No number of rows is ever counted by a scan**, and opening reads the ends of the queues only: a backlog of
//!   millions costs nothing until it is drained.

mod blobs;
mod boots;
mod error;
mod functions;
mod group;
mod letters;
mod messages;
mod queue;
mod reader;
mod recover;
mod rows;
mod scan;
mod schedules;
mod schema;
mod store;
mod streams;
mod survey;
mod tiles;
mod usage;
mod witness;
mod write;

pub use agent_core::FunctionId;
pub use agent_core::uplink::Waiting;
pub use blobs::{Blob, ContentDigest, WatchedFile};
pub use boots::{Boot, MAX_BOOTS};
pub use error::{Damage, ErrorKind, StoreError};
pub use functions::FunctionUsage;
pub use messages::{Message, request_queue, retry_queue};
pub use queue::Queue;
pub use reader::{Head, Heads, MAX_READ_BYTES, Outbox, Reader, Untold};
pub use recover::{Recovery, salvage_copy};
pub use schedules::Scheduled;
pub use store::{Committed, EXPIRE_ROWS, Store, TRIM_BYTES, TRIM_ROWS};
pub use streams::{MAX_STREAMS, StreamUsage};
pub use survey::{FunctionSurvey, Item, QueueSurvey, Survey, inspect};
pub use usage::{MAX_APART, Sums};
pub use write::{
    BlobWrite, Dead, DeadKind, DeadLetter, Deployment, FailedRun, Installed, MAX_RECORD_BYTES, Missing, Outcome,
    OutcomeResult, Publish, Uses, Write,
};
