//! Where a module is while it is not needed.

use std::fmt;
use std::sync::Arc;

/// Gives a module's bytes again. They are needed for backtraces alone, so nobody has to keep them in memory.
pub trait Source: fmt::Debug + Send + Sync {
    /// What the function was loaded from, and nothing else.
    ///
    /// # Errors
    /// Why it is not to be had any more, for a person.
    fn bytes(&self) -> Result<Vec<u8>, String>;
}

/// In memory.
impl Source for Arc<[u8]> {
    fn bytes(&self) -> Result<Vec<u8>, String> {
        Ok(self.to_vec())
    }
}
