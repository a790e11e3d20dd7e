//! The contract between the gateway (host) and a function (guest), version 1.
//!
//! `docs/abi.md` says the same to whoever writes a function in another language, with an example, limits and traps.
//!
//! A function is a core WebAssembly module. It needs nothing but what this page says, in any language:
//!
//! | the guest exports | type | meaning |
//! |---|---|---|
//! | `memory` | memory | where all pointers below point to |
//! | `edge_alloc` | `(len: i32) -> i32` | an address, divisible by 8, of `len` free bytes for the host to write the event into |
//! | `edge_handle` | `(event: i32, len: i32) -> i32` | handles the event block at `event`; 0 is success, anything else a failure |
//!
//! Other exports are ignored. `edge_alloc` answers 0 when there is no room, which ends the run. A start function may log,
//! read the configuration and draw random numbers, but neither read state nor list effects.
//!
//! The guest may import these functions from the module [`NAMESPACE`], and no others:
//!
//! | import | type | meaning |
//! |---|---|---|
//! | `config_get` | `(key, key_len, out, out_cap) -> i32` | reads a configuration value (UTF-8) |
//! | `secret_get` | `(key, key_len, out, out_cap) -> i32` | reads a secret of the gateway (UTF-8) that the manifest allows |
//! | `state_get` | `(key, key_len, out, out_cap) -> i32` | reads a value of this function's state, earlier writes of this run included |
//! | `state_next` | `(prefix, prefix_len, after, after_len, out, out_cap) -> i32` | the first key of this function's state that begins with `prefix` and comes after `after` (bytewise; an empty one: from the beginning), writes of this run included |
//! | `blob_size` | `(name, name_len) -> i32` | the bytes of a blob, as it was before this run |
//! | `blob_get` | `(name, name_len, offset, out, out_cap) -> i32` | reads a blob from `offset` (unsigned) on: at most `out_cap` bytes; answers how many, which is 0 from its end on |
//! | `random_fill` | `(out, out_len)` | fills memory from a generator whose seed the host keeps, so that a run can be replayed |
//! | `state_put` | `(key, key_len, value, value_len)` | effect: stores a value |
//! | `state_put_ttl` | `(key, key_len, value, value_len, ttl_s)` | effect: stores a value that is absent for events which are received `ttl_s` seconds (unsigned, not 0) after this one, or later |
//! | `state_delete` | `(key, key_len)` | effect: removes a value; absent is no error |
//! | `emit` | `(stream, stream_len, body, body_len, priority)` | effect: a record to a cloud stream; `priority` is a [`Priority`] |
//! | `publish` | `(topic, topic_len, payload, payload_len, flags)` | effect: an MQTT message; `flags` are [`PublishFlags`] |
//! | `enqueue` | `(queue, queue_len, body, body_len, delay_ms)` | effect: a message to the function that reads this queue, not before `delay_ms` (unsigned) have passed |
//! | `respond` | `(status, headers, headers_len, body, body_len)` | effect: the answer to an HTTP request, instead of 204; `headers` are attributes, `status` is 200 to 599 |
//! | `twin_report` | `(name, name_len, value, value_len)` | effect: a property of the event's device has this value now; the control plane keeps the latest |
//! | `count` | `(name, name_len, number: f64)` | effect: adds to a counter of this function; `number` is finite and not negative |
//! | `observe` | `(name, name_len, number: f64)` | effect: adds a value to a distribution of this function; `number` is finite |
//! | `blob_put` | `(name, name_len, type, type_len, body, body_len)` | effect: stores a blob under a name, `BUCKET/NAME`; `type` is a media type, or empty |
//! | `blob_delete` | `(name, name_len)` | effect: removes a blob; absent is no error |
//! | `log` | `(level, text, text_len)` | a log line; `level` is a [`LogLevel`] |
//! | `log_with` | `(level, text, text_len, fields, fields_len)` | the same, with named values; `fields` are attributes |
//! | `fail` | `(text, text_len)` | ends the run as failed with this message; does not return |
//!
//! All parameters without a type are `i32` (addresses and lengths unsigned). A read (`config_get`, `secret_get`, `state_get`, `state_next`) answers the length of
//! the value, and writes it to `out` only if it fits in `out_cap`; the guest then comes again with more room. An absent
//! value answers [`ABSENT`]. Keys are not empty. `blob_size` and `blob_get` answer it for a blob that is not there. While a run
//! reads a name, it has one content; [`BLOB_DIGEST`] and the digest of the event's blob name its content. `random_fill` is for jitter and sampling: whoever knows the seed knows the
//! numbers, so never make keys of them. **No import blocks.** Effects take place together after `edge_handle` returned 0, in one
//! transaction with the mark that the event was handled, or not at all. An effect that is not allowed, malformed or
//! over a limit ends the run as a trap that names it.
//!
//! # The event block
//!
//! One block in memory, little-endian, offsets relative to its first byte: the [`EventHeader`], then the bytes that
//! its spans point to. A host of a later version may write a longer header: read the fields you know, find the rest
//! through the spans, and never rely on `header_len` being [`EventHeader::LEN`].
//!
//! | offset | type | field |
//! |---|---|---|
//! | 0 | u32 | `header_len`, bytes of this header |
//! | 4 | u32 | `kind`, an [`EventKind`] |
//! | 8 | u64 | `time_us`, when the gateway received the event, microseconds since 1970-01-01 UTC |
//! | 16 | u64 | `boot`, boot epoch of the event's source; meaningless if `sequence` is 0 |
//! | 24 | u64 | `sequence` of the event within the boot epoch, from 1; 0: the event has no identity |
//! | 32 | span | `device`, UTF-8: who sent it |
//! | 40 | span | `topic`, UTF-8: the MQTT topic |
//! | 48 | span | `payload`, any bytes |
//! | 56 | span | `attributes`, what else is known of the event: see [`EventKind`] |
//!
//! A span is two u32: offset, length. Attributes are names with values, both UTF-8: for each two u32, the length of the
//! name and that of the value, then the name, then the value; one after the other, without padding. A name may come
//! more than once. [`Attributes`] reads them.
#![no_std]

