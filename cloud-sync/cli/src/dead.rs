//! Dead letters: which there are, what is in them, and what to do with them.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use agent_functions::record::file;
use reqwest::Method;
use sync_core::api::{self, Action, DeadCommand, DeadCommanded, DeadLetter, DeadQuery, Letters, Payload};

use crate::args::{DeadCommand as Wanted, DeadLetters, WhichLetters};
use crate::client::{Answer, Client, path};
use crate::failure::Failure;
use crate::out::{Out, note, plain, table};
use crate::show::word;
use crate::time;

pub(crate) async fn dead(out: &Out, client: &Client, wanted: Wanted) -> Result<(), Failure> {
    match wanted {
        Wanted::List(wanted) => list(out, client, wanted).await,
        Wanted::Show { gateway, letter, save } => show(out, client, &gateway, letter, save.as_deref()).await,
        Wanted::Retry(which) => command(out, client, Action::Retry, which).await,
        Wanted::Drop(which) => command(out, client, Action::Drop, which).await,
    }
}

async fn list(out: &Out, client: &Client, wanted: DeadLetters) -> Result<(), Failure> {
    let DeadLetters { gateway, function, limit, cursor } = wanted;
    let query = DeadQuery { gateway, function, limit: Some(limit), cursor };
    let answer = client.get_with("listing the dead letters", "/dead", &query).await?;
    out.answer(&answer, |page: &api::DeadLetters| {
        let rows = page.letters.iter().map(|letter| {
            [
                letter.gateway.clone(),
                letter.letter.to_string(),
                time::show(letter.wall_us),
                letter.function.clone(),
                letter.device.clone(),
                letter.topic.clone(),
                state(letter),
                letter.reason.clone(),
            ]
        });
        table(["GATEWAY", "LETTER", "TIME", "FUNCTION", "DEVICE", "TOPIC", "STATE", "REASON"], rows)
    })?;
    if let (false, Some(next)) = (out.json, &answer.value.next) {
        note(&plain(&format!("there are more; go on with --cursor {next}")));
    }
    Ok(())
}

/// How it is with a letter.
fn state(letter: &DeadLetter) -> String {
    match (&letter.resolved, &letter.waits_for) {
        (Some(resolved), _) => word(resolved),
        (None, Some(action)) => format!("{} waits for the gateway", word(action)),
        (None, None) => word(&letter.kind),
    }
}

async fn show(out: &Out, client: &Client, gateway: &str, letter: u64, save: Option<&Path>) -> Result<(), Failure> {
    let doing = format!("asking for the dead letter {letter} of the gateway {gateway}");
    let answer: Answer<api::DeadLetterDetail> =
        client.get(&doing, &path(&["gateways", gateway, "dead", &letter.to_string()])).await?;
    if let Some(path) = save {
        self::save(&answer.value, path)?;
    }
    out.answer(&answer, |detail: &api::DeadLetterDetail| {
        let (letter, dead) = (&detail.letter, &detail.dead);
        let event = &dead.event;
        let mut rows: Vec<(&str, String)> = vec![
            ("TIME", time::show(letter.wall_us)),
            ("STATE", state(letter)),
            ("FUNCTION", format!("{} {}", dead.function, dead.version)),
            ("DIGEST", dead.digest.clone()),
            ("KIND", dead.kind.clone()),
            ("REASON", dead.reason.clone()),
            ("DETAIL", dead.detail.clone()),
            ("EVENT", event.kind.clone()),
            ("DEVICE", event.device.clone()),
            ("TOPIC", event.topic.clone()),
            ("RECEIVED", time::show(event.time_us)),
        ];
        if let Some(identity) = &event.identity {
            let api::LetterIdentity { source, boot_epoch, sequence } = identity;
            rows.push(("IDENTITY", format!("event {sequence} of boot {boot_epoch} of {source}")));
        }
        if let Some(run) = &dead.run {
            rows.push(("FUEL", run.fuel.to_string()));
            rows.push(("MEMORY", format!("{} bytes", run.memory_bytes)));
            rows.extend(run.backtrace.iter().map(|frame| ("AT", frame.clone())));
        }
        rows.extend(event.attributes.iter().map(|(name, value)| ("ATTRIBUTE", format!("{name}: {value}"))));
        let cut = if event.cut { ", not all of which is shown" } else { "" };
        rows.push(("PAYLOAD", format!("{} bytes{cut}", event.payload_bytes)));
        let rows = rows.into_iter().map(|(name, value)| [name.to_owned(), value]);
        let payload = match &event.payload {
            Payload::Text(text) => plain(text),
            Payload::Hex(hex) => format!("hex {hex}"),
        };
        format!("{}\n{payload}", table(["LETTER", &format!("{} of {}", letter.letter, letter.gateway)], rows))
    })
}

