//! Watched folders: a file that is complete there is stored as a blob.
//!
//! The folder is looked through again and again; nothing is missed that way, whatever file system it is and however the file came.
//! A file counts as complete when neither its size nor its time of change has moved for a while. What was stored is remembered
//! in the transaction that stores it, so each content of a path is stored once, through restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use agent_store::{Blob, BlobWrite, Reader, WatchedFile, Write};
use function_package::check_blob_name;
use tokio::task::block_in_place;

use super::blobs::NO_TYPE;
use crate::blobs::{BlobError, Stored};
use crate::config;
use crate::limits;
use crate::pipeline::Pipeline;
use crate::pipeline::writer::Sender;

/// Deepest folder below the watched one that is looked through.
const MAX_DEPTH: usize = 8;

/// Where a file goes for the moment before it is deleted.
const TAKEN: &str = ".edge-agent-taken";

/// Bytes that are copied at once.
const PIECE: usize = 64 << 10;

/// One watched folder.
#[derive(Debug)]
pub struct Watch {
    config: config::Watch,
    pipeline: Arc<Pipeline>,
    writer: Sender,
    // What was stored, by the blob's name.
    stored: BTreeMap<String, WatchedFile>,
    // What is not complete yet: as it was seen, and since when.
    changing: BTreeMap<String, (Version, Instant)>,
    // What was complained about, as it was then.
    refused: BTreeMap<PathBuf, Option<Version>>,
}

/// What tells a file that changed from one that did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    bytes: u64,
    modified_ns: i64,
}

impl Version {
    fn of(metadata: &Metadata) -> Self {
        let modified_ns = metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec());
        Self { bytes: metadata.len(), modified_ns }
    }

    fn is(self, file: &WatchedFile) -> bool {
        (self.bytes, self.modified_ns) == (file.bytes, file.modified_ns)
    }
}

/// A file in the folder.
struct Found {
    path: PathBuf,
    name: String,
    version: Version,
}

/// Why a file is not stored.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("its name is not UTF-8")]
    NotUtf8,
    #[error(transparent)]
    Name(#[from] function_package::BlobError),
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
}

impl Watch {
    /// A folder to watch, with what is remembered of it.
    ///
    /// # Errors
    /// The store does not say what that is.
    pub fn new(
        config: config::Watch,
        pipeline: Arc<Pipeline>,
        writer: Sender,
        reader: &mut Reader,
    ) -> Result<Self, agent_store::StoreError> {
        let prefix = format!("{}/", config.bucket);
        let stored = reader.watched()?.into_iter().filter(|(name, _)| name.starts_with(&prefix)).collect();
        Ok(Self { config, pipeline, writer, stored, changing: BTreeMap::new(), refused: BTreeMap::new() })
    }

    /// Watches for as long as the agent runs.
    pub async fn run(mut self) {
        let every = (self.config.settle / 2).clamp(limits::LOOK_AT_FOLDER.0, limits::LOOK_AT_FOLDER.1);
        let mut is_there = true;
        loop {
            match block_in_place(|| self.look()) {
                Ok(found) => {
                    if !is_there {
                        tracing::info!(folder = %self.config.folder.display(), "the watched folder can be read again");
                    }
                    is_there = true;
                    self.round(found).await;
                }
                Err(error) if is_there => {
                    is_there = false;
                    self.pipeline.counters.files_refused.add(1);
                    tracing::error!(folder = %self.config.folder.display(), "a watched folder cannot be read: {error}");
                }
                Err(_) => {}
            }
            tokio::time::sleep(every).await;
        }
    }

    async fn round(&mut self, found: Vec<Found>) {
        let names: BTreeSet<&str> = found.iter().map(|file| file.name.as_str()).collect();
        self.changing.retain(|name, _| names.contains(name.as_str()));
        let gone: Vec<String> = self.stored.keys().filter(|name| !names.contains(name.as_str())).cloned().collect();
        if !gone.is_empty() {
            let forget = gone.iter().map(|name| Write::Watched(name.clone(), None)).collect();
            if self.writer.write(forget).await.is_some() {
                self.stored.retain(|name, _| !gone.contains(name));
            }
        }
        for file in found {
            if self.stored.get(&file.name).is_some_and(|stored| file.version.is(stored)) {
                // The agent was killed before it could, or the disk refused.
                self.delete(&file);
                continue;
            }
            let now = Instant::now();
            let seen = self.changing.entry(file.name.clone()).or_insert((file.version, now));
            if seen.0 != file.version {
                *seen = (file.version, now);
            }
            if now.duration_since(seen.1) < self.config.settle {
                continue;
            }
            match block_in_place(|| self.read(&file)) {
                Ok(Some(content)) => self.store(&file, content).await,
                // It changed meanwhile.
                Ok(None) => {
                    self.changing.remove(&file.name);
                }
                Err(refused) => self.refuse(&file.path, Some(file.version), &refused),
            }
        }
    }

