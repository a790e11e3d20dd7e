//! What a run is about.

use std::str;

use function_abi::{Attributes, BLOB_DIGEST, EventHeader, EventKind};

use crate::{Error, Result};

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event<'e> {
    /// How it came to be.
    pub kind: EventKind,
    /// Who sent it: the device's authenticated name, not something it says in the payload.
    pub device: &'e str,
    /// The MQTT topic; of other events what [`EventKind`] says.
    pub topic: &'e str,
    /// What was sent.
    pub payload: &'e [u8],
    /// When the gateway received it, microseconds since 1970-01-01 UTC by the gateway's clock.
    pub time_us: u64,
    /// What makes it this event and no other; an event without one may come more than once.
    pub identity: Option<Identity>,
    /// What else is known of it, names with values; [`EventKind`] says which. See [`attribute`](Self::attribute).
    pub attributes: Attributes<'e>,
}

/// An event's place in the life of its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Grows with each start of the device.
    pub boot: u64,
    /// From 1 within a boot.
    pub sequence: u64,
}

/// What can stand as the first parameter of a handler.
///
/// [`Json`](crate::Json) and [`Postcard`](crate::Postcard) of any type that serde reads (also one that borrows from the
/// payload), [`Fields`](crate::Fields), `String` and `&str`, `Vec<u8>` and `&[u8]`, and the whole [`Event`].
#[diagnostic::on_unimplemented(
    message = "a handler cannot take its event as `{Self}`",
    note = "its first parameter is `Json<T>`, `Postcard<T>`, `Fields`, `&str`, `String`, `&[u8]`, `Vec<u8>` or `Event`"
)]
pub trait FromEvent<'e>: Sized {
    /// Reads the event.
    ///
    /// # Errors
    /// The payload is not what the handler expects; the run fails with this message.
    fn from_event(event: Event<'e>) -> Result<Self>;
}

impl<'e> FromEvent<'e> for Event<'e> {
    fn from_event(event: Event<'e>) -> Result<Self> {
        Ok(event)
    }
}

impl<'e> FromEvent<'e> for &'e [u8] {
    fn from_event(event: Event<'e>) -> Result<Self> {
        Ok(event.payload)
    }
}

impl<'e> FromEvent<'e> for Vec<u8> {
    fn from_event(event: Event<'e>) -> Result<Self> {
        Ok(event.payload.to_vec())
    }
}

impl<'e> FromEvent<'e> for &'e str {
    fn from_event(event: Event<'e>) -> Result<Self> {
        str::from_utf8(event.payload).map_err(|error| {
            let at = error.valid_up_to();
            event.unexpected("a text in UTF-8", format_args!("byte {at} breaks it"), at)
        })
    }
}

impl<'e> FromEvent<'e> for String {
    fn from_event(event: Event<'e>) -> Result<Self> {
        <&str>::from_event(event).map(str::to_owned)
    }
}

