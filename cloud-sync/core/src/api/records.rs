//! Records and streams.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Which records, in the query. All that is given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordQuery {
    /// Name of the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Who sent the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Id of the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Name of the function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Wall clock of the gateway, from this microsecond on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Wall clock of the gateway, before this microsecond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// Most records of a page; 1 to 1,000, 100 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Where to go on: `next` or `resume` of an earlier page of the same query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A page of records, in the order in which they were stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Page {
    /// The records. A page may be shorter than its limit, even empty, and not be the last one.
    pub records: Vec<Record>,
    /// The cursor of the next page; `null` when the end was reached.
    pub next: Option<String>,
    /// The cursor after what this page looked at, also at the end: for who wants to see what comes later.
    pub resume: String,
}

/// A record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// The gateway that delivered it.
    pub gateway: String,
    /// Its store epoch.
    pub epoch: String,
    /// Class.
    pub class: Class,
    /// Sequence within epoch and class.
    pub sequence: u64,
    /// Stream.
    pub stream: String,
    /// Function that emitted it.
    pub function: String,
    /// Who sent the event that it came from.
    pub device: String,
    /// The event's topic.
    pub topic: String,
    /// The event's identity, if it had one.
    pub identity: Option<Identity>,
    /// The gateway's wall clock when the function ran.
    pub wall_us: u64,
    /// Whether that clock was synchronised then, as far as the gateway's system knew.
    pub clock_synchronised: bool,
    /// Microseconds since the gateway's system started.
    pub monotonic_us: u64,
    /// Which start of the gateway's system that was.
    pub boot: String,
    /// When it was stored here.
    pub received_us: u64,
    /// Whether it still has the checksum that it came with.
    pub intact: bool,
    /// What the function emitted.
    pub body: Body,
}

/// Class of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// In the order they were committed.
    Normal,
    /// Before every normal record.
    High,
}

/// Identity of an event: its device's boot epoch, and the sequence within it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The device's boot epoch.
    pub boot_epoch: String,
    /// Sequence.
    pub sequence: String,
}

/// Deepest nesting of a body that is given as JSON: well below the limits of common parsers (serde_json: 128).
pub const MAX_JSON_DEPTH: usize = 64;

/// The body of a record: `{"json": …}`, byte for byte as it was emitted, or `{"hex": "…"}` if it is not JSON (or is
/// nested deeper than [`MAX_JSON_DEPTH`]).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// Valid JSON.
    Json(Box<RawValue>),
    /// Anything else.
    Hex(String),
}

impl Body {
    /// The body in these bytes.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        match serde_json::from_slice::<&RawValue>(bytes) {
            Ok(value) if depth(bytes) <= MAX_JSON_DEPTH => Self::Json(value.to_owned()),
            _ => Self::Hex(hex(bytes)),
        }
    }
}

/// How deep valid JSON is nested.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0_usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

/// Streams, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streams {
    /// The streams.
    pub streams: Vec<Stream>,
}

/// A stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Its name.
    pub name: String,
    /// Records in it.
    pub records: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_json_only_if_it_is() {
        let shown = |bytes: &[u8]| serde_json::to_string(&Body::from_bytes(bytes)).unwrap();
        assert_eq!(shown(br#"{"b":1.50,"a":"x"}"#), r#"{"json":{"b":1.50,"a":"x"}}"#);
        assert_eq!(shown(b"12345678901234567890123"), r#"{"json":12345678901234567890123}"#);
        assert_eq!(shown(b"hi"), r#"{"hex":"6869"}"#);
        assert_eq!(shown(b""), r#"{"hex":""}"#);
        assert_eq!(shown(b"\"\xff\""), r#"{"hex":"22ff22"}"#);
        assert_eq!(shown(br#"["[[\"[["]"#), r#"{"json":["[[\"[["]}"#);
        let deep = |levels| [vec![b'['; levels], vec![b']'; levels]].concat();
        assert!(matches!(Body::from_bytes(&deep(MAX_JSON_DEPTH)), Body::Json(_)));
        assert!(matches!(Body::from_bytes(&deep(MAX_JSON_DEPTH + 1)), Body::Hex(_)));
    }

    #[test]
    fn a_body_survives_being_read_again() {
        let text = r#"{"json":{"b":1.50}}"#;
        let body: Body = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&body).unwrap(), text);
    }
}
