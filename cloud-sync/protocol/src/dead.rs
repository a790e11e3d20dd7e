//! Dead letters, as a gateway tells the control plane of them.
//!
//! Each tells of itself by records of the stream [`STREAM`], whose bodies are [`Note`]s in JSON: one when it comes to
//! be, in the transaction that stores it on the gateway, and one when it ends, in the transaction that ends it. So both
//! are delivered once, outlive the gateway, and fall under its retention policies as every record does.

use serde::{Deserialize, Serialize};

use crate::records::StoreEpoch;

/// The stream. No function can name it: names that begin with `@` are the gateway's own.
pub const STREAM: &str = "@dead";

/// The function under whose name a gateway keeps what never reached a function, so that there is none to retry it.
pub const INLET: &str = "@inlet";

/// Most bytes of an event's payload that a note holds: what most events have, and little enough that a note is always
/// deliverable (see `a_note_is_never_too_large` in the gateway's store).
pub const MAX_PAYLOAD_BYTES: usize = 256 << 10;

/// Most bytes of the recording of a run that a note holds; in hexadecimal digits they are twice as many.
pub const MAX_RECORDING_BYTES: usize = 96 << 10;

/// Most letters of one command: the gateway moves the events of all of them in one transaction.
pub const MAX_LETTERS: usize = 100;

/// Most commands of one answer.
pub const MAX_COMMANDS: usize = 16;

/// Something happened to a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The life of the store that numbered the letter, 16 hexadecimal digits. That of the record is another one, if the
    /// store was recovered meanwhile.
    pub epoch: String,
    /// The letter's number.
    pub letter: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

impl Note {
    /// A note.
    pub fn new(epoch: StoreEpoch, letter: u64, what: What) -> Self {
        Self { epoch: format!("{:016x}", epoch.0), letter, what }
    }

    /// The life of the store, if what stands there is one.
    pub fn epoch(&self) -> Option<StoreEpoch> {
        u64::from_str_radix(&self.epoch, 16).ok().map(StoreEpoch)
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It came to be.
    Dead(Box<Letter>),
    /// It is no more.
    Resolved(Resolved),
}

/// What became of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolved {
    /// Its event was given to the function once more.
    Retried,
    /// It was deleted.
    Dropped,
    /// The gateway's disk lost it.
    Damaged,
    /// The store was recovered, and it goes on under another number.
    Moved,
    /// It was to be retried or dropped and was not there: that was done before, or it was lost with a store.
    Gone,
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// Name of the function, or [`INLET`].
    pub function: String,
    /// Its version; empty if none was given the event.
    pub version: String,
    /// SHA-256 of its file in hexadecimal digits; empty if none was given the event.
    pub digest: String,
    /// What sort of cause: `failed`, `trapped`, `too_old` or `refused`.
    pub kind: String,
    /// The cause, for a person.
    pub reason: String,
    /// More of it; may be empty.
    pub detail: String,
    /// The run that ended so, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<LetterRun>,
    /// The event.
    pub event: LetterEvent,
}

/// What is known of a run that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterRun {
    /// Units of fuel that it took.
    pub fuel: u64,
    /// Bytes of memory that it had.
    pub memory_bytes: u64,
    /// The functions that were open, a line for each, the innermost first; a line in parentheses is a remark.
    pub backtrace: Vec<String>,
    /// What makes the run again, in hexadecimal digits: a recording in the format of the gateway's functions, in which the
    /// event's payload is left out, for the letter has it. Empty if there is none.
    pub recording: String,
}

/// The event of a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterEvent {
    /// What led to it, such as `mqtt`.
    pub kind: String,
    /// Who sent it.
    pub device: String,
    /// Its topic.
    pub topic: String,
    /// Its identity, if it had one.
    pub identity: Option<LetterIdentity>,
    /// When it was received, by the gateway's wall clock, microseconds since 1970-01-01 UTC.
    pub time_us: u64,
    /// What is known of it beside: (name, value).
    pub attributes: Vec<(String, String)>,
    /// Its payload.
    pub payload: Payload,
    /// How many bytes the whole payload has.
    pub payload_bytes: u64,
    /// Whether anything of this event was cut, the payload or one of the texts. A retry gives the function all of it.
    pub cut: bool,
}

/// Identity of an event. Numbers are text, for many readers of JSON keep 53 bits of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterIdentity {
    /// Who counts.
    pub source: String,
    /// The boot epoch.
    pub boot_epoch: String,
    /// The sequence.
    pub sequence: String,
}

/// A payload: text if it is some, otherwise hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// UTF-8 without control characters other than white space.
    Text(String),
    /// Anything else.
    Hex(String),
}

impl Payload {
    /// Bytes, as text if they are some.
    pub fn of(bytes: &[u8]) -> Self {
        match str::from_utf8(bytes) {
            Ok(text) if !text.chars().any(|one| one.is_control() && !matches!(one, '\n' | '\r' | '\t')) => {
                Self::Text(text.to_owned())
            }
            _ => Self::Hex(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
        }
    }
}

/// What a gateway is to do with dead letters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Grows, and is never given twice to a gateway.
    pub number: u64,
    /// What to do.
    pub action: Action,
    /// The life of the store that numbered the letters. In another one they are gone.
    pub epoch: StoreEpoch,
    /// The letters; at most [`MAX_LETTERS`].
    pub letters: Vec<u64>,
}

/// What to do with a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Give its event to the function once more.
    Retry,
    /// Delete it.
    Drop,
}