impl<'e> Event<'e> {
    /// The first attribute of this name: `event.attribute("path.id")`.
    pub fn attribute(&self, name: &str) -> Option<&'e str> {
        self.attributes.get(name)
    }

    /// What names the content of the blob that the event is about, for [`Context::blob_read`](crate::Context::blob_read):
    /// also if the blob's name has another content by now. `None` if it is about none.
    pub fn blob(&self) -> Option<String> {
        let digest = self.attribute("digest").filter(|_| self.kind == EventKind::Blob)?;
        Some(format!("{BLOB_DIGEST}{digest}"))
    }

    /// Reads the block that the gateway wrote.
    #[cfg_attr(not(target_family = "wasm"), allow(dead_code, reason = "only the module reads blocks"))]
    pub(crate) fn from_block(block: &'e [u8]) -> Result<Self> {
        let damaged = |what| Error::new(format_args!("the gateway's event block is damaged: {what}"));
        let header = EventHeader::from_block(block).ok_or_else(|| damaged("its header is too short"))?;
        let text = |bytes: Option<&'e [u8]>| bytes.and_then(|bytes| str::from_utf8(bytes).ok());
        let identity = Identity { boot: header.boot, sequence: header.sequence };
        Ok(Self {
            kind: EventKind::from_u32(header.kind).ok_or_else(|| damaged("an unknown kind of event"))?,
            device: text(header.device.of(block)).ok_or_else(|| damaged("device"))?,
            topic: text(header.topic.of(block)).ok_or_else(|| damaged("topic"))?,
            payload: header.payload.of(block).ok_or_else(|| damaged("payload"))?,
            time_us: header.time_us,
            identity: (header.sequence > 0).then_some(identity),
            attributes: header.attributes.of(block).map(Attributes).ok_or_else(|| damaged("attributes"))?,
        })
    }

    /// The error for a payload of another shape: what was expected, what is wrong, and the bytes around the place.
    pub(crate) fn unexpected(&self, expected: &str, wrong: std::fmt::Arguments<'_>, at: usize) -> Error {
        const BEFORE: usize = 40;
        const SHOWN: usize = 80;
        let start = at.min(self.payload.len()).saturating_sub(BEFORE);
        let excerpt = &self.payload[start..self.payload.len().min(start + SHOWN)];
        let (head, tail) = (dots(start > 0), dots(start + SHOWN < self.payload.len()));
        Error::new(format_args!(
            "the payload on {} is not {expected}: {wrong}: {head}{}{tail} ({} bytes)",
            self.topic,
            shown(excerpt),
            self.payload.len()
        ))
    }
}

/// Bytes as a person can read them: text as it is, control characters and what is no text escaped.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            if letter.is_control() { out.extend(letter.escape_default()) } else { out.push(letter) }
        }
        for byte in chunk.invalid() {
            out.extend(byte.escape_ascii().map(char::from));
        }
    }
    out
}

fn dots(more: bool) -> &'static str {
    if more { "…" } else { "" }
}

#[cfg(test)]
mod tests {
    use function_abi::Span;

    use super::*;

    fn block(change: impl FnOnce(&mut EventHeader)) -> Vec<u8> {
        let mut header = EventHeader {
            header_len: EventHeader::LEN as u32,
            kind: EventKind::Mqtt as u32,
            time_us: 7,
            boot: 2,
            sequence: 3,
            device: Span { offset: 64, len: 2 },
            topic: Span { offset: 66, len: 3 },
            payload: Span { offset: 69, len: 1 },
            attributes: Span { offset: 70, len: 10 },
        };
        change(&mut header);
        [&header.to_bytes()[..], b"d1a/b\xff", b"\x01\0\0\0\x01\0\0\0kv"].concat()
    }

    #[test]
    fn a_block_is_read_as_it_was_written() {
        let block = block(|_| {});
        let event = Event::from_block(&block).unwrap();
        assert_eq!((event.device, event.topic, event.payload, event.time_us), ("d1", "a/b", &b"\xff"[..], 7));
        assert_eq!(event.identity, Some(Identity { boot: 2, sequence: 3 }));
        assert_eq!((event.attribute("k"), event.attribute("v")), (Some("v"), None));
    }

    #[test]
    fn a_later_header_is_read_through_its_spans() {
        let mut bytes = block(|header| {
            header.header_len += 8;
            for span in [&mut header.device, &mut header.topic, &mut header.payload, &mut header.attributes] {
                span.offset += 8;
            }
        });
        bytes.splice(64..64, [0xee; 8]);
        assert_eq!(Event::from_block(&bytes).unwrap().topic, "a/b");
    }

    #[test]
    fn damage_is_named_and_no_identity_is_none() {
        let error = |change: fn(&mut EventHeader)| Event::from_block(&block(change)).unwrap_err().to_string();
        assert!(error(|header| header.topic.len = 1000).ends_with("topic"));
        assert!(error(|header| header.device.len = 6).ends_with("device"));
        assert!(error(|header| header.kind = 99).contains("unknown kind"));
        assert!(Event::from_block(&[0; 55]).is_err());
        assert_eq!(Event::from_block(&block(|header| header.sequence = 0)).unwrap().identity, None);
    }
}
