//! Dead letters: how the control plane is told of them, and what it asks to be done with them.

use agent_core::Event;
use agent_core::event::EventKind;
use rusqlite::{Connection, OptionalExtension};
use sync_protocol::dead::{
    Letter, LetterEvent, LetterIdentity, LetterRun, MAX_PAYLOAD_BYTES, MAX_RECORDING_BYTES, Note, Payload,
};

use crate::error::Cause;
use crate::write::{Dead, DeadLetter};
use crate::{blobs, rows};

/// Most bytes of each longer text in a note, and of all attributes together; in JSON a byte may become six.
const MAX_TEXT_BYTES: usize = 16 << 10;

/// Most lines of a backtrace in a note, and most bytes of one.
const MAX_FRAMES: usize = 64;
const MAX_FRAME_BYTES: usize = 512;

/// Most bytes of device, topic and source: what MQTT allows, so that none of them is cut.
const MAX_NAME_BYTES: usize = 65_535;

/// What the control plane is told of a letter.
pub(crate) fn letter(function: &str, dead: &Dead, event: &Event) -> Letter {
    let mut cut = Cut(false);
    let mut left = MAX_TEXT_BYTES;
    let mut attributes = Vec::new();
    for (name, value) in &event.attributes {
        let (name, value) = (cut.text(name, left), cut.text(value, left.saturating_sub(name.len())));
        // Those that are empty take room too.
        left = left.saturating_sub(name.len() + value.len() + 16);
        if left == 0 {
            cut.0 = true;
            break;
        }
        attributes.push((name, value));
    }
    let text = |text: &str| Cut(false).text(text, MAX_TEXT_BYTES);
    let identity = event.identity.as_ref().map(|identity| LetterIdentity {
        source: cut.text(&identity.source, MAX_NAME_BYTES),
        boot_epoch: identity.boot.to_string(),
        sequence: identity.sequence.to_string(),
    });
    let payload = cut.payload(&event.payload);
    Letter {
        function: function.to_owned(),
        version: text(&dead.version),
        digest: if dead.digest == [0; 32] { String::new() } else { hex::encode(dead.digest) },
        kind: dead.kind.name().to_owned(),
        reason: text(&dead.reason),
        detail: text(&dead.detail),
        run: dead.run.as_deref().map(|run| LetterRun {
            fuel: run.fuel,
            memory_bytes: run.memory_bytes,
            backtrace: run
                .backtrace
                .iter()
                .take(MAX_FRAMES)
                .map(|line| Cut(false).text(line, MAX_FRAME_BYTES))
                .collect(),
            recording: if run.recording.len() <= MAX_RECORDING_BYTES {
                hex::encode(&run.recording)
            } else {
                String::new()
            },
        }),
        event: LetterEvent {
            kind: kind(event.kind).to_owned(),
            device: cut.text(&event.device, MAX_NAME_BYTES),
            topic: cut.text(&event.topic, MAX_NAME_BYTES),
            identity,
            time_us: event.time_us,
            attributes,
            payload,
            payload_bytes: event.payload.len() as u64,
            cut: cut.0,
        },
    }
}

/// The body of the record that tells it.
pub(crate) fn body(note: &Note) -> Vec<u8> {
    serde_json::to_vec(note).expect("a note is structs and text, which become JSON")
}

/// The event of a note of which nobody knows the event any more.
pub(crate) fn nobody() -> Event {
    Event::new(EventKind::Mqtt, "", "", [], 0)
}

/// A letter, if there is one of this number; the inner error: what is wrong with it.
pub(crate) fn read(connection: &Connection, id: u64) -> Result<Option<Result<DeadLetter, String>>, Cause> {
    let found = connection
        .prepare_cached("SELECT checksum, body FROM dead_letters WHERE id = ?1")?
        .query_row([rows::bound(id)], |row| {
            Ok(rows::checked(row, 0, 1).and_then(|body| rows::read_dead_letter(id, body)))
        })
        .optional()?;
    Ok(found)
}

/// Stores a letter under a new number, which it answers. A content that its event is about is kept for it.
pub(crate) fn put(connection: &Connection, event: &Event, body: &[u8]) -> Result<u64, Cause> {
    let digest = blobs::digest_of(event);
    connection.prepare_cached("INSERT INTO dead_letters (checksum, digest, body) VALUES (?1, ?2, ?3)")?.execute((
        rows::checksum(body),
        digest,
        body,
    ))?;
    let id = rows::number(connection.last_insert_rowid());
    if let Some(digest) = digest {
        blobs::refer(connection, &digest)?;
    }
    Ok(id)
}

