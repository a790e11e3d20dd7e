//! Where a part of an identity lies in a message, and how it is read from there.

use std::fmt;
use std::str::FromStr;

use agent_core::{Filter, topic::MAX_LEVELS};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Most keys from the top of a JSON payload down to a field. The reader goes down by calling itself.
pub const MAX_DEPTH: usize = 8;

/// Longest name of a source, in bytes: it is part of a key in the store, and is kept in memory while its lane is.
pub const MAX_SOURCE_BYTES: usize = 256;

/// Where a part of an identity lies in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Written `topic:2`: this level of the topic, from 1 to [`MAX_LEVELS`].
    Level(usize),
    /// Written `json:meta.seq`: this field of the payload, which is JSON. 1 to [`MAX_DEPTH`] keys, none of them empty.
    Field(Vec<String>),
}

/// Why a text is not a [`Place`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// It begins with something else.
    #[error("begins with neither \"topic:\" nor \"json:\"")]
    Kind,
    /// What follows `topic:` is not the number of a level.
    #[error("names no level of a topic, which is a whole number from 1 to {MAX_LEVELS}")]
    Level,
    /// There is nothing before, after or between two points.
    #[error("has an empty key in its path")]
    EmptyKey,
    /// More keys than [`MAX_DEPTH`].
    #[error("is {0} keys deep; at most {MAX_DEPTH} are allowed")]
    TooDeep(usize),
}

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        if let Some(level) = text.strip_prefix("topic:") {
            let level = digits(level).and_then(|level| usize::try_from(level).ok());
            return level.filter(|level| (1..=MAX_LEVELS).contains(level)).map(Self::Level).ok_or(PlaceError::Level);
        }
        let path = text.strip_prefix("json:").ok_or(PlaceError::Kind)?;
        let keys: Vec<String> = path.split('.').map(str::to_owned).collect();
        if keys.iter().any(String::is_empty) {
            return Err(PlaceError::EmptyKey);
        }
        if keys.len() > MAX_DEPTH { Err(PlaceError::TooDeep(keys.len())) } else { Ok(Self::Field(keys)) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Level(level) => write!(f, "topic:{level}"),
            Self::Field(keys) => write!(f, "json:{}", keys.join(".")),
        }
    }
}

impl Place {
    /// Whether a topic that matches the filter can have what this asks for.
    pub fn fits(&self, filter: &Filter) -> bool {
        match self {
            Self::Level(level) => filter.as_str().ends_with('#') || *level <= filter.as_str().split('/').count(),
            Self::Field(_) => true,
        }
    }

    pub(super) fn find(&self, topic: &str, payload: &[u8]) -> Found {
        match self {
            Self::Level(level) => match topic.split('/').nth(level - 1) {
                None | Some("") => Found::Absent,
                Some(name) => Found::text(name),
            },
            Self::Field(keys) => {
                let mut reader = serde_json::Deserializer::from_slice(payload);
                // Not JSON, or not all of it: then it has no fields.
                match At(keys).deserialize(&mut reader) {
                    Ok(found) if reader.end().is_ok() => found,
                    _ => Found::Absent,
                }
            }
        }
    }
}

/// What lies at a place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Absent,
    Number(u64),
    Text(String),
    // Something that can be no part of an identity; for a person.
    Other(&'static str),
}

impl Found {
    fn text(text: &str) -> Self {
        if (1..=MAX_SOURCE_BYTES).contains(&text.len()) {
            Self::Text(text.to_owned())
        } else {
            Self::Other(if text.is_empty() { "an empty text" } else { "a text of more than 256 bytes" })
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("absent"),
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => f.write_str(&shown(text)),
            Self::Other(what) => f.write_str(what),
        }
    }
}

/// Reads one field of a JSON text, passing over everything else without keeping it: what a payload costs in memory does
/// not depend on what is in it. Where a key is there twice the last one counts, as in most readers of JSON.
#[derive(Clone, Copy)]
struct At<'p>(&'p [String]);

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Found, D::Error> {
        reader.deserialize_any(self)
    }
}

