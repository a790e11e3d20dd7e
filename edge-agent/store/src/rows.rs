//! How values become rows, and how a row is checked when it comes back.

use std::borrow::Cow;

use agent_core::event::{EventKind, Identity};
use agent_core::{Event, effect::PublishFlags};
use rusqlite::Connection;
use rusqlite::types::FromSql;
use serde::{Deserialize, Serialize};
use sync_protocol::records::{Gone, Record, Stamp};
use sync_protocol::usage::Part;

use crate::error::Cause;
use crate::queue::Kind;
use crate::write::{Dead, DeadKind, DeadLetter, Deployment, FailedRun, Missing, Outcome, Publish};

/// The first byte of every value of this crate's own encoding; the rest is postcard.
const VERSION: u8 = 1;

/// SQLite's integers are signed: the same 64 bits.
pub(crate) const fn integer(number: u64) -> i64 {
    number.cast_signed()
}

/// What [`integer`] stored.
pub(crate) const fn number(integer: i64) -> u64 {
    integer.cast_unsigned()
}

/// A number from outside that ids, which are below 2^63, are compared with.
pub(crate) fn bound(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The checksum of a value that is found by a number.
pub(crate) fn checksum(value: &[u8]) -> u32 {
    crc32fast::hash(value)
}

/// The checksum of a value that is found by a name: over both, so that a value never passes for that of another name.
pub(crate) fn named_checksum(name: &str, value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&(name.len() as u64).to_le_bytes());
    hasher.update(name.as_bytes());
    hasher.update(value);
    hasher.finalize()
}

/// The checksum of a value that is found by (function, partition, key): over all of them, for the same reason.
pub(crate) fn keyed_checksum(function: u32, partition: &str, key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&function.to_le_bytes());
    for part in [partition.as_bytes(), key] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.update(value);
    hasher.finalize()
}

/// The checksum of a value of state: as [`keyed_checksum`], and over the time of its end.
pub(crate) fn state_checksum(function: u32, partition: &str, key: &[u8], expires_us: Option<i64>, value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(keyed_checksum(function, partition, key, value));
    if let Some(expires_us) = expires_us {
        hasher.update(&expires_us.to_le_bytes());
    }
    hasher.finalize()
}

/// The checksum of a row that stands for several numbers: over these as well.
pub(crate) fn run_checksum(kind: Kind, first: u64, last: u64, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for number in [kind.number().cast_unsigned(), first, last] {
        hasher.update(&number.to_le_bytes());
    }
    hasher.update(body);
    hasher.finalize()
}

/// A column, or what is wrong with it.
pub(crate) fn column<'a, T: FromSql + 'a>(row: &'a rusqlite::Row<'_>, index: usize) -> Result<T, String> {
    row.get(index).map_err(|error| error.to_string())
}

/// The value in column `value`, if the checksum of it is what column `stored` says.
pub(crate) fn checked<'a>(row: &'a rusqlite::Row<'_>, stored: usize, value: usize) -> Result<&'a [u8], String> {
    checked_by(row, stored, value, checksum)
}

/// As [`checked`], with another way to compute the checksum.
pub(crate) fn checked_by<'a>(
    row: &'a rusqlite::Row<'_>,
    stored: usize,
    value: usize,
    checksum: impl FnOnce(&[u8]) -> u32,
) -> Result<&'a [u8], String> {
    let stored: u32 = column(row, stored)?;
    let value = row.get_ref(value).map_err(|error| error.to_string())?.as_blob().map_err(|error| error.to_string())?;
    let computed = checksum(value);
    if computed == stored {
        Ok(value)
    } else {
        Err(format!("the checksum over its {} bytes is {computed:#010x}, and {stored:#010x} was stored", value.len()))
    }
}

/// [`Record`] as it is written: the same fields in the same order, hence the same bytes, without a copy of any.
#[derive(Serialize)]
struct RecordRow<'a> {
    stream: &'a str,
    function: &'a str,
    origin: OriginRow<'a>,
    stamp: Stamp,
    #[serde(with = "serde_bytes")]
    body: &'a [u8],
}

#[derive(Serialize)]
struct OriginRow<'a> {
    device: &'a str,
    topic: &'a str,
    identity: Option<(u64, u64)>,
}

