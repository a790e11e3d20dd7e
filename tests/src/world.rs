//! The folder in which one system lives.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::process::tails;

/// The folder in which one system lives, with its logs. Removed in the end, unless a test fails: then it stays, and the
/// ends of all logs are printed.
#[derive(Debug)]
pub struct World {
    folder: Option<TempDir>,
    path: PathBuf,
}

/// How much of each log is shown after a failure.
const TAIL_LINES: usize = 40;

impl World {
    /// An empty one.
    ///
    /// # Errors
    /// There can be no temporary folder.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("world-").tempdir().context("cannot make a temporary folder")?;
        let path = folder.path().to_owned();
        fs::create_dir(path.join("logs")).context("cannot make a folder for logs")?;
        Ok(Self { folder: Some(folder), path })
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Where the logs are.
    pub fn logs(&self) -> PathBuf {
        self.path("logs")
    }

    /// Writes a file into it.
    ///
    /// # Errors
    /// The disk does not take it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Keeps the folder, and shows the ends of the logs: something failed.
    pub fn failed(&mut self) {
        if let Some(folder) = self.folder.take() {
            show(&folder.keep());
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.failed();
        }
    }
}

fn show(folder: &Path) {
    let tails = tails(&folder.join("logs"), TAIL_LINES).unwrap_or_else(|error| format!("no logs: {error}\n"));
    // There is nobody left to tell if it fails.
    let _ = writeln!(std::io::stderr(), "{tails}---- all of it is in {}", folder.display());
}
