//! What the imports do: everything but the crossing of the boundary.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Bound, Range};
use std::sync::Arc;

use agent_core::effect::{Number, Response};
use agent_core::topic::check_topic;
use agent_core::{Effect, Effects};
use function_abi::{Attributes, BLOB_DIGEST, LogLevel, Priority, PublishFlags};
use function_package::{Extism, MAX_TWIN_VALUE_BYTES, check_blob_name, check_twin_name};
use wasmi::errors::HostError;
use wasmi::{Memory, ResourceLimiter};
use wasmi_core::LimiterError;

use crate::backtrace::Trace;
use crate::extism::kernel::Kernel;
use crate::function::LogLine;
use crate::limits::Limits;
use crate::load::Identity;
use crate::permissions::{Permissions, check_stream};
use crate::random::Random;
use crate::secrets::Secrets;
use crate::trap::TrapKind;

/// Longest text of `fail` that is kept, in bytes: it becomes part of an error message, and of a dead letter.
const MAX_FAIL_BYTES: usize = 1 << 10;

/// Longest part of a name from a function that an error message repeats, in characters.
const SHOWN_CHARS: usize = 80;

/// What a field of a log line counts beside its name and its value, in bytes: an empty one takes room, too.
const FIELD_BYTES: usize = 8;

/// Longest media type of a blob in bytes: it stands in every event.
const MAX_TYPE_BYTES: usize = 255;

/// The media type of what has none (RFC 9110, section 8.3).
const NO_TYPE: &str = "application/octet-stream";

/// What all runs of a function share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) identity: Identity,
    pub(crate) limits: Limits,
    pub(crate) permissions: Permissions,
    pub(crate) config: BTreeMap<String, String>,
    pub(crate) secrets: Secrets,
    /// For a plug-in: what its call means.
    pub(crate) extism: Option<Extism>,
}

/// Why an import does not return to the function.
#[derive(Clone, Debug)]
pub(crate) enum Stop {
    Trap(TrapKind, String),
    OutOfFuel,
    /// Not an end: the run waits for [`Host::read`] to be answered.
    ReadState,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trap(kind, what) => write!(f, "{kind}: {what}"),
            Self::OutOfFuel => f.write_str("out of fuel"),
            Self::ReadState => f.write_str("waits for the state"),
        }
    }
}

impl HostError for Stop {}

pub(crate) fn stop<T>(kind: TrapKind, what: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Trap(kind, what.into()))
}

/// A question to the store.
#[derive(Debug)]
pub(crate) struct StateRead {
    pub(crate) question: Question,
    pub(crate) answer: Answer,
}

/// Where the answer of the store goes.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Into the function's memory, if it fits.
    Memory(Range<usize>),
    /// As the call's answer, which the value is, little-endian.
    Number,
    /// Into a block of the Extism kernel.
    Block,
}

/// What is asked.
#[derive(Debug)]
pub(crate) enum Question {
    /// The value of a key.
    Value(Vec<u8>),
    /// The first key with this prefix after this one.
    Next { prefix: Vec<u8>, after: Vec<u8> },
    /// The size of a blob.
    BlobSize(String),
    /// The bytes of a blob from an offset on, so many at most.
    BlobPiece { name: String, offset: u32, len: usize },
}

/// What one run has done so far.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) shared: Arc<Shared>,
    /// The function's memory; `None` until it is instantiated.
    pub(crate) memory: Option<Memory>,
    pub(crate) effects: Effects,
    pub(crate) logs: Vec<LogLine>,
    pub(crate) logs_dropped: u64,
    pub(crate) read: Option<StateRead>,
    /// All fuel of the run.
    pub(crate) given: u64,
    /// Fuel beyond that of this stretch.
    pub(crate) reserve: u64,
    /// Fuel that was taken when the run paused last.
    pub(crate) paused_at: u64,
    pub(crate) random: Random,
    /// How the content of the event's blob is named; `None`: the event is about none.
    pub(crate) event_blob: Option<String>,
    /// What a plug-in shares with us; empty for all others.
    pub(crate) kernel: Kernel,
    /// What the copy of a module that tells of its calls told; empty for all others.
    pub(crate) trace: Trace,
    /// For each key that this run wrote, the effect that holds the latest value.
    written: BTreeMap<Vec<u8>, usize>,
    pub(crate) output_bytes: usize,
    log_bytes: usize,
    table_elements: usize,
    refused_bytes: Option<usize>,
}

