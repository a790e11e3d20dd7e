//! Which event a message is: from the envelope around its payload, from its MQTT 5 user properties, or from where the
//! configuration says that the identity of a foreign device's events lies.
//!
//! Envelope and properties are a device's own word, and must agree where both are there. The configuration's mapping is
//! for devices that know nothing of us, and is looked at only for messages that have neither.

use std::fmt;
use std::sync::Arc;

use agent_core::{Filter, Identity};
use device_wire::Envelope;

use self::place::{Found, digits, shown};
use super::{Arrival, Sender};

mod place;

pub use place::{MAX_DEPTH, MAX_SOURCE_BYTES, Place, PlaceError};

/// The MQTT 5 user property that holds the boot epoch: a whole number, decimal, 0 for a counter that never starts anew.
pub const BOOT_PROPERTY: &str = "event-boot";

/// The MQTT 5 user property that holds the sequence: a whole number, decimal.
pub const SEQUENCE_PROPERTY: &str = "event-sequence";

/// Most `[[identity]]` entries. Each message without an identity of its own is compared with their filters one by one,
/// so this bounds what that costs.
pub const MAX_ENTRIES: usize = 64;

// The number of contents remembered must span what can honestly come again.
const _: () = assert!(device_wire::WINDOW as u64 <= agent_core::dedup::CONTENTS);

/// Where the identity of a foreign device's events lies.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Topics that this is for.
    pub topic: Filter,
    /// The device; `None`: as for a message without an identity.
    pub device: Option<Place>,
    /// The sequence.
    pub sequence: Place,
    /// The boot epoch; `None`: always 0.
    pub boot: Option<Place>,
}

/// All `[[identity]]` entries, in the order of the file. The first whose filter matches counts.
#[derive(Clone, Debug, Default)]
pub struct Mapping(pub Vec<Entry>);

/// A message whose identity was looked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Identified<'a> {
    /// Who sent it.
    pub device: Arc<str>,
    /// Which event it is; `None`: nobody says, and it is handled at least once.
    pub identity: Option<Identity>,
    /// What the device has to say, without the envelope.
    pub payload: &'a [u8],
    /// The configuration says where its identity lies, and there is nothing there.
    pub lacking: bool,
}

/// An event's number in the life of its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// The boot epoch.
    pub boot: u64,
    /// The sequence within it.
    pub sequence: u64,
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "event {} of boot {}", self.sequence, self.boot)
    }
}

/// Why a message is refused: it contradicts its sender or itself.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The envelope is damaged.
    #[error("it begins like an event envelope, but {0}")]
    Envelope(device_wire::DecodeError),
    /// The name in the message is not the connection's.
    #[error(
        "it is in the name of {0}; a device sends its own events, so let it connect under the name that is in its \
         messages"
    )]
    OtherDevice(String),
    /// Only one of the two user properties is there.
    #[error("it has the user property {there}, but not {missing}; send both or neither")]
    PropertyMissing {
        /// The one that is there.
        there: &'static str,
        /// The one that is not.
        missing: &'static str,
    },
    /// A user property is there more than once.
    #[error("it has the user property {0} more than once")]
    PropertyTwice(&'static str),
    /// A user property is not a number.
    #[error("its user property {name} is {value}; allowed is a whole number from 0 to {max}, in digits only", max = u64::MAX)]
    PropertyValue {
        /// Which.
        name: &'static str,
        /// What it is, cut where it is long.
        value: String,
    },
    /// Envelope and user properties differ.
    #[error("its envelope says {envelope}, its user properties say {properties}")]
    Contradiction {
        /// What the envelope says.
        envelope: Numbers,
        /// What the properties say.
        properties: Numbers,
    },
    /// What is there, where the configuration says that a part of the identity lies, cannot be that part.
    #[error("its {part}, which the configuration takes from {place}, is {value}; allowed is {allowed}")]
    Mapped {
        /// Which part.
        part: &'static str,
        /// Where.
        place: String,
        /// What is there, cut where it is long.
        value: String,
        /// What may be there.
        allowed: &'static str,
    },
    /// The name of the source cannot be one.
    #[error(
        "{0} cannot be the name of a device whose events have an identity: allowed are 1 to {MAX_SOURCE_BYTES} bytes, \
         the first of them not \"@\""
    )]
    Source(String),
}

