//! `edgectl fn test`: events in, effects out, compared with what was approved.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use function_package::Package;
use serde::Serialize;

use super::{fixtures, snapshot};
use crate::args::{Over, Test};
use crate::failure::Failure;
use crate::local::Fixture;
use crate::out::{Out, Paint, plain};
use crate::source::Source;

/// How a fixture fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Same,
    /// It makes something else than what was approved.
    Differs,
    /// Nothing was approved yet.
    Missing,
    /// What it makes was written as what it shall make.
    Approved,
}

#[derive(Serialize)]
pub(super) struct Tested {
    name: String,
    verdict: Verdict,
    events: usize,
    file: PathBuf,
    snapshot: PathBuf,
    /// As `diff -u` has it; empty if nothing differs.
    diff: String,
}

#[derive(Serialize)]
pub(super) struct Report<'a> {
    function: &'a str,
    passed: bool,
    fixtures: &'a [Tested],
}

pub(crate) fn test(out: &Out, test: &Test) -> Result<(), Failure> {
    let source = Source::new(&test.given.source, test.given.install_target);
    let package = source.package()?;
    let paths = chosen(fixtures(&source, &package, test.fixtures.as_ref(), "--fixtures")?, &test.only)?;
    let tested = check(&package, &paths, &test.given.over, test.approve)?;
    let function = &package.manifest().name;
    let bad = bad(&tested);
    out.value(&Report { function, passed: bad == 0, fixtures: &tested }, || show(out, &tested))?;
    match bad {
        0 => Ok(()),
        bad => Err(Failure::Differs { function: function.clone(), bad, all: tested.len() }),
    }
}

/// Those that were asked for by name.
fn chosen(paths: Vec<PathBuf>, only: &[String]) -> Result<Vec<PathBuf>, Failure> {
    if only.is_empty() {
        return Ok(paths);
    }
    let find = |name: &String| {
        let file = format!("{name}.events.jsonl");
        let found = paths.iter().find(|path| path.file_name().is_some_and(|name| name == file.as_str()));
        let folder = || paths.first().and_then(|path| path.parent()).unwrap_or(Path::new(".")).to_owned();
        found.cloned().ok_or_else(|| Failure::NoFixture { name: name.clone(), folder: folder() })
    };
    only.iter().map(find).collect()
}

/// Runs fixtures and compares.
pub(super) fn check(package: &Package, paths: &[PathBuf], over: &Over, approve: bool) -> Result<Vec<Tested>, Failure> {
    let check = |path: &PathBuf| {
        let fixture = Fixture::read(path)?;
        let now = snapshot::take(package, &fixture, over)?;
        let file = fixture.snapshot();
        let approved = match fs::read_to_string(&file) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(Failure::file("cannot read the snapshot", file)(error)),
        };
        let diff = snapshot::differences(approved.as_deref().unwrap_or_default(), &now, &file.display().to_string());
        let verdict = match approved {
            Some(_) if diff.is_empty() => Verdict::Same,
            _ if approve => Verdict::Approved,
            Some(_) => Verdict::Differs,
            None => Verdict::Missing,
        };
        if verdict == Verdict::Approved {
            fs::write(&file, &now).map_err(Failure::file("cannot write", &file))?;
        }
        let events = fixture.events.len();
        Ok(Tested { name: fixture.name, verdict, events, file: fixture.path, snapshot: file, diff })
    };
    paths.iter().map(check).collect()
}

/// How many do not make what was approved.
pub(super) fn bad(tested: &[Tested]) -> usize {
    tested.iter().filter(|one| matches!(one.verdict, Verdict::Differs | Verdict::Missing)).count()
}

/// A line for each fixture, and what is different.
pub(super) fn show(out: &Out, tested: &[Tested]) -> String {
    let mut text = String::new();
    for one in tested {
        let (word, paint) = match one.verdict {
            Verdict::Same => ("same", Paint::Good),
            Verdict::Differs => ("differs", Paint::Bad),
            Verdict::Missing => ("missing", Paint::Bad),
            Verdict::Approved => ("approved", Paint::Warn),
        };
        let word = out.paint(paint, format!("{word:<8}"));
        let events = if one.events == 1 { "event" } else { "events" };
        text.push_str(&format!("{word}  {}, {} {events}\n", one.name, one.events));
        if one.verdict == Verdict::Missing {
            text.push_str(&format!("          {} is not there: nothing was approved yet\n", one.snapshot.display()));
        }
        for line in one.diff.lines() {
            let paint = match line.as_bytes().first() {
                Some(b'+') => Paint::Good,
                Some(b'-') => Paint::Bad,
                Some(b'@') => Paint::Dim,
                _ => Paint::Plain,
            };
            text.push_str(&format!("{}\n", out.paint(paint, plain(line))));
        }
    }
    text.truncate(text.trim_end().len());
    text
}