/// [`Publish`] without its id.
#[derive(Serialize, Deserialize)]
struct PublishRow<'a> {
    device: &'a str,
    topic: &'a str,
    flags: i32,
    #[serde(with = "serde_bytes", borrow)]
    payload: &'a [u8],
}

/// [`DeadLetter`] without its id.
#[derive(Serialize, Deserialize)]
struct DeadLetterRow<'a> {
    function: &'a str,
    version: &'a str,
    digest: [u8; 32],
    kind: DeadKind,
    reason: &'a str,
    detail: &'a str,
    run: Option<Cow<'a, FailedRun>>,
    stamp: Stamp,
    #[serde(borrow)]
    event: EventRow<'a>,
}

/// [`Event`].
#[derive(Serialize, Deserialize)]
struct EventRow<'a> {
    kind: u32,
    device: &'a str,
    topic: &'a str,
    #[serde(borrow)]
    identity: Option<(&'a str, u64, u64)>,
    time_us: u64,
    #[serde(borrow)]
    attributes: Vec<(&'a str, &'a str)>,
    #[serde(with = "serde_bytes", borrow)]
    payload: &'a [u8],
}

impl<'a> EventRow<'a> {
    fn new(event: &'a Event) -> Self {
        Self {
            kind: event.kind as u32,
            device: &event.device,
            topic: &event.topic,
            identity: event.identity.as_ref().map(|identity| (&*identity.source, identity.boot, identity.sequence)),
            time_us: event.time_us,
            attributes: event.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
            payload: &event.payload,
        }
    }

    fn event(&self) -> Result<Event, String> {
        let kind = EventKind::from_u32(self.kind).ok_or_else(|| format!("{} is no kind of event", self.kind))?;
        let identity = self.identity;
        Ok(Event {
            kind,
            device: self.device.into(),
            topic: self.topic.into(),
            payload: self.payload.into(),
            identity: identity.map(|(source, boot, sequence)| Identity { source: source.into(), boot, sequence }),
            time_us: self.time_us,
            attributes: self.attributes.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        })
    }
}

/// [`Message`](crate::Message) without what stands in other columns.
#[derive(Serialize, Deserialize)]
struct MessageRow<'a> {
    attempts: u32,
    #[serde(borrow)]
    event: EventRow<'a>,
}

pub(crate) fn write_message(out: &mut Vec<u8>, attempts: u32, event: &Event) {
    write(out, VERSION, &MessageRow { attempts, event: EventRow::new(event) });
}

pub(crate) fn read_message(bytes: &[u8]) -> Result<(u32, Event), String> {
    let row: MessageRow<'_> = read(bytes)?;
    Ok((row.attempts, row.event.event()?))
}

/// Writes `version` and `value` into `out`, in place of what it held.
fn write<T: Serialize>(out: &mut Vec<u8>, version: u8, value: &T) {
    out.clear();
    out.push(version);
    *out = postcard::to_extend(value, std::mem::take(out))
        .expect("rows hold only types that postcard can write, and a Vec takes any number of bytes");
}

/// Writes a value of this crate's own into `out`, in place of what it held.
pub(crate) fn write_own<T: Serialize>(out: &mut Vec<u8>, value: &T) {
    write(out, VERSION, value);
}

/// What [`write_own`] wrote.
pub(crate) fn read_own<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    read(bytes)
}

fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    match bytes.split_first() {
        Some((&VERSION, value)) => match postcard::take_from_bytes(value) {
            Ok((value, [])) => Ok(value),
            Ok((_, rest)) => Err(format!("there are {} bytes after its end", rest.len())),
            Err(error) => Err(error.to_string()),
        },
        Some((version, _)) => Err(format!("it is of version {version}, and this agent reads version {VERSION}")),
        None => Err("it is empty".into()),
    }
}

/// Who emits a record, and when.
#[derive(Clone, Copy)]
pub(crate) struct Emitter<'a> {
    pub(crate) function: &'a str,
    pub(crate) event: &'a Event,
    pub(crate) stamp: Stamp,
}

impl<'a> From<&'a Outcome> for Emitter<'a> {
    fn from(outcome: &'a Outcome) -> Self {
        Self { function: &outcome.function_name, event: &outcome.event, stamp: outcome.stamp }
    }
}