/// Deletes a letter that is there.
pub(crate) fn delete(connection: &Connection, id: u64) -> Result<(), Cause> {
    let digest: Option<Option<Vec<u8>>> = connection
        .prepare_cached("DELETE FROM dead_letters WHERE id = ?1 RETURNING digest")?
        .query_row([rows::bound(id)], |row| row.get(0))
        .optional()?;
    digest.flatten().map_or(Ok(()), |digest| blobs::release(connection, &digest))
}

/// Remembers whether anything was cut.
struct Cut(bool);

impl Cut {
    fn text(&mut self, text: &str, most: usize) -> String {
        let end = text.floor_char_boundary(most);
        self.0 |= end < text.len();
        text[..end].to_owned()
    }

    fn payload(&mut self, payload: &[u8]) -> Payload {
        // A character that begins within the bound and ends beyond it is no reason to show the rest as bytes.
        let whole = std::str::from_utf8(payload).map(|text| &text[..text.floor_char_boundary(MAX_PAYLOAD_BYTES)]);
        let shown = &payload[..payload.len().min(MAX_PAYLOAD_BYTES)];
        self.0 |= shown.len() < payload.len();
        match whole {
            Ok(text) => Payload::of(text.as_bytes()),
            Err(_) => Payload::Hex(hex::encode(shown)),
        }
    }
}

fn kind(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Mqtt => "mqtt",
        EventKind::Http => "http",
        EventKind::Schedule => "schedule",
        EventKind::Queue => "queue",
        EventKind::Device => "device",
        EventKind::Blob => "blob",
        EventKind::Answer => "answer",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use agent_core::event::Identity;
    use sync_protocol::dead::{STREAM, What};
    use sync_protocol::records::{Stamp, StoreEpoch};

    use super::*;
    use crate::write::{DeadKind, FailedRun, MAX_RECORD_BYTES};

    fn dead(text: &str) -> Dead {
        let backtrace = vec![text.to_owned(); 100];
        let recording = vec![1; MAX_RECORDING_BYTES];
        let run = Some(Box::new(FailedRun { fuel: u64::MAX, memory_bytes: u64::MAX, backtrace, recording }));
        let (version, reason, detail) = (text.into(), text.into(), text.into());
        Dead { version, digest: [1; 32], kind: DeadKind::TooOld, reason, detail, run }
    }

    #[test]
    fn a_payload_is_text_where_it_is_and_cut_at_the_bound() {
        let of = |payload: &[u8]| {
            let letter = letter("f", &dead("no"), &Event { payload: payload.into(), ..nobody() });
            (letter.event.payload, letter.event.payload_bytes, letter.event.cut)
        };
        assert_eq!(of("21,5 °C\n".as_bytes()), (Payload::Text("21,5 °C\n".into()), 9, false));
        assert_eq!(of(b"\xff\0"), (Payload::Hex("ff00".into()), 2, false));
        assert_eq!(of(b"a\0"), (Payload::Hex("6100".into()), 2, false));
        assert_eq!(of(b""), (Payload::Text(String::new()), 0, false));
        let (shown, bytes, cut) = of("°".repeat(MAX_PAYLOAD_BYTES).as_bytes());
        assert_eq!((bytes, cut), (2 * MAX_PAYLOAD_BYTES as u64, true));
        assert_eq!(shown, Payload::Text("°".repeat(MAX_PAYLOAD_BYTES / 2)));
        let (shown, ..) = of(&[0xff; MAX_PAYLOAD_BYTES + 1]);
        assert_eq!(shown, Payload::Hex("ff".repeat(MAX_PAYLOAD_BYTES)));
    }

    /// Or the commit of the outcome would fail for ever, and with it all that wait for it.
    #[test]
    fn a_note_is_never_too_large() {
        let long = "\u{1}".repeat(1 << 20);
        let name = "\u{1}".repeat(65_535);
        let event = Event {
            device: name.as_str().into(),
            topic: name.as_str().into(),
            payload: "\"".repeat(1 << 20).as_bytes().into(),
            identity: Some(Identity { source: name.as_str().into(), boot: u64::MAX, sequence: u64::MAX }),
            attributes: vec![(long.clone(), long.clone()); 9],
            ..nobody()
        };
        let letter = letter("f", &dead(&long), &event);
        assert!(letter.event.cut);
        let note = Note::new(StoreEpoch(u64::MAX), u64::MAX, What::Dead(Box::new(letter)));
        let stamp = Stamp { wall_us: u64::MAX, monotonic_us: u64::MAX, boot: u64::MAX, synchronised: true };
        let mut out = Vec::new();
        rows::write_record(&mut out, &rows::Emitter { function: "f", event: &event, stamp }, STREAM, &body(&note));
        assert!(out.len() <= MAX_RECORD_BYTES, "{} bytes", out.len());
        assert_eq!(serde_json::from_slice::<Note>(&body(&note)).unwrap(), note);
    }
}
