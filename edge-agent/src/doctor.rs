//! `edge-agent doctor`: what is in a store, and what is wrong with it. Changes nothing.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use agent_functions::record::file;
use agent_store::{DeadLetter, Item, Survey, inspect, salvage_copy};
use anyhow::{Context, Result};

mod contents;
mod show;

use contents::Contents;

/// How many dead letters are shown, the newest: all of them are in the export.
const LETTERS: usize = 5;

/// Looks at a store, also at a copy of a broken one, and verifies every checksum. It never changes it, and may be used
/// while the agent runs. Exit status: 0 if all is whole, 1 if something is damaged or lost, 2 if it cannot be read at all.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The folder of the store, or the agent's data folder.
    pub dir: PathBuf,
    /// Reads all contents of blobs, too, and computes their digests; without it only their lengths are compared.
    #[arg(long)]
    pub deep: bool,
    /// Prints one JSON object instead of text.
    #[arg(long)]
    pub json: bool,
    /// Writes every whole record, publish and dead letter into this new file, a JSON object a line.
    #[arg(long, value_name = "FILE")]
    pub export: Option<PathBuf>,
    /// Makes a fresh store of all that is whole in this folder, which must be empty or not there.
    #[arg(long, value_name = "FOLDER")]
    pub salvage: Option<PathBuf>,
    /// Writes the run of this dead letter into the file of --recording, for `edgectl replay`.
    #[arg(long, value_name = "NUMBER", requires = "recording")]
    pub letter: Option<u64>,
    /// Where the run of --letter goes; no file is overwritten.
    #[arg(long, value_name = "FILE", requires = "letter")]
    pub recording: Option<PathBuf>,
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
    let mut contents = Contents::beside(&dir, arguments.deep);
    let mut asked_for = None;
    let survey = inspect(&dir, |item| {
        if let Item::Content { digest, bytes } = &item {
            contents.look(digest, *bytes);
            return written.is_ok();
        }
        if let Some((_, file)) = &mut export {
            written =
                serde_json::to_writer(&mut *file, &show::line(&item)).map_err(Into::into).and_then(|()| writeln!(file));
        }
        if let Item::DeadLetter(letter) = item {
            if arguments.letter == Some(letter.id) {
                asked_for = Some(letter.clone());
            }
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
    if let (Some(number), Some(path)) = (arguments.letter, &arguments.recording) {
        let letter = asked_for.with_context(|| format!("there is no dead letter {number} that is whole"))?;
        save(&letter, path)?;
    }
    let salvaged =
        arguments.salvage.as_deref().map(|to| salvage_copy(&dir, to).map(|survey| (to, survey))).transpose()?;
    let verdict = judge(&survey, &contents);
    if arguments.json {
        writeln!(out, "{}", show::object(&survey, &contents, &letters, salvaged.as_ref()))?;
    } else {
        show::text(out, &dir, (&survey, &contents), &letters, salvaged.as_ref())?;
    }
    Ok(verdict)
}

/// Writes the recording of a letter's run.
fn save(letter: &DeadLetter, path: &Path) -> Result<()> {
    let recording =
        letter.dead.run.as_ref().map(|run| run.recording.as_slice()).filter(|recording| !recording.is_empty());
    let recording = recording.with_context(|| {
        format!(
            "the dead letter {} has no recording: no run of a function led to it, or it could not be kept",
            letter.id
        )
    })?;
    let bytes = file::with_payload(recording, &letter.event.payload)
        .with_context(|| format!("the recording of the dead letter {}", letter.id))?;
    let written = || format!("cannot write {}", path.display());
    // It holds what a device sent and what the function keeps.
    let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).with_context(written)?;
    to.write_all(&bytes).and_then(|()| to.sync_all()).with_context(written)
}

fn store_in(dir: &Path) -> PathBuf {
    let inner = dir.join("store");
    if !dir.join("store.db").exists() && inner.join("store.db").exists() { inner } else { dir.to_owned() }
}

fn judge(survey: &Survey, contents: &Contents) -> Verdict {
    let rows: u64 = survey.queues.iter().map(|queue| queue.whole).sum();
    if survey.is_whole() && contents.damaged == 0 {
        Verdict::Whole
    } else if rows + survey.dead_letters + survey.blobs == 0
        && survey.functions.is_empty()
        && survey.deployments.is_empty()
    {
        Verdict::Unreadable
    } else {
        Verdict::Damaged
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use agent_core::effect::{Effect, Priority};
    use agent_core::event::{Event, EventKind};
    use agent_store::{Dead, DeadKind, Outcome, OutcomeResult, Store, Write};
    use serde_json::{Value, json};
    use sync_protocol::records::{Class, Reason, Stamp};

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
                uses: agent_store::Uses::Nothing,
                blobs: Vec::new(),
                event: Event::new(EventKind::Mqtt, "pump-7", "plant/7", *b"21.5", 0),
                stamp: Stamp { wall_us: 0, monotonic_us: 0, boot: 0, synchronised: false },
                usage: Default::default(),
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
            run: None,
        };
        store
            .commit(&[
                outcome(OutcomeResult::Effects(vec![emit(b"one"), emit(b"two"), emit(&[0xff])])),
                outcome(OutcomeResult::Effects(vec![Effect::StatePut {
                    key: b"key".into(),
                    value: b"value".into(),
                    ttl_s: None,
                }])),
                outcome(OutcomeResult::Dead(dead)),
            ])
            .unwrap();
    }

    fn look(dir: &Path, export: Option<PathBuf>, salvage: Option<PathBuf>) -> (Verdict, String, Value) {
        let mut arguments =
            Arguments { dir: dir.into(), deep: true, json: false, export, salvage, letter: None, recording: None };
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
        assert_eq!(kinds, ["dead_letter", "record", "record", "record", "record"]);
        assert_eq!((&lines[1]["body"]["text"], &lines[3]["body"]["hex"]), (&json!("one"), &json!("ff")));
        let arguments = Arguments {
            dir: dir.path().into(),
            deep: false,
            json: false,
            export: Some(to),
            salvage: None,
            letter: None,
            recording: None,
        };
        assert!(run(&arguments, &mut Vec::new()).is_err(), "nothing is overwritten");
    }

    #[test]
    fn what_waits_and_what_is_gone_is_shown_stream_by_stream() {
        let dir = tempfile::tempdir().unwrap();
        store(dir.path());
        let mut opened = Store::open(dir.path()).unwrap();
        opened
            .commit(&[Write::Dropped { class: Class::Normal, sequences: vec![1, 3], reason: Reason::Expired }])
            .unwrap();
        drop(opened);
        let (verdict, text, object) = look(dir.path(), None, None);
        assert_eq!(verdict, Verdict::Whole, "{text}");
        let expected = (&json!("@dead"), &json!("s"), &json!(1));
        let streams = &object["streams"];
        assert_eq!((&streams[0]["stream"], &streams[1]["stream"], &streams[1]["waiting"]), expected);
        assert_eq!(object["queues"][0]["gone"], json!([{ "stream": "s", "reason": "expired", "records": 2 }]));
        assert!(text.contains("normal: 2 records of stream s are gone (expired)"), "{text}");
    }

    #[test]
    fn a_content_that_is_gone_or_another_is_named() {
        use agent_store::{Blob, BlobWrite};

        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(&dir.path().join("store")).unwrap();
        let limits = crate::config::Blobs { max_bytes: 1_000, quota_bytes: 1_000 };
        let blobs = crate::blobs::Blobs::open(dir.path(), limits).unwrap();
        let stored = blobs.put(b"content").unwrap();
        let blob = Blob { digest: stored.digest, bytes: 7, content_type: "text/plain".into(), stored_us: 1 };
        store.commit(&[Write::Blob(BlobWrite::Put { name: "a/b".into(), blob, wanted: vec![] })]).unwrap();
        let (verdict, text, object) = look(dir.path(), None, None);
        assert_eq!(
            (verdict, &object["blobs"]["count"], &object["blobs"]["bytes"]),
            (Verdict::Whole, &json!(1), &json!(7))
        );
        assert!(text.contains("blobs: 1, with 1 contents of 7 bytes"), "{text}");
        let path = dir.path().join("blobs").join(crate::blobs::place(&stored.digest));
        fs::write(&path, b"Content").unwrap();
        let (verdict, text, _) = look(dir.path(), None, None);
        assert!(verdict == Verdict::Damaged && text.contains("its SHA-256 is"), "{text}");
        fs::remove_file(&path).unwrap();
        let (verdict, text, object) = look(dir.path(), None, None);
        assert!(verdict == Verdict::Damaged && text.contains("No such file"), "{text}");
        assert_eq!((&object["whole"], &object["blobs"]["damaged"]), (&json!(false), &json!(1)));
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
        let arguments = Arguments {
            dir: dir.path().into(),
            deep: false,
            json: false,
            export: None,
            salvage: None,
            letter: None,
            recording: None,
        };
        assert!(run(&arguments, &mut Vec::new()).is_err());
        fs::write(dir.path().join("store.db"), [7; 9_000]).unwrap();
        assert_eq!(look(dir.path(), None, None).0, Verdict::Unreadable);
    }
}
