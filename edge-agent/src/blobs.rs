//! The contents of blobs: files named by their SHA-256, beside the store.
//!
//! `DATA_DIR/blobs/AB/DIGEST` holds one content, `AB` being the first two digits. It is written as a draft in `drafts`, synced,
//! renamed, and its folder synced, all before the row that names it is committed: so what a row names is on the disk. A
//! content without a row is what a crash, or a commit that failed, left behind; it is removed.
//!
//! Who is about to commit a row holds the content, and who removes one looks whether it is held and whether a row names it
//! under the same lock: so no row is committed that names what was removed meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agent_store::{Blob, ContentDigest, Reader, StoreError, Write};
use anyhow::Context as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use crate::config;
use crate::limits;
use crate::pipeline::writer::Sender;

/// Where contents become files.
const DRAFTS: &str = "drafts";

/// The contents of blobs, and how much room they may take.
#[derive(Debug)]
pub struct Blobs {
    dir: PathBuf,
    limits: config::Blobs,
    state: Mutex<State>,
    drafts: AtomicU64,
    /// Signalled when there may be contents that nothing refers to.
    pub changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    // Contents that somebody reads or is about to refer to, and how many do.
    held: BTreeMap<ContentDigest, usize>,
    // Contents that were put on the disk and may have got no row.
    doubtful: BTreeSet<ContentDigest>,
    // As of the last commit.
    stored_bytes: u64,
    // For what is being put on the disk.
    reserved_bytes: u64,
}

/// Why a content is not on the disk.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// It is larger than one may be.
    #[error(
        "the blob is larger than {0} bytes, which is the most that one may have; send a smaller one, or raise blobs.max_mib"
    )]
    TooLarge(u64),
    /// There is no room for it.
    #[error(
        "the blobs of this gateway may take {0} bytes, and there is no room for this one; delete some, or raise blobs.quota_mib"
    )]
    Full(u64),
    /// The disk does not take it.
    #[error("the gateway's disk does not take the blob: {0}")]
    Disk(#[from] io::Error),
}

impl BlobError {
    /// Whether it would be taken if there were more room.
    pub fn is_full(&self) -> bool {
        match self {
            Self::TooLarge(_) => false,
            Self::Full(_) => true,
            Self::Disk(error) => matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded),
        }
    }
}

