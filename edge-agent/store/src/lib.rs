//! The gateway's store: SQLite and nothing else.
//!
//! One [`Store`] writes, on one thread; any number of [`Reader`]s read beside it, each with a connection of its own. No
//! clock, no network, no other thread: what is to be stored comes in, and [`Committed`] says what there is to do.
//!
//! # What is on the disk
//!
//! `lock` is locked by the one process that writes. `store.db` is an SQLite database in WAL mode, written with
//! `synchronous=FULL`, so that a commit that came back is on the disk:
//!
//! | table | row | key |
//! |---|---|---|
//! | `meta` | a number: the epoch, the marks of the queues, the count of the dead letters | name |
//! | `functions` | the small number that stands for a function's name, never given twice | number |
//! | `state` | a value that a function stored | function, partition, key |
//! | `seen` | which events of a source were handled | function, partition, source |
//! | `outbox_normal`, `outbox_high` | a record for the control plane, a table for each class | sequence |
//! | `publishes` | an MQTT message to be published | id |
//! | `dead_letters` | an event that could not be handled | id |
//! | `deployments` | what runs of a function | function's name |
//!
//! # Invariants
//!
//! - **All or nothing.** A [`Store::commit`] is one transaction.
//! - **The three queues have no gaps.** `outbox_normal`, `outbox_high` and `publishes` count from 1, each number is
//!   given once in the life of an epoch, and rows leave only from the low end, when their mark in `meta` has passed
//!   them. The next number follows from the highest row and the mark, whichever is higher, so it outlives an empty
//!   table. A number that is missing above the mark is damage.
//! - **The mark counts, not the rows.** What lies at or below a mark is never handed out again, even if its row is
//!   still there: rows are deleted a bounded number for each commit.
//! - **A flipped bit is seen.** SQLite does not notice one inside a value. Every value has a CRC-32 (IEEE) beside it, for
//!   everything but the queues and the dead letters over the key as well, that is verified whenever the row is read. A
//!   row that fails is an error which names it; it is never skipped. Names in `functions` are compared with their index
//!   on opening.
//! - **Values carry a version** in their first byte where they are more than bytes: records that of the sync protocol,
//!   whose encoding they have, all others that of this crate.
//! - **No number of rows is ever counted by a scan**, and opening reads the ends of the queues only: a backlog of
//!   millions costs nothing until it is drained.

mod error;
mod queue;
mod reader;
mod rows;
mod schema;
mod store;
mod write;

pub use agent_core::FunctionId;
pub use error::{Damage, ErrorKind, StoreError};
pub use reader::{MAX_READ_BYTES, Outbox, Range, Reader, Waiting};
pub use store::{Committed, Store, TRIM_BYTES, TRIM_ROWS};
pub use write::{
    Dead, DeadKind, DeadLetter, Deployment, Installed, MAX_RECORD_BYTES, Outcome, OutcomeResult, Publish, Write,
};
