//! Functions on the gateway's disk: a file for each, named by its digest.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use function_package::Digest;

/// The folder that holds them.
#[derive(Debug)]
pub struct Artifacts(PathBuf);

impl Artifacts {
    /// Opens the folder, and makes it if there is none.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        let folder = data_dir.join("functions");
        fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }

    /// The file with this digest; `None` if there is none, or if what is there is damaged.
    pub fn get(&self, digest: Digest) -> Option<Vec<u8>> {
        let bytes = fs::read(self.path(digest)).ok()?;
        if Digest::of(&bytes) != digest {
            tracing::error!(%digest, "a function's file is damaged on the disk; it is fetched anew");
            return None;
        }
        Some(bytes)
    }

    /// Stores a file; it is on the disk when this returns.
    ///
    /// # Errors
    /// If the disk is full or fails.
    pub fn put(&self, digest: Digest, bytes: &[u8]) -> io::Result<()> {
        let draft = self.0.join("draft");
        let mut file = fs::File::create(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&draft, self.path(digest))?;
        fs::File::open(&self.0)?.sync_all()
    }

    /// Removes all files but these. What cannot be removed stays, and costs nothing but room.
    pub fn keep(&self, digests: &BTreeSet<Digest>) {
        let keep: BTreeSet<PathBuf> = digests.iter().map(|digest| self.path(*digest)).collect();
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            if !keep.contains(&entry.path()) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Where the file with this digest is, if it is there.
    pub fn path(&self, digest: Digest) -> PathBuf {
        self.0.join(format!("{}.wasm", hex::encode(digest.as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_there_and_damage_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::open(folder.path()).unwrap();
        let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
        artifacts.put(one, b"one").unwrap();
        artifacts.put(two, b"two").unwrap();
        assert_eq!(artifacts.get(one).as_deref(), Some(&b"one"[..]));
        fs::write(artifacts.path(two), b"twO").unwrap();
        assert_eq!(artifacts.get(two), None);
        artifacts.keep(&BTreeSet::from([two]));
        assert_eq!(artifacts.get(one), None);
        assert!(artifacts.path(two).exists());
    }
}