/// Where a content lies below the folder of the blobs.
pub fn place(digest: &ContentDigest) -> PathBuf {
    let name = hex::encode(digest);
    Path::new(&name[..2]).join(&name)
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

impl Blobs {
    /// Opens the folder of the blobs in a data folder, and makes it if it is not there. Drafts of before are removed.
    ///
    /// # Errors
    /// The disk does not take it.
    pub fn open(data_dir: &Path, limits: config::Blobs) -> io::Result<Arc<Self>> {
        let dir = data_dir.join("blobs");
        fs::create_dir_all(dir.join(DRAFTS))?;
        for first in 0..=u8::MAX {
            match fs::create_dir(dir.join(format!("{first:02x}"))) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        sync(&dir)?;
        sync(data_dir)?;
        for draft in fs::read_dir(dir.join(DRAFTS))? {
            fs::remove_file(draft?.path())?;
        }
        Ok(Arc::new(Self { dir, limits, state: Mutex::default(), drafts: AtomicU64::new(0), changed: Notify::new() }))
    }

    /// Removes the contents to which nothing refers: a crash left them. After the recovery of a store, whose rows may be
    /// lost, they are moved into its quarantine instead. How many there were.
    ///
    /// # Errors
    /// The store or the disk fails.
    pub fn sweep(&self, reader: &mut Reader, quarantine: Option<&Path>) -> anyhow::Result<u64> {
        let mut swept = 0;
        let aside = quarantine.map(|quarantine| quarantine.join("blobs"));
        if let Some(aside) = &aside {
            fs::create_dir_all(aside)?;
        }
        for first in 0..=u8::MAX {
            for entry in fs::read_dir(self.dir.join(format!("{first:02x}")))? {
                let path = entry?.path();
                let mut digest = [0; 32];
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                if hex::decode_to_slice(name, &mut digest).is_ok() && reader.is_used(&digest)? {
                    continue;
                }
                match &aside {
                    Some(aside) => fs::rename(&path, aside.join(path.file_name().unwrap_or_default()))?,
                    None => fs::remove_file(&path)?,
                }
                swept += 1;
            }
        }
        Ok(swept)
    }

    /// Tells how many bytes the contents take since the last commit.
    pub fn committed(&self, bytes: u64) {
        self.state().stored_bytes = bytes;
    }

    /// The most bytes that one blob may have.
    pub fn max_bytes(&self) -> u64 {
        self.limits.max_bytes
    }

    /// Whether there is room for so many bytes more, for whoever says in advance how much is to come.
    ///
    /// # Errors
    /// There is not.
    pub fn check_room(&self, bytes: u64) -> Result<(), BlobError> {
        self.admit(&self.state(), 0, bytes)
    }

    /// Begins a content.
    ///
    /// # Errors
    /// The disk does not take it.
    pub fn draft(self: &Arc<Self>) -> Result<Draft, BlobError> {
        let number = self.drafts.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(DRAFTS).join(number.to_string());
        let file = File::create_new(&path)?;
        let room = Room { blobs: self.clone(), bytes: 0 };
        Ok(Draft { file, path: Some(path), hash: Sha256::new(), room })
    }

    /// Puts a content on the disk.
    ///
    /// # Errors
    /// It is too large, or there is no room for it.
    pub fn put(self: &Arc<Self>, content: &[u8]) -> Result<Stored, BlobError> {
        let mut draft = self.draft()?;
        draft.write(content)?;
        draft.finish()
    }

    /// Holds a content: it stays until this is dropped.
    pub fn hold(self: &Arc<Self>, digest: ContentDigest) -> Hold {
        *self.state().held.entry(digest).or_insert(0) += 1;
        Hold { blobs: self.clone(), digest }
    }

    /// The file of a content.
    ///
    /// # Errors
    /// It is not there, or cannot be opened.
    pub fn file(&self, digest: &ContentDigest) -> io::Result<File> {
        File::open(self.dir.join(place(digest)))
    }

    /// Removes contents to which nothing refers and which nobody holds; these.
    ///
    /// # Errors
    /// The store or the disk fails. What was removed is found to be unused the next time.
    pub fn collect(&self, reader: &mut Reader) -> Result<Vec<ContentDigest>, CollectError> {
        let mut digests = self.state().doubtful.clone();
        digests.extend(reader.unused_contents(limits::COLLECTED)?);
        let mut gone = Vec::new();
        for digest in digests {
            let mut state = self.state();
            if state.held.contains_key(&digest) {
                continue;
            }
            if !reader.is_used(&digest)? {
                match fs::remove_file(self.dir.join(place(&digest))) {
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                    _ => gone.push(digest),
                }
            }
            state.doubtful.remove(&digest);
        }
        Ok(gone)
    }

    fn admit(&self, state: &State, before: u64, more: u64) -> Result<(), BlobError> {
        let config::Blobs { max_bytes, quota_bytes } = self.limits;
        if before.saturating_add(more) > max_bytes {
            return Err(BlobError::TooLarge(max_bytes));
        }
        if state.stored_bytes.saturating_add(state.reserved_bytes).saturating_add(more) > quota_bytes {
            return Err(BlobError::Full(quota_bytes));
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why contents to which nothing refers are still there.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The store does not say which.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The disk does not let go of one.
    #[error("a content that nothing refers to cannot be removed: {0}")]
    Disk(#[from] io::Error),
}

/// The blob of a name, with its content: that stays while it is held.
///
/// # Errors
/// The store or the disk fails, or the content is not there.
pub fn open_named(blobs: &Arc<Blobs>, reader: &mut Reader, name: &str) -> anyhow::Result<Option<(Blob, Hold, File)>> {
    let mut last = None;
    loop {
        let Some(blob) = reader.blob(name)? else { return Ok(None) };
        let hold = blobs.hold(blob.digest);
        match hold.file() {
            Ok(file) => return Ok(Some((blob, hold, file))),
            // The name went to another content before this one was held.
            Err(error) if error.kind() == ErrorKind::NotFound && last != Some(blob.digest) => last = Some(blob.digest),
            Err(error) => {
                let digest = hex::encode(blob.digest);
                return Err(error).with_context(|| format!("the content {digest} of the blob {name} cannot be opened"));
            }
        }
    }
}

/// Removes contents to which nothing refers for as long as the agent runs.
pub async fn collect(blobs: Arc<Blobs>, mut reader: Reader, writer: Sender) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(limits::COLLECT_EVERY) => {}
            () = blobs.changed.notified() => {}
        }
        match tokio::task::block_in_place(|| blobs.collect(&mut reader)) {
            Ok(gone) if gone.is_empty() => {}
            // If it is not taken, they are found once more.
            Ok(gone) => drop(writer.write(vec![Write::ContentsGone(gone)]).await),
            Err(error) => tracing::error!("{error}"),
        }
    }
}

/// Room that is taken for what is being put on the disk.
#[derive(Debug)]
struct Room {
    blobs: Arc<Blobs>,
    bytes: u64,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.blobs.state().reserved_bytes -= self.bytes;
    }
}

/// A content while it comes. Dropped, it is gone.
#[derive(Debug)]
pub struct Draft {
    file: File,
    // `None` once it is no draft any more.
    path: Option<PathBuf>,
    hash: Sha256,
    room: Room,
}

impl Draft {
    /// Adds to its end.
    ///
    /// # Errors
    /// It is too large, or there is no room for it.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), BlobError> {
        let more = piece.len() as u64;
        let blobs = &self.room.blobs;
        let mut state = blobs.state();
        blobs.admit(&state, self.room.bytes, more)?;
        state.reserved_bytes += more;
        drop(state);
        self.room.bytes += more;
        self.file.write_all(piece)?;
        self.hash.update(piece);
        Ok(())
    }

    /// The digest of what came so far.
    pub fn digest(&self) -> ContentDigest {
        self.hash.clone().finalize().into()
    }

    /// Makes it a content: on return it is on the disk, and held.
    ///
    /// # Errors
    /// The disk does not take it.
    pub fn finish(mut self) -> Result<Stored, BlobError> {
        let digest = self.digest();
        self.file.sync_all()?;
        // Before the file has its name: from then on it stays.
        let hold = self.room.blobs.hold(digest);
        let place = self.room.blobs.dir.join(place(&digest));
        if let Some(draft) = &self.path {
            // In place of the same content, if that is there.
            fs::rename(draft, &place)?;
        }
        self.path = None;
        if let Some(folder) = place.parent() {
            sync(folder)?;
        }
        let room = Room { blobs: self.room.blobs.clone(), bytes: std::mem::take(&mut self.room.bytes) };
        Ok(Stored { digest, bytes: room.bytes, hold, _room: room })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(path) = &self.path
            && let Err(error) = fs::remove_file(path)
        {
            tracing::warn!("the draft {} stays until the agent is started anew: {error}", path.display());
        }
    }
}