/// The bytes of a record: those of [`sync_protocol::encode`].
pub(crate) fn write_record(out: &mut Vec<u8>, emitter: &Emitter<'_>, stream: &str, body: &[u8]) {
    let event = emitter.event;
    let row = RecordRow {
        stream,
        function: emitter.function,
        origin: OriginRow {
            device: &event.device,
            topic: &event.topic,
            identity: event.identity.as_ref().map(|identity| (identity.boot, identity.sequence)),
        },
        stamp: emitter.stamp,
        body,
    };
    write(out, sync_protocol::VERSION, &row);
}

pub(crate) fn read_record(bytes: &[u8]) -> Result<Record, String> {
    sync_protocol::decode(bytes).map_err(|error| error.to_string())
}

/// What a record says of itself, without a copy of any of it.
#[derive(Deserialize)]
pub(crate) struct RecordHead<'a> {
    pub(crate) stream: &'a str,
    _function: &'a str,
    _origin: (&'a str, &'a str, Option<(u64, u64)>),
    pub(crate) stamp: Stamp,
}

pub(crate) fn read_record_head(bytes: &[u8]) -> Result<RecordHead<'_>, String> {
    match bytes.split_first() {
        Some((&sync_protocol::VERSION, value)) => {
            postcard::take_from_bytes(value).map(|(head, _)| head).map_err(|error| error.to_string())
        }
        _ => Err("it is of no version that this agent reads".into()),
    }
}

pub(crate) fn write_gone(out: &mut Vec<u8>, gone: &Gone) {
    write(out, VERSION, gone);
}

pub(crate) fn read_gone(bytes: &[u8]) -> Result<Gone, String> {
    read(bytes)
}

pub(crate) fn write_publish(out: &mut Vec<u8>, device: &str, topic: &str, payload: &[u8], flags: PublishFlags) {
    write(out, VERSION, &PublishRow { device, topic, flags: flags.to_i32(), payload });
}

pub(crate) fn read_publish(id: u64, bytes: &[u8]) -> Result<Publish, String> {
    let row: PublishRow<'_> = read(bytes)?;
    let flags = PublishFlags::from_i32(row.flags).ok_or_else(|| format!("{} are no publish flags", row.flags))?;
    Ok(Publish { id, device: row.device.into(), topic: row.topic.into(), payload: row.payload.into(), flags })
}

pub(crate) fn write_dead_letter(out: &mut Vec<u8>, outcome: &Outcome, dead: &Dead) {
    let row = DeadLetterRow {
        function: &outcome.function_name,
        version: &dead.version,
        digest: dead.digest,
        kind: dead.kind,
        reason: &dead.reason,
        detail: &dead.detail,
        run: dead.run.as_deref().map(Cow::Borrowed),
        stamp: outcome.stamp,
        event: EventRow::new(&outcome.event),
    };
    write(out, VERSION, &row);
}

pub(crate) fn read_dead_letter(id: u64, bytes: &[u8]) -> Result<DeadLetter, String> {
    let row: DeadLetterRow<'_> = read(bytes)?;
    Ok(DeadLetter {
        id,
        function: row.function.into(),
        event: row.event.event()?,
        stamp: row.stamp,
        dead: Dead {
            version: row.version.into(),
            digest: row.digest,
            kind: row.kind,
            reason: row.reason.into(),
            detail: row.detail.into(),
            run: row.run.map(|run| Box::new(run.into_owned())),
        },
    })
}

pub(crate) fn write_deployment(out: &mut Vec<u8>, deployment: &Deployment) {
    write(out, VERSION, deployment);
}

pub(crate) fn write_usage(out: &mut Vec<u8>, parts: &Vec<Part>) {
    write(out, VERSION, parts);
}

pub(crate) fn read_usage(bytes: &[u8]) -> Result<Vec<Part>, String> {
    read(bytes)
}

/// Stores a range that is lost.
pub(crate) fn put_missing(connection: &Connection, scratch: &mut Vec<u8>, missing: &Missing) -> Result<(), Cause> {
    write(scratch, VERSION, missing);
    connection
        .prepare_cached("INSERT INTO missing (checksum, body) VALUES (?1, ?2)")?
        .execute((checksum(scratch), &*scratch))?;
    Ok(())
}

pub(crate) fn read_missing(bytes: &[u8]) -> Result<Missing, String> {
    read(bytes)
}

pub(crate) fn read_deployment(bytes: &[u8]) -> Result<Deployment, String> {
    read(bytes)
}

#[cfg(test)]
mod tests {
    use agent_core::FunctionId;
    use agent_core::effect::Effects;
    use proptest::prelude::*;
    use sync_protocol::fleet::FunctionStatus;
    use sync_protocol::records::Origin;