/// The import namespace; its number is the version of this contract.
pub const NAMESPACE: &str = "edge_v1";

/// What every version of the namespace begins with, so that a host can name a version that it does not know.
pub const NAMESPACE_PREFIX: &str = "edge_v";

/// Name of the exported memory.
pub const EXPORT_MEMORY: &str = "memory";
/// Name of the exported allocator, `(len: i32) -> i32`.
pub const EXPORT_ALLOC: &str = "edge_alloc";
/// Name of the exported handler, `(event: i32, len: i32) -> i32`.
pub const EXPORT_HANDLE: &str = "edge_handle";

/// What a read answers when there is no such value.
pub const ABSENT: i32 = -1;

/// Beginning of a blob's name that means a content: the SHA-256 in hex follows. Only the blob of the event can be read so.
pub const BLOB_DIGEST: &str = "sha256:";

/// Alignment in bytes that `edge_alloc` owes the host.
pub const EVENT_ALIGN: u32 = 8;

/// How an event came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
pub enum EventKind {
    /// An MQTT message.
    Mqtt = 0,
    /// A request to an HTTP route of the gateway. The topic is the request's path, the payload its body. Attributes: `method`,
    /// `query` if there is one, `path.NAME` for each part of the route in braces, `header.NAME` (lower case).
    Http = 1,
    /// A moment of a schedule. The topic is the schedule's name. Attributes: `due_us`, the moment (microseconds since
    /// 1970-01-01 UTC); `missed`, how many before it were missed.
    Schedule = 2,
    /// A message that a function put into a queue. The topic is the queue, the device that of the event from which it came.
    /// Attributes: `message`, its number, which never changes; `attempt`, from 1.
    Queue = 3,
    /// A device connected to the gateway's own broker, or is gone. The topic is `connected` or `disconnected`.
    Device = 4,
    /// What became of an HTTP request that a function listed. The topic is the URL without its query, the device that of the
    /// event from which the request came, the payload the body. Attributes: `status`, if an answer came; `error`, what failed,
    /// if it did; `tag`, if the request had one; `request`, its number, which never changes; `attempts`, how often it was
    /// sent; `header.NAME` (lower case); `attempt`, from 1.
    Answer = 5,
    /// A blob was stored. The topic is its name, `BUCKET/NAME`, the payload is empty. Attributes: `digest` (SHA-256 in
    /// hex), `size` in bytes, `type`, `bucket`, `name` (without the bucket); `attempt`, from 1.
    Blob = 6,
}

impl EventKind {
    /// The kind with this number, if this version knows it.
    pub const fn from_u32(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Mqtt),
            1 => Some(Self::Http),
            2 => Some(Self::Schedule),
            3 => Some(Self::Queue),
            4 => Some(Self::Device),
            5 => Some(Self::Answer),
            6 => Some(Self::Blob),
            _ => None,
        }
    }
}

/// Which records go first when the link is narrow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum Priority {
    /// In the order they were committed.
    #[default]
    Normal = 0,
    /// Before every normal record that waits.
    High = 1,
}