/// A content that is on the disk, and whose row is about to be committed. Drop it when it is, or will never be.
#[derive(Debug)]
pub struct Stored {
    /// Its digest.
    pub digest: ContentDigest,
    /// Its length.
    pub bytes: u64,
    hold: Hold,
    _room: Room,
}

impl Drop for Stored {
    fn drop(&mut self) {
        let blobs = &self.hold.blobs;
        blobs.state().doubtful.insert(self.digest);
        blobs.changed.notify_one();
    }
}

/// Keeps a content from being removed.
#[derive(Debug)]
pub struct Hold {
    blobs: Arc<Blobs>,
    digest: ContentDigest,
}

impl Hold {
    /// The file.
    ///
    /// # Errors
    /// It is not there, or cannot be opened.
    pub fn file(&self) -> io::Result<File> {
        self.blobs.file(&self.digest)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.blobs.state();
        if let Some(count) = state.held.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                state.held.remove(&self.digest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use agent_store::{BlobWrite, Store};

    use super::*;

    struct Place {
        _dir: tempfile::TempDir,
        store: Store,
        reader: Reader,
        blobs: Arc<Blobs>,
    }

    fn open() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let reader = store.reader().unwrap();
        let blobs = Blobs::open(dir.path(), config::Blobs { max_bytes: 100, quota_bytes: 250 }).unwrap();
        Place { _dir: dir, store, reader, blobs }
    }

    impl Place {
        fn commit(&mut self, write: Write) {
            let committed = self.store.commit(&[write]).unwrap();
            self.blobs.committed(committed.blob_bytes);
        }

        fn is_there(&self, digest: &ContentDigest) -> bool {
            self.blobs.file(digest).is_ok()
        }
    }

    fn named(name: &str, stored: &Stored) -> Write {
        let blob = Blob { digest: stored.digest, bytes: stored.bytes, content_type: "text/plain".into(), stored_us: 1 };
        Write::Blob(BlobWrite::Put { name: name.into(), blob, wanted: vec![] })
    }

    #[test]
    fn a_content_stays_while_it_is_held_or_named_and_no_longer() {
        let mut place = open();
        let stored = place.blobs.put(b"one").unwrap();
        let digest = stored.digest;
        assert!(place.blobs.collect(&mut place.reader).unwrap().is_empty(), "held, for its row is about to come");
        place.commit(named("a/1", &stored));
        drop(stored);
        assert!(place.blobs.collect(&mut place.reader).unwrap().is_empty() && place.is_there(&digest));
        let hold = place.blobs.hold(digest);
        place.commit(Write::Blob(BlobWrite::Delete { name: "a/1".into() }));
        assert!(place.blobs.collect(&mut place.reader).unwrap().is_empty() && place.is_there(&digest));
        drop(hold);
        assert_eq!(place.blobs.collect(&mut place.reader).unwrap(), [digest]);
        assert!(!place.is_there(&digest));
        // It comes again before it is noted that it went.
        let stored = place.blobs.put(b"one").unwrap();
        place.commit(named("a/2", &stored));
        place.commit(Write::ContentsGone(vec![digest]));
        drop(stored);
        assert!(place.blobs.collect(&mut place.reader).unwrap().is_empty() && place.is_there(&digest));
        assert_eq!(place.reader.blob_usage().unwrap(), (1, 3));
    }

    #[test]
    fn what_got_no_row_is_removed_at_once_and_after_a_crash() {
        let mut place = open();
        let (kept, lost) = (place.blobs.put(b"kept").unwrap(), place.blobs.put(b"lost").unwrap());
        let (kept_digest, lost_digest) = (kept.digest, lost.digest);
        place.commit(named("a/kept", &kept));
        drop((kept, lost));
        assert_eq!(place.blobs.collect(&mut place.reader).unwrap(), [lost_digest]);
        let crashed = place.blobs.put(b"crashed").unwrap().digest;
        assert_eq!(place.blobs.sweep(&mut place.reader, None).unwrap(), 1);
        assert!(place.is_there(&kept_digest) && !place.is_there(&crashed));
        // What no row names may be all that is left where rows are lost.
        let aside = tempfile::tempdir_in(place._dir.path()).unwrap();
        let lost = place.blobs.put(b"lost").unwrap().digest;
        assert_eq!(place.blobs.sweep(&mut place.reader, Some(aside.path())).unwrap(), 1);
        assert_eq!(fs::read(aside.path().join("blobs").join(hex::encode(lost))).unwrap(), b"lost");
    }

    #[test]
    fn room_is_bounded_while_contents_come_and_when_they_are_stored() {
        let mut place = open();
        assert!(matches!(place.blobs.put(&[1; 101]), Err(BlobError::TooLarge(100))));
        let mut draft = place.blobs.draft().unwrap();
        draft.write(&[2; 60]).unwrap();
        assert!(matches!(draft.write(&[2; 41]), Err(BlobError::TooLarge(100))));
        let (one, two) = (place.blobs.put(&[3; 100]).unwrap(), draft.finish().unwrap());
        assert!(matches!(place.blobs.put(&[4; 91]), Err(BlobError::Full(250))));
        place.commit(named("a/1", &one));
        place.commit(named("a/2", &two));
        drop((one, two));
        assert!(matches!(place.blobs.put(&[4; 91]), Err(BlobError::Full(250))));
        place.commit(Write::Blob(BlobWrite::Delete { name: "a/2".into() }));
        let gone = place.blobs.collect(&mut place.reader).unwrap();
        place.commit(Write::ContentsGone(gone));
        drop(place.blobs.put(&[4; 91]).unwrap());
        assert_eq!(fs::read_dir(place.blobs.dir.join(DRAFTS)).unwrap().count(), 0);
    }
}
