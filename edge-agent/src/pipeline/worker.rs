//! A worker: runs functions, one event of one lane at a time. A run that is long pauses now and then, and whoever is to come
//! before it goes on is served meanwhile, on the same thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_core::backoff::retry_after_ms;
use agent_core::dedup::{BOOTS, Seen, Verdict as Known, WINDOW};
use agent_core::deploy::Attempt;
use agent_core::effect::LogLevel;
use agent_core::event::EventKind;
use agent_core::lanes::{LaneId, Memory, Turn};
use agent_core::state::expiry_us;
use agent_core::{Effect, Event, Identity, StateValue};
use agent_functions::record::{Answers, RecordedRun, Recorder, RunResult};
use agent_functions::{Function, LogLine, Outcome, ReadError, Reads, Trap, TrapKind};
use agent_store::{DeadKind, FunctionId, Reader, Uses};
use arc_swap::Guard;
use sync_protocol::usage::Counts;

use super::blobs::{Done, RunBlobs, store_blobs};
use super::evidence::{self, Failed};
use super::writer::{Abandoned, Ended, Finished, Letter};
use super::{Job, Pipeline};
use crate::limits;
use crate::plan::{Active, OnTrial, Slot};

/// Runs functions until the pipeline stops.
pub fn work(pipeline: &Pipeline, reader: Reader, seed: u64) {
    let mut worker = Worker { pipeline, reader, seed, paused: 0 };
    while let Some(turn) = pipeline.next() {
        worker.serve(turn);
    }
}

struct Worker<'a> {
    pipeline: &'a Pipeline,
    reader: Reader,
    seed: u64,
    // Runs that wait further down on this thread's stack.
    paused: usize,
}

impl Worker<'_> {
    fn serve(&mut self, turn: Turn<Job>) {
        let Turn { lane, job, mut memory } = turn;
        let mut taken = Taken::default();
        match handle(self, lane, &job, &mut memory, &mut taken) {
            Ok(mut result) => {
                let pipeline = self.pipeline;
                if let Ended::Done { effects, .. } = &mut result {
                    pipeline.retention.prioritise(effects);
                }
                let seen =
                    job.event.event.identity.as_ref().filter(|_| result.marks()).and_then(|identity| {
                        Some((identity.source.clone(), memory.seen(&identity.source)?.to_bytes()))
                    });
                let stamp = pipeline.clock.stamp();
                pipeline.writer.finished(Finished::new(lane, job, seen, result, stamp, taken.usage));
            }
            Err(error) => self.pipeline.writer.abandoned(error),
        }
        // After the outcome is with the writer: a later run of this lane must not overtake it.
        self.pipeline.done(lane, memory, taken.unsaid());
    }

    fn next_seed(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.seed
    }
}

/// What the runs for an event took so far, and how much fuel of it the lanes were told.
#[derive(Default)]
struct Taken {
    // By the runs that are over.
    usage: Counts,
    // Fuel of runs that were made again to see why they failed: nobody is charged for them, but neighbours wait for them.
    again: u64,
    said: u64,
    // Time in which they were paused, for others.
    away: Duration,
}

impl Taken {
    fn unsaid(&self) -> u64 {
        (self.usage.fuel + self.again).saturating_sub(self.said)
    }
}

