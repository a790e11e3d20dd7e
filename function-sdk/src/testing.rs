//! Tests of a function as plain Rust: a gateway in memory, without Wasm, network or clock.
//!
//! ```
//! use function_sdk::{Context, Result, function, testing::Gateway};
//!
//! #[function]
//! fn on_text(text: &str, cx: &mut Context) -> Result {
//!     let count = cx.state::<u32>("count")?.unwrap_or(0) + 1;
//!     cx.set_state("count", &count)?;
//!     cx.emit("texts", &format!("{count}: {text}"))
//! }
//!
//! let mut gateway = Gateway::new(on_text_handler);
//! gateway.event("dev-1", "texts/a", "hello").expect_ok();
//! let run = gateway.event("dev-1", "texts/a", "world").expect_ok();
//! assert_eq!(run.emitted[0].text(), "2: world");
//! // State belongs to the device, unless the manifest says otherwise.
//! assert_eq!(gateway.event("dev-2", "texts/a", "hi").emitted[0].text(), "1: hi");
//! // What is no text fails the run, and a failed run leaves nothing behind.
//! let run = gateway.event("dev-1", "texts/a", b"\xff");
//! assert!(run.result.unwrap_err().contains("not a text in UTF-8") && run.emitted.is_empty());
//! ```

use std::collections::BTreeMap;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

use function_abi::{Attributes, EventKind, LogLevel, Priority, PublishFlags};
use function_package::{BlobPattern, Digest, Manifest, Partition, Presence, Trigger, check_blob_name};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Context, Event, Identity, Result};

mod host;

pub(crate) use host::Host;
use host::{Trap, matches};

/// When the first event arrives, if nothing else is said: 2023-11-14 22:13:20 UTC, in microseconds.
const FIRST_TIME_US: u64 = 1_700_000_000_000_000;

/// A gateway in memory that runs one function.
///
/// State stays from event to event, as on a gateway. The clock begins in November 2023 and moves a second with each
/// event; random numbers are the same in every test run.
pub struct Gateway {
    handler: fn(&mut Context<'_>) -> Result,
    manifest: Option<Manifest>,
    overrides: BTreeMap<String, String>,
    secrets: BTreeMap<String, String>,
    /// By partition and key.
    state: BTreeMap<String, State>,
    sequences: BTreeMap<String, u64>,
    messages: u64,
    blobs: BTreeMap<String, Vec<u8>>,
    time_us: u64,
    random: u64,
}

/// The values of one partition.
pub(crate) type State = BTreeMap<Vec<u8>, Stored>;

/// A value of the state.
#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) value: Vec<u8>,
    /// For events of this time or later it is absent.
    pub(crate) ends_us: Option<u64>,
}

impl Stored {
    pub(crate) fn is_there(&self, time_us: u64) -> bool {
        self.ends_us.is_none_or(|ends_us| time_us < ends_us)
    }
}

/// What came of one event.
#[derive(Clone, Debug)]
pub struct Run {
    /// Nothing, or why the run failed: the handler's error, a panic, or an effect that is not allowed.
    pub result: Result<(), String>,
    /// Records, in order; none if the run failed.
    pub emitted: Vec<Emitted>,
    /// MQTT messages, in order; none if the run failed.
    pub published: Vec<Published>,
    /// Messages that were put into queues, in order; none if the run failed.
    pub enqueued: Vec<Enqueued>,
    /// Properties of the device that were reported, in order; none if the run failed.
    pub reported: Vec<Reported>,
    /// Blobs that were stored, in order; none if the run failed.
    pub blobs: Vec<PutBlob>,
    /// Blobs that were removed, in order; none if the run failed.
    pub blobs_deleted: Vec<String>,
    /// HTTP requests, in order; none if the run failed.
    pub requested: Vec<Requested>,
    /// The answer to an HTTP request; none if the function gave none, which is answered with 204, or if the run failed.
    pub response: Option<Response>,
    /// What was added to counters, in order: (name, value); nothing if the run failed.
    pub counted: Vec<(String, f64)>,
    /// What was observed, in order: (name, value); nothing if the run failed.
    pub observed: Vec<(String, f64)>,
    /// Log lines, also of a failed run.
    pub logs: Vec<LogLine>,
}

