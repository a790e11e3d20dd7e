//! What came of an event, for people and for programs.

use agent_core::dedup::Verdict;
use agent_core::effect::{Request, Response};
use agent_core::{Effect, Event};
use agent_functions::{LogLine, Trap};
use function_abi::{EventKind, LogLevel, Priority};
use serde::{Deserialize, Serialize};

use super::bytes::{self, text};
use super::{How, Incoming, Ran};

/// What a snapshot can leave out, where it would say little and change often.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Hide {
    State,
    Log,
}

impl Hide {
    /// As the fixture's header has it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Log => "log",
        }
    }
}

/// What a line speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Emit,
    Publish,
    State,
    Metric,
    Log,
    Trap,
    /// Why the function did not run.
    Note,
}

pub(crate) struct Line {
    pub(crate) kind: Kind,
    pub(crate) text: String,
}

/// An event in one line.
pub(crate) fn title(number: usize, event: &Event) -> String {
    let (topic, device) = (text(event.topic.as_bytes()), text(event.device.as_bytes()));
    let sender = match event.kind {
        EventKind::Http | EventKind::Schedule | EventKind::Blob => String::new(),
        _ if device == topic => String::new(),
        _ => format!("  from {device}"),
    };
    let attribute =
        |wanted: &str| event.attributes.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let kind = match event.kind {
        EventKind::Http => format!("{} ", text(attribute("method").unwrap_or_default().as_bytes())),
        EventKind::Schedule => "schedule ".to_owned(),
        EventKind::Queue => "queue ".to_owned(),
        EventKind::Device => "device ".to_owned(),
        EventKind::Blob => "blob ".to_owned(),
        // What failed says more than a status that goes with it.
        EventKind::Answer => {
            let said = attribute("error").or(attribute("status")).unwrap_or_default();
            format!("answer ({}) ", text(said.as_bytes()))
        }
        _ => String::new(),
    };
    let query = attribute("query").map_or(String::new(), |query| format!("?{}", text(query.as_bytes())));
    format!("{number}  {kind}{topic}{query}{sender}  {}", text(&event.payload))
}

/// All that came of an event, one thing a line; none if nothing did.
pub(crate) fn lines(ran: &Ran, hide: &[Hide]) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut add = |kind, label: &str, text: String| lines.push(Line { kind, text: format!("{label:<7}  {text}") });
    match &ran.how {
        How::Done(effects) => {
            for effect in effects {
                match effect {
                    Effect::StatePut { .. } | Effect::StateDelete { .. } if hide.contains(&Hide::State) => {}
                    Effect::StatePut { key, value, ttl_s } => {
                        let ttl = ttl_s.map_or_else(String::new, |ttl_s| format!(" (for {ttl_s} s)"));
                        add(Kind::State, "put", format!("{}{ttl} = {}", text(key), text(value)));
                    }
                    Effect::StateDelete { key } => add(Kind::State, "delete", text(key)),
                    Effect::Emit { stream, body, priority } => {
                        let urgent = if *priority == Priority::High { " (urgent)" } else { "" };
                        add(Kind::Emit, "emit", format!("{}{urgent}  {}", text(stream.as_bytes()), text(body)));
                    }
                    Effect::Publish { topic, payload, flags } => {
                        let retain = if flags.retain { ", retain" } else { "" };
                        let how = format!("(qos {}{retain})", flags.qos);
                        add(Kind::Publish, "publish", format!("{} {how}  {}", text(topic.as_bytes()), text(payload)));
                    }
                    Effect::Enqueue { queue, body, delay_ms } => {
                        let delay = if *delay_ms > 0 { format!(" (after {delay_ms} ms)") } else { String::new() };
                        add(Kind::Publish, "enqueue", format!("{}{delay}  {}", text(queue.as_bytes()), text(body)));
                    }
                    Effect::TwinReport { name, value } => {
                        add(Kind::Emit, "report", format!("{} = {}", text(name.as_bytes()), text(value)));
                    }
                    Effect::Count { name, value } => {
                        add(Kind::Metric, "count", format!("{name} + {}", value.get()));
                    }
                    Effect::Observe { name, value } => {
                        add(Kind::Metric, "observe", format!("{name}  {}", value.get()));
                    }
                    Effect::BlobPut { name, content_type, body } => {
                        let (name, kind) = (text(name.as_bytes()), text(content_type.as_bytes()));
                        add(Kind::Publish, "blob", format!("{name} ({kind})  {}", text(body)));
                    }
                    Effect::BlobDelete { name } => add(Kind::Publish, "unblob", text(name.as_bytes())),
                    Effect::Respond(Response { status, headers, body }) => {
                        let headers: Vec<String> =
                            headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
                        let headers =
                            if headers.is_empty() { String::new() } else { format!(" ({})", headers.join(", ")) };
                        add(Kind::Publish, "respond", format!("{status}{headers}  {}", text(body)));
                    }
                    Effect::Request(request) => add(Kind::Publish, "request", requested(request)),
                }
            }
        }
        How::Failed(Trap { kind, message }) => {
            // What a function says itself begins with the kind's name.
            let said = message.strip_prefix("failed: ").unwrap_or(message);
            add(Kind::Trap, "trap", format!("{kind}  {}", text(said.as_bytes())));
        }
        How::Known(verdict) => add(Kind::Note, "not run", known(*verdict).1.to_owned()),
        How::Unchanged => add(Kind::Note, "not run", "the blob has this content already".to_owned()),
        How::Unwanted => add(Kind::Note, "not run", "no trigger of the manifest is for it".to_owned()),
    }
    if !hide.contains(&Hide::Log) {
        for line in &ran.logs {
            let mut said = format!("{}  {}", level(line.level), text(line.text.as_bytes()));
            for (name, value) in &line.fields {
                said.push_str(&format!("  {}={}", text(name.as_bytes()), text(value.as_bytes())));
            }
            add(Kind::Log, "log", said);
        }
        if ran.logs_dropped > 0 {
            add(
                Kind::Log,
                "log",
                format!("{} lines were dropped or cut, for they were too many or too long", ran.logs_dropped),
            );
        }
    }
    lines
}