fn handle(
    worker: &mut Worker<'_>,
    lane: LaneId,
    job: &Job,
    memory: &mut Memory,
    taken: &mut Taken,
) -> Result<Ended, Abandoned> {
    let pipeline = worker.pipeline;
    let seed = worker.next_seed();
    let (slot, event) = (&job.slot, &job.event.event);
    let partition = &job.partition;
    // What comes once more was new when it came first, and is used up with its outcome.
    let first = job.event.origin.uses == Uses::Nothing;
    let identified = event.identity.as_ref().filter(|_| first).map(|identity| (identity, event.content()));
    if let Some((identity, content)) = identified {
        if memory.seen(&identity.source).is_none() {
            let seen = match worker.reader.seen(slot.id, partition, &identity.source)? {
                Some(bytes) => Seen::from_bytes(&bytes)?,
                None => Seen::default(),
            };
            memory.set_seen(&identity.source, seen);
        }
        match memory.seen(&identity.source).map_or(Known::New, |seen| seen.judge(identity, content)) {
            Known::New => {}
            Known::Duplicate => return Ok(Ended::Duplicate),
            Known::Contradicts => {
                let reason = format!(
                    "function {}: event {} of boot {} of {} was handled before with another topic or payload; each event \
                     needs a number of its own, and a counter that wraps or starts anew a greater boot",
                    slot.name, identity.sequence, identity.boot, identity.source
                );
                return Ok(Ended::Dead(Letter { kind: DeadKind::Refused, reason, detail: String::new(), run: None }));
            }
            Known::TooOld => {
                let reason = format!(
                    "function {}: event {} of boot {} of {} is {WINDOW} or more behind the newest one, or of a boot older \
                     than the last {BOOTS}, so nobody knows whether it was handled before; if it was not, send it again \
                     with a new sequence, and if its counter wraps or starts anew, give it a greater boot when it does",
                    slot.name, identity.sequence, identity.boot, identity.source
                );
                return Ok(Ended::Dead(Letter { kind: DeadKind::TooOld, reason, detail: String::new(), run: None }));
            }
        }
    }
    let active = runnable(pipeline, slot)?;
    let Ok(function) = active.current.function() else {
        mark(memory, identified);
        let reason = slot.gone.get().cloned().unwrap_or_default();
        // Who asked by HTTP hears it.
        job.event.settled().failure = Some(reason.clone());
        tracing::warn!(function = %slot.name, device = %event.device, topic = %event.topic, "{reason}; the event is in the dead letters");
        return Ok(Ended::Dead(Letter { kind: DeadKind::Refused, reason, detail: String::new(), run: None }));
    };
    let (time_us, blobs) = (event.time_us, RunBlobs::new(pipeline));
    let record = pipeline.recordings.wants(&slot.name);
    let mut reads = LaneReads {
        worker: &mut *worker,
        lane,
        memory: &mut *memory,
        function: slot.id,
        partition,
        time_us,
        taken: &mut *taken,
        blobs,
    };
    let mut which = (&active.current, function);
    let mut ran = run(function, event, &mut reads, seed, record)?;
    if let (Some(trial), Err(trap)) = (active.trial.as_ref(), &ran.ended) {
        // One that cannot be loaded any more is none.
        let previous = trial.previous.as_ref().and_then(|previous| Some((previous, previous.function().ok()?)));
        let previous = match previous {
            Some(which) => Some((which, run(which.1, event, &mut reads, seed, record)?)),
            None => None,
        };
        let attempt = match &previous {
            Some((_, Ran { ended: Ok(_), .. })) => Attempt::PreviousHandled,
            Some(_) => Attempt::BothTrapped,
            None => Attempt::TrappedAlone,
        };
        judge(pipeline, Some(trial), attempt, Some(trap));
        if let Some(handled) = previous.filter(|(_, previous)| previous.ended.is_ok()) {
            (which, ran) = handled;
        }
    } else if ran.ended.is_ok() {
        judge(pipeline, active.trial.as_ref(), Attempt::Handled, None);
    }
    let (version, function) = which;
    let seen_blobs = reads.blobs;
    if let (Some((reads, complete)), Some(result)) = (ran.answers.take(), &ran.result) {
        let (partition, event, result) = (partition.to_string(), event.clone(), result.clone());
        let run = RecordedRun { partition, event, seed, reads, complete, result };
        pipeline.recordings.put(version, run, || pipeline.is_current(lane));
    }
    mark(memory, identified);
    // What a failed run read it may be asked for again.
    let (ended, result) = match ran.ended {
        Ok(effects) => (store_blobs(pipeline, version, effects)?, None),
        Err(trap) => (Err(trap), ran.result),
    };
    Ok(match ended {
        Ok(Done { effects, blobs, contents }) => {
            for effect in &effects {
                match effect {
                    Effect::StatePut { key, value, ttl_s } => {
                        let expires_us = expiry_us(event.time_us, *ttl_s);
                        memory.set_state(key, Some(StateValue { bytes: value.as_slice().into(), expires_us }));
                    }
                    Effect::StateDelete { key } => memory.set_state(key, None),
                    Effect::Respond(response) => job.event.settled().response = Some(response.clone()),
                    Effect::Emit { .. }
                    | Effect::Publish { .. }
                    | Effect::Enqueue { .. }
                    | Effect::TwinReport { .. }
                    | Effect::Count { .. }
                    | Effect::Observe { .. }
                    | Effect::Request(_) => {}
                    // Taken out.
                    Effect::BlobPut { .. } | Effect::BlobDelete { .. } => {}
                }
            }
            Ended::Done { effects, blobs, contents }
        }
        Err(trap) => {
            job.event.settled().failure = Some(trap.message.clone());
            let attempts = job.event.origin.attempts + 1;
            let retry = active.current.retry;
            // Whoever sent a request is told, and sends another one if he wants to.
            if attempts < retry.tries && event.kind != EventKind::Http {
                let wait_ms = retry_after_ms(retry.backoff_ms, attempts);
                tracing::warn!(function = %slot.name, device = %event.device, topic = %event.topic, kind = trap.kind.name(),
                    attempts, wait_ms, "{trap}; the event is given to it once more");
                let due_us = pipeline.clock.wall_us().saturating_add(wait_ms.saturating_mul(1_000));
                return Ok(Ended::Retry { due_us, attempts });
            }
            tracing::warn!(function = %slot.name, device = %event.device, topic = %event.topic, kind = trap.kind.name(),
                "{trap}; the event is in the dead letters");
            let run = result.map(|result| {
                let mut reads =
                    LaneReads { worker, lane, memory, function: slot.id, partition, time_us, taken, blobs: seen_blobs };
                let failed = Failed { version, function, partition, event, seed, trap: &trap, result };
                let gathered = evidence::gather(failed, &mut reads);
                // Its neighbours are not to pay for the two more runs.
                reads.taken.again += gathered.fuel.saturating_mul(2);
                Box::new(gathered)
            });
            let kind = if trap.kind == TrapKind::Failed { DeadKind::Failed } else { DeadKind::Trapped };
            Ended::Dead(Letter { kind, reason: trap.message, detail: trap.kind.name().to_owned(), run })
        }
    })
}

