//! Makes recorded runs again.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use function_abi::BLOB_DIGEST;
use serde::de::DeserializeOwned;

use super::known::{Known, same_writes};
use super::{Answers, Ended, Question, RecordedRun, RunResult};
use crate::function::{Function, Outcome};
use crate::reads::{ReadError, Reads};

/// Makes the runs of a recording again with one version, in their order.
#[derive(Debug, Default)]
pub struct Player {
    backtraces: usize,
    partitions: BTreeMap<String, Known>,
}

/// What came of a run that was made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Played {
    /// What came out.
    pub result: RunResult,
    /// Of a trap: what [`Function::backtrace`] says, for the first ones that the player was told to look at.
    pub backtrace: Vec<String>,
}

/// Why a run cannot be made again: neither the recording nor what came before answers what it asks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not recorded: {}", shown(.0))]
pub struct NotRecorded(pub Question);

/// In what two results differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Different {
    /// Effects, or the trap.
    pub ended: bool,
    /// Log lines.
    pub logs: bool,
    /// Fuel.
    pub fuel: bool,
    /// Memory.
    pub memory: bool,
}

impl Player {
    /// One that makes backtraces of the first traps, at most so many.
    pub fn new(backtraces: usize) -> Self {
        Self { backtraces, partitions: BTreeMap::new() }
    }

    /// Makes a run again, with the recorded version or another.
    ///
    /// # Errors
    /// What the run asked, and nobody knows. The runs after it go on from the state that the recorded version left.
    pub fn play(&mut self, function: &Function, recorded: &RecordedRun) -> Result<Played, NotRecorded> {
        let known = self.partitions.entry(recorded.partition.clone()).or_default();
        known.learn(&recorded.reads);
        let mut reads = PlayerReads { answers: &recorded.reads, known, time_us: recorded.event.time_us, missing: None };
        let run = function.run(&recorded.event, &mut reads, recorded.seed);
        let missing = reads.missing.take();
        let mut backtrace = Vec::new();
        if let (Outcome::Failed(trap), Some(left)) = (&run.outcome, self.backtraces.checked_sub(1)) {
            backtrace = function.backtrace(&recorded.event, &mut reads, recorded.seed, trap);
            self.backtraces = left;
        }
        let theirs = recorded.result.effects();
        let result = match (RunResult::of(function, &run), missing) {
            (Some(result), None) => Ok(Played { result, backtrace }),
            // Only a question without an answer abandons a run here.
            (_, missing) => Err(NotRecorded(missing.unwrap_or(Question::State(Vec::new())))),
        };
        match &result {
            Ok(Played { result, .. }) => {
                let ours = result.effects();
                known.diverged |= !same_writes(ours, theirs);
                known.apply_own(ours, recorded.event.time_us);
                known.apply_recorded(theirs, recorded.event.time_us);
            }
            Err(_) => {
                known.apply_recorded(theirs, recorded.event.time_us);
                known.rejoin();
            }
        }
        result
    }

    /// Does what the recorded version did, and runs nothing.
    pub fn follow(&mut self, recorded: &RecordedRun) {
        self.partitions
            .entry(recorded.partition.clone())
            .or_default()
            .apply_own(recorded.result.effects(), recorded.event.time_us);
    }

    /// Runs are missing here: what the state is now, nobody knows.
    pub fn gap(&mut self) {
        self.partitions.clear();
    }

    /// What the version wrote since the beginning or the last gap and left: partition, key, and value; `None`: it deleted it.
    pub fn state(&self) -> impl Iterator<Item = (&str, &[u8], Option<&[u8]>)> {
        self.partitions.iter().flat_map(|(partition, known)| {
            known.own.iter().map(|(key, value)| {
                let value = value.as_ref().map(|value| &*value.bytes);
                (partition.as_str(), key.as_slice(), value)
            })
        })
    }
}

impl RunResult {
    /// In what another result differs.
    pub fn differs(&self, other: &Self) -> Different {
        Different {
            ended: self.ended != other.ended,
            logs: (&self.logs, self.logs_dropped) != (&other.logs, other.logs_dropped),
            fuel: self.fuel != other.fuel,
            memory: self.memory_bytes != other.memory_bytes,
        }
    }

    /// The effects; none of a trap.
    fn effects(&self) -> &[agent_core::Effect] {
        match &self.ended {
            Ended::Done(effects) => effects,
            Ended::Trapped { .. } => &[],
        }
    }
}

impl Different {
    /// Whether they differ at all.
    pub fn any(self) -> bool {
        self != Self::default()
    }
}

/// Answers from a recording.
struct PlayerReads<'a> {
    answers: &'a Answers,
    known: &'a Known,
    time_us: u64,
    missing: Option<Question>,
}

impl PlayerReads<'_> {
    fn answer<A: DeserializeOwned>(
        &mut self,
        question: Question,
        known: impl FnOnce(&Known, u64) -> Option<A>,
    ) -> Result<A, ReadError> {
        let answer = if self.known.diverged { None } else { self.answers.get(&question) };
        answer.or_else(|| known(self.known, self.time_us)).ok_or_else(|| {
            let missing = NotRecorded(question);
            self.missing = Some(missing.0.clone());
            ReadError(Box::new(missing))
        })
    }
}

impl PlayerReads<'_> {
    // A content is the same whatever a version did; what has a name it may have put there itself.
    fn blob<A: DeserializeOwned>(&mut self, name: &str, question: Question) -> Result<A, ReadError> {
        let fixed = if name.starts_with(BLOB_DIGEST) { self.answers.get(&question) } else { None };
        self.answer(question, |_, _| fixed)
    }
}

impl Reads for PlayerReads<'_> {
    fn state(&mut self, key: &[u8]) -> Result<Option<Arc<[u8]>>, ReadError> {
        let value: Option<Vec<u8>> =
            self.answer(Question::State(key.to_vec()), |known, time_us| known.value(key, time_us))?;
        Ok(value.map(Into::into))
    }

    fn next_key(&mut self, prefix: &[u8], after: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        let question = Question::NextKey { prefix: prefix.to_vec(), after: after.to_vec() };
        self.answer(question, |known, time_us| known.next(prefix, after, time_us))
    }

    fn state_bytes(&mut self) -> Result<u64, ReadError> {
        self.answer(Question::StateBytes, |known, _| Some(known.state_bytes()))
    }

    fn blob_size(&mut self, name: &str) -> Result<Option<u64>, ReadError> {
        self.blob(name, Question::BlobSize(name.to_owned()))
    }

    fn blob_piece(&mut self, name: &str, offset: u64, len: usize) -> Result<Option<Vec<u8>>, ReadError> {
        self.blob(name, Question::BlobPiece { name: name.to_owned(), offset, len: len as u64 })
    }
}

fn shown(question: &Question) -> impl fmt::Display {
    let text = |bytes: &[u8]| format!("{:?}", String::from_utf8_lossy(bytes));
    match question {
        Question::StateBytes => "how much state the function has".to_owned(),
        Question::State(key) => format!("the value of {}", text(key)),
        Question::BlobSize(name) => format!("the size of the blob {name:?}"),
        Question::BlobPiece { name, offset, len } => format!("{len} bytes of the blob {name:?} from {offset} on"),
        Question::NextKey { prefix, after } => {
            format!("the key behind {} of those that begin with {}", text(after), text(prefix))
        }
    }
}