/// Writes the recording of a letter's run, with the payload of its event.
fn save(detail: &api::DeadLetterDetail, path: &Path) -> Result<(), Failure> {
    let (dead, letter) = (&detail.dead, detail.letter.letter);
    let none = |why: &str| Failure::NoRecording { letter, why: why.to_owned() };
    let run = dead.run.as_ref().ok_or_else(|| none("no run of a function led to it"))?;
    if run.recording.is_empty() {
        return Err(none("it could not be kept; the last line of its backtrace says why"));
    }
    let payload = match &dead.event.payload {
        Payload::Text(text) => text.as_bytes().to_vec(),
        Payload::Hex(digits) => hex::decode(digits).map_err(|error| none(&error.to_string()))?,
    };
    if payload.len() as u64 != dead.event.payload_bytes {
        return Err(none("its payload was too large to be told; `edge-agent doctor --letter` saves it on the gateway"));
    }
    let recording = hex::decode(&run.recording).map_err(|error| none(&error.to_string()))?;
    let bytes = file::with_payload(&recording, &payload.into()).map_err(|damage| none(&damage.to_string()))?;
    // It holds what a device sent and what the function keeps.
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.and_then(|mut to| to.write_all(&bytes)).map_err(|source| match source.kind() {
        ErrorKind::AlreadyExists => Failure::Exists(path.to_owned()),
        _ => Failure::file("cannot write", path)(source),
    })
}

async fn command(out: &Out, client: &Client, action: Action, which: WhichLetters) -> Result<(), Failure> {
    let WhichLetters { gateway, letter, function, .. } = which;
    let letters = letter.map_or(Letters::All(api::All::All), |letter| Letters::These(vec![letter]));
    let doing = match &letters {
        Letters::These(letters) => {
            format!("telling the gateway {gateway} to {} dead letter {}", word(&action), letters[0])
        }
        Letters::All(_) => format!("telling the gateway {gateway} to {} its dead letters", word(&action)),
    };
    let wanted = DeadCommand { action, letters, function };
    let path = path(&["gateways", &gateway, "dead"]);
    let mut said = DeadCommanded::default();
    loop {
        let Answer { value, .. } = client.send(&doing, Method::POST, &path, &wanted).await?;
        said = DeadCommanded::after(value, said);
        if !said.more {
            break;
        }
    }
    out.value(&said, || {
        let done = match action {
            Action::Retry => "retried",
            Action::Drop => "dropped",
        };
        let lines = [
            (said.letters, format!("to be {done} as soon as the gateway hears of it")),
            (said.waiting, format!("wait to be {done} already")),
            (said.resolved, "are no more".to_owned()),
            (said.not_retriable, "never reached a function, so that nothing can retry them; drop them".to_owned()),
        ];
        let lines = lines.into_iter().filter(|(count, _)| *count > 0);
        let lines: Vec<String> = lines.map(|(count, what)| format!("{count} {what}")).collect();
        if lines.is_empty() { "there are no such dead letters".to_owned() } else { lines.join("\n") }
    })
}