// An event with an identity is handled, whatever came of it.
fn mark(memory: &mut Memory, identified: Option<(&Identity, u32)>) {
    if let Some((identity, content)) = identified
        && let Some(seen) = memory.seen(&identity.source)
    {
        seen.mark(identity, content);
    }
}

// What runs in a slot. A version that cannot be loaded is returned only if nothing takes its place, which is decided by
// whoever loads what was deployed when the agent starts; the error: it stops before that.
fn runnable(pipeline: &Pipeline, slot: &Slot) -> Result<Guard<Arc<Active>>, Abandoned> {
    loop {
        let active = slot.active.load();
        match active.current.function() {
            Err(error) if slot.gone.get().is_none() => {
                if pipeline.is_stopping() {
                    return Err(error.clone().into());
                }
                // Once in the life of a version, so this needs nobody who wakes it.
                std::thread::sleep(limits::LOOK_AGAIN);
            }
            _ => return Ok(active),
        }
    }
}

/// What came of a run.
struct Ran {
    ended: Result<agent_core::Effects, Trap>,
    /// All that came out, if it failed or is recorded.
    result: Option<RunResult>,
    /// What it read, if it is recorded, and whether that is all.
    answers: Option<(Answers, bool)>,
}

// The error: the store failed, which is not the function's fault.
fn run(
    function: &Function,
    event: &Event,
    reads: &mut LaneReads<'_, '_>,
    seed: u64,
    record: bool,
) -> Result<Ran, Abandoned> {
    let (began, away) = (Instant::now(), reads.taken.away);
    let (run, answers) = if record {
        let mut recorder = Recorder::new(reads, limits::RECORDED_READS_BYTES);
        let run = function.run(event, &mut recorder, seed);
        (run, Some(recorder.finish()))
    } else {
        (function.run(event, reads, seed), None)
    };
    let busy = began.elapsed().saturating_sub(reads.taken.away - away);
    reads.taken.usage.add(&Counts {
        invocations: 1,
        failed: u64::from(matches!(run.outcome, Outcome::Failed(_))),
        fuel: run.fuel,
        busy_ns: u64::try_from(busy.as_nanos()).unwrap_or(u64::MAX),
        memory_peak_bytes: run.memory_bytes as u64,
        bytes_in: bytes_in(event),
        bytes_out: run.bytes_out,
        // The store knows it when it commits.
        state_peak_bytes: 0,
    });
    for line in &run.logs {
        log(function.name(), &event.device, line);
    }
    let failed = matches!(run.outcome, Outcome::Failed(_));
    let result = if record || failed { RunResult::of(function, &run) } else { None };
    let ended = match run.outcome {
        Outcome::Done(effects) => Ok(effects),
        Outcome::Failed(trap) => Err(trap),
        Outcome::Abandoned(ReadError(error)) => return Err(error),
    };
    Ok(Ran { ended, result, answers })
}

// Payload and attributes.
fn bytes_in(event: &Event) -> u64 {
    let attributes = event.attributes.iter().map(|(name, value)| name.len() + value.len());
    (event.payload.len() + attributes.sum::<usize>()) as u64
}

fn log(function: &str, device: &str, line: &LogLine) {
    let text = &line.text;
    let fields = fields(&line.fields);
    let fields = fields.as_deref().map(tracing::field::display);
    match line.level {
        LogLevel::Error => tracing::error!(target: "function", function, %device, fields, "{text}"),
        LogLevel::Warn => tracing::warn!(target: "function", function, %device, fields, "{text}"),
        LogLevel::Info => tracing::info!(target: "function", function, %device, fields, "{text}"),
        LogLevel::Debug => tracing::debug!(target: "function", function, %device, fields, "{text}"),
    }
}

