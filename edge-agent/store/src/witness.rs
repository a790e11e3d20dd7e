//! The file "lock": whoever holds it writes the store. It also says how far the store had come.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::error::Cause;

const NAME: &str = "lock";

/// Version, epoch, two numbers for each of the three queues, checksum; little-endian.
const BYTES: usize = 1 + 8 + 3 * 16 + 4;
const VERSION: u8 = 1;

/// How far a store had come at a commit. It is written after the commit and not synced, so it is never ahead of what
/// was promised: a database that is behind it lost commits. SQLite cannot tell that from a log that ends early, which
/// is what one flipped bit in the log makes of it. After a power cut the note may be older than the database; then it
/// says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) epoch: u64,
    /// By `Queue::index`: the mark, and the highest number ever given.
    pub(crate) queues: [(u64, u64); 3],
}

/// The file, open and locked.
#[derive(Debug)]
pub(crate) struct Witness {
    file: File,
    noted: Option<Note>,
}

impl Witness {
    pub(crate) fn open(dir: &Path) -> Result<Self, Cause> {
        let failed = |what| move |error| Cause::File { what, error };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join(NAME))
            .map_err(failed("the file \"lock\" beside it cannot be created"))?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Cause::Locked,
            TryLockError::Error(error) => failed("the file \"lock\" beside it cannot be locked")(error),
        })?;
        let mut bytes = [0; BYTES];
        let noted = file.read_exact_at(&mut bytes, 0).ok().and_then(|()| Note::from_bytes(&bytes));
        Ok(Self { file, noted })
    }

    pub(crate) fn noted(&self) -> Option<Note> {
        self.noted
    }

    /// Notes how far the store has come.
    pub(crate) fn note(&mut self, note: Note) {
        // A disk that does not take it fails the next commit, and nothing is lost but the means to notice a loss.
        if self.noted != Some(note) && self.file.write_all_at(&note.to_bytes(), 0).is_ok() {
            self.noted = Some(note);
        }
    }
}

/// What is noted beside a store that somebody else may hold.
pub(crate) fn peek(dir: &Path) -> Option<Note> {
    let mut bytes = [0; BYTES];
    File::open(dir.join(NAME)).ok()?.read_exact(&mut bytes).ok()?;
    Note::from_bytes(&bytes)
}

impl Note {
    fn to_bytes(self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[0] = VERSION;
        let numbers = [self.epoch].into_iter().chain(self.queues.into_iter().flat_map(|(done, last)| [done, last]));
        for (place, number) in bytes[1..BYTES - 4].as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
            *place = number.to_le_bytes();
        }
        let checksum = crc32fast::hash(&bytes[..BYTES - 4]);
        bytes[BYTES - 4..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; BYTES]) -> Option<Self> {
        let (content, checksum) = bytes.split_at(BYTES - 4);
        if content[0] != VERSION || checksum != crc32fast::hash(content).to_le_bytes() {
            return None;
        }
        let mut numbers = content[1..].as_chunks::<8>().0.iter().map(|number| u64::from_le_bytes(*number));
        let mut next = || numbers.next();
        Some(Self { epoch: next()?, queues: [(next()?, next()?), (next()?, next()?), (next()?, next()?)] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_back_unless_it_is_damaged() {
        let note = Note { epoch: 7, queues: [(1, 2), (3, 4), (5, u64::MAX)] };
        let mut bytes = note.to_bytes();
        assert_eq!(Note::from_bytes(&bytes), Some(note));
        for at in 0..BYTES {
            bytes[at] ^= 1;
            assert_eq!(Note::from_bytes(&bytes), None, "byte {at}");
            bytes[at] ^= 1;
        }
    }
}