impl Host {
    pub(crate) fn new(shared: Arc<Shared>, seed: u64) -> Self {
        Self {
            shared,
            memory: None,
            effects: Vec::new(),
            logs: Vec::new(),
            logs_dropped: 0,
            read: None,
            given: 0,
            reserve: 0,
            paused_at: 0,
            random: Random::new(seed),
            event_blob: None,
            kernel: Kernel::default(),
            trace: Trace::default(),
            written: BTreeMap::new(),
            output_bytes: 0,
            log_bytes: 0,
            table_elements: 0,
            refused_bytes: None,
        }
    }

    /// Notes that memory was refused, which would have come to `bytes`.
    pub(crate) fn refuse(&mut self, bytes: usize) {
        self.refused_bytes = Some(bytes);
    }

    /// What is said of a function that gives up, if memory was refused to it.
    pub(crate) fn refusal(&self) -> Option<String> {
        let (asked, allowed) = (self.refused_bytes?, self.shared.limits.memory_bytes);
        Some(format!(
            "gave up after it asked for {asked} bytes of memory and was refused; {allowed} are allowed: use less, or raise \
             the limit \"memory_bytes\""
        ))
    }

    /// `config_get`.
    pub(crate) fn config(&self, key: &[u8]) -> Result<Option<&str>, Stop> {
        let key = text("config_get", "key", key)?;
        Ok(self.shared.config.get(key).map(String::as_str))
    }

    /// `secret_get`.
    pub(crate) fn secret(&self, key: &[u8]) -> Result<Option<&str>, Stop> {
        let key = text("secret_get", "key", key)?;
        if !self.shared.permissions.secrets.iter().any(|allowed| allowed == key) {
            let allowed = list(self.shared.permissions.secrets.iter());
            let key = shown(key.as_bytes());
            return stop(
                TrapKind::NotAllowed,
                format!("secret_get: it may not read the secret {key}; allowed: {allowed}. Add it to its permissions"),
            );
        }
        Ok(self.shared.secrets.get(key))
    }

    /// `state_get`: what this run itself wrote, or the question to ask the store.
    pub(crate) fn state(&mut self, key: &[u8], answer: Answer) -> Result<Option<&[u8]>, Stop> {
        self.check_started("state_get")?;
        self.check_key("state_get", key)?;
        match self.written.get(key).map(|at| &self.effects[*at]) {
            Some(Effect::StatePut { value, .. }) => Ok(Some(value)),
            Some(_) => Ok(None),
            None => {
                self.read = Some(StateRead { question: Question::Value(key.to_vec()), answer });
                Err(Stop::ReadState)
            }
        }
    }

    /// `state_next`: the question to ask the store; [`next_written`](Self::next_written) has the rest.
    pub(crate) fn state_next(&mut self, prefix: &[u8], after: &[u8], out: Range<usize>) -> Stop {
        if let Err(stop) = self.check_started("state_next") {
            return stop;
        }
        let question = Question::Next { prefix: prefix.to_vec(), after: after.to_vec() };
        self.read = Some(StateRead { question, answer: Answer::Memory(out) });
        Stop::ReadState
    }

    /// The first key that this run put, with this prefix and after this key.
    pub(crate) fn next_written(&self, prefix: &[u8], after: &[u8]) -> Option<&[u8]> {
        let from = if after < prefix { Bound::Included(prefix) } else { Bound::Excluded(after) };
        let keys = self.written.range::<[u8], _>((from, Bound::Unbounded));
        let mut keys = keys.take_while(|(key, _)| key.starts_with(prefix));
        keys.find(|(_, at)| matches!(self.effects[**at], Effect::StatePut { .. })).map(|(key, _)| key.as_slice())
    }

    /// The keys that this run put or deleted.
    pub(crate) fn written(&self) -> Vec<Vec<u8>> {
        self.written.keys().cloned().collect()
    }

    /// Bytes of the keys and values that are there because of this run.
    pub(crate) fn put_bytes(&self) -> u64 {
        let bytes = self.written.values().map(|at| match &self.effects[*at] {
            Effect::StatePut { key, value, .. } => (key.len() + value.len()) as u64,
            _ => 0,
        });
        bytes.sum()
    }

    /// Whether this run deleted a key.
    pub(crate) fn deleted(&self, key: &[u8]) -> bool {
        self.written.get(key).is_some_and(|at| matches!(self.effects[*at], Effect::StateDelete { .. }))
    }

