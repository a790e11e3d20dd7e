//! A worker: runs functions, one event of one lane at a time. A run that is long pauses now and then, and whoever is to come
//! before it goes on is served meanwhile, on the same thread.

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_core::backoff::retry_after_ms;
use agent_core::dedup::{BOOTS, Seen, Verdict as Known, WINDOW};
use agent_core::deploy::Attempt;
use agent_core::effect::LogLevel;
use agent_core::event::EventKind;
use agent_core::lanes::{LaneId, Memory, Turn};
use agent_core::state::expiry_us;
use agent_core::{Effect, Event, StateValue};
use agent_functions::{LogLine, Outcome, ReadError, Reads, Run, Trap, TrapKind};
use agent_store::{DeadKind, FunctionId, Reader, Uses};

use super::writer::{Abandoned, Ended, Finished, Letter};
use super::{Job, Pipeline};
use crate::limits;
use crate::plan::{OnTrial, Version};

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
        let mut fuel = Fuel::default();
        match handle(self, lane, &job, &mut memory, &mut fuel) {
            Ok(mut result) => {
                let pipeline = self.pipeline;
                if let Ended::Done(effects) = &mut result {
                    pipeline.retention.prioritise(effects);
                }
                let seen =
                    job.event.event.identity.as_ref().filter(|_| result.marks()).and_then(|identity| {
                        Some((identity.source.clone(), memory.seen(&identity.source)?.to_bytes()))
                    });
                pipeline.writer.finished(Finished::new(lane, job, seen, result, pipeline.clock.stamp()));
            }
            Err(error) => self.pipeline.writer.abandoned(error),
        }
        // After the outcome is with the writer: a later run of this lane must not overtake it.
        self.pipeline.done(lane, memory, fuel.unsaid());
    }

    fn next_seed(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.seed
    }
}

/// What the runs for an event took so far, and how much of it the lanes were told.
#[derive(Default)]
struct Fuel {
    // Of the runs that are over.
    over: u64,
    said: u64,
}

impl Fuel {
    fn unsaid(&self) -> u64 {
        self.over.saturating_sub(self.said)
    }
}

fn handle(
    worker: &mut Worker<'_>,
    lane: LaneId,
    job: &Job,
    memory: &mut Memory,
    fuel: &mut Fuel,
) -> Result<Ended, Abandoned> {
    let pipeline = worker.pipeline;
    let seed = worker.next_seed();
    let (slot, event) = (&job.slot, &job.event.event);
    let active = slot.active.load();
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
                return Ok(Ended::Dead(Letter { kind: DeadKind::Refused, reason, detail: String::new() }));
            }
            Known::TooOld => {
                let reason = format!(
                    "function {}: event {} of boot {} of {} is {WINDOW} or more behind the newest one, or of a boot older \
                     than the last {BOOTS}, so nobody knows whether it was handled before; if it was not, send it again \
                     with a new sequence, and if its counter wraps or starts anew, give it a greater boot when it does",
                    slot.name, identity.sequence, identity.boot, identity.source
                );
                return Ok(Ended::Dead(Letter { kind: DeadKind::TooOld, reason, detail: String::new() }));
            }
        }
    }
    let time_us = event.time_us;
    let mut reads = LaneReads { worker, lane, memory, function: slot.id, partition, time_us, fuel };
    let ran = match run(&active.current, event, &mut reads, seed)? {
        Ok(done) => {
            judge(pipeline, active.trial.as_ref(), Attempt::Handled, None);
            Ok(done)
        }
        Err(trap) => match active.trial.as_ref() {
            None => Err(trap),
            Some(trial) => {
                let previous = match &trial.previous {
                    Some(previous) => Some(run(previous, event, &mut reads, seed)?),
                    None => None,
                };
                let attempt = match &previous {
                    Some(Ok(_)) => Attempt::PreviousHandled,
                    Some(Err(_)) => Attempt::BothTrapped,
                    None => Attempt::TrappedAlone,
                };
                judge(pipeline, Some(trial), attempt, Some(&trap));
                previous.and_then(Result::ok).ok_or(trap)
            }
        },
    };
    if let Some((identity, content)) = identified
        && let Some(seen) = memory.seen(&identity.source)
    {
        seen.mark(identity, content);
    }
    Ok(match ran {
        Ok(effects) => {
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
                    | Effect::Request(_) => {}
                }
            }
            Ended::Done(effects)
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
            let kind = if trap.kind == TrapKind::Failed { DeadKind::Failed } else { DeadKind::Trapped };
            Ended::Dead(Letter { kind, reason: trap.message, detail: trap.kind.name().to_owned() })
        }
    })
}

// The outer error: the store failed, which is not the function's fault.
fn run(
    version: &Version,
    event: &Event,
    reads: &mut LaneReads<'_, '_>,
    seed: u64,
) -> Result<Result<agent_core::Effects, Trap>, Abandoned> {
    let Run { outcome, logs, fuel, .. } = version.function.run(event, reads, seed);
    reads.fuel.over += fuel;
    for line in logs {
        log(version.function.name(), &event.device, &line);
    }
    match outcome {
        Outcome::Done(effects) => Ok(Ok(effects)),
        Outcome::Failed(trap) => Ok(Err(trap)),
        Outcome::Abandoned(ReadError(error)) => Err(error),
    }
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
    fuel: &'a mut Fuel,
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

    fn pause(&mut self, fuel: u64) {
        if self.worker.paused == limits::PAUSED_RUNS {
            return;
        }
        let taken = self.fuel.over + fuel;
        let mut news = taken.saturating_sub(self.fuel.said);
        self.fuel.said = taken;
        self.worker.paused += 1;
        while let Some(turn) = self.worker.pipeline.next_before(self.lane, std::mem::take(&mut news)) {
            self.worker.serve(turn);
        }
        self.worker.paused -= 1;
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