/// Looks for the identity of a message.
///
/// # Errors
/// If the message contradicts its sender or itself, or claims an identity that cannot be one.
pub fn identify<'a>(mapping: &Mapping, arrival: &'a Arrival) -> Result<Identified<'a>, Refusal> {
    let envelope = Envelope::decode(&arrival.payload).map_err(Refusal::Envelope)?;
    let (Sender::Known(default) | Sender::Claimed(default)) = &arrival.sender;
    let device = envelope.map_or(Ok(default.clone()), |envelope| arrival.sender.called(envelope.device))?;
    let payload = envelope.map_or(&arrival.payload[..], |envelope| envelope.payload);
    let enveloped = envelope.map(|envelope| Numbers { boot: u64::from(envelope.boot), sequence: envelope.sequence });
    let own = match (enveloped, properties(&arrival.properties)?) {
        (Some(envelope), Some(properties)) if envelope != properties => {
            return Err(Refusal::Contradiction { envelope, properties });
        }
        (enveloped, properties) => enveloped.or(properties),
    };
    let entry = mapping.0.iter().filter(|_| own.is_none()).find(|entry| entry.topic.matches(&arrival.topic));
    let (device, numbers) = match entry {
        Some(entry) => entry.read(arrival)?,
        None => (device, own),
    };
    if numbers.is_some() && (device.is_empty() || device.len() > MAX_SOURCE_BYTES || device.starts_with('@')) {
        return Err(Refusal::Source(shown(&device)));
    }
    let identity = numbers.map(|Numbers { boot, sequence }| Identity { source: device.clone(), boot, sequence });
    Ok(Identified { lacking: entry.is_some() && identity.is_none(), device, identity, payload })
}

impl Sender {
    // Who it is, if the message says that it is this one.
    fn called(&self, name: &str) -> Result<Arc<str>, Refusal> {
        match self {
            Self::Known(device) if **device != *name => Err(Refusal::OtherDevice(shown(name))),
            Self::Known(device) => Ok(device.clone()),
            Self::Claimed(_) => Ok(name.into()),
        }
    }
}

// Boot and sequence from the user properties; properties of other names are none of our business.
fn properties(all: &[(String, String)]) -> Result<Option<Numbers>, Refusal> {
    let number = |name: &'static str| {
        let mut values = all.iter().filter(|(other, _)| other == name).map(|(_, value)| value);
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Refusal::PropertyTwice(name));
        }
        digits(value).map(Some).ok_or_else(|| Refusal::PropertyValue { name, value: shown(value) })
    };
    let missing = |there, missing| Err(Refusal::PropertyMissing { there, missing });
    match (number(BOOT_PROPERTY)?, number(SEQUENCE_PROPERTY)?) {
        (None, None) => Ok(None),
        (Some(boot), Some(sequence)) => Ok(Some(Numbers { boot, sequence })),
        (Some(_), None) => missing(BOOT_PROPERTY, SEQUENCE_PROPERTY),
        (None, Some(_)) => missing(SEQUENCE_PROPERTY, BOOT_PROPERTY),
    }
}