    /// `state_put` and `state_put_ttl`.
    pub(crate) fn state_put(&mut self, import: &str, key: &[u8], value: &[u8], ttl_s: Option<u32>) -> Result<(), Stop> {
        self.check_key(import, key)?;
        if ttl_s == Some(0) {
            let key = shown(key);
            return stop(
                TrapKind::BadArgument,
                format!("{import}: the value of {key} is to be there for 0 seconds; give it 1 at least, or delete it"),
            );
        }
        let allowed = self.shared.limits.state_value_bytes;
        if value.len() > allowed {
            let bytes = value.len();
            return stop(
                TrapKind::BadState,
                format!(
                    "{import}: the value of {} is {bytes} bytes long, {allowed} are allowed; split it over several \
                     keys, or raise the limit \"state_value_bytes\"",
                    shown(key)
                ),
            );
        }
        self.admit(import, key.len() + value.len())?;
        self.written.insert(key.to_vec(), self.effects.len());
        self.effects.push(Effect::StatePut { key: key.to_vec(), value: value.to_vec(), ttl_s });
        Ok(())
    }

    /// `state_delete`.
    pub(crate) fn state_delete(&mut self, key: &[u8]) -> Result<(), Stop> {
        self.check_key("state_delete", key)?;
        self.admit("state_delete", key.len())?;
        self.written.insert(key.to_vec(), self.effects.len());
        self.effects.push(Effect::StateDelete { key: key.to_vec() });
        Ok(())
    }

    /// `emit`.
    pub(crate) fn emit(&mut self, stream: &[u8], body: &[u8], priority: i32) -> Result<(), Stop> {
        let stream = text("emit", "stream", stream)?;
        if let Err(error) = check_stream(stream) {
            return stop(TrapKind::BadStream, format!("emit: {error}"));
        }
        let Some(priority) = Priority::from_i32(priority) else {
            return stop(
                TrapKind::BadArgument,
                format!("emit: {priority} is not a priority; 0 is normal and 1 is high"),
            );
        };
        if !self.shared.permissions.may_emit(stream) {
            let allowed = list(self.shared.permissions.streams.iter());
            return stop(
                TrapKind::NotAllowed,
                format!(
                    "emit: it may not emit to the stream {stream:?}; allowed: {allowed}. Add it to its permissions"
                ),
            );
        }
        self.admit("emit", stream.len() + body.len())?;
        self.effects.push(Effect::Emit { stream: stream.to_owned(), body: body.to_vec(), priority });
        Ok(())
    }

    /// `publish`.
    pub(crate) fn publish(&mut self, topic: &[u8], payload: &[u8], flags: i32) -> Result<(), Stop> {
        let topic = text("publish", "topic", topic)?;
        if let Err(error) = check_topic(topic) {
            return stop(TrapKind::BadTopic, format!("publish: {error}"));
        }
        let Some(flags) = PublishFlags::from_i32(flags) else {
            return stop(
                TrapKind::BadArgument,
                format!("publish: {flags} are no flags; bits 0 and 1 are the QoS, 0 to 2, bit 2 is retain"),
            );
        };
        if !self.shared.permissions.may_publish(topic) {
            let allowed = list(self.shared.permissions.publish.iter());
            let topic = shown(topic.as_bytes());
            return stop(
                TrapKind::NotAllowed,
                format!(
                    "publish: it may not publish to the topic {topic}; allowed: {allowed}. Add it to its permissions"
                ),
            );
        }
        self.admit("publish", topic.len() + payload.len())?;
        self.effects.push(Effect::Publish { topic: topic.to_owned(), payload: payload.to_vec(), flags });
        Ok(())
    }

    /// `enqueue`.
    pub(crate) fn enqueue(&mut self, queue: &[u8], body: &[u8], delay_ms: u32) -> Result<(), Stop> {
        let queue = text("enqueue", "queue", queue)?;
        if !self.shared.permissions.may_enqueue(queue) {
            let allowed = list(self.shared.permissions.queues.iter());
            let queue = shown(queue.as_bytes());
            return stop(
                TrapKind::NotAllowed,
                format!(
                    "enqueue: it may not put messages into the queue {queue}; allowed: {allowed}. Add it to its \
                     permissions"
                ),
            );
        }
        self.admit("enqueue", queue.len() + body.len())?;
        self.effects.push(Effect::Enqueue { queue: queue.to_owned(), body: body.to_vec(), delay_ms });
        Ok(())
    }

