//! What can go wrong, and what to do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{ErrorCode, ffi};
use sync_protocol::records::Class;

use crate::queue::Queue;

/// A store operation that failed: nothing of it took place. Says what was being done, where, why it failed and what to
/// do; [`kind`](Self::kind) is for decisions.
#[derive(Debug, thiserror::Error)]
#[error("cannot {} the store {:?}{}: {}; {}", .0.operation, .0.path, At(.0.write), .0.cause, .0.cause.kind().advice())]
pub struct StoreError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    operation: &'static str,
    path: PathBuf,
    write: Option<usize>,
    cause: Cause,
}

struct At(Option<usize>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |index| write!(f, " (at write {index} of the group, from 0)"))
    }
}

/// What sort of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No room on the disk. The store is as it was, and goes on when there is room again.
    Full,
    /// The disk or the file system refused to read, write or sync. What was to be written is not to be relied on.
    Io,
    /// The store is damaged; [`StoreError::damage`] says where, if it is a row.
    Corrupt,
    /// Somebody else holds the store.
    Busy,
    /// A later version of the agent wrote the store.
    Newer,
    /// What was asked for cannot be, or SQLite failed in another way.
    Other,
}

impl ErrorKind {
    fn advice(self) -> &'static str {
        match self {
            Self::Full => "free some room on the disk, the store then goes on by itself",
            Self::Io => "look for the disk's errors in the system's log, and replace the disk if they come again",
            Self::Corrupt => {
                "see what is left with `edge-agent doctor`; what is whole is carried over into a fresh store when the agent starts"
            }
            Self::Busy => "stop the other process, or give this agent a directory of its own",
            Self::Newer => "run the agent that wrote it, or a later one",
            Self::Other => "nothing was changed",
        }
    }
}

/// Which row is damaged or missing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// A record of the outbox.
    #[error("record {sequence} of class {class:?} is damaged: {what}")]
    Record {
        /// Its class.
        class: Class,
        /// Its sequence.
        sequence: u64,
        /// What is wrong with it.
        what: String,
    },
    /// Records of the outbox that should be there.
    #[error("records {first} to {last} of class {class:?} are missing")]
    MissingRecords {
        /// Their class.
        class: Class,
        /// The first sequence that is missing.
        first: u64,
        /// The last.
        last: u64,
    },
    /// What is kept of records that do not exist any more, or that the control plane has.
    #[error("what became of the records {first} to {last} of class {class:?} is damaged: {what}")]
    Run {
        /// Their class.
        class: Class,
        /// The first sequence.
        first: u64,
        /// The last.
        last: u64,
        /// What is wrong with it.
        what: String,
    },
    /// A message to be published.
    #[error("publish {id} is damaged: {what}")]
    Publish {
        /// Its id.
        id: u64,
        /// What is wrong with it.
        what: String,
    },
    /// Messages to be published that should be there.
    #[error("publishes {first} to {last} are missing")]
    MissingPublishes {
        /// The first id that is missing.
        first: u64,
        /// The last.
        last: u64,
    },
    /// A value of a function's state.
    #[error("the state of function {function} in partition {partition:?} under the key {key:02x?} is damaged: {what}")]
    State {
        /// The number of the function.
        function: u32,
        /// The partition.
        partition: String,
        /// The key.
        key: Vec<u8>,
        /// What is wrong with it.
        what: String,
    },
    /// A deduplication row.
    #[error(
        "the handled events of source {of:?} for function {function} in partition {partition:?} are damaged: {what}"
    )]
    Seen {
        /// The number of the function.
        function: u32,
        /// The partition.
        partition: String,
        /// The source.
        of: String,
        /// What is wrong with it.
        what: String,
    },
    /// A dead letter.
    #[error("dead letter {id} is damaged: {what}")]
    DeadLetter {
        /// Its id.
        id: u64,
        /// What is wrong with it.
        what: String,
    },
    /// A message.
    #[error("message {id} is damaged: {what}")]
    Message {
        /// Its id.
        id: u64,
        /// What is wrong with it.
        what: String,
    },
    /// A blob.
    #[error("the blob {name:?} is damaged: {what}")]
    Blob {
        /// Its name.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// What runs of a function.
    #[error("the deployment of function {function:?} is damaged: {what}")]
    Deployment {
        /// The function's name.
        function: String,
        /// What is wrong with it.
        what: String,
    },
    /// A table or a row without which there is no store.
    #[error("the database is damaged: {0}")]
    Database(String),
}

