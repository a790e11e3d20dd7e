//! What a worker does with blobs: reads them for a run, and puts on the disk what the run stores.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};

use agent_core::{Effect, Effects};
use agent_functions::{Trap, TrapKind};
use agent_store::{Blob, BlobWrite, Reader};
use function_abi::BLOB_DIGEST;

use super::Pipeline;
use super::writer::Abandoned;
use crate::blobs::{BlobError, Hold, Stored, open_named};
use crate::plan::Version;

/// What a run that succeeded wants, the contents of its blobs on the disk.
pub(super) struct Done {
    pub(super) effects: Effects,
    pub(super) blobs: Vec<BlobWrite>,
    pub(super) contents: Vec<Stored>,
}

/// Puts the contents of the blobs among the effects on the disk: here and not by the writer, for whom everybody waits. The outer
/// error: the disk failed.
pub(super) fn store_blobs(
    pipeline: &Pipeline,
    version: &Version,
    effects: Effects,
) -> Result<Result<Done, Trap>, Abandoned> {
    let mut done = Done { effects: Effects::new(), blobs: Vec::new(), contents: Vec::new() };
    for effect in effects {
        match effect {
            Effect::BlobPut { name, content_type, body } => {
                let stored = match pipeline.blobs.put(&body) {
                    Ok(stored) => stored,
                    Err(error @ BlobError::Disk(_)) => return Err(error.into()),
                    Err(error) => {
                        let message = format!("function {:?} {}: blob_put: {error}", version.name, version.version);
                        return Ok(Err(Trap { kind: TrapKind::BlobsFull, message }));
                    }
                };
                let wanted = pipeline.plan().blob_readers(&name);
                let (digest, bytes) = (stored.digest, stored.bytes);
                let blob = Blob { digest, bytes, content_type, stored_us: pipeline.clock.wall_us() };
                done.blobs.push(BlobWrite::Put { name, blob, wanted });
                done.contents.push(stored);
            }
            Effect::BlobDelete { name } => done.blobs.push(BlobWrite::Delete { name }),
            other => done.effects.push(other),
        }
    }
    Ok(Ok(done))
}

/// The blobs that a run has read, each held for it: so that it sees one content under one name, however long it reads.
pub(super) struct RunBlobs<'a> {
    pipeline: &'a Pipeline,
    // With their length; `None`: there is no such blob.
    known: BTreeMap<String, Option<(Hold, u64)>>,
    // The one that was read last, most are read on.
    open: Option<(String, File)>,
}

impl<'a> RunBlobs<'a> {
    pub(super) fn new(pipeline: &'a Pipeline) -> Self {
        Self { pipeline, known: BTreeMap::new(), open: None }
    }

    /// How long a blob is.
    pub(super) fn find(&mut self, reader: &mut Reader, name: &str) -> Result<Option<u64>, Abandoned> {
        if let Some(known) = self.known.get(name) {
            return Ok(known.as_ref().map(|(_, bytes)| *bytes));
        }
        let blobs = &self.pipeline.blobs;
        let found = match name.strip_prefix(BLOB_DIGEST) {
            // The message that the event is keeps it.
            Some(digest) => {
                let mut bytes = [0; 32];
                hex::decode_to_slice(digest, &mut bytes).map_err(|error| error.to_string())?;
                let hold = blobs.hold(bytes);
                hold.file().and_then(|file| Ok((file.metadata()?.len(), hold, file))).map(Some).map_err(Into::into)
            }
            None => {
                open_named(blobs, reader, name).map(|found| found.map(|(blob, hold, file)| (blob.bytes, hold, file)))
            }
        };
        let found = match found {
            Err(error) if is_missing(&error) => {
                self.pipeline.counters.alarms.add(1);
                tracing::error!("{error:#}; a function is told that there is no such blob");
                None
            }
            found => found?,
        };
        let bytes = found.as_ref().map(|(bytes, ..)| *bytes);
        let held = found.map(|(bytes, hold, file)| {
            self.open = Some((name.to_owned(), file));
            (hold, bytes)
        });
        self.known.insert(name.to_owned(), held);
        Ok(bytes)
    }

    /// A piece of a blob.
    pub(super) fn piece(
        &mut self,
        reader: &mut Reader,
        name: &str,
        offset: u64,
        len: usize,
    ) -> Result<Option<Vec<u8>>, Abandoned> {
        let Some(bytes) = self.find(reader, name)? else { return Ok(None) };
        let rest = bytes.saturating_sub(offset);
        let len = usize::try_from(rest).map_or(len, |rest| rest.min(len));
        let mut piece = vec![0; len];
        if len == 0 {
            return Ok(Some(piece));
        }
        let mut file = match (self.open.take(), self.known.get(name)) {
            (Some((open, file)), _) if open == name => file,
            (_, Some(Some((hold, _)))) => hold.file()?,
            _ => return Ok(None),
        };
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(&mut piece)?;
        self.open = Some((name.to_owned(), file));
        Ok(Some(piece))
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == ErrorKind::NotFound)
}