impl Priority {
    /// The priority with this number.
    pub const fn from_i32(number: i32) -> Option<Self> {
        match number {
            0 => Some(Self::Normal),
            1 => Some(Self::High),
            _ => None,
        }
    }
}

/// Flags of the `publish` import: bits 0 and 1 are the QoS (0 to 2), bit 2 is retain; all other bits are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishFlags {
    /// MQTT quality of service, 0 to 2.
    pub qos: u8,
    /// Whether the broker keeps the message for later subscribers.
    pub retain: bool,
}

impl PublishFlags {
    /// The number that crosses the boundary.
    pub const fn to_i32(self) -> i32 {
        (self.qos & 0b11) as i32 | ((self.retain as i32) << 2)
    }

    /// Reads the number; `None` if the QoS is 3 or an unknown bit is set.
    pub const fn from_i32(number: i32) -> Option<Self> {
        let qos = (number & 0b11) as u8;
        if qos == 3 || number & !0b111 != 0 {
            return None;
        }
        Some(Self { qos, retain: number & 0b100 != 0 })
    }
}

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub enum LogLevel {
    /// Something failed.
    Error = 0,
    /// Something is odd.
    Warn = 1,
    /// Something worth knowing happened.
    Info = 2,
    /// For whoever looks for a fault.
    Debug = 3,
}

impl LogLevel {
    /// The level with this number.
    pub const fn from_i32(number: i32) -> Option<Self> {
        match number {
            0 => Some(Self::Error),
            1 => Some(Self::Warn),
            2 => Some(Self::Info),
            3 => Some(Self::Debug),
            _ => None,
        }
    }
}

/// A range of bytes in the event block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Span {
    /// Bytes from the block's start.
    pub offset: u32,
    /// Length in bytes.
    pub len: u32,
}

/// The head of the event block; see the [crate's page](crate) for the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct EventHeader {
    /// Bytes of this header as the host wrote it.
    pub header_len: u32,
    /// An [`EventKind`].
    pub kind: u32,
    /// When the gateway received the event, microseconds since 1970-01-01 UTC.
    pub time_us: u64,
    /// Boot epoch of the source.
    pub boot: u64,
    /// Sequence within the boot epoch, from 1; 0: no identity.
    pub sequence: u64,
    /// Who sent it, UTF-8.
    pub device: Span,
    /// The MQTT topic, UTF-8.
    pub topic: Span,
    /// Any bytes.
    pub payload: Span,
    /// See [`Attributes`].
    pub attributes: Span,
}

impl EventHeader {
    /// Length in bytes of the header that this version writes.
    pub const LEN: usize = 64;

    /// Length in bytes of the shortest header that a host ever wrote: that has no attributes.
    pub const SHORTEST: usize = 56;

    /// The header's bytes.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&self.header_len.to_le_bytes());
        put(&self.kind.to_le_bytes());
        put(&self.time_us.to_le_bytes());
        put(&self.boot.to_le_bytes());
        put(&self.sequence.to_le_bytes());
        for span in [self.device, self.topic, self.payload, self.attributes] {
            put(&span.offset.to_le_bytes());
            put(&span.len.to_le_bytes());
        }
        out
    }

    /// Reads the header of a block; `None` if the block is shorter than any header. A host of an earlier version writes no
    /// attributes: there are none then.
    pub fn from_block(block: &[u8]) -> Option<Self> {
        let short = block.first_chunk::<{ Self::SHORTEST }>()?;
        let mut head = [0; Self::LEN];
        head[..Self::SHORTEST].copy_from_slice(short);
        let u32_at = |head: &[u8], at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if u32_at(&head, 0) as usize >= Self::LEN {
            head = *block.first_chunk::<{ Self::LEN }>()?;
        }
        let u32_at = |at: usize| u32_at(&head, at);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let span_at = |at: usize| Span { offset: u32_at(at), len: u32_at(at + 4) };
        Some(Self {
            header_len: u32_at(0),
            kind: u32_at(4),
            time_us: u64_at(8),
            boot: u64_at(16),
            sequence: u64_at(24),
            device: span_at(32),
            topic: span_at(40),
            payload: span_at(48),
            attributes: span_at(56),
        })
    }
}