    /// `respond`.
    pub(crate) fn respond(&mut self, status: u32, headers: &[u8], body: &[u8]) -> Result<(), Stop> {
        let wrong = |what: String| stop(TrapKind::BadArgument, format!("respond: {what}"));
        let status = match u16::try_from(status) {
            Ok(status @ 200..=599) => status,
            _ => return wrong(format!("{status} is no status that ends a request; allowed is 200 to 599")),
        };
        let attributes = Attributes(headers);
        if !attributes.are_whole() {
            return wrong("the headers are damaged; they are encoded as attributes are".to_owned());
        }
        let headers: Vec<(String, String)> =
            attributes.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        if let Some((name, value)) = headers.iter().find(|(name, value)| !is_field(name, value)) {
            let (name, value) = (shown(name.as_bytes()), shown(value.as_bytes()));
            return wrong(format!("{name}: {value} is no header field (RFC 9110, section 5)"));
        }
        self.admit("respond", attributes.0.len() + body.len())?;
        self.effects.push(Effect::Respond(Response { status, headers, body: body.to_vec() }));
        Ok(())
    }

    /// `twin_report`.
    pub(crate) fn twin_report(&mut self, name: &[u8], value: &[u8]) -> Result<(), Stop> {
        let name = text("twin_report", "name", name)?;
        let wrong = |what: String| stop(TrapKind::BadArgument, format!("twin_report: {what}"));
        if let Err(error) = check_twin_name(name) {
            return wrong(format!("{} is no property: {error}", shown(name.as_bytes())));
        }
        if value.len() > MAX_TWIN_VALUE_BYTES {
            let (name, bytes) = (shown(name.as_bytes()), value.len());
            return wrong(format!(
                "the value of {name} is {bytes} bytes long, {MAX_TWIN_VALUE_BYTES} are allowed; report less, or emit a record"
            ));
        }
        if !self.shared.permissions.may_report(name) {
            let allowed = list(self.shared.permissions.twin.iter());
            let name = shown(name.as_bytes());
            return stop(
                TrapKind::NotAllowed,
                format!(
                    "twin_report: it may not report the property {name}; allowed: {allowed}. Add it to its permissions"
                ),
            );
        }
        self.admit("twin_report", name.len() + value.len())?;
        self.effects.push(Effect::TwinReport { name: name.to_owned(), value: value.to_vec() });
        Ok(())
    }

    /// `count`.
    pub(crate) fn count(&mut self, name: &[u8], value: f64) -> Result<(), Stop> {
        let (name, value) = self.measured("count", name, value)?;
        if value.get() < 0.0 {
            let value = value.get();
            return stop(
                TrapKind::BadArgument,
                format!("count: {value} for {name:?}: a counter only grows; observe what may fall"),
            );
        }
        self.effects.push(Effect::Count { name, value });
        Ok(())
    }

    /// `observe`.
    pub(crate) fn observe(&mut self, name: &[u8], value: f64) -> Result<(), Stop> {
        let (name, value) = self.measured("observe", name, value)?;
        self.effects.push(Effect::Observe { name, value });
        Ok(())
    }

    fn measured(&mut self, import: &str, name: &[u8], value: f64) -> Result<(String, Number), Stop> {
        let name = text(import, "name", name)?;
        if !self.shared.permissions.may_measure(name) {
            let allowed = list(self.shared.permissions.metrics.iter());
            let name = shown(name.as_bytes());
            return stop(
                TrapKind::NotAllowed,
                format!("{import}: it has no metric {name}; allowed: {allowed}. Add it to its permissions"),
            );
        }
        let Some(number) = Number::new(value) else {
            return stop(TrapKind::BadArgument, format!("{import}: {value} for {name:?} is no finite number"));
        };
        let name = name.to_owned();
        self.admit(import, name.len() + size_of::<f64>())?;
        Ok((name, number))
    }

