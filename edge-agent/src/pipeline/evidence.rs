//! What a dead letter keeps of the run that failed.
//!
//! A run that succeeds must not pay for one that fails, so nothing is noted the first time. A run that goes to the dead
//! letters is made once more, with the same seed and the same memory of its lane: that is the same calculation, and what
//! it reads is noted. Then once more on the copy of the module that tells of its calls, for the backtrace.

use agent_core::Event;
use agent_functions::Trap;
use agent_functions::record::{Ended, Frame, Recorded, RecordedRun, Recorder, RunResult, file};
use agent_functions::{Function, Outcome, Reads};
use agent_store::FailedRun;

use crate::limits;
use crate::plan::Version;

/// A run that failed.
pub struct Failed<'a> {
    /// What ran.
    pub version: &'a Version,
    /// Its module.
    pub function: &'a Function,
    /// Within which state.
    pub partition: &'a str,
    /// On what.
    pub event: &'a Event,
    /// Where its random numbers begin.
    pub seed: u64,
    /// How it ended.
    pub trap: &'a Trap,
    /// All that came out of it.
    pub result: RunResult,
}

/// All that there is to know of it; `reads` must answer as it did in the run.
pub fn gather(failed: Failed<'_>, reads: &mut dyn Reads) -> FailedRun {
    let Failed { version, function, partition, event, seed, trap, result } = failed;
    let (fuel, memory_bytes) = (result.fuel, result.memory_bytes);
    let mut recorder = Recorder::new(reads, limits::LETTER_READS_BYTES);
    let again = function.run(event, &mut recorder, seed);
    let (answers, complete) = recorder.finish();
    if RunResult::of(function, &again).as_ref() != Some(&result) {
        let ended = match again.outcome {
            Outcome::Done(_) => "did not fail".to_owned(),
            Outcome::Failed(trap) => format!("ended otherwise: {trap}"),
            Outcome::Abandoned(error) => format!("did not come to its end: {error}"),
        };
        let line = format!("(no backtrace and no recording: made once more, the run {ended})");
        return FailedRun { fuel, memory_bytes, backtrace: vec![line], recording: Vec::new() };
    }
    let mut backtrace = function.backtrace(event, reads, seed, trap);
    // The letter has the payload.
    let event = Event { payload: [].into(), ..event.clone() };
    let run = RecordedRun { partition: partition.to_owned(), event, seed, reads: answers, complete, result };
    let mut recording = file::HEADER.to_vec();
    let why = match &run.result.ended {
        Ended::Trapped { kind, .. } => format!("the run failed: {kind}"),
        Ended::Done(_) => String::new(),
    };
    let frames = [Frame::Version(recorded(version)), Frame::Run(Box::new(run)), Frame::End { why }];
    let whole = frames.iter().all(|frame| file::write(&mut recording, frame));
    if !whole || recording.len() > sync_protocol::dead::MAX_RECORDING_BYTES {
        backtrace.push("(no recording: the event's attributes and what it logged are too large)".to_owned());
        recording = Vec::new();
    } else if !complete {
        let most = limits::LETTER_READS_BYTES;
        backtrace.push(format!("(the recording lacks some of what it read: {most} bytes are kept)"));
    }
    FailedRun { fuel, memory_bytes, backtrace, recording }
}

/// A version, as a recording names it.
pub fn recorded(version: &Version) -> Recorded {
    Recorded {
        name: version.name.clone(),
        version: version.version.clone(),
        digest: *version.digest.as_bytes(),
        config: version.config.clone(),
    }
}
