//! One event, one line: how events are written in fixtures and recordings.

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_core::{Event, Identity, topic};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use function_abi::EventKind;
use function_package::Target;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::bytes;
use crate::time;

/// When the first event arrives where nothing else is said, as in tests with the SDK: 2023-11-14T22:13:20Z.
pub(crate) const FIRST_TIME_US: u64 = 1_700_000_000_000_000;

/// How much later each next event arrives.
const STEP_US: u64 = 1_000_000;

/// A line. Everything but the topic has a default; of other events than MQTT messages it is what [`EventKind`] says. What only `mosquitto_sub -F %j` writes is passed over.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(default)]
    kind: Kind,
    topic: String,
    device: Option<String>,
    /// Of an HTTP request.
    method: Option<String>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    #[serde(borrow)]
    json: Option<&'a RawValue>,
    text: Option<String>,
    hex: Option<String>,
    base64: Option<String>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    #[serde(alias = "tst")]
    time: Option<String>,
    time_us: Option<u64>,
    #[serde(default, deserialize_with = "given")]
    identity: Option<Option<Numbers>>,
    #[serde(rename = "qos")]
    _qos: Option<IgnoredAny>,
    #[serde(rename = "retain")]
    _retain: Option<IgnoredAny>,
    #[serde(rename = "mid")]
    _mid: Option<IgnoredAny>,
    #[serde(rename = "payloadlen")]
    _payloadlen: Option<IgnoredAny>,
    #[serde(rename = "properties")]
    _properties: Option<IgnoredAny>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Mqtt,
    Http,
    Schedule,
    Queue,
    Device,
    Blob,
    Answer,
}

impl Kind {
    /// What this program knows no name for comes from nowhere.
    fn of(kind: EventKind) -> Self {
        match kind {
            EventKind::Http => Self::Http,
            EventKind::Schedule => Self::Schedule,
            EventKind::Queue => Self::Queue,
            EventKind::Device => Self::Device,
            EventKind::Blob => Self::Blob,
            EventKind::Answer => Self::Answer,
            _ => Self::Mqtt,
        }
    }

    fn kind(self) -> EventKind {
        match self {
            Self::Mqtt => EventKind::Mqtt,
            Self::Http => EventKind::Http,
            Self::Schedule => EventKind::Schedule,
            Self::Queue => EventKind::Queue,
            Self::Device => EventKind::Device,
            Self::Blob => EventKind::Blob,
            Self::Answer => EventKind::Answer,
        }
    }
}

/// An identity, but for whose it is: that is the device.
#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Numbers {
    #[serde(default = "first_boot")]
    boot: u64,
    sequence: u64,
}

const fn first_boot() -> u64 {
    1
}

/// Tells `null` from nothing at all.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Gives events what their lines leave out.
#[derive(Clone, Debug)]
pub(crate) struct Numbering {
    /// The level of the topic that names the device, from 1; none: the whole topic does, as with an outside broker.
    pub(crate) device_level: Option<usize>,
    /// When the next event arrives.
    pub(crate) time_us: u64,
    sequences: BTreeMap<Arc<str>, u64>,
    /// Messages of queues so far.
    messages: u64,
}

impl Numbering {
    pub(crate) fn new(device_level: Option<usize>, time_us: u64) -> Self {
        Self { device_level, time_us, sequences: BTreeMap::new(), messages: 0 }
    }

    /// Who sends on this topic, where nobody says so.
    pub(crate) fn device(&self, topic: &str) -> Arc<str> {
        let level = self.device_level.and_then(|level| topic.split('/').nth(level - 1));
        level.unwrap_or(topic).into()
    }

    /// Reads a line; the error says what is wrong with it, and where.
    pub(crate) fn read(&mut self, line: &str) -> Result<Event, String> {
        let line: Line<'_> = serde_json::from_str(line).map_err(|error| explain(&error))?;
        line.check()?;
        let payload = line.payload()?;
        let time_us = match (&line.time, line.time_us) {
            (Some(_), Some(_)) => return Err("it has \"time\" and \"time_us\"; give one of them".to_owned()),
            (Some(text), None) => time::parse_instant(text)
                .ok_or_else(|| format!("its time is {text:?}; write 2026-11-03T10:00:00Z, or \"time_us\""))?,
            (None, Some(us)) => us,
            (None, None) => self.time_us,
        };
        self.time_us = time_us.saturating_add(STEP_US);
        let (path, query) = line.target();
        let attributes = self.attributes(&line, query, time_us);
        let device = match (&line.device, line.kind) {
            (Some(device), _) => device.as_str().into(),
            (None, Kind::Http) => "@http".into(),
            (None, Kind::Schedule) => "@schedule".into(),
            (None, Kind::Blob) => "@blob".into(),
            (None, _) => self.device(&line.topic),
        };
        let identity = match line.identity {
            Some(Some(Numbers { sequence: 0, .. })) => {
                return Err("its sequence is 0; sequences count from 1, and null is no identity".to_owned());
            }
            Some(numbers) => numbers,
            // Only devices count.
            None if line.kind != Kind::Mqtt => None,
            None => Some(Numbers {
                boot: first_boot(),
                sequence: self.sequences.get(&device).map_or(1, |last| last.saturating_add(1)),
            }),
        };
        if let Some(Numbers { sequence, .. }) = identity {
            let last = self.sequences.entry(device.clone()).or_default();
            *last = sequence.max(*last);
        }
        Ok(Event {
            kind: line.kind.kind(),
            identity: identity.map(|Numbers { boot, sequence }| Identity { source: device.clone(), boot, sequence }),
            device,
            topic: path.into(),
            payload: payload.into(),
            time_us,
            attributes,
        })
    }