    async fn store(&mut self, file: &Found, content: Stored) {
        let (digest, bytes) = (content.digest, content.bytes);
        let watched = WatchedFile { bytes, modified_ns: file.version.modified_ns, digest };
        let mut writes = vec![Write::Watched(file.name.clone(), Some(watched.clone()))];
        // One that was only touched is the same.
        if self.stored.get(&file.name).is_none_or(|before| before.digest != digest) {
            let content_type = self.config.content_type.clone().unwrap_or_else(|| NO_TYPE.to_owned());
            let blob = Blob { digest, bytes, content_type, stored_us: self.pipeline.clock.wall_us() };
            let wanted = self.pipeline.plan().blob_readers(&file.name);
            writes.push(Write::Blob(BlobWrite::Put { name: file.name.clone(), blob, wanted }));
        }
        let writer = self.writer.clone();
        // To its end, for the content is held until it is written.
        let committed = tokio::spawn(async move {
            let committed = writer.write(writes).await.is_some();
            drop(content);
            committed
        });
        // Else it comes with the next look.
        if committed.await.unwrap_or(false) {
            self.changing.remove(&file.name);
            self.refused.remove(&file.path);
            self.stored.insert(file.name.clone(), watched);
            self.delete(file);
        }
    }

    /// Puts the file's content on the disk; `None` if it changed meanwhile.
    fn read(&self, found: &Found) -> Result<Option<Stored>, Refused> {
        let mut file = open(&found.path)?;
        if Version::of(&file.metadata()?) != found.version {
            return Ok(None);
        }
        self.pipeline.blobs.check_room(found.version.bytes)?;
        let (mut draft, mut piece) = (self.pipeline.blobs.draft()?, vec![0; PIECE]);
        loop {
            match file.read(&mut piece)? {
                0 => break,
                read => draft.write(&piece[..read])?,
            }
        }
        if Version::of(&file.metadata()?) != found.version {
            return Ok(None);
        }
        Ok(Some(draft.finish()?))
    }

    /// Deletes what was stored, if that is wished, and nothing that came in its place.
    fn delete(&mut self, found: &Found) {
        if self.config.after == config::After::Keep {
            return;
        }
        if let Err(error) = block_in_place(|| delete(found)) {
            self.refuse(&found.path, Some(found.version), &Refused::Io(error));
        }
    }

    fn refuse(&mut self, path: &Path, version: Option<Version>, why: &Refused) {
        if self.refused.len() >= limits::WATCHED_FILES {
            self.refused.clear();
        }
        if self.refused.insert(path.to_owned(), version) != Some(version) {
            self.pipeline.counters.files_refused.add(1);
            tracing::error!(file = %path.display(), "a file of a watched folder is not taken: {why}");
        }
    }

    /// All files of the folder that are meant.
    fn look(&mut self) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        let mut folders = vec![(self.config.folder.clone(), self.config.bucket.clone(), 0)];
        while let Some((folder, name, depth)) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                let (path, file_name) = (entry.path(), entry.file_name());
                // What programs keep to themselves: rsync, for one, writes what it brings under such a name first.
                if file_name.as_encoded_bytes().starts_with(b".") {
                    continue;
                }
                // Links are not followed. What is gone since is no error.
                let Ok(metadata) = entry.metadata() else { continue };
                let name = file_name.to_str().map(|file_name| format!("{name}/{file_name}"));
                if metadata.is_dir() && depth < MAX_DEPTH {
                    match name {
                        Some(name) => folders.push((path, name, depth + 1)),
                        None => self.refuse(&path, None, &Refused::NotUtf8),
                    }
                } else if metadata.is_file() {
                    let checked = name.ok_or(Refused::NotUtf8).and_then(|name| {
                        check_blob_name(&name)?;
                        Ok(name)
                    });
                    match checked {
                        Ok(name) if !self.config.is_meant(&name) => {}
                        Ok(name) => found.push(Found { path, name, version: Version::of(&metadata) }),
                        Err(refused) => self.refuse(&path, None, &refused),
                    }
                    if found.len() > limits::WATCHED_FILES {
                        let why = format!("it has more than {} files; move some of them away", limits::WATCHED_FILES);
                        return Err(io::Error::other(why));
                    }
                }
            }
        }
        Ok(found)
    }
}

/// Opens a file that is no link.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

fn delete(found: &Found) -> io::Result<()> {
    // Whoever replaces the file does so by a rename: so it is taken aside first, and then looked at.
    let aside = found.path.with_file_name(TAKEN);
    fs::rename(&found.path, &aside)?;
    if Version::of(&fs::symlink_metadata(&aside)?) == found.version {
        return fs::remove_file(&aside);
    }
    // Another one came in its place; unless a third one did, which took the place of this one.
    match fs::hard_link(&aside, &found.path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => fs::remove_file(&aside),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_in_the_place_of_what_was_stored_is_not_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.csv");
        fs::write(&path, "one").unwrap();
        let version = Version::of(&fs::metadata(&path).unwrap());
        let found = Found { path: path.clone(), name: "in/a.csv".to_owned(), version };
        fs::write(&path, "other").unwrap();
        delete(&found).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"other");
        let version = Version::of(&fs::metadata(&path).unwrap());
        delete(&Found { version, ..found }).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
