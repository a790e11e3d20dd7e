//! What doctor found, as text and as JSON.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::Path;

use agent_store::{DeadLetter, Item, Missing, Queue, QueueSurvey, Survey};
use serde_json::{Value, json};
use sync_protocol::records::{Class, Tally};

use super::contents::Contents;

/// How many lines of one sort are shown to a person; `--json` has them all.
const LINES: usize = 20;

fn name(queue: Queue) -> &'static str {
    match queue {
        Queue::Records(Class::Normal) => "normal",
        Queue::Records(Class::High) => "high",
        Queue::Publishes => "publishes",
    }
}

// Bytes as text where they are that.
fn body(bytes: &[u8]) -> Value {
    match str::from_utf8(bytes) {
        Ok(text) => json!({ "text": text }),
        Err(_) => json!({ "hex": hex::encode(bytes) }),
    }
}

pub(super) fn line(item: &Item) -> Value {
    match item {
        Item::Record { class, sequence, record } => json!({
            "kind": "record",
            "class": name(Queue::Records(*class)),
            "sequence": sequence,
            "stream": record.stream,
            "function": record.function,
            "device": record.origin.device,
            "topic": record.origin.topic,
            "identity": record.origin.identity,
            "stamp": record.stamp,
            "body": body(&record.body),
        }),
        Item::Publish(publish) => json!({
            "kind": "publish",
            "id": publish.id,
            "device": &*publish.device,
            "topic": &*publish.topic,
            "qos": publish.flags.qos,
            "retain": publish.flags.retain,
            "payload": body(&publish.payload),
        }),
        Item::DeadLetter(letter) => {
            let mut line = dead_letter(letter);
            line["kind"] = "dead_letter".into();
            line["detail"] = letter.dead.detail.as_str().into();
            line["identity"] = json!(letter.event.identity.as_ref().map(|of| (&*of.source, of.boot, of.sequence)));
            line["stamp"] = json!(letter.stamp);
            line["payload"] = body(&letter.event.payload);
            line["run"] = json!(letter.dead.run.as_ref().map(|run| json!({
                "fuel": run.fuel,
                "memory_bytes": run.memory_bytes,
                "backtrace": run.backtrace,
                "recording": hex::encode(&run.recording),
            })));
            line
        }
        Item::Blob { name, blob } => json!({
            "kind": "blob",
            "name": name,
            "digest": hex::encode(blob.digest),
            "size": blob.bytes,
            "type": blob.content_type,
            "stored_us": blob.stored_us,
        }),
        _ => Value::Null,
    }
}

fn dead_letter(letter: &DeadLetter) -> Value {
    json!({
        "id": letter.id,
        "function": letter.function,
        "version": letter.dead.version,
        "device": &*letter.event.device,
        "topic": &*letter.event.topic,
        "cause": format!("{:?}", letter.dead.kind),
        "reason": letter.dead.reason,
    })
}

fn missing(missing: &Missing) -> Value {
    json!({
        "epoch": format!("{:016x}", missing.epoch.0),
        "queue": name(missing.queue),
        "first": missing.first,
        "last": missing.last,
        "reason": missing.reason,
    })
}

pub(super) fn object(
    survey: &Survey,
    contents: &Contents,
    letters: &VecDeque<DeadLetter>,
    salvaged: Option<&(&Path, Survey)>,
) -> Value {
    let queue = |queue: &QueueSurvey| {
        json!({
            "queue": name(queue.queue),
            "first": queue.done + 1,
            "next": queue.next,
            "waiting": queue.whole,
            "bytes": queue.bytes,
            "settled": queue.settled,
            "gone": queue.gone.iter().map(|of| json!({
                "stream": of.stream,
                "reason": of.reason.name(),
                "records": of.count,
            })).collect::<Vec<_>>(),
            "lost": queue.lost.iter().map(missing).collect::<Vec<_>>(),
        })
    };
    json!({
        "whole": survey.is_whole() && contents.damaged == 0,
        "epoch": survey.epoch.map(|epoch| format!("{:016x}", epoch.0)),
        "queues": survey.queues.iter().map(queue).collect::<Vec<_>>(),
        "streams": survey.streams.iter().map(|(name, (waiting, bytes))| json!({
            "stream": name,
            "waiting": waiting,
            "bytes": bytes,
        })).collect::<Vec<_>>(),
        "functions": survey.functions.iter().map(|of| json!({
            "names": of.names,
            "state_rows": of.state_rows,
            "state_bytes": of.state_bytes,
            "state_ending_rows": of.ending_rows,
            "sources": of.sources,
        })).collect::<Vec<_>>(),
        "deployments": survey.deployments.iter().map(|(function, of)| json!({
            "function": function,
            "deployment": of.deployment,
            "status": format!("{:?}", of.status),
            "version": of.current.as_ref().map(|current| &current.version),
            "detail": of.detail,
        })).collect::<Vec<_>>(),
        "dead_letters": survey.dead_letters,
        "last_dead_letters": letters.iter().map(dead_letter).collect::<Vec<_>>(),
        "blobs": {
            "count": survey.blobs,
            "contents": survey.contents.0,
            "bytes": survey.contents.1,
            "looked_at": contents.are_there(),
            "damaged": contents.damaged,
            "damage": contents.damage,
        },
        "missing": survey.missing.iter().map(missing).collect::<Vec<_>>(),
        "damaged": survey.damaged,
        "damage": survey.damage,
        "salvaged_to": salvaged.map(|(to, _)| to),
    })
}