    /// `blob_put`.
    pub(crate) fn blob_put(&mut self, name: &[u8], content_type: &[u8], body: &[u8]) -> Result<(), Stop> {
        let name = self.blob_to_change("blob_put", name)?;
        let content_type = match text("blob_put", "type", content_type)? {
            "" => NO_TYPE,
            text if text.len() <= MAX_TYPE_BYTES && text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) => text,
            text => {
                let shown = shown(text.as_bytes());
                return stop(
                    TrapKind::BadBlob,
                    format!("blob_put: the type {shown} is no text of {MAX_TYPE_BYTES} visible characters at most"),
                );
            }
        };
        let content_type = content_type.to_owned();
        self.admit("blob_put", name.len() + content_type.len() + body.len())?;
        self.effects.push(Effect::BlobPut { name, content_type, body: body.to_vec() });
        Ok(())
    }

    /// `blob_delete`.
    pub(crate) fn blob_delete(&mut self, name: &[u8]) -> Result<(), Stop> {
        let name = self.blob_to_change("blob_delete", name)?;
        self.admit("blob_delete", name.len())?;
        self.effects.push(Effect::BlobDelete { name });
        Ok(())
    }

    /// `blob_size`: the question to ask the store.
    pub(crate) fn blob_size(&mut self, name: &[u8]) -> Stop {
        match self.blob_to_read("blob_size", name) {
            Ok(name) => {
                self.read = Some(StateRead { question: Question::BlobSize(name), answer: Answer::Number });
                Stop::ReadState
            }
            Err(stop) => stop,
        }
    }

    /// `blob_get`: the question to ask the store.
    pub(crate) fn blob_get(&mut self, name: &[u8], offset: u32, out: Range<usize>) -> Stop {
        match self.blob_to_read("blob_get", name) {
            Ok(name) => {
                let question = Question::BlobPiece { name, offset, len: out.len() };
                self.read = Some(StateRead { question, answer: Answer::Memory(out) });
                Stop::ReadState
            }
            Err(stop) => stop,
        }
    }

    fn blob_to_change(&self, import: &str, name: &[u8]) -> Result<String, Stop> {
        let permissions = &self.shared.permissions;
        let name = text(import, "name", name)?;
        self.check_blob(import, name, permissions.may_store(name), "blobs", &permissions.blobs)
    }

    fn blob_to_read(&self, import: &str, name: &[u8]) -> Result<String, Stop> {
        self.check_started(import)?;
        let permissions = &self.shared.permissions;
        let name = text(import, "name", name)?;
        if name.starts_with(BLOB_DIGEST) {
            if self.event_blob.as_deref() == Some(name) {
                return Ok(name.to_owned());
            }
            let name = shown(name.as_bytes());
            let what =
                format!("{import}: {name} is not the content of this event's blob, the only one that is read so");
            return stop(TrapKind::NotAllowed, what);
        }
        self.check_blob(import, name, permissions.may_read(name), "blobs_read", &permissions.blobs_read)
    }

    fn check_blob(
        &self,
        import: &str,
        name: &str,
        may: bool,
        list_name: &str,
        allowed: &[function_package::BlobPattern],
    ) -> Result<String, Stop> {
        if let Err(error) = check_blob_name(name) {
            let what: String = error.to_string().chars().take(4 * SHOWN_CHARS).collect();
            return stop(TrapKind::BadBlob, format!("{import}: {what}"));
        }
        if !may {
            let (name, allowed) = (shown(name.as_bytes()), list(allowed.iter()));
            return stop(
                TrapKind::NotAllowed,
                format!(
                    "{import}: it may not do this with the blob {name}; allowed: {allowed}. Add it to its permissions, \"{list_name}\""
                ),
            );
        }
        Ok(name.to_owned())
    }

    /// `log` and `log_with`. What is too much is dropped and counted: a function that says too much has not failed. Fields
    /// are kept whole or not at all, each with its name, as long as there is room behind the text.
    pub(crate) fn log(&mut self, import: &str, level: i32, line: &[u8], fields: &[u8]) -> Result<(), Stop> {
        let Some(level) = LogLevel::from_i32(level) else {
            return stop(
                TrapKind::BadArgument,
                format!("{import}: {level} is not a level; 0 is error, 1 warn, 2 info, 3 debug"),
            );
        };
        let line = text(import, "text", line)?;
        let fields = Attributes(fields);
        if !fields.are_whole() {
            let what = "the fields are damaged; they are encoded as attributes are";
            return stop(TrapKind::BadArgument, format!("{import}: {what}"));
        }
        let limits = &self.shared.limits;
        let room = limits.log_bytes - self.log_bytes;
        if self.logs.len() >= limits.log_lines || (room == 0 && !line.is_empty()) {
            self.logs_dropped += 1;
            return Ok(());
        }
        let kept = &line[..line.floor_char_boundary(room)];
        let mut left = if kept.len() < line.len() { 0 } else { room - kept.len() };
        let mut cut = kept.len() < line.len();
        let mut kept_fields = Vec::new();
        for (name, value) in fields {
            match left.checked_sub(name.len() + value.len() + FIELD_BYTES) {
                Some(less) => {
                    left = less;
                    kept_fields.push((name.to_owned(), value.to_owned()));
                }
                None => cut = true,
            }
        }
        self.log_bytes = limits.log_bytes - left;
        self.logs_dropped += u64::from(cut);
        self.logs.push(LogLine { level, text: kept.to_owned(), fields: kept_fields });
        Ok(())
    }

    /// `fail`.
    pub(crate) fn fail(&self, said: &[u8]) -> Stop {
        let cut = String::from_utf8_lossy(&said[..said.len().min(MAX_FAIL_BYTES)]);
        Stop::Trap(TrapKind::Failed, format!("failed: {cut}"))
    }

    fn check_started(&self, import: &str) -> Result<(), Stop> {
        if self.memory.is_some() {
            return Ok(());
        }
        stop(
            TrapKind::NotAllowed,
            format!("{import}: its start function may not use this; only the handling of an event may"),
        )
    }

    fn check_key(&self, import: &str, key: &[u8]) -> Result<(), Stop> {
        let allowed = self.shared.limits.state_key_bytes;
        match key.len() {
            0 => stop(TrapKind::BadState, format!("{import}: the key is empty; give it at least one byte")),
            bytes if bytes > allowed => stop(
                TrapKind::BadState,
                format!(
                    "{import}: the key {} is {bytes} bytes long, {allowed} are allowed; shorten it, or raise the limit \
                     \"state_key_bytes\"",
                    shown(key)
                ),
            ),
            _ => Ok(()),
        }
    }

    /// Whether one more effect of `bytes` is within the limits.
    pub(crate) fn admit(&mut self, import: &str, bytes: usize) -> Result<(), Stop> {
        self.check_started(import)?;
        let limits = &self.shared.limits;
        if self.effects.len() >= limits.effects {
            return stop(
                TrapKind::TooManyEffects,
                format!(
                    "{import}: one run may list {} effects; do less for each event, or raise the limit \"effects\"",
                    limits.effects
                ),
            );
        }
        let total = self.output_bytes.saturating_add(bytes);
        if total > limits.output_bytes {
            return stop(
                TrapKind::OutputTooLarge,
                format!(
                    "{import}: the effects of this run would come to {total} bytes, {} are allowed; send less, or raise \
                     the limit \"output_bytes\"",
                    limits.output_bytes
                ),
            );
        }
        self.output_bytes = total;
        Ok(())
    }
}

