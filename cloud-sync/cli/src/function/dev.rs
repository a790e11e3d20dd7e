//! `edgectl fn dev`: builds and tests a function whenever its files change.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use super::{FIXTURES, test};
use crate::args::Dev;
use crate::compile::{self, Building};
use crate::failure::Failure;
use crate::local::Fixture;
use crate::out::{self, Out, Paint, plain};
use crate::time;

/// How often the files are looked at. Looking at a function's few files costs less than a thousandth of that.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Most files that are watched: far more than a function has, and few enough to be looked at.
const MAX_FILES: usize = 10_000;

/// The files of a folder, and how they are told from what they were.
type Files = BTreeMap<PathBuf, (SystemTime, u64)>;

/// One round, as `--json` has it.
#[derive(Serialize)]
struct Round<'a> {
    time_us: u64,
    passed: bool,
    took_ms: u64,
    /// Why there is no function to test.
    error: Option<String>,
    fixtures: &'a [test::Tested],
}

pub(crate) async fn dev(out: &Out, dev: &Dev) -> Result<(), Failure> {
    let mut interrupted = signal(SignalKind::interrupt()).map_err(Failure::Start)?;
    // A folder that is none is no function that is being worked on.
    let manifest = dev.dir.join("function.toml");
    fs::metadata(&manifest).map_err(Failure::file("cannot watch a folder without", manifest))?;
    out::note(&format!("edgectl: watching {}; Ctrl-C ends", dev.dir.display()));
    // The first time dependencies are compiled, which takes long enough to want to be watched.
    let mut how = Building { install_target: dev.install_target, quiet: false };
    loop {
        // Looked at before, so that what changes meanwhile starts the next round.
        let files = look(&dev.dir)?;
        round(out, dev, how)?;
        how.quiet = true;
        loop {
            tokio::select! {
                biased;
                _ = interrupted.recv() => return Ok(()),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if look(&dev.dir)? != files {
                break;
            }
        }
    }
}

fn round(out: &Out, dev: &Dev, how: Building) -> Result<(), Failure> {
    let began = Instant::now();
    let tested = compile::folder(&dev.dir, how)
        .and_then(|package| test::check(&package, &Fixture::find(&dev.dir.join(FIXTURES))?, &dev.over, false));
    let took = began.elapsed();
    let (fixtures, error) = match &tested {
        Ok(fixtures) => (fixtures.as_slice(), None),
        Err(failure) => ([].as_slice(), Some(failure.to_string())),
    };
    let passed = error.is_none() && test::bad(fixtures) == 0;
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let now = time::now_us();
    let round = Round { time_us: now, passed, took_ms, error, fixtures };
    out.value(&round, || {
        let (word, paint) = if passed { ("good", Paint::Good) } else { ("bad", Paint::Bad) };
        let what = match &round.error {
            Some(error) => plain(error),
            None if fixtures.is_empty() => format!("it builds; there are no fixtures in {FIXTURES}/"),
            None => format!(
                "{} of {} fixtures make what was approved",
                fixtures.len() - test::bad(fixtures),
                fixtures.len()
            ),
        };
        let clock = time::show(now);
        let line = format!("{}  {}  {what} ({took_ms} ms)", &clock[11..19], out.paint(paint, format!("{word:<4}")));
        let different = if passed { String::new() } else { test::show(out, fixtures) };
        if different.is_empty() { line } else { format!("{different}\n{line}") }
    })
}

/// All files of a function, but for what tools make.
fn look(dir: &Path) -> Result<Files, Failure> {
    let mut files = Files::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            // Removed since it was seen.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && folder != dir => continue,
            Err(error) => return Err(Failure::file("cannot watch", folder)(error)),
        };
        for entry in entries {
            let entry = entry.map_err(Failure::file("cannot watch", &folder))?;
            let (path, name) = (entry.path(), entry.file_name());
            // Hidden ones are editors' and git's; cargo marks what it makes.
            let made =
                name.to_string_lossy().starts_with('.') || name == "Cargo.lock" || path.join("CACHEDIR.TAG").exists();
            // Not through links, which may go round in circles.
            let Ok(metadata) = entry.metadata() else { continue };
            if made || files.len() >= MAX_FILES {
                continue;
            } else if metadata.is_dir() {
                folders.push(path);
            } else if let Ok(modified) = metadata.modified() {
                files.insert(path, (modified, metadata.len()));
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tools_make_is_not_watched() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["src/lib.rs", "function.toml", "Cargo.lock", ".git/HEAD", "target/CACHEDIR.TAG", "target/a"] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        let before = look(dir.path()).unwrap();
        let names: Vec<_> = before.keys().map(|path| path.strip_prefix(dir.path()).unwrap().to_owned()).collect();
        assert_eq!(names, [Path::new("function.toml"), Path::new("src/lib.rs")]);
        fs::write(dir.path().join("src/lib.rs"), "longer").unwrap();
        assert_ne!(look(dir.path()).unwrap(), before);
    }
}