// As one JSON object, for the names of a line's own fields must be known when the agent is compiled: so no function takes
// the place of "function" or "device", and a collector can read it in both formats of the log.
fn fields(fields: &[(String, String)]) -> Option<String> {
    let object: BTreeMap<&str, &str> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    (!object.is_empty()).then(|| serde_json::to_string(&object).expect("a map of texts becomes JSON"))
}

fn judge(pipeline: &Pipeline, trial: Option<&OnTrial>, attempt: Attempt, trap: Option<&Trap>) {
    // Said again for every event until it is settled, so that no word is lost.
    if trial.is_some_and(|trial| trial.judge(attempt, trap)) {
        pipeline.trial_ended.notify_one();
    }
}

struct LaneReads<'a, 'w> {
    worker: &'a mut Worker<'w>,
    lane: LaneId,
    memory: &'a mut Memory,
    function: FunctionId,
    partition: &'a str,
    time_us: u64,
    taken: &'a mut Taken,
    blobs: RunBlobs<'w>,
}

impl Reads for LaneReads<'_, '_> {
    fn state(&mut self, key: &[u8]) -> Result<Option<Arc<[u8]>>, ReadError> {
        if let Some(known) = self.memory.state(key, self.time_us) {
            return Ok(known);
        }
        let reader = &mut self.worker.reader;
        let value = reader.state(self.function, self.partition, key).map_err(|error| ReadError(error.into()))?;
        self.memory.set_state(key, value.clone());
        Ok(value.filter(|value| value.is_there(self.time_us)).map(|value| value.bytes))
    }

    // What the lane knows is newer than what the store has.
    fn next_key(&mut self, prefix: &[u8], after: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        let mut after = after.to_vec();
        loop {
            let reader = &mut self.worker.reader;
            let stored = reader
                .next_key(self.function, self.partition, prefix, &after, self.time_us)
                .map_err(|error| ReadError(error.into()))?;
            match (self.memory.next_key(prefix, &after, self.time_us), stored) {
                (None, stored) => return Ok(stored),
                (Some((known, _)), Some(stored)) if stored.as_slice() < known => return Ok(Some(stored)),
                (Some((known, true)), _) => return Ok(Some(known.to_vec())),
                (Some((known, false)), _) => after = known.to_vec(),
            }
        }
    }

    // As of the last commit: what others put meanwhile, and earlier runs of this lane that wait for theirs, is not in it.
    fn state_bytes(&mut self) -> Result<u64, ReadError> {
        self.worker.reader.state_bytes(self.function).map_err(|error| ReadError(error.into()))
    }

    fn blob_size(&mut self, name: &str) -> Result<Option<u64>, ReadError> {
        self.blobs.find(&mut self.worker.reader, name).map_err(ReadError)
    }

    fn blob_piece(&mut self, name: &str, offset: u64, len: usize) -> Result<Option<Vec<u8>>, ReadError> {
        self.blobs.piece(&mut self.worker.reader, name, offset, len).map_err(ReadError)
    }

    fn pause(&mut self, fuel: u64) {
        // Where runs keep all cores busy, those who take events in, commit and answer wait for a core. The system gives it to
        // them after milliseconds, unless it is offered.
        std::thread::yield_now();
        if self.worker.paused == limits::PAUSED_RUNS {
            return;
        }
        let began = Instant::now();
        let all = self.taken.usage.fuel + self.taken.again + fuel;
        let mut news = all.saturating_sub(self.taken.said);
        self.taken.said = all;
        self.worker.paused += 1;
        while let Some(turn) = self.worker.pipeline.next_before(self.lane, std::mem::take(&mut news)) {
            self.worker.serve(turn);
        }
        self.worker.paused -= 1;
        self.taken.away += began.elapsed();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What a log has, in the format that is for programs.
    fn logged(fields: &[(&str, &str)]) -> serde_json::Value {
        let written = Written::default();
        let writer = written.clone();
        let logs = tracing_subscriber::fmt().with_writer(move || writer.clone()).json().finish();
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let line = LogLine { level: LogLevel::Warn, text: "too hot".to_owned(), fields };
        tracing::subscriber::with_default(logs, || log("f", "d", &line));
        let written = written.0.lock().unwrap();
        serde_json::from_slice(&written).unwrap()
    }

    #[test]
    fn the_fields_of_a_line_are_one_object_and_no_other_field_is_theirs() {
        let line = logged(&[("function", "another"), ("celsius", "31.5\n"), ("celsius", "32")]);
        assert_eq!(line["level"], "WARN");
        let (said, fields) = (&line["fields"]["message"], &line["fields"]["fields"]);
        assert_eq!((said, &line["fields"]["function"]), (&"too hot".into(), &"f".into()));
        assert_eq!(fields, r#"{"celsius":"32","function":"another"}"#);
        assert!(logged(&[])["fields"].get("fields").is_none());
    }
}