/// What else is known of an event: names with values, read from their bytes one by one. Ends before what is damaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Attributes<'a> {
    /// The first value of this name.
    pub fn get(self, name: &str) -> Option<&'a str> {
        self.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Hands the bytes of a name and its value to `put`, piece by piece. `None`, and nothing of it, if one is longer than
    /// 4 GiB.
    pub fn write(name: &str, value: &str, mut put: impl FnMut(&[u8])) -> Option<()> {
        let (name_len, value_len) = (u32::try_from(name.len()).ok()?, u32::try_from(value.len()).ok()?);
        put(&name_len.to_le_bytes());
        put(&value_len.to_le_bytes());
        put(name.as_bytes());
        put(value.as_bytes());
        Some(())
    }

    /// Whether they are whole to the last byte.
    pub fn are_whole(self) -> bool {
        let mut rest = self;
        while rest.next().is_some() {}
        rest.0.is_empty()
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, rest) = self.0.split_first_chunk::<8>()?;
        let [a, b, c, d, e, f, g, h] = *head;
        let (name_len, value_len) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        let (name, rest) = rest.split_at_checked(name_len as usize)?;
        let (value, rest) = rest.split_at_checked(value_len as usize)?;
        let found = (core::str::from_utf8(name).ok()?, core::str::from_utf8(value).ok()?);
        self.0 = rest;
        Some(found)
    }
}

impl Span {
    /// The bytes of this span in `block`; `None` if it points outside.
    pub fn of(self, block: &[u8]) -> Option<&[u8]> {
        let start = self.offset as usize;
        block.get(start..start.checked_add(self.len as usize)?)
    }
}

// The table above and the structs must agree, for C guests lay the struct over the block.
const _: () = {
    assert!(size_of::<EventHeader>() == EventHeader::LEN);
    assert!(core::mem::offset_of!(EventHeader, time_us) == 8);
    assert!(core::mem::offset_of!(EventHeader, sequence) == 24);
    assert!(core::mem::offset_of!(EventHeader, device) == 32);
    assert!(core::mem::offset_of!(EventHeader, payload) == 48);
    assert!(core::mem::offset_of!(EventHeader, attributes) == 56);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_its_bytes() {
        let header = EventHeader {
            header_len: EventHeader::LEN as u32,
            kind: EventKind::Mqtt as u32,
            time_us: 0x0102_0304_0506_0708,
            boot: u64::MAX,
            sequence: 1 << 40,
            device: Span { offset: 56, len: 3 },
            topic: Span { offset: 59, len: 7 },
            payload: Span { offset: 66, len: 0 },
            attributes: Span { offset: 66, len: 9 },
        };
        assert_eq!(EventHeader::from_block(&header.to_bytes()), Some(header));
        for short in [55, 56, 63] {
            assert_eq!(EventHeader::from_block(&header.to_bytes()[..short]), None);
        }
    }

    #[test]
    fn the_header_of_an_earlier_host_has_no_attributes() {
        let spans = [0; 3].map(|_| Span { offset: 56, len: 0 });
        let [device, topic, payload] = spans;
        let header = EventHeader {
            header_len: 56,
            kind: 0,
            time_us: 1,
            boot: 2,
            sequence: 3,
            device,
            topic,
            payload,
            attributes: Span::default(),
        };
        assert_eq!(EventHeader::from_block(&header.to_bytes()[..56]), Some(header));
    }

    #[test]
    fn attributes_are_read_one_by_one_and_end_before_damage() {
        let mut bytes = [0u8; 64];
        let mut at = 0;
        for (name, value) in [("method", "GET"), ("empty", ""), ("method", "second")] {
            Attributes::write(name, value, |part| {
                bytes[at..at + part.len()].copy_from_slice(part);
                at += part.len();
            })
            .unwrap();
        }
        let whole = Attributes(&bytes[..at]);
        assert_eq!((whole.into_iter().count(), whole.are_whole()), (3, true));
        assert_eq!((whole.get("method"), whole.get("empty"), whole.get("no")), (Some("GET"), Some(""), None));
        for cut in 1..at {
            assert!(Attributes(&bytes[..cut]).count() < 3);
        }
        assert!(!Attributes(&bytes[..at - 1]).are_whole() && !Attributes(&[0xff; 9]).are_whole());
    }

    #[test]
    fn a_span_outside_the_block_is_none() {
        assert_eq!(Span { offset: 2, len: 2 }.of(b"abcd"), Some(&b"cd"[..]));
        assert_eq!(Span { offset: 2, len: 3 }.of(b"abcd"), None);
        assert_eq!(Span { offset: u32::MAX, len: u32::MAX }.of(b"abcd"), None);
    }

    #[test]
    fn flags_refuse_what_they_do_not_know() {
        for qos in 0..=2 {
            for retain in [false, true] {
                let flags = PublishFlags { qos, retain };
                assert_eq!(PublishFlags::from_i32(flags.to_i32()), Some(flags));
            }
        }
        assert_eq!(PublishFlags::from_i32(3), None);
        assert_eq!(PublishFlags::from_i32(8), None);
        assert_eq!(PublishFlags::from_i32(-1), None);
    }
}