    /// What a gateway says of an event beside, where the line does not say it.
    fn attributes(&mut self, line: &Line<'_>, query: Option<&str>, time_us: u64) -> Vec<(String, String)> {
        let mut attributes = line.attributes.clone();
        let mut add = |name: &str, value: String| {
            attributes.entry(name.to_owned()).or_insert(value);
        };
        match line.kind {
            Kind::Http => {
                add("method", line.method.clone().unwrap_or_else(|| "GET".to_owned()));
                query.into_iter().for_each(|query| add("query", query.to_owned()));
            }
            Kind::Schedule => {
                add("due_us", time_us.to_string());
                add("missed", "0".to_owned());
            }
            Kind::Queue => {
                self.messages += 1;
                add("message", format!("{:016x}-{}", 1, self.messages));
                add("attempt", "1".to_owned());
            }
            Kind::Blob => add("type", "application/octet-stream".to_owned()),
            Kind::Answer => {
                self.messages += 1;
                add("request", format!("{:016x}-{}", 1, self.messages));
                add("attempts", "1".to_owned());
                add("attempt", "1".to_owned());
                if !attributes.contains_key("error") {
                    attributes.entry("status".to_owned()).or_insert_with(|| "200".to_owned());
                }
            }
            Kind::Mqtt | Kind::Device => {}
        }
        attributes.into_iter().collect()
    }
}

impl Line<'_> {
    fn check(&self) -> Result<(), String> {
        let wrong = match self.kind {
            Kind::Mqtt => topic::check_topic(&self.topic).err().map(|error| error.to_string()),
            Kind::Http if !self.topic.starts_with('/') => Some(format!(
                "its topic is {:?}; of a request it is the path, such as \"/devices/7?fast=1\"",
                self.topic
            )),
            Kind::Device if !["connected", "disconnected"].contains(&self.topic.as_str()) => {
                Some(format!("its topic is {:?}; of a device it is \"connected\" or \"disconnected\"", self.topic))
            }
            Kind::Device if self.device.is_none() => {
                Some("it has no \"device\"; say which one comes or goes".to_owned())
            }
            Kind::Blob => function_package::check_blob_name(&self.topic).err().map(|error| error.to_string()),
            Kind::Answer => match Target::parse(&self.topic) {
                Ok(_) if !self.topic.contains('?') => None,
                Ok(_) => Some("its topic has a query; of an answer it is the URL without it".to_owned()),
                Err(error) => {
                    Some(format!("its topic is {:?}; of an answer it is the URL of the request: {error}", self.topic))
                }
            },
            _ if self.topic.is_empty() => Some("its topic is empty; name the schedule or the queue".to_owned()),
            _ => None,
        };
        match wrong {
            Some(wrong) => Err(wrong),
            None if self.method.is_some() && self.kind != Kind::Http => {
                Err("it has a \"method\"; only requests have, \"kind\": \"http\"".to_owned())
            }
            None => Ok(()),
        }
    }

    /// The topic, and the query behind a path.
    fn target(&self) -> (&str, Option<&str>) {
        match self.topic.split_once('?') {
            Some((path, query)) if self.kind == Kind::Http => (path, Some(query)),
            _ => (&self.topic, None),
        }
    }

    fn payload(&self) -> Result<Vec<u8>, String> {
        let mut found = Vec::new();
        if let Some(json) = self.json {
            found.push(Ok(json.get().as_bytes().to_vec()));
        }
        if let Some(text) = &self.text {
            found.push(Ok(text.as_bytes().to_vec()));
        }
        if let Some(digits) = &self.hex {
            found.push(hex::decode(digits).map_err(|error| format!("its \"hex\" is none: {error}")));
        }
        if let Some(text) = &self.base64 {
            found.push(STANDARD.decode(text).map_err(|error| format!("its \"base64\" is none: {error}")));
        }
        // As mosquitto_sub writes it: a text is the payload itself (%j), all else is its JSON (%J).
        if let Some(value) = self.payload {
            let text = serde_json::from_str::<String>(value.get());
            found.push(Ok(text.map_or_else(|_| value.get().as_bytes().to_vec(), String::into_bytes)));
        }
        match found.len() {
            0 => Ok(Vec::new()),
            1 => found.remove(0),
            _ => Err("it has more than one payload; give one of \"json\", \"text\", \"hex\", \"base64\"".to_owned()),
        }
    }
}

/// The parser's words, without the line, which is always the first one here.
pub(crate) fn explain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    format!("column {}: {text}", error.column())
}

/// An event as a line: what is shown of it, and what a recording has.
#[derive(Serialize)]
pub(crate) struct Incoming<'a> {
    kind: Kind,
    device: &'a str,
    topic: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    attributes: BTreeMap<&'a str, &'a str>,
    #[serde(flatten)]
    payload: bytes::Readable<'a>,
    time_us: u64,
    identity: Option<Numbers>,
}

impl<'a> Incoming<'a> {
    pub(crate) fn of(event: &'a Event) -> Self {
        let identity = event.identity.as_ref();
        Self {
            kind: Kind::of(event.kind),
            device: &event.device,
            topic: &event.topic,
            attributes: event.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
            payload: bytes::json(&event.payload),
            time_us: event.time_us,
            identity: identity.map(|of| Numbers { boot: of.boot, sequence: of.sequence }),
        }
    }
}

#[cfg(test)]
mod tests;