/// A request in one line.
fn requested(request: &Request) -> String {
    let Request { url, method, headers, body, to, timeout_ms, tries, tag } = request;
    let mut parts = vec![format!("to {to}"), format!("{tries} tries of {timeout_ms} ms")];
    parts.extend(tag.iter().map(|tag| format!("tag {}", text(tag.as_bytes()))));
    parts.extend(headers.iter().map(|(name, value)| format!("{name}: {value}")));
    let line = format!("{method} {url} ({})", parts.join(", "));
    if body.is_empty() { line } else { format!("{line}  {}", text(body)) }
}

/// What a gateway does with an event that it does not give to the function.
fn known(verdict: Verdict) -> (&'static str, &'static str) {
    match verdict {
        Verdict::Duplicate => ("duplicate", "it was handled before"),
        Verdict::Contradicts => {
            ("contradicts", "another event of this identity was handled before; it goes to the dead letters")
        }
        // `New` is run.
        Verdict::TooOld | Verdict::New => {
            ("too_old", "it is too far behind the newest one of its source; it goes to the dead letters")
        }
    }
}

fn level(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
    }
}

/// An event with all that came of it, as `--json` has it.
#[derive(Serialize)]
pub(crate) struct Shown<'a> {
    event: usize,
    #[serde(flatten)]
    incoming: Incoming<'a>,
    /// `done`, `failed`, or why the function did not run: `duplicate`, `contradicts`, `too_old`, `unchanged`, `unwanted`.
    outcome: &'static str,
    effects: Vec<ShownEffect<'a>>,
    trap: Option<ShownTrap<'a>>,
    logs: Vec<ShownLog<'a>>,
    logs_dropped: u64,
    fuel: u64,
    memory_bytes: usize,
}