    use super::*;
    use crate::write::{Installed, OutcomeResult};

    proptest! {
        /// The row of a record is what the sync protocol writes, so its checksum is `Record::checksum`.
        #[test]
        fn a_record_row_is_the_protocols_encoding(
            stream in ".{0,20}",
            device in ".{0,200}",
            identity in proptest::option::of((any::<u64>(), any::<u64>())),
            stamps in any::<(u64, u64, u64, bool)>(),
            body in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let stamp = Stamp { wall_us: stamps.0, monotonic_us: stamps.1, boot: stamps.2, synchronised: stamps.3 };
            let outcome = Outcome {
                function: FunctionId(1),
                function_name: "f".into(),
                partition: "p".into(),
                seen: None,
                uses: crate::Uses::Nothing,
                event: Event {
                    identity: identity.map(|(boot, sequence)| Identity { source: "s".into(), boot, sequence }),
                    ..Event::new(EventKind::Mqtt, device.as_str(), "t/1", [], 0)
                },
                stamp,
                usage: Default::default(),
                result: OutcomeResult::Effects(Effects::new()),
                blobs: Vec::new(),
            };
            let origin = Origin { device, topic: "t/1".into(), identity };
            let record = Record { stream, function: "f".into(), origin, stamp, body };
            let mut out = vec![9; 5];
            write_record(&mut out, &Emitter::from(&outcome), &record.stream, &record.body);
            prop_assert_eq!(checksum(&out), record.checksum());
            prop_assert_eq!(&out, &sync_protocol::encode(&record));
            let head = read_record_head(&out).unwrap();
            prop_assert_eq!((head.stream, head.stamp), (&*record.stream, stamp));
            prop_assert_eq!(read_record(&out), Ok(record));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for bytes in [bytes.clone(), [&[VERSION][..], &bytes].concat()] {
                let _ = read_record(&bytes);
                let _ = read_record_head(&bytes);
                let _ = read_gone(&bytes);
                let _ = read_publish(1, &bytes);
                let _ = read_dead_letter(1, &bytes);
                let _ = read_deployment(&bytes);
            }
        }
    }

    /// The types of a deployment are also those of the sync protocol: a change there must not change what is stored.
    #[test]
    fn the_bytes_of_a_deployment_stay_as_they_are() {
        let mut out = Vec::new();
        for (status, number) in [
            (FunctionStatus::Trial, 0),
            (FunctionStatus::Running, 1),
            (FunctionStatus::RolledBack, 2),
            (FunctionStatus::Failed, 3),
        ] {
            let installed = Installed {
                deployment: 3,
                digest: [7; 32],
                version: "1.0".into(),
                config: vec![("k".into(), "v".into())],
            };
            let deployment = Deployment {
                deployment: 300,
                status,
                detail: "d".into(),
                current: Some(installed),
                previous: None,
                refused: Some([8; 32]),
            };
            write_deployment(&mut out, &deployment);
            let mut expected = vec![VERSION, 0xac, 2, number, 1, b'd', 1, 3];
            expected.extend([7; 32]);
            expected.extend([3, b'1', b'.', b'0', 1, 1, b'k', 1, b'v', 0, 1]);
            expected.extend([8; 32]);
            assert_eq!(out, expected);
            assert_eq!(read_deployment(&out), Ok(deployment));
        }
    }

    #[test]
    fn a_value_does_not_pass_for_that_of_another_key() {
        let sum = keyed_checksum(1, "ab", b"c", b"v");
        for other in [
            keyed_checksum(2, "ab", b"c", b"v"),
            keyed_checksum(1, "a", b"bc", b"v"),
            keyed_checksum(1, "ab", b"", b"cv"),
            keyed_checksum(1, "ab", b"cv", b""),
        ] {
            assert_ne!(sum, other);
        }
    }

    #[test]
    fn foreign_values_are_named() {
        assert_eq!(read_deployment(&[]), Err("it is empty".into()));
        assert_eq!(read_deployment(&[2]), Err("it is of version 2, and this agent reads version 1".into()));
        let mut out = Vec::new();
        write_publish(&mut out, "d", "t", b"p", PublishFlags::default());
        out.push(0);
        assert_eq!(read_publish(1, &out), Err("there are 1 bytes after its end".into()));
    }
}
