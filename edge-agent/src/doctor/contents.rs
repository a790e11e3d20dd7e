//! Whether the contents of blobs are there, and what they should be.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use agent_store::ContentDigest;
use sha2::{Digest as _, Sha256};

use crate::blobs::place;

/// Most of what is wrong that is kept, as of the store's own rows.
const MAX_NAMED: usize = 1_000;

/// What was found of the contents of blobs.
#[derive(Debug, Default)]
pub(super) struct Contents {
    // `None`: they do not lie beside the store, as of one in quarantine.
    dir: Option<PathBuf>,
    deep: bool,
    /// What is wrong, each in one line; at most 1,000 of them.
    pub(super) damage: Vec<String>,
    /// How many are.
    pub(super) damaged: u64,
}

impl Contents {
    /// Those beside the store in `store`; all bytes of them are read if `deep`.
    pub(super) fn beside(store: &Path, deep: bool) -> Self {
        let dir = store.parent().map(|data| data.join("blobs")).filter(|dir| dir.is_dir());
        Self { dir, deep, ..Self::default() }
    }

    /// Whether there was anything to look at.
    pub(super) fn are_there(&self) -> bool {
        self.dir.is_some()
    }

    pub(super) fn look(&mut self, digest: &ContentDigest, bytes: u64) {
        let Some(dir) = &self.dir else { return };
        let wrong = match judge(&dir.join(place(digest)), digest, bytes, self.deep) {
            Ok(None) => return,
            Ok(Some(wrong)) => wrong,
            Err(error) => error.to_string(),
        };
        self.damaged += 1;
        if self.damage.len() < MAX_NAMED {
            self.damage.push(format!("the content {} of a blob: {wrong}", hex::encode(digest)));
        }
    }
}

fn judge(path: &Path, digest: &ContentDigest, bytes: u64, deep: bool) -> io::Result<Option<String>> {
    let mut file = File::open(path)?;
    let found = file.metadata()?.len();
    if found != bytes {
        return Ok(Some(format!("it has {found} bytes, and {bytes} were stored")));
    }
    if deep {
        let (mut hash, mut piece) = (Sha256::new(), vec![0; 64 << 10]);
        loop {
            match file.read(&mut piece)? {
                0 => break,
                read => hash.update(&piece[..read]),
            }
        }
        let found: ContentDigest = hash.finalize().into();
        if found != *digest {
            return Ok(Some(format!("its SHA-256 is {}", hex::encode(found))));
        }
    }
    Ok(None)
}