impl Entry {
    // The device, and boot and sequence if the message has all that they need.
    fn read(&self, arrival: &Arrival) -> Result<(Arc<str>, Option<Numbers>), Refusal> {
        let find = |place: &Place| place.find(&arrival.topic, &arrival.payload);
        let refused = |part, place: &Place, found: Found, allowed| {
            let (place, value) = (place.to_string(), found.to_string());
            Refusal::Mapped { part, place, value, allowed }
        };
        let number = |part, place: &Place| match find(place) {
            Found::Absent => Ok(None),
            Found::Number(number) => Ok(Some(number)),
            Found::Text(text) if let Some(number) = digits(&text) => Ok(Some(number)),
            found => Err(refused(part, place, found, "a whole number from 0 to 18446744073709551615")),
        };
        let (Sender::Known(default) | Sender::Claimed(default)) = &arrival.sender;
        let mut complete = true;
        let device = match &self.device {
            None => default.clone(),
            Some(place) => match find(place) {
                Found::Absent => {
                    complete = false;
                    default.clone()
                }
                Found::Text(name) => arrival.sender.called(&name)?,
                Found::Number(number) => arrival.sender.called(&number.to_string())?,
                found @ Found::Other(_) => {
                    return Err(refused("device", place, found, "a text of 1 to 256 bytes or a whole number"));
                }
            },
        };
        let sequence = number("sequence", &self.sequence)?;
        let boot = self.boot.as_ref().map_or(Ok(Some(0)), |place| number("boot", place))?;
        let numbers = boot.zip(sequence).map(|(boot, sequence)| Numbers { boot, sequence });
        Ok((device, numbers.filter(|_| complete)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(payload: &[u8], properties: &[(&str, &str)]) -> Arrival {
        let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let payload = payload.to_vec().into();
        Arrival { sender: Sender::Known("t1".into()), topic: "sensors/t1/reading".into(), payload, properties }
    }

    fn claimed(payload: &[u8]) -> Arrival {
        Arrival { sender: Sender::Claimed("default".into()), ..known(payload, &[]) }
    }

    fn envelope(device: &str, boot: u32, sequence: u64) -> Vec<u8> {
        let mut bytes = [0; 100];
        let length = Envelope { device, boot, sequence, payload: b"21" }.encode(&mut bytes).unwrap();
        bytes[..length].to_vec()
    }

    fn mapping(device: Option<&str>, sequence: &str, boot: Option<&str>) -> Mapping {
        let place = |text: &str| text.parse().unwrap();
        Mapping(vec![Entry {
            topic: Filter::new("sensors/+/reading").unwrap(),
            device: device.map(place),
            sequence: place(sequence),
            boot: boot.map(place),
        }])
    }

    // Device, boot and sequence; whether something is lacking.
    fn read(mapping: &Mapping, arrival: &Arrival) -> (String, Option<(u64, u64)>, bool) {
        let found = identify(mapping, arrival).unwrap();
        if let Some(identity) = &found.identity {
            assert_eq!(identity.source, found.device);
        }
        let numbers = found.identity.map(|identity| (identity.boot, identity.sequence));
        (found.device.to_string(), numbers, found.lacking)
    }

    const BOTH: [(&str, &str); 3] = [("event-sequence", "9"), ("colour", "blue"), ("event-boot", "4")];

    #[test]
    fn properties_say_which_event_it_is_and_the_connection_says_whose() {
        let none = Mapping::default();
        let arrival = known(b"21", &BOTH);
        assert_eq!(read(&none, &arrival), ("t1".into(), Some((4, 9)), false));
        assert_eq!(identify(&none, &arrival).unwrap().payload, b"21");
        assert_eq!(read(&none, &known(b"21", &BOTH[1..2])), ("t1".into(), None, false));
    }

    #[test]
    fn properties_that_make_no_sense_are_refused_by_name() {
        let refused = |properties: &[(&str, &str)]| identify(&Mapping::default(), &known(b"", properties)).unwrap_err();
        assert_eq!(refused(&BOTH[..1]), Refusal::PropertyMissing { there: "event-sequence", missing: "event-boot" });
        assert_eq!(refused(&BOTH[2..]), Refusal::PropertyMissing { there: "event-boot", missing: "event-sequence" });
        assert_eq!(refused(&[BOTH[0], BOTH[0], BOTH[2]]), Refusal::PropertyTwice("event-sequence"));
        let value = refused(&[("event-boot", "-1"), BOTH[0]]);
        assert_eq!(
            value.to_string(),
            "its user property event-boot is \"-1\"; allowed is a whole number from 0 to 18446744073709551615, in digits \
             only"
        );
    }

    #[test]
    fn an_envelope_must_agree_with_connection_and_properties() {
        let none = Mapping::default();
        assert_eq!(read(&none, &known(&envelope("t1", 4, 9), &[])), ("t1".into(), Some((4, 9)), false));
        let both = known(&envelope("t1", 4, 9), &BOTH);
        assert_eq!(read(&none, &both), ("t1".into(), Some((4, 9)), false));
        assert_eq!(identify(&none, &both).unwrap().payload, b"21");
        assert_eq!(read(&none, &claimed(&envelope("t2", 4, 9))), ("t2".into(), Some((4, 9)), false));
        assert_eq!(
            identify(&none, &known(&envelope("t2", 4, 9), &[])).unwrap_err(),
            Refusal::OtherDevice("\"t2\"".into())
        );
        for (boot, sequence) in [(4, 8), (3, 9)] {
            let refusal = identify(&none, &known(&envelope("t1", boot, sequence), &BOTH)).unwrap_err();
            assert!(
                refusal
                    == Refusal::Contradiction {
                        envelope: Numbers { boot: boot.into(), sequence },
                        properties: Numbers { boot: 4, sequence: 9 }
                    }
            );
        }
        assert!(matches!(identify(&none, &known(b"\xFFEV\x09", &[])), Err(Refusal::Envelope(_))));
    }

    #[test]
    fn a_mapping_is_for_messages_without_an_identity_of_their_own() {
        let json = br#"{"meta":{"seq":7},"boot":"3"}"#;
        let all = mapping(Some("topic:2"), "json:meta.seq", Some("json:boot"));
        assert_eq!(read(&all, &claimed(json)), ("t1".into(), Some((3, 7)), false));
        assert_eq!(read(&all, &known(json, &[])), ("t1".into(), Some((3, 7)), false));
        assert_eq!(identify(&all, &claimed(json)).unwrap().payload, json);
        assert_eq!(
            read(&mapping(None, "json:meta.seq", None), &claimed(json)),
            ("default".into(), Some((0, 7)), false)
        );
        assert_eq!(read(&all, &known(json, &BOTH)), ("t1".into(), Some((4, 9)), false));
        assert_eq!(read(&all, &claimed(&envelope("t2", 4, 9))), ("t2".into(), Some((4, 9)), false));
        let elsewhere = Arrival { topic: "other".into(), ..claimed(json) };
        assert_eq!(read(&all, &elsewhere), ("default".into(), None, false));
    }

    #[test]
    fn a_message_that_lacks_a_part_has_no_identity() {
        let all = mapping(Some("json:id"), "json:seq", Some("json:boot"));
        let lacks = |json: &str, device: &str| {
            assert_eq!(read(&all, &claimed(json.as_bytes())), (device.into(), None, true), "{json}");
        };
        lacks("offline", "default");
        lacks(r#"{"seq":1,"boot":1}"#, "default");
        lacks(r#"{"id":"d","boot":1}"#, "d");
        lacks(r#"{"id":5,"seq":1}"#, "5");
    }

    #[test]
    fn what_is_there_but_is_no_identity_is_refused_by_name() {
        let all = mapping(Some("json:id"), "json:seq", None);
        let refused = |arrival: &Arrival| identify(&all, arrival).unwrap_err();
        assert_eq!(
            refused(&claimed(br#"{"id":"d","seq":"x"}"#)).to_string(),
            "its sequence, which the configuration takes from json:seq, is \"x\"; allowed is a whole number from 0 to \
             18446744073709551615"
        );
        assert!(matches!(refused(&claimed(br#"{"id":[],"seq":1}"#)), Refusal::Mapped { part: "device", .. }));
        assert_eq!(refused(&known(br#"{"id":"t2","seq":1}"#, &[])), Refusal::OtherDevice("\"t2\"".into()));
        // The gateway's own events have a source that begins like this.
        assert_eq!(refused(&claimed(br#"{"id":"@gateway","seq":1}"#)), Refusal::Source("\"@gateway\"".into()));
        for name in ["@gateway", "", &"x".repeat(MAX_SOURCE_BYTES + 1)] {
            let arrival = Arrival { sender: Sender::Known(name.into()), ..known(b"", &BOTH) };
            assert!(matches!(refused(&arrival), Refusal::Source(_)), "{name}");
        }
    }

    #[test]
    fn the_first_entry_that_matches_counts() {
        let Mapping(mut entries) = mapping(None, "json:a", None);
        entries.extend(mapping(None, "json:b", None).0);
        entries[0].topic = Filter::new("sensors/t1/#").unwrap();
        assert_eq!(read(&Mapping(entries), &claimed(br#"{"a":1,"b":2}"#)).1, Some((0, 1)));
    }
}
