//! `edge-agent doctor`: what is in a store, and what is wrong with it. Changes nothing.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use agent_store::{DeadLetter, Item, Missing, Queue, QueueSurvey, Survey, inspect, salvage_copy};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use sync_protocol::records::Class;

/// How many dead letters are shown, the newest: all of them are in the export.
const LETTERS: usize = 5;

/// How many lines of one sort are shown to a person; `--json` has them all.
const LINES: usize = 20;

/// Looks at a store, also at a copy of a broken one, and verifies every checksum. It never changes it, and may be used
/// while the agent runs. Exit status: 0 if all is whole, 1 if something is damaged or lost, 2 if it cannot be read at all.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The folder of the store, or the agent's data folder.
    pub dir: PathBuf,
    /// Prints one JSON object instead of text.
    #[arg(long)]
    pub json: bool,
    /// Writes every whole record, publish and dead letter into this new file, a JSON object a line.
    #[arg(long, value_name = "FILE")]
    pub export: Option<PathBuf>,
    /// Makes a fresh store of all that is whole in this folder, which must be empty or not there.
    #[arg(long, value_name = "FOLDER")]
    pub salvage: Option<PathBuf>,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All is whole.
    Whole,
    /// Something is damaged or lost.
    Damaged,
    /// Nothing could be read.
    Unreadable,
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        Self::from(verdict as u8)
    }
}

