//! Runs as they can be made again anywhere, bit for bit.
//!
//! All that a run reads comes through the host: its event, its configuration, its seed, and what it asks through
//! [`Reads`]. A [`Recorder`] notes questions and answers; with the rest they are a [`Recorded`] run. A [`Player`] makes
//! runs again, with the version that was recorded or with any other, and answers them from the recording. Recordings lie
//! in files: [`mod@file`].
//!
//! **Who adds a method to [`Reads`]** adds a [`Question`], a line to the recorder and one to the player. Secrets do not come
//! that way, so that no recording holds one: whoever replays gives the functions secrets of his own.

pub mod file;
mod known;
mod play;

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_core::{Effects, Event};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::function::{Function, LogLine, Outcome, Run};
use crate::reads::{ReadError, Reads};
pub use play::{Different, NotRecorded, Played, Player};

/// One frame of a recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frame {
    /// Which version the runs from here on are of; the first frame is one.
    Version(Recorded),
    /// A run.
    Run(Box<RecordedRun>),
    /// Runs are missing here, so that the state is unknown from here on.
    Gap {
        /// How many, as far as that is known.
        runs: u64,
        /// Why, for a person.
        why: String,
    },
    /// It ends here, and was not cut.
    End {
        /// Why, for a person.
        why: String,
    },
}

/// A version of a function whose runs are recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of its file.
    pub digest: [u8; 32],
    /// The configuration that a deployment set over its manifest.
    pub config: BTreeMap<String, String>,
}

/// A run with all that went in and all that came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedRun {
    /// Within which state.
    pub partition: String,
    /// What it was given.
    pub event: Event,
    /// Where its random numbers begin.
    pub seed: u64,
    /// What it asked, and what was answered.
    pub reads: Answers,
    /// Whether all answers are there; there is a bound on their bytes.
    pub complete: bool,
    /// What came out.
    pub result: RunResult,
}

/// What came out of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunResult {
    /// How it ended.
    pub ended: Ended,
    /// What it logged.
    pub logs: Vec<RecordedLine>,
    /// Log lines that were dropped or cut.
    pub logs_dropped: u64,
    /// Units of fuel.
    pub fuel: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
}

/// A line that a run logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedLine {
    /// The number of its [`LogLevel`](function_abi::LogLevel).
    pub level: i32,
    /// The text.
    pub text: String,
    /// Names with values.
    pub fields: Vec<(String, String)>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    /// With these effects.
    Done(Effects),
    /// It trapped.
    Trapped {
        /// The name of its [`TrapKind`](crate::TrapKind).
        kind: String,
        /// For a person, without the function's name and version, with which a [`Trap`](crate::Trap) begins.
        message: String,
    },
}

impl RunResult {
    /// What came out of a run of this function; `None` if the store failed, so that nothing did.
    pub fn of(function: &Function, run: &Run) -> Option<Self> {
        let ended = match &run.outcome {
            Outcome::Done(effects) => Ended::Done(effects.clone()),
            Outcome::Failed(trap) => Ended::Trapped {
                kind: trap.kind.name().to_owned(),
                message: function.without_name(&trap.message).to_owned(),
            },
            Outcome::Abandoned(_) => return None,
        };
        let recorded = |line: &LogLine| {
            let LogLine { level, text, fields } = line.clone();
            RecordedLine { level: level as i32, text, fields }
        };
        let logs = run.logs.iter().map(recorded).collect();
        let memory_bytes = run.memory_bytes as u64;
        Some(Self { ended, logs, logs_dropped: run.logs_dropped, fuel: run.fuel, memory_bytes })
    }
}

/// What a run may ask.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Question {
    /// [`Reads::state`].
    State(#[serde(with = "serde_bytes")] Vec<u8>),
    /// [`Reads::next_key`].
    NextKey {
        /// What it begins with.
        #[serde(with = "serde_bytes")]
        prefix: Vec<u8>,
        /// What it comes after.
        #[serde(with = "serde_bytes")]
        after: Vec<u8>,
    },
    /// [`Reads::state_bytes`].
    StateBytes,
    /// [`Reads::blob_size`].
    BlobSize(String),
    /// [`Reads::blob_piece`].
    BlobPiece {
        /// Which blob.
        name: String,
        /// From which byte on.
        offset: u64,
        /// How many at most.
        len: u64,
    },
}