#[derive(Serialize)]
#[serde(tag = "effect", rename_all = "snake_case")]
enum ShownEffect<'a> {
    StatePut {
        key: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        ttl_s: Option<u32>,
        #[serde(flatten)]
        value: bytes::Readable<'a>,
    },
    StateDelete {
        key: String,
    },
    Emit {
        stream: &'a str,
        urgent: bool,
        #[serde(flatten)]
        body: bytes::Readable<'a>,
    },
    Publish {
        topic: &'a str,
        qos: u8,
        retain: bool,
        #[serde(flatten)]
        payload: bytes::Readable<'a>,
    },
    Enqueue {
        queue: &'a str,
        delay_ms: u32,
        #[serde(flatten)]
        body: bytes::Readable<'a>,
    },
    TwinReport {
        name: &'a str,
        #[serde(flatten)]
        value: bytes::Readable<'a>,
    },
    Count {
        name: &'a str,
        value: f64,
    },
    Observe {
        name: &'a str,
        value: f64,
    },
    BlobPut {
        name: &'a str,
        r#type: &'a str,
        #[serde(flatten)]
        body: bytes::Readable<'a>,
    },
    BlobDelete {
        name: &'a str,
    },
    Respond {
        status: u16,
        headers: &'a [(String, String)],
        #[serde(flatten)]
        body: bytes::Readable<'a>,
    },
    Request {
        method: &'a str,
        url: &'a str,
        headers: &'a [(String, String)],
        to: &'a str,
        timeout_ms: u32,
        tries: u32,
        tag: Option<&'a str>,
        #[serde(flatten)]
        body: bytes::Readable<'a>,
    },
}

#[derive(Serialize)]
struct ShownTrap<'a> {
    kind: &'static str,
    message: &'a str,
}

#[derive(Serialize)]
struct ShownLog<'a> {
    level: &'static str,
    text: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    fields: &'a [(String, String)],
}

impl<'a> Shown<'a> {
    pub(crate) fn new(number: usize, event: &'a Event, ran: &'a Ran) -> Self {
        let (outcome, effects, trap) = match &ran.how {
            How::Done(effects) => ("done", effects.as_slice(), None),
            How::Failed(trap) => ("failed", [].as_slice(), Some(trap)),
            How::Known(verdict) => (known(*verdict).0, [].as_slice(), None),
            How::Unchanged => ("unchanged", [].as_slice(), None),
            How::Unwanted => ("unwanted", [].as_slice(), None),
        };
        Self {
            event: number,
            incoming: Incoming::of(event),
            outcome,
            effects: effects.iter().map(ShownEffect::of).collect(),
            trap: trap.map(|trap| ShownTrap { kind: trap.kind.name(), message: &trap.message }),
            logs: ran.logs.iter().map(ShownLog::of).collect(),
            logs_dropped: ran.logs_dropped,
            fuel: ran.fuel,
            memory_bytes: ran.memory_bytes,
        }
    }
}

impl<'a> ShownLog<'a> {
    fn of(line: &'a LogLine) -> Self {
        Self { level: level(line.level), text: &line.text, fields: &line.fields }
    }
}

impl<'a> ShownEffect<'a> {
    fn of(effect: &'a Effect) -> Self {
        match effect {
            Effect::StatePut { key, value, ttl_s } => {
                Self::StatePut { key: text(key), ttl_s: *ttl_s, value: bytes::json(value) }
            }
            Effect::TwinReport { name, value } => Self::TwinReport { name, value: bytes::json(value) },
            Effect::StateDelete { key } => Self::StateDelete { key: text(key) },
            Effect::Emit { stream, body, priority } => {
                Self::Emit { stream, urgent: *priority == Priority::High, body: bytes::json(body) }
            }
            Effect::Publish { topic, payload, flags } => {
                Self::Publish { topic, qos: flags.qos, retain: flags.retain, payload: bytes::json(payload) }
            }
            Effect::Enqueue { queue, body, delay_ms } => {
                Self::Enqueue { queue, delay_ms: *delay_ms, body: bytes::json(body) }
            }
            Effect::Count { name, value } => Self::Count { name, value: value.get() },
            Effect::Observe { name, value } => Self::Observe { name, value: value.get() },
            Effect::BlobPut { name, content_type, body } => {
                Self::BlobPut { name, r#type: content_type, body: bytes::json(body) }
            }
            Effect::BlobDelete { name } => Self::BlobDelete { name },
            Effect::Respond(Response { status, headers, body }) => {
                Self::Respond { status: *status, headers, body: bytes::json(body) }
            }
            Effect::Request(Request { url, method, headers, body, to, timeout_ms, tries, tag }) => Self::Request {
                method,
                url,
                headers,
                to,
                timeout_ms: *timeout_ms,
                tries: *tries,
                tag: tag.as_deref(),
                body: bytes::json(body),
            },
        }
    }
}