/// Does it, and prints to `out`.
///
/// # Errors
/// If the store cannot be opened, or what was asked for cannot be written.
pub fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<Verdict> {
    let dir = store_in(&arguments.dir);
    let mut export = match &arguments.export {
        Some(path) => {
            let file = File::create_new(path).with_context(|| format!("cannot make {}", path.display()))?;
            Some((path, BufWriter::new(file)))
        }
        None => None,
    };
    let (mut letters, mut written) = (VecDeque::new(), Ok(()));
    let survey = inspect(&dir, |item| {
        if let Some((_, file)) = &mut export {
            written = serde_json::to_writer(&mut *file, &line(&item)).map_err(Into::into).and_then(|()| writeln!(file));
        }
        if let Item::DeadLetter(letter) = item {
            letters.push_back(letter);
            if letters.len() > LETTERS {
                letters.pop_front();
            }
        }
        written.is_ok()
    })?;
    if let Some((path, mut file)) = export {
        written
            .and_then(|()| file.flush())
            .and_then(|()| file.get_ref().sync_all())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let salvaged =
        arguments.salvage.as_deref().map(|to| salvage_copy(&dir, to).map(|survey| (to, survey))).transpose()?;
    let verdict = judge(&survey);
    if arguments.json {
        writeln!(out, "{}", object(&survey, &letters, salvaged.as_ref()))?;
    } else {
        text(out, &dir, &survey, &letters, salvaged.as_ref())?;
    }
    Ok(verdict)
}

fn store_in(dir: &Path) -> PathBuf {
    let inner = dir.join("store");
    if !dir.join("store.db").exists() && inner.join("store.db").exists() { inner } else { dir.to_owned() }
}

fn judge(survey: &Survey) -> Verdict {
    let rows: u64 = survey.queues.iter().map(|queue| queue.whole).sum();
    if survey.is_whole() {
        Verdict::Whole
    } else if rows + survey.dead_letters == 0 && survey.functions.is_empty() && survey.deployments.is_empty() {
        Verdict::Unreadable
    } else {
        Verdict::Damaged
    }
}

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

fn line(item: &Item) -> Value {
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
            line
        }
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

fn object(survey: &Survey, letters: &VecDeque<DeadLetter>, salvaged: Option<&(&Path, Survey)>) -> Value {
    let queue = |queue: &QueueSurvey| {
        json!({
            "queue": name(queue.queue),
            "first": queue.done + 1,
            "next": queue.next,
            "waiting": queue.whole,
            "bytes": queue.bytes,
            "lost": queue.lost.iter().map(missing).collect::<Vec<_>>(),
        })
    };
    json!({
        "whole": survey.is_whole(),
        "epoch": survey.epoch.map(|epoch| format!("{:016x}", epoch.0)),
        "queues": survey.queues.iter().map(queue).collect::<Vec<_>>(),
        "functions": survey.functions.iter().map(|of| json!({
            "names": of.names,
            "state_rows": of.state_rows,
            "state_bytes": of.state_bytes,
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
        "missing": survey.missing.iter().map(missing).collect::<Vec<_>>(),
        "damaged": survey.damaged,
        "damage": survey.damage,
        "salvaged_to": salvaged.map(|(to, _)| to),
    })
}

fn text(
    out: &mut dyn Write,
    dir: &Path,
    survey: &Survey,
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
    }
    lines(out, "known to be lost from before", survey.missing.len() as u64, survey.missing.iter())?;
    lines(out, "LOST", survey.lost().count() as u64, survey.lost())?;
    lines(out, "DAMAGED", survey.damaged, survey.damage.iter())?;
    if let Some((to, of)) = salvaged {
        let records: u64 = of.queues.iter().map(|queue| queue.whole).sum();
        writeln!(
            out,
            "\n{records} rows of the queues and all else that is whole are in a fresh store in {}",
            to.display()
        )?;
    }
    writeln!(out, "\n{}", if survey.is_whole() { "all is whole" } else { "the store is damaged" })
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

#[cfg(test)]
mod tests {
    use std::fs;

    use agent_core::effect::{Effect, Priority};
    use agent_core::event::{Event, EventKind};
    use agent_store::{Dead, DeadKind, Outcome, OutcomeResult, Store, Write};
    use sync_protocol::records::Stamp;

    use super::*;

    /// Three records, a dead letter and a value of state.
    fn store(dir: &Path) {
        let mut store = Store::open(dir).unwrap();
        let function = store.function("mean").unwrap();
        let outcome = |result| {
            Write::Outcome(Outcome {
                function,
                function_name: "mean".into(),
                partition: "p".into(),
                seen: None,
                event: Event {
                    kind: EventKind::Mqtt,
                    device: "pump-7".into(),
                    topic: "plant/7".into(),
                    payload: (*b"21.5").into(),
                    identity: None,
                    time_us: 0,
                },
                stamp: Stamp { wall_us: 0, monotonic_us: 0, boot: 0 },
                result,
            })
        };
        let emit = |body: &[u8]| Effect::Emit { stream: "s".into(), body: body.into(), priority: Priority::Normal };
        let dead = Dead {
            version: "1.0".into(),
            digest: [0; 32],
            kind: DeadKind::Trapped,
            reason: "out of fuel".into(),
            detail: String::new(),
        };
        store
            .commit(&[
                outcome(OutcomeResult::Effects(vec![emit(b"one"), emit(b"two"), emit(&[0xff])])),
                outcome(OutcomeResult::Effects(vec![Effect::StatePut { key: b"key".into(), value: b"value".into() }])),
                outcome(OutcomeResult::Dead(dead)),
            ])
            .unwrap();
    }

    fn look(dir: &Path, export: Option<PathBuf>, salvage: Option<PathBuf>) -> (Verdict, String, Value) {
        let mut arguments = Arguments { dir: dir.into(), json: false, export, salvage };
        let (mut text, mut object) = (Vec::new(), Vec::new());
        let verdict = run(&arguments, &mut text).unwrap();
        (arguments.export, arguments.salvage, arguments.json) = (None, None, true);
        assert_eq!(run(&arguments, &mut object).unwrap(), verdict);
        (verdict, String::from_utf8(text).unwrap(), serde_json::from_slice(&object).unwrap())
    }

    #[test]
    fn a_whole_store_is_shown_and_exported() {
        let dir = tempfile::tempdir().unwrap();
        store(&dir.path().join("store"));
        let to = dir.path().join("export");
        let (verdict, text, object) = look(dir.path(), Some(to.clone()), None);
        assert_eq!(verdict, Verdict::Whole);
        assert!(text.contains("plant/7: out of fuel") && text.ends_with("all is whole\n"), "{text}");
        assert_eq!((&object["queues"][0]["waiting"], &object["queues"][0]["next"]), (&json!(3), &json!(4)));
        assert_eq!(object["functions"][0]["state_bytes"], 8);
        assert_eq!(object["last_dead_letters"][0]["cause"], "Trapped");
        let lines: Vec<Value> =
            fs::read_to_string(&to).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let kinds: Vec<_> = lines.iter().map(|line| line["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["dead_letter", "record", "record", "record"]);
        assert_eq!((&lines[1]["body"]["text"], &lines[3]["body"]["hex"]), (&json!("one"), &json!("ff")));
        let arguments = Arguments { dir: dir.path().into(), json: false, export: Some(to), salvage: None };
        assert!(run(&arguments, &mut Vec::new()).is_err(), "nothing is overwritten");
    }

    #[test]
    fn damage_is_named_and_what_is_whole_salvaged() {
        let dir = tempfile::tempdir().unwrap();
        store(dir.path());
        let raw = rusqlite::Connection::open(dir.path().join("store.db")).unwrap();
        raw.execute_batch("UPDATE outbox_normal SET checksum = 1 WHERE id = 2; UPDATE state SET value = x'00'")
            .unwrap();
        drop(raw);
        let to = dir.path().join("new");
        let (verdict, text, object) = look(dir.path(), None, Some(to.clone()));
        assert_eq!(verdict, Verdict::Damaged);
        assert!(text.contains("records of class Normal 2 to 2"), "{text}");
        assert_eq!(object["queues"][0]["lost"][0]["first"], 2);
        assert_eq!(object["damaged"], 1);
        let (verdict, text, object) = look(&to, None, None);
        assert_eq!((verdict, &object["queues"][0]["waiting"]), (Verdict::Whole, &json!(2)), "{text}");
        assert_eq!(object["missing"][0]["last"], 2);
    }

    #[test]
    fn what_is_no_store_is_said_to_be_none() {
        let dir = tempfile::tempdir().unwrap();
        let arguments = Arguments { dir: dir.path().into(), json: false, export: None, salvage: None };
        assert!(run(&arguments, &mut Vec::new()).is_err());
        fs::write(dir.path().join("store.db"), [7; 9_000]).unwrap();
        assert_eq!(look(dir.path(), None, None).0, Verdict::Unreadable);
    }
}