pub(super) fn text(
    out: &mut dyn Write,
    dir: &Path,
    (survey, contents): (&Survey, &Contents),
    letters: &VecDeque<DeadLetter>,
    salvaged: Option<&(&Path, Survey)>,
) -> io::Result<()> {
    let epoch = survey.epoch.map_or("unknown".into(), |epoch| format!("{:016x}", epoch.0));
    writeln!(out, "{}, epoch {epoch}\n", dir.display())?;
    writeln!(out, "{:<10} {:>9} {:>12} {:>12} {:>12}", "queue", "waiting", "bytes", "first", "next")?;
    for of in &survey.queues {
        let (name, first) = (name(of.queue), of.done + 1);
        writeln!(out, "{name:<10} {:>9} {:>12} {first:>12} {:>12}", of.whole, of.bytes, of.next)?;
    }
    if !survey.streams.is_empty() {
        writeln!(out, "\n{:<24} {:>9} {:>12}", "stream", "waiting", "bytes")?;
    }
    for (name, (waiting, bytes)) in &survey.streams {
        let name = if name.is_empty() { "(all others)" } else { name };
        writeln!(out, "{name:<24} {waiting:>9} {bytes:>12}")?;
    }
    for of in &survey.queues {
        for Tally { stream, reason, count } in &of.gone {
            let (queue, reason) = (name(of.queue), reason.name());
            let stream = if stream.is_empty() { "an unknown stream".into() } else { format!("stream {stream}") };
            writeln!(
                out,
                "{queue}: {count} records of {stream} are gone ({reason}), which the cloud was not told yet"
            )?;
        }
    }
    writeln!(out, "\n{:<24} {:>9} {:>12} {:>9}", "function", "values", "bytes", "sources")?;
    for of in &survey.functions {
        let name = if of.names.is_empty() { format!("number {}", of.id) } else { of.names.join(" or ") };
        writeln!(out, "{name:<24} {:>9} {:>12} {:>9}", of.state_rows, of.state_bytes, of.sources)?;
    }
    for (function, of) in &survey.deployments {
        let version = of.current.as_ref().map_or("nothing", |current| &current.version);
        writeln!(
            out,
            "deployed: {function}, {:?} by deployment {}, runs {version} {}",
            of.status, of.deployment, of.detail
        )?;
    }
    writeln!(out, "\ndead letters: {}", survey.dead_letters)?;
    for letter in letters {
        writeln!(out, "  {} {}: {}", letter.id, letter.event.topic, letter.dead.reason)?;
        if let Some(run) = &letter.dead.run {
            writeln!(out, "    {} units of fuel, {} bytes of memory", run.fuel, run.memory_bytes)?;
            for frame in &run.backtrace {
                writeln!(out, "    at {frame}")?;
            }
        }
    }
    let (blobs, (count, bytes)) = (survey.blobs, survey.contents);
    let looked = if contents.are_there() { "" } else { ", which are not beside this store" };
    writeln!(out, "blobs: {blobs}, with {count} contents of {bytes} bytes{looked}")?;
    lines(out, "known to be lost from before", survey.missing.len() as u64, survey.missing.iter())?;
    lines(out, "LOST", survey.lost().count() as u64, survey.lost())?;
    lines(out, "DAMAGED", survey.damaged, survey.damage.iter())?;
    lines(out, "DAMAGED CONTENTS", contents.damaged, contents.damage.iter())?;
    if let Some((to, of)) = salvaged {
        let records: u64 = of.queues.iter().map(|queue| queue.whole).sum();
        writeln!(
            out,
            "\n{records} rows of the queues and all else that is whole are in a fresh store in {}",
            to.display()
        )?;
    }
    writeln!(
        out,
        "\n{}",
        if survey.is_whole() && contents.damaged == 0 { "all is whole" } else { "the store is damaged" }
    )
}

fn lines(
    out: &mut dyn Write,
    title: &str,
    count: u64,
    lines: impl Iterator<Item = impl std::fmt::Display>,
) -> io::Result<()> {
    if count == 0 {
        return Ok(());
    }
    writeln!(out, "\n{title}: {count}")?;
    for line in lines.take(LINES) {
        writeln!(out, "  {line}")?;
    }
    if count > LINES as u64 {
        writeln!(out, "  and {} more", count - LINES as u64)?;
    }
    Ok(())
}
