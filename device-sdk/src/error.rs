use device_wire::{DeviceNameError, WINDOW};
use thiserror::Error;

/// Why a session could not be made: the program must be corrected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The device's name is not one.
    #[error(transparent)]
    Device(#[from] DeviceNameError),
    /// The window is 0 or more than [`WINDOW`].
    #[error("the window is {window}, allowed are 1 to {WINDOW}")]
    Window {
        /// The window that was asked for.
        window: usize,
    },
    /// The shortest backoff is 0, or longer than the longest.
    #[error(
        "the backoff goes from {min_ms} ms to {max_ms} ms, allowed is at least 1 ms and a minimum up to the maximum"
    )]
    Backoff {
        /// [`Settings::backoff_min_ms`](crate::Settings::backoff_min_ms).
        min_ms: u32,
        /// [`Settings::backoff_max_ms`](crate::Settings::backoff_max_ms).
        max_ms: u32,
    },
    /// The progress timeout is 0: every connection would be given up at once.
    #[error("the progress timeout is 0 ms, it must be at least 1 ms")]
    ProgressTimeout,
}

/// Why an event was not accepted. It got no sequence; the session is as it was, and the caller, who only lent
/// the event, still has it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The queue is full and nothing in it may be dropped. Try again after the next acknowledgement.
    #[error("the queue is full: {pending} events wait for their acknowledgement")]
    Full {
        /// How many events are in the queue.
        pending: usize,
    },
    /// The payload is longer than the session's `PAYLOAD`. For text it may also mean that a `Display`
    /// implementation returned an error.
    #[error("the payload does not fit into {limit} bytes")]
    TooLarge {
        /// The session's `PAYLOAD`, in bytes.
        limit: usize,
    },
    /// The topic cannot be published to.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The value cannot be written with postcard.
    #[error("the value cannot be written with postcard: {0}")]
    Postcard(postcard::Error),
}

/// Why a topic cannot be published to (MQTT 3.1.1 and 5.0, sections 3.3.2.1 and 4.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TopicError {
    /// The topic has no characters.
    #[error("the topic is empty")]
    Empty,
    /// The topic has more than 65,535 bytes.
    #[error("the topic has {bytes} bytes, at most 65535 are allowed")]
    TooLong {
        /// The topic's length in bytes.
        bytes: usize,
    },
    /// The topic has a wildcard (`+`, `#`) or U+0000.
    #[error("the topic has {character:?} at byte {at}, which a publish may not have")]
    Character {
        /// The first such character.
        character: char,
        /// Its offset in bytes.
        at: usize,
    },
}

pub(crate) fn check_topic(topic: &str) -> Result<(), TopicError> {
    if topic.is_empty() {
        return Err(TopicError::Empty);
    }
    if topic.len() > usize::from(u16::MAX) {
        return Err(TopicError::TooLong { bytes: topic.len() });
    }
    match topic.char_indices().find(|(_, c)| matches!(c, '+' | '#' | '\0')) {
        Some((at, character)) => Err(TopicError::Character { character, at }),
        None => Ok(()),
    }
}