/// A line that the function logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// How much it matters.
    pub level: LogLevel,
    /// The text.
    pub text: String,
    /// Names with values.
    pub fields: Vec<(String, String)>,
}

/// A property of the event's device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    /// Its name.
    pub name: String,
    /// What it is now.
    pub value: Vec<u8>,
}

/// A record to a cloud stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emitted {
    /// The stream.
    pub stream: String,
    /// The body.
    pub body: Vec<u8>,
    /// Which records go first.
    pub priority: Priority,
}

/// An MQTT message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The topic.
    pub topic: String,
    /// The payload.
    pub payload: Vec<u8>,
    /// QoS and retain.
    pub flags: PublishFlags,
}

/// A message that was put into a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enqueued {
    /// The queue.
    pub queue: String,
    /// The body.
    pub body: Vec<u8>,
    /// How long it waits at least.
    pub delay_ms: u32,
}

/// A blob that was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutBlob {
    /// Bucket and name.
    pub name: String,
    /// The media type.
    pub content_type: String,
    /// The content.
    pub body: Vec<u8>,
}

/// An HTTP request that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requested {
    /// The URL.
    pub url: String,
    /// What else was said: names with values, as `docs/abi.md` has them. See [`get`](Self::get).
    pub head: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Requested {
    /// What was said under this name, such as `method` or `header.content-type`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.head.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// The answer to an HTTP request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// Header fields, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Gateway {
    /// A gateway for the handler that `#[function]` made: `NAME_handler`. Without a manifest everything is allowed and
    /// state belongs to the device.
    pub fn new(handler: fn(&mut Context<'_>) -> Result) -> Self {
        Self {
            handler,
            manifest: None,
            overrides: BTreeMap::new(),
            secrets: BTreeMap::new(),
            state: BTreeMap::new(),
            sequences: BTreeMap::new(),
            messages: 0,
            blobs: BTreeMap::new(),
            time_us: FIRST_TIME_US,
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// Takes triggers, limits, partition, what is allowed and the configuration's defaults from the text of a
    /// `function.toml`: `.manifest(include_str!("../function.toml"))`.
    ///
    /// # Panics
    /// The manifest has mistakes; all are named.
    pub fn manifest(mut self, text: &str) -> Self {
        match Manifest::parse("function.toml", text) {
            Ok(manifest) => self.manifest = Some(manifest),
            Err(mistakes) => panic!("{mistakes}"),
        }
        self
    }

    /// Sets a configuration value, as a deployment does.
    pub fn config(mut self, key: &str, value: impl Display) -> Self {
        self.overrides.insert(key.to_owned(), value.to_string());
        self
    }

    /// Gives the gateway a secret.
    pub fn secret(mut self, name: &str, value: &str) -> Self {
        self.secrets.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Sets the time at which the next event arrives, microseconds since 1970-01-01 UTC.
    pub fn set_time_us(&mut self, time_us: u64) {
        self.time_us = time_us;
    }

    /// Lets an event with a JSON payload arrive.
    ///
    /// # Panics
    /// As [`Self::event`], and if the value cannot be written as JSON.
    #[must_use = "a failed run does not panic: look at its result, or call expect_ok"]
    pub fn json(&mut self, device: &str, topic: &str, value: &impl Serialize) -> Run {
        let payload = serde_json::to_vec(value).expect("the test's value can be written as JSON");
        self.event(device, topic, payload)
    }

    /// Lets an MQTT message arrive.
    ///
    /// # Panics
    /// The test itself is wrong: no trigger of the manifest matches the topic, or a configuration value that
    /// [`Self::config`] set is not one of the manifest's.
    #[must_use = "a failed run does not panic: look at its result, or call expect_ok"]
    pub fn event(&mut self, device: &str, topic: &str, payload: impl AsRef<[u8]>) -> Run {
        self.check(
            &format!("the topic {topic:?}"),
            |trigger| matches!(trigger, Trigger::Mqtt { filter } if matches(filter, topic)),
        );
        let sequence = self.sequences.entry(device.to_owned()).or_default();
        *sequence += 1;
        let identity = Some(Identity { boot: 1, sequence: *sequence });
        self.run(EventKind::Mqtt, device, topic, payload.as_ref(), identity, &[])
    }

    /// Lets an HTTP request arrive: `gateway.request("POST", "/devices/7?fast=1", "{}")`.
    ///
    /// # Panics
    /// As [`Self::event`]: no route of the manifest fits.
    #[must_use = "a failed run does not panic: look at its result, or call expect_ok"]
    pub fn request(&mut self, method: &str, target: &str, body: impl AsRef<[u8]>) -> Run {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let mut attributes = vec![("method".to_owned(), method.to_owned())];
        attributes.extend(query.map(|query| ("query".to_owned(), query.to_owned())));
        self.check(&format!("the request {method} {path}"), |trigger| match trigger {
            Trigger::Http { route, .. } => match route.places(path).filter(|_| route.method() == method) {
                Some(places) => {
                    attributes.extend(places.into_iter().map(|(name, value)| (format!("path.{name}"), value)));
                    true
                }
                None => false,
            },
            _ => false,
        });
        self.run(EventKind::Http, "@http", path, body.as_ref(), None, &attributes)
    }

    /// Lets a message arrive that a function put into a queue.
    ///
    /// # Panics
    /// As [`Self::event`]: the manifest reads no such queue.
    #[must_use = "a failed run does not panic: look at its result, or call expect_ok"]
    pub fn message(&mut self, device: &str, queue: &str, body: impl AsRef<[u8]>) -> Run {
        self.check(
            &format!("the queue {queue:?}"),
            |trigger| matches!(trigger, Trigger::Queue { queue: read } if read == queue),
        );
        self.messages += 1;
        let message = format!("{:016x}-{}", 1, self.messages);
        let attributes = [("message".to_owned(), message), ("attempt".to_owned(), "1".to_owned())];
        self.run(EventKind::Queue, device, queue, body.as_ref(), None, &attributes)
    }

    /// Lets a moment of a schedule come, after so many that were missed.
    ///
    /// # Panics
    /// As [`Self::event`]: the manifest has no such schedule.
    #[must_use = "a failed run does not panic: look at its result, or call expect_ok"]
    pub fn moment(&mut self, schedule: &str, missed: u64) -> Run {
        self.check(
            &format!("the schedule {schedule:?}"),
            |trigger| matches!(trigger, Trigger::Schedule { name, .. } if name == schedule),
        );
        let attributes = [("due_us".to_owned(), self.time_us.to_string()), ("missed".to_owned(), missed.to_string())];
        self.run(EventKind::Schedule, "@schedule", schedule, &[], None, &attributes)
    }

    /// Lets a device connect, or go.
    ///
    /// # Panics
    /// As [`Self::event`]: no trigger of the manifest is for that.
    #[must_use = "a failed run does not panic: look at its result, or call expect_ok"]
    pub fn presence(&mut self, device: &str, change: Presence) -> Run {
        self.check(&format!("that a device {}", change.name()), |trigger| {
            matches!(trigger, Trigger::Device { change: wanted } if wanted.is_none_or(|wanted| wanted == change))
        });
        self.run(EventKind::Device, device, change.name(), &[], None, &[])
    }

    /// Lets a blob be stored, and the function hear of it.
    ///
    /// # Panics
    /// As [`Self::event`]: no trigger of the manifest is for it. Or the name is none.
    #[must_use = "a failed run does not panic: look at its result, or call expect_ok"]
    pub fn blob(&mut self, name: &str, content_type: &str, content: impl AsRef<[u8]>) -> Run {
        self.check(
            &format!("the blob {name:?}"),
            |trigger| matches!(trigger, Trigger::Blob { pattern } if pattern.matches(name)),
        );
        let content = content.as_ref();
        self.store_blob(name, content);
        let digest: String = Digest::of(content).as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let (bucket, rest) = name.split_once('/').unwrap_or((name, ""));
        let size = content.len().to_string();
        let attributes = [
            ("digest", digest.as_str()),
            ("size", &size),
            ("type", content_type),
            ("bucket", bucket),
            ("name", rest),
            ("attempt", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.run(EventKind::Blob, "@blob", name, &[], None, &attributes)
    }

    /// Stores a blob that the function may read, and tells it nothing.
    ///
    /// # Panics
    /// The name is none.
    pub fn store_blob(&mut self, name: &str, content: impl AsRef<[u8]>) {
        check_blob_name(name).unwrap_or_else(|error| panic!("{error}"));
        self.blobs.insert(name.to_owned(), content.as_ref().to_vec());
    }

    /// The content of a blob.
    pub fn stored_blob(&self, name: &str) -> Option<&[u8]> {
        self.blobs.get(name).map(Vec::as_slice)
    }

    /// Lets the answer to an HTTP request arrive: `gateway.answer("dev-1", "https://a.example/b", &[("status", "200")], "ok")`.
    /// The attributes are those of [`EventKind::Answer`]; `request` and `attempts` need not be said.
    #[must_use = "a failed run does not panic: look at its result, or call expect_ok"]
    pub fn answer(&mut self, device: &str, url: &str, attributes: &[(&str, &str)], body: impl AsRef<[u8]>) -> Run {
        let url = url.split('?').next().unwrap_or_default();
        self.messages += 1;
        let mut all: Vec<(String, String)> =
            attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        for (name, value) in [("request", format!("{:016x}-{}", 1, self.messages)), ("attempts", "1".to_owned())] {
            if !all.iter().any(|(known, _)| known == name) {
                all.push((name.to_owned(), value));
            }
        }
        all.push(("attempt".to_owned(), "1".to_owned()));
        self.run(EventKind::Answer, device, url, body.as_ref(), None, &all)
    }

    fn run(
        &mut self,
        kind: EventKind,
        device: &str,
        topic: &str,
        payload: &[u8],
        identity: Option<Identity>,
        attributes: &[(String, String)],
    ) -> Run {
        let mut encoded = Vec::new();
        for (name, value) in attributes {
            // No test has 4 GiB for one.
            let _ = Attributes::write(name, value, |part| encoded.extend_from_slice(part));
        }
        let attributes = Attributes(&encoded);
        let event = Event { kind, device, topic, payload, time_us: self.time_us, identity, attributes };
        self.time_us += 1_000_000;

        let partition = self.partition(device, topic);
        let state = self.state.get(&partition).cloned().unwrap_or_default();
        let limits = self.manifest.as_ref().map(|manifest| manifest.limits).unwrap_or_default();
        let allow = self.manifest.as_ref().map(|manifest| manifest.allow.clone());
        let others = self.state.iter().filter(|(other, _)| **other != partition).flat_map(|(_, state)| state);
        let elsewhere = others.map(|(key, stored)| (key.len() + stored.value.len()) as u64).sum();
        let (texts, state) = ((self.resolved_config(), self.secrets.clone()), (state, elsewhere));
        let name = self.manifest.as_ref().map(|manifest| manifest.name.clone()).unwrap_or_default();
        let mut host = Host::new(name, texts, state, limits, allow, self.random, event.time_us);
        host.blobs = std::mem::take(&mut self.blobs);
        host.readable = self.readable();
        host.event_blob = event.blob().map(|digest| (digest, topic.to_owned()));

        let outcome = catch_unwind(AssertUnwindSafe(|| (self.handler)(&mut Context::new(event, &mut host))));
        let result = match outcome {
            Ok(result) => result.map_err(|error| error.to_string()).and_then(|()| host.check_state()),
            Err(cause) => Err(match cause.downcast::<Trap>() {
                Ok(trap) => trap.0,
                Err(panic) => format!("panicked: {}", panic_text(&*panic)),
            }),
        };
        self.random = host.random;
        let Host {
            logs, emitted, published, enqueued, reported, requested, response, counted, observed, state, ..
        } = host;
        let Host { blobs, blobs_put, blobs_deleted, .. } = host;
        self.blobs = blobs;
        let mut run = Run {
            result,
            emitted,
            published,
            enqueued,
            reported,
            requested,
            blobs: blobs_put,
            blobs_deleted,
            response,
            counted,
            observed,
            logs,
        };
        if run.result.is_err() {
            run.emitted.clear();
            run.published.clear();
            run.enqueued.clear();
            run.reported.clear();
            run.requested.clear();
            run.blobs.clear();
            run.blobs_deleted.clear();
            run.counted.clear();
            run.observed.clear();
            run.response = None;
            return run;
        }
        self.state.insert(partition, state);
        for name in &run.blobs_deleted {
            self.blobs.remove(name);
        }
        for PutBlob { name, body, .. } in &run.blobs {
            self.blobs.insert(name.clone(), body.clone());
        }
        run
    }

    /// A typed state value as the function would see it in the next event of this device and topic.
    ///
    /// # Panics
    /// The stored bytes are no `T`.
    pub fn state<T: DeserializeOwned>(&self, device: &str, topic: &str, key: &str) -> Option<T> {
        let stored = self.state.get(&self.partition(device, topic))?.get(key.as_bytes())?;
        let stored = Some(stored).filter(|stored| stored.is_there(self.time_us))?;
        Some(
            postcard::from_bytes(&stored.value)
                .unwrap_or_else(|error| panic!("the state {key:?} is another type: {error}")),
        )
    }

    fn partition(&self, device: &str, topic: &str) -> String {
        match self.manifest.as_ref().map_or(Partition::Device, |manifest| manifest.partition) {
            Partition::Device => device.to_owned(),
            Partition::Topic => topic.to_owned(),
            Partition::Function => String::new(),
        }
    }

    /// The blobs that the manifest lets it read.
    fn readable(&self) -> Option<Vec<BlobPattern>> {
        let manifest = self.manifest.as_ref()?;
        let triggers = manifest.triggers.iter().filter_map(|trigger| match trigger {
            Trigger::Blob { pattern } => Some(pattern),
            _ => None,
        });
        Some(manifest.allow.blobs_read.iter().chain(triggers).cloned().collect())
    }

    fn check(&self, what: &str, fits: impl FnMut(&Trigger) -> bool) {
        let Some(manifest) = &self.manifest else { return };
        assert!(
            manifest.triggers.iter().any(fits),
            "no trigger of {} matches {what}: {:?}",
            manifest.name,
            manifest.triggers
        );
    }

    fn resolved_config(&self) -> BTreeMap<String, String> {
        match &self.manifest {
            Some(manifest) => manifest.config_with(&self.overrides).unwrap_or_else(|error| panic!("{error}")),
            None => self.overrides.clone(),
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("with a value that is no text")
}

impl Run {
    /// The run itself, if it succeeded.
    ///
    /// # Panics
    /// It failed; the message says why.
    pub fn expect_ok(self) -> Self {
        if let Err(message) = &self.result {
            panic!("the run failed: {message}");
        }
        self
    }
}

impl Emitted {
    /// The body as a text.
    ///
    /// # Panics
    /// It is not UTF-8.
    pub fn text(&self) -> &str {
        str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    /// The body read as JSON.
    ///
    /// # Panics
    /// It is not the JSON of a `T`.
    pub fn json<T: DeserializeOwned>(&self) -> T {
        read_json(&self.body)
    }
}

impl Published {
    /// The payload as a text.
    ///
    /// # Panics
    /// It is not UTF-8.
    pub fn text(&self) -> &str {
        str::from_utf8(&self.payload).expect("the payload is UTF-8")
    }

    /// The payload read as JSON.
    ///
    /// # Panics
    /// It is not the JSON of a `T`.
    pub fn json<T: DeserializeOwned>(&self) -> T {
        read_json(&self.payload)
    }
}

fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> T {
    serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(bytes)))
}