impl At<'_> {
    // A value that is not an object: it is what was looked for, or it has no fields.
    fn leaf(self, found: Found) -> Found {
        if self.0.is_empty() { found } else { Found::Absent }
    }
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Found, E> {
        Ok(self.leaf(Found::Other("a truth value")))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Found, E> {
        Ok(self.leaf(Found::Number(number)))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Found, E> {
        Ok(self.leaf(Found::Other("a negative number")))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Found, E> {
        Ok(self.leaf(Found::Other("a number with a point or an exponent, or one too large")))
    }

    fn visit_str<E>(self, text: &str) -> Result<Found, E> {
        Ok(self.leaf(Found::text(text)))
    }

    fn visit_unit<E>(self) -> Result<Found, E> {
        Ok(Found::Absent)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Found, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(self.leaf(Found::Other("a list")))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Found, A::Error> {
        let Some((key, rest)) = self.0.split_first() else {
            while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(Found::Other("an object"));
        };
        let mut found = Found::Absent;
        while let Some(is) = fields.next_key_seed(Is(key))? {
            if is {
                found = fields.next_value_seed(At(rest))?;
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Whether a key is this one.
struct Is<'k>(&'k str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<bool, D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

// A whole number in decimal digits, and nothing else: no sign, no space.
pub(super) fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

// A text from outside as a message shows it, cut where it is long.
pub(super) fn shown(text: &str) -> String {
    const LONGEST: usize = 40;
    match text.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{:?}…, {} bytes long", &text[..cut], text.len()),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(place: &str, topic: &str, payload: &str) -> Found {
        place.parse::<Place>().unwrap().find(topic, payload.as_bytes())
    }

    #[test]
    fn places_are_read_and_written_and_their_mistakes_named() {
        for text in ["topic:1", "topic:128", "json:a", "json:meta.seq", "json:a.b.c.d.e.f.g.h"] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        let wrong = |text: &str| text.parse::<Place>().unwrap_err();
        assert_eq!([wrong(""), wrong("seq"), wrong("JSON:a")], [PlaceError::Kind, PlaceError::Kind, PlaceError::Kind]);
        for text in ["topic:", "topic:0", "topic:129", "topic:+1", "topic:99999999999999999999"] {
            assert_eq!(wrong(text), PlaceError::Level, "{text}");
        }
        for text in ["json:", "json:.a", "json:a..b", "json:a."] {
            assert_eq!(wrong(text), PlaceError::EmptyKey, "{text}");
        }
        assert_eq!(wrong("json:a.b.c.d.e.f.g.h.i"), PlaceError::TooDeep(9));
    }

    #[test]
    fn a_level_must_be_possible_under_the_filter() {
        let fits = |place: &str, filter: &str| place.parse::<Place>().unwrap().fits(&Filter::new(filter).unwrap());
        assert!(fits("topic:3", "a/+/c") && fits("topic:3", "a/#") && fits("json:a", "a"));
        assert!(!fits("topic:4", "a/+/c"));
    }

    #[test]
    fn levels_of_topics() {
        assert_eq!(find("topic:2", "a/t1/c", ""), Found::Text("t1".into()));
        assert_eq!(find("topic:4", "a/t1/c", ""), Found::Absent);
        assert_eq!(find("topic:2", "a//c", ""), Found::Absent);
        assert_eq!(find("topic:1", &"x".repeat(257), ""), Found::Other("a text of more than 256 bytes"));
    }

    #[test]
    fn fields_of_payloads() {
        let json = r#" {"n": 7, "big": 18446744073709551615, "t": "\u0061b", "meta": {"seq": 5, "list": [{"n": 1}], "no": null},
            "minus": -1, "point": 1.5, "huge": 18446744073709551616, "yes": true, "empty": "", "twice": 1, "twice": 2} "#;
        let found = |place: &str| find(place, "t", json);
        assert_eq!(found("json:n"), Found::Number(7));
        assert_eq!(found("json:big"), Found::Number(u64::MAX));
        assert_eq!(found("json:t"), Found::Text("ab".into()));
        assert_eq!(found("json:meta.seq"), Found::Number(5));
        assert_eq!(found("json:twice"), Found::Number(2));
        for absent in
            ["json:x", "json:meta.x", "json:meta.no", "json:n.x", "json:meta.list.n", "json:t.x", "json:yes.x"]
        {
            assert_eq!(found(absent), Found::Absent, "{absent}");
        }
        for other in ["json:meta", "json:meta.list", "json:minus", "json:point", "json:huge", "json:yes", "json:empty"]
        {
            assert!(matches!(found(other), Found::Other(_)), "{other}");
        }
    }

    #[test]
    fn what_is_not_json_has_no_fields() {
        let deep = "[".repeat(100_000);
        for payload in ["", "offline", "[1]", "5", r#"{"n": 1"#, r#"{"n": 1} x"#, r#"{"n": 1, "m": }"#, &deep] {
            assert_eq!(find("json:n", "t", payload), Found::Absent, "{payload:.20}");
        }
        // What is passed over may be nested as it likes: it is neither kept nor walked by calls.
        let payload = format!(r#"{{"deep": {}{}, "n": 1}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(find("json:n", "t", &payload), Found::Number(1));
    }

    #[test]
    fn numbers_are_digits_and_long_texts_are_cut() {
        assert_eq!([digits("0"), digits("007"), digits("18446744073709551615")], [Some(0), Some(7), Some(u64::MAX)]);
        for wrong in ["", "+1", "-1", "1.0", " 1", "0x1", "18446744073709551616", "١"] {
            assert_eq!(digits(wrong), None, "{wrong}");
        }
        assert_eq!(shown("a\n"), "\"a\\n\"");
        assert_eq!(shown(&"ä".repeat(41)), format!("\"{}\"…, 82 bytes long", "ä".repeat(40)));
    }
}
