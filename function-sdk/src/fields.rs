//! A JSON object whose field names are only known when the function is configured.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::{Error, Event, FromEvent, Json, Result};

/// A flat JSON object, read by name: for a function that works on any sensor, whose field is a configuration value.
///
/// Where the names are known, a struct in [`Json`] is smaller and says more.
///
/// ```
/// use function_sdk::{Context, Fields, Result, function, testing::Gateway};
///
/// #[function]
/// fn on_reading(reading: Fields<'_>, cx: &mut Context) -> Result {
///     let field: String = cx.config("field")?;
///     let value = reading.number(&field)?;
///     cx.emit("values", &format!("{} {value}", reading.text("time")?))
/// }
///
/// let mut gateway = Gateway::new(on_reading_handler).config("field", "kelvin");
/// let run = gateway.event("d", "t", r#"{"time": "12:00", "kelvin": 293, "tags": ["a"]}"#);
/// assert_eq!(run.emitted[0].text(), "12:00 293");
/// let run = gateway.event("d", "t", r#"{"time": "12:00", "celsius": 20}"#);
/// assert_eq!(run.result.unwrap_err(), "the payload has no number \"kelvin\"; it has: time, celsius");
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Fields<'e>(Vec<(Cow<'e, str>, Field<'e>)>);

#[derive(Clone, Debug, PartialEq)]
enum Field<'e> {
    Number(f64),
    Text(Cow<'e, str>),
    Other,
}

impl Fields<'_> {
    /// The number of this name.
    ///
    /// # Errors
    /// There is none, or it is no number.
    pub fn number(&self, name: &str) -> Result<f64> {
        match self.get(name) {
            Some(Field::Number(number)) => Ok(*number),
            _ => Err(self.missing("number", name)),
        }
    }

    /// The text of this name.
    ///
    /// # Errors
    /// There is none, or it is no text.
    pub fn text(&self, name: &str) -> Result<&str> {
        match self.get(name) {
            Some(Field::Text(text)) => Ok(text),
            _ => Err(self.missing("text", name)),
        }
    }

    /// Whether there is a field of this name, of any type but null.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    fn get(&self, name: &str) -> Option<&Field<'_>> {
        // As serde_json does in a map: of two fields with one name the last one counts.
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, field)| field)
    }

    fn missing(&self, what: &str, name: &str) -> Error {
        const SHOWN: usize = 8;
        let names: Vec<&str> = self.0.iter().take(SHOWN).map(|(name, _)| &**name).collect();
        let more = if self.0.len() > SHOWN { ", …" } else { "" };
        Error::new(format_args!("the payload has no {what} {name:?}; it has: {}{more}", names.join(", ")))
    }
}

impl<'e> FromEvent<'e> for Fields<'e> {
    fn from_event(event: Event<'e>) -> Result<Self> {
        Json::from_event(event).map(|Json(fields)| fields)
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    if let Some(field) = map.next_value()? {
                        fields.push((name, field));
                    }
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[derive(serde::Deserialize)]
struct Name<'e>(#[serde(borrow)] Cow<'e, str>);

impl<'de> Deserialize<'de> for Field<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Field<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }

            fn visit_f64<E>(self, number: f64) -> Result<Field<'de>, E> {
                Ok(Field::Number(number))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Field<'de>, E> {
                Ok(Field::Number(number as f64))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Field<'de>, E> {
                Ok(Field::Number(number as f64))
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Field<'de>, E> {
                Ok(Field::Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Field<'de>, E> {
                Ok(Field::Text(Cow::Owned(text.to_owned())))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Field<'de>, E> {
                Ok(Field::Other)
            }

            fn visit_unit<E>(self) -> Result<Field<'de>, E> {
                Ok(Field::Other)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Field<'de>, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Field::Other)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field<'de>, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Field::Other)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_objects_are_read_by_name() {
        let text = r#"{"a": -1, "b": 1.5e2, "c": "x\n", "d": {"e": [1, {}]}, "f": [], "g": null, "h": true, "a": 2}"#;
        let fields: Fields<'_> = serde_json::from_str(text).unwrap();
        assert_eq!((fields.number("a").unwrap(), fields.number("b").unwrap()), (2.0, 150.0));
        assert_eq!(fields.text("c").unwrap(), "x\n");
        assert!(fields.number("c").is_err() && fields.text("a").is_err() && fields.number("d").is_err());
        assert!(fields.has("d") && fields.has("f") && fields.has("h") && !fields.has("g") && !fields.has("e"));
    }

    #[test]
    fn what_is_no_object_is_an_error() {
        for text in ["[]", "1", "\"x\"", "{\"a\": }", "{\"a\": 1} x", ""] {
            assert!(serde_json::from_str::<Fields<'_>>(text).is_err(), "{text}");
        }
        let deep = "[".repeat(10_000);
        assert!(serde_json::from_str::<Fields<'_>>(&format!("{{\"a\": {deep}")).is_err());
    }
}
