//! How a run fails.

use std::fmt;

/// What a handler answers: nothing, or why it failed.
pub type Result<T = (), E = Error> = std::result::Result<T, E>;

/// Why a run failed, for a person who reads the gateway's log or a dead letter.
///
/// `?` makes it of any [`std::error::Error`], with its sources. It implements none itself, as two ways of making it
/// would be in conflict.
pub struct Error {
    message: String,
}

impl Error {
    /// An error of one's own: `return Err(Error::new("the sensor is upside down"))`.
    pub fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string() }
    }
}

impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            message.push_str(": ");
            message.push_str(&error.to_string());
            source = error.source();
        }
        Self { message }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