/// Why an operation failed, before it is said which one it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cause {
    #[error("{}", sqlite_text(.0))]
    Sqlite(#[from] rusqlite::Error),
    #[error("{0}")]
    Damage(#[from] Damage),
    #[error("{what}: {error}")]
    File { what: &'static str, error: io::Error },
    #[error("another process has locked the file \"lock\" beside it")]
    Locked,
    #[error("it is of version {found}, and this agent knows versions up to {known}")]
    Newer { found: i64, known: i64 },
    #[error("it is a database of another program (application id {0:#x})")]
    Foreign(i64),
    #[error("the disk's file system does not allow write-ahead logging (SQLite stays in mode {0:?}): use a local one")]
    NoWal(String),
    #[error("{queue} up to {up_to} were reported as done, but the last one is {last}")]
    Ahead { queue: Queue, up_to: u64, last: u64 },
    #[error(
        "the record of function {function:?} for stream {stream:?} takes {bytes} bytes, and more than \
         {max} cannot be delivered",
        max = crate::MAX_RECORD_BYTES
    )]
    TooLarge { function: String, stream: String, bytes: usize },
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

impl Cause {
    pub(crate) fn in_operation(self, operation: &'static str, path: &Path) -> StoreError {
        StoreError(Box::new(Inner { operation, path: path.to_owned(), write: None, cause: self }))
    }

    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            // What SQLite says when the index of its log finds no room; the disk itself is well.
            Self::Sqlite(error) if extended_code(error) == Some(ffi::SQLITE_IOERR_SHMSIZE) => ErrorKind::Full,
            Self::Sqlite(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => ErrorKind::Full,
                Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => ErrorKind::Io,
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => ErrorKind::Corrupt,
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => ErrorKind::Busy,
                _ => ErrorKind::Other,
            },
            Self::File { error, .. } if error.kind() == io::ErrorKind::StorageFull => ErrorKind::Full,
            Self::File { .. } => ErrorKind::Io,
            Self::Damage(_) => ErrorKind::Corrupt,
            Self::Locked => ErrorKind::Busy,
            Self::Newer { .. } => ErrorKind::Newer,
            Self::Foreign(_) | Self::NoWal(_) | Self::Ahead { .. } | Self::TooLarge { .. } | Self::Random(_) => {
                ErrorKind::Other
            }
        }
    }
}

impl StoreError {
    pub(crate) fn at_write(mut self, index: Option<usize>) -> Self {
        self.0.write = index;
        self
    }

    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.cause.kind()
    }

    /// Which row is damaged, if it is that.
    pub fn damage(&self) -> Option<&Damage> {
        match &self.0.cause {
            Cause::Damage(damage) => Some(damage),
            _ => None,
        }
    }

    /// Which of the writes given to [`Store::commit`](crate::Store::commit) failed, counted from 0; `None` if it was
    /// not one of them but the transaction as a whole, or another operation.
    pub fn write(&self) -> Option<usize> {
        self.0.write
    }
}

fn sqlite_text(error: &rusqlite::Error) -> String {
    match extended_code(error) {
        Some(code) => format!("{error} (SQLite {code})"),
        None => error.to_string(),
    }
}

fn extended_code(error: &rusqlite::Error) -> Option<i32> {
    error.sqlite_error().map(|failure| failure.extended_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_sqlite_are_sorted_by_what_can_be_done() {
        for (code, kind) in [
            (ffi::SQLITE_FULL, ErrorKind::Full),
            (ffi::SQLITE_IOERR_SHMSIZE, ErrorKind::Full),
            (ffi::SQLITE_IOERR_FSYNC, ErrorKind::Io),
            (ffi::SQLITE_CANTOPEN, ErrorKind::Io),
            (ffi::SQLITE_CORRUPT, ErrorKind::Corrupt),
            (ffi::SQLITE_NOTADB, ErrorKind::Corrupt),
            (ffi::SQLITE_BUSY_RECOVERY, ErrorKind::Busy),
            (ffi::SQLITE_READONLY, ErrorKind::Other),
        ] {
            let cause = Cause::Sqlite(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
            let error = cause.in_operation("commit to", Path::new("/var/lib/edge/store.db"));
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(&format!("(SQLite {code})")), "{error}");
            assert!(error.to_string().contains("cannot commit to the store \"/var/lib/edge/store.db\""), "{error}");
        }
    }
}