/// A growth that is refused answers -1 to the function, as the standard says, for some allocators ask for much first
/// and then for less. That it was refused is kept, to name the true cause if the function gives up.
impl ResourceLimiter for Host {
    fn memory_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> Result<bool, LimiterError> {
        let total = desired.saturating_add(self.kernel.size());
        let allowed = total <= self.shared.limits.memory_bytes && maximum.is_none_or(|maximum| desired <= maximum);
        if !allowed {
            self.refuse(total);
        }
        Ok(allowed)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> Result<bool, LimiterError> {
        let total = self.table_elements.saturating_add(desired.saturating_sub(current));
        let allowed = total <= self.shared.limits.table_elements;
        if allowed {
            self.table_elements = total;
        }
        Ok(allowed)
    }

    fn instances(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        // Bounded by the items of the module.
        self.shared.limits.module_items
    }

    fn memories(&self) -> usize {
        1
    }
}

/// A name is a token, a value has visible characters, spaces and tabs only (RFC 9110, sections 5.1 and 5.5).
pub(crate) fn is_field(name: &str, value: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty()
        && name.bytes().all(token)
        && value.bytes().all(|byte| (0x20..0x7f).contains(&byte) || byte == b'\t')
}

pub(crate) fn text<'a>(import: &str, what: &str, bytes: &'a [u8]) -> Result<&'a str, Stop> {
    std::str::from_utf8(bytes).or_else(|error| {
        stop(TrapKind::BadText, format!("{import}: the {what} {} is not UTF-8: {error}", shown(bytes)))
    })
}

/// Bytes from a function, fit for a message.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_CHARS * 4)]);
    let mut short: String = text.chars().take(SHOWN_CHARS).collect();
    if short.len() < bytes.len() {
        short.push('…');
    }
    format!("{short:?}")
}

pub(crate) fn list(allowed: impl Iterator<Item = impl fmt::Display>) -> String {
    let names: Vec<String> = allowed.map(|name| format!("\"{name}\"")).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
