//! What a run asks of whoever runs it.

use std::sync::Arc;

/// What a run asks of whoever runs it: to read its state, and to let others go on. What the run wrote itself comes first, and
/// does not get here.
pub trait Reads {
    /// The value of a key, within the function and the partition of the run.
    ///
    /// # Errors
    /// The store failed. The run is abandoned: it is not the function's fault.
    fn state(&mut self, key: &[u8]) -> Result<Option<Arc<[u8]>>, ReadError>;

    /// The first key (bytewise) that begins with `prefix` and comes after `after`, within the function and the partition of
    /// the run.
    ///
    /// # Errors
    /// As [`state`](Self::state).
    fn next_key(&mut self, prefix: &[u8], after: &[u8]) -> Result<Option<Vec<u8>>, ReadError>;

    /// The bytes that keys and values of the function's state take, over all partitions. Asked once by a run that put
    /// something, after it returned; the values that such a run replaces may be asked for after that.
    ///
    /// # Errors
    /// As [`state`](Self::state).
    fn state_bytes(&mut self) -> Result<u64, ReadError>;

    /// The bytes of the blob of this name, or of the content that [`BLOB_DIGEST`](function_abi::BLOB_DIGEST) and a digest name. It was stored before this
    /// run; one run sees one content under a name.
    ///
    /// # Errors
    /// As [`state`](Self::state).
    fn blob_size(&mut self, name: &str) -> Result<Option<u64>, ReadError>;

    /// The bytes of such a blob from `offset` on: `len` of them, or as many as there are.
    ///
    /// # Errors
    /// As [`state`](Self::state).
    fn blob_piece(&mut self, name: &str, offset: u64, len: usize) -> Result<Option<Vec<u8>>, ReadError>;

    /// The run has taken so many units of fuel and has not ended, [`SLICE`](crate::fuel::SLICE) or more since the last time: whoever is next may
    /// be served before it goes on.
    fn pause(&mut self, fuel: u64) {
        let _ = fuel;
    }
}

/// Nothing is there.
#[derive(Clone, Copy, Debug)]
pub struct NoReads;

impl Reads for NoReads {
    fn state(&mut self, _: &[u8]) -> Result<Option<Arc<[u8]>>, ReadError> {
        Ok(None)
    }

    fn next_key(&mut self, _: &[u8], _: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(None)
    }

    fn state_bytes(&mut self) -> Result<u64, ReadError> {
        Ok(0)
    }

    fn blob_size(&mut self, _: &str) -> Result<Option<u64>, ReadError> {
        Ok(None)
    }

    fn blob_piece(&mut self, _: &str, _: u64, _: usize) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(None)
    }
}

/// The store could not answer.
#[derive(Debug, thiserror::Error)]
#[error("the state could not be read: {0}")]
pub struct ReadError(#[source] pub Box<dyn std::error::Error + Send + Sync>);