/// Answers by their questions: the same question has the same answer throughout a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers(BTreeMap<Question, ByteBuf>);

/// Bytes that a question and its answer take beside what is in them, about.
const AROUND_AN_ANSWER: usize = 64;

impl Answers {
    fn put(&mut self, question: Question, answer: &impl Serialize) -> usize {
        let answer = postcard::to_allocvec(answer).expect("answers are bytes and numbers, and a Vec takes any of them");
        let bytes = question.bytes() + answer.len() + AROUND_AN_ANSWER;
        self.0.insert(question, ByteBuf::from(answer));
        bytes
    }

    fn get<A: DeserializeOwned>(&self, question: &Question) -> Option<A> {
        postcard::from_bytes(self.0.get(question)?).ok()
    }

    /// All questions.
    fn questions(&self) -> impl Iterator<Item = &Question> {
        self.0.keys()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Question {
    fn bytes(&self) -> usize {
        match self {
            Self::State(key) => key.len(),
            Self::NextKey { prefix, after } => prefix.len() + after.len(),
            Self::StateBytes => 0,
            Self::BlobSize(name) | Self::BlobPiece { name, .. } => name.len(),
        }
    }
}

/// Notes what a run asks and is answered.
pub struct Recorder<'a> {
    reads: &'a mut dyn Reads,
    answers: Answers,
    left: usize,
    complete: bool,
}

impl<'a> Recorder<'a> {
    /// One that asks `reads`, and keeps at most so many bytes of questions and answers.
    pub fn new(reads: &'a mut dyn Reads, most_bytes: usize) -> Self {
        Self { reads, answers: Answers::default(), left: most_bytes, complete: true }
    }

    /// What was noted, and whether that is all.
    pub fn finish(self) -> (Answers, bool) {
        (self.answers, self.complete)
    }

    fn note(&mut self, question: Question, answer_bytes: usize, answer: &impl Serialize) {
        if self.answers.0.contains_key(&question) {
            return;
        }
        if question.bytes() + answer_bytes + AROUND_AN_ANSWER > self.left {
            self.complete = false;
            return;
        }
        self.left = self.left.saturating_sub(self.answers.put(question, answer));
    }
}

impl Reads for Recorder<'_> {
    fn state(&mut self, key: &[u8]) -> Result<Option<Arc<[u8]>>, ReadError> {
        let value = self.reads.state(key)?;
        let answer = value.as_deref().map(serde_bytes::Bytes::new);
        self.note(Question::State(key.to_vec()), answer.map_or(0, |answer| answer.len()), &answer);
        Ok(value)
    }

    fn next_key(&mut self, prefix: &[u8], after: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        let found = self.reads.next_key(prefix, after)?;
        let answer = found.as_deref().map(serde_bytes::Bytes::new);
        let question = Question::NextKey { prefix: prefix.to_vec(), after: after.to_vec() };
        self.note(question, answer.map_or(0, |answer| answer.len()), &answer);
        Ok(found)
    }

    fn state_bytes(&mut self) -> Result<u64, ReadError> {
        let bytes = self.reads.state_bytes()?;
        self.note(Question::StateBytes, size_of::<u64>(), &bytes);
        Ok(bytes)
    }

    fn blob_size(&mut self, name: &str) -> Result<Option<u64>, ReadError> {
        let size = self.reads.blob_size(name)?;
        self.note(Question::BlobSize(name.to_owned()), size_of::<u64>(), &size);
        Ok(size)
    }

    fn blob_piece(&mut self, name: &str, offset: u64, len: usize) -> Result<Option<Vec<u8>>, ReadError> {
        let piece = self.reads.blob_piece(name, offset, len)?;
        let answer = piece.as_deref().map(serde_bytes::Bytes::new);
        let question = Question::BlobPiece { name: name.to_owned(), offset, len: len as u64 };
        self.note(question, answer.map_or(0, |answer| answer.len()), &answer);
        Ok(piece)
    }

    // Nothing that a run could see.
    fn pause(&mut self, fuel: u64) {
        self.reads.pause(fuel);
    }
}

impl std::fmt::Debug for Recorder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder")
            .field("answers", &self.answers)
            .field("complete", &self.complete)
            .finish_non_exhaustive()
    }
}
