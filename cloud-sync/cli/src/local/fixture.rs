//! A file of events.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use agent_core::Event;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::event::{Numbering, explain};
use super::{FIRST_TIME_US, Hide, SEED, Setting};
use crate::args::Over;
use crate::failure::Failure;
use crate::time;

/// How the name of a file of events ends.
const EVENTS: &str = ".events.jsonl";

/// How the name of the snapshot beside it ends.
const EFFECTS: &str = ".effects.snap";

/// Largest file of events in bytes. Larger ones are no examples any more, and are held in memory.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// Events, and under which circumstances they come.
pub(crate) struct Fixture {
    /// The file's name without its end.
    pub(crate) name: String,
    /// The file.
    pub(crate) path: PathBuf,
    /// What a deployment sets.
    config: BTreeMap<String, String>,
    /// What the gateway has.
    secrets: BTreeMap<String, String>,
    /// What random numbers begin with.
    pub(crate) seed: u64,
    /// What its snapshot leaves out.
    pub(crate) hide: Vec<Hide>,
    pub(crate) events: Vec<Event>,
}

/// The first line, which may be left out.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    /// The version of this format.
    fixture: u32,
    /// For people.
    #[serde(rename = "about")]
    _about: Option<String>,
    #[serde(default)]
    config: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    secrets: BTreeMap<String, String>,
    seed: Option<u64>,
    /// When the first event arrives.
    start: Option<String>,
    device_level: Option<usize>,
    #[serde(default)]
    hide: Vec<Hide>,
}

/// What tells a header from an event.
#[derive(Deserialize)]
struct Probe {
    fixture: Option<IgnoredAny>,
}

impl Fixture {
    /// Reads a file of events.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let cannot = || Failure::file("cannot read the events in", path);
        let size = fs::metadata(path).map_err(cannot())?.len();
        let text = if size > MAX_FILE_BYTES {
            return Err(Failure::Events { path: path.to_owned(), line: 1, why: too_large(size) });
        } else {
            fs::read_to_string(path).map_err(cannot())?
        };
        let wrong = |line: usize, why: String| Failure::Events { path: path.to_owned(), line: line + 1, why };
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).peekable();
        let header = match lines.peek() {
            Some((number, line)) if is_header(line) => {
                let header = header(line).map_err(|why| wrong(*number, why))?;
                lines.next();
                header
            }
            _ => Header::default(),
        };
        let start = match &header.start {
            Some(text) => time::parse_instant(text)
                .ok_or_else(|| wrong(0, format!("its start is {text:?}; write 2026-11-03T10:00:00Z")))?,
            None => FIRST_TIME_US,
        };
        let mut numbering = Numbering::new(header.device_level, start);
        let events = lines.map(|(number, line)| numbering.read(line).map_err(|why| wrong(number, why)));
        let file_name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self {
            name: file_name.strip_suffix(EVENTS).unwrap_or(&file_name).to_owned(),
            path: path.to_owned(),
            secrets: header.secrets,
            config: header.config.into_iter().map(|(key, value)| (key, plain(value))).collect(),
            seed: header.seed.unwrap_or(SEED),
            hide: header.hide,
            events: events.collect::<Result<_, _>>()?,
        })
    }

    /// The files of events in a folder, by name.
    pub(crate) fn find(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Failure::file("cannot read the folder", folder)(error)),
        };
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.map_err(Failure::file("cannot read the folder", folder))?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(EVENTS)) {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }

    /// Where the effects stand that were approved.
    pub(crate) fn snapshot(&self) -> PathBuf {
        self.path.with_file_name(format!("{}{EFFECTS}", self.name))
    }

    /// What it sets, with values from the command line over it.
    pub(crate) fn setting(&self, over: &Over) -> Setting {
        Setting { config: self.config.clone(), secrets: self.secrets.clone() }.with(over)
    }
}

fn too_large(size: u64) -> String {
    format!("the file has {size} bytes, {MAX_FILE_BYTES} are allowed; take a part of it")
}

fn is_header(line: &str) -> bool {
    serde_json::from_str::<Probe>(line).is_ok_and(|probe| probe.fixture.is_some())
}

fn header(line: &str) -> Result<Header, String> {
    let header: Header = serde_json::from_str(line).map_err(|error| explain(&error))?;
    if header.fixture != 1 {
        return Err(format!("it is a fixture of version {}; this edgectl reads version 1", header.fixture));
    }
    if header.device_level == Some(0) {
        return Err("its device_level is 0; the levels of a topic count from 1".to_owned());
    }
    match header.config.iter().find(|(_, value)| value.is_array() || value.is_object() || value.is_null()) {
        Some((key, _)) => Err(format!("its config {key:?} is no text, number or boolean")),
        None => Ok(header),
    }
}

/// A value as `--config` has it.
fn plain(value: serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Fixture, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("day.events.jsonl");
        fs::write(&path, text).unwrap();
        Fixture::read(&path).map_err(|failure| failure.to_string().replace(&*dir.path().to_string_lossy(), ""))
    }

    #[test]
    fn a_header_says_under_which_circumstances() {
        let fixture = read(
            "{\"fixture\":1,\"about\":\"hot\",\"config\":{\"high\":80,\"unit\":\"F\"},\"seed\":7,\"device_level\":2,\
             \"hide\":[\"state\"],\"secrets\":{\"key\":\"one\",\"other\":\"two\"}}\n\n{\"topic\":\"a/b\"}\n",
        )
        .unwrap();
        assert_eq!((fixture.name.as_str(), fixture.seed, &*fixture.events[0].device), ("day", 7, "b"));
        assert_eq!(fixture.hide, [Hide::State]);
        assert!(fixture.snapshot().ends_with("day.effects.snap"));
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let setting = fixture.setting(&Over { config: pairs(&[("unit", "C")]), secrets: pairs(&[("key", "1=")]) });
        assert_eq!(setting.config.into_iter().collect::<Vec<_>>(), pairs(&[("high", "80"), ("unit", "C")]));
        assert_eq!(setting.secrets.into_iter().collect::<Vec<_>>(), pairs(&[("key", "1="), ("other", "two")]));
    }

    #[test]
    fn mistakes_have_a_place() {
        for (text, why) in [
            ("{\"topic\":\"a\"}\n\n{\"topic\":1}", "/day.events.jsonl:3: column"),
            ("{\"fixture\":2}", "/day.events.jsonl:1: it is a fixture of version 2"),
            ("{\"fixture\":1,\"confg\":{}}", "unknown field `confg`"),
            ("{\"fixture\":1,\"config\":{\"a\":[]}}", "\"a\" is no text"),
            ("{\"fixture\":1,\"start\":\"today\"}", "its start is \"today\""),
            ("{\"fixture\":1,\"device_level\":0}", "count from 1"),
        ] {
            let error = read(text).map(drop).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
