//! What a function may reach.

use agent_core::Filter;
use function_package::{AllowedHost, BlobPattern, Target, pattern_matches};

/// Longest name of a stream in bytes: it is stored with every record, and shown in tables.
pub const MAX_STREAM_BYTES: usize = 255;

/// What a function may reach; nothing by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// Cloud streams that it may emit to.
    pub streams: Vec<StreamPattern>,
    /// Topics that it may publish to.
    pub publish: Vec<Filter>,
    /// Queues that it may put messages into.
    pub queues: Vec<String>,
    /// Secrets of the gateway that it may read.
    pub secrets: Vec<String>,
    /// Properties of devices that it may report; a `*` at the end stands for any rest.
    pub twin: Vec<String>,
    /// Names under which it may count and observe.
    pub metrics: Vec<String>,
    /// Blobs that it may store and delete.
    pub blobs: Vec<BlobPattern>,
    /// Blobs that it may read.
    pub blobs_read: Vec<BlobPattern>,
    /// Hosts that it may send requests to.
    pub hosts: Vec<AllowedHost>,
    /// Functions, beside itself, that may get the answers.
    pub answers: Vec<String>,
}

impl Permissions {
    pub(crate) fn may_emit(&self, stream: &str) -> bool {
        self.streams.iter().any(|pattern| pattern.matches(stream))
    }

    pub(crate) fn may_enqueue(&self, queue: &str) -> bool {
        self.queues.iter().any(|allowed| allowed == queue)
    }

    pub(crate) fn may_report(&self, name: &str) -> bool {
        self.twin.iter().any(|pattern| pattern_matches(pattern, name))
    }

    pub(crate) fn may_measure(&self, name: &str) -> bool {
        self.metrics.iter().any(|allowed| allowed == name)
    }

    pub(crate) fn may_store(&self, blob: &str) -> bool {
        self.blobs.iter().any(|pattern| pattern.matches(blob))
    }

    pub(crate) fn may_read(&self, blob: &str) -> bool {
        self.blobs_read.iter().any(|pattern| pattern.matches(blob))
    }

    pub(crate) fn may_request(&self, target: &Target) -> bool {
        self.hosts.iter().any(|host| host.allows(target))
    }

    pub(crate) fn may_publish(&self, topic: &str) -> bool {
        self.publish.iter().any(|filter| filter.matches(topic))
    }
}

/// The name of a stream, or the beginning of one followed by `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamPattern(String);

/// Why the name of a stream, or a pattern for it, is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// Nothing in it.
    #[error("the stream's name is empty; give it a name such as \"alerts\"")]
    Empty,
    /// Longer than [`MAX_STREAM_BYTES`].
    #[error("the stream's name is {0} bytes long; at most {MAX_STREAM_BYTES} are allowed")]
    TooLong(usize),
    /// A control character.
    #[error("the stream's name {0:?} holds a control character; use printable characters only")]
    Control(String),
    /// `*` in a name, or before the end of a pattern.
    #[error("in the stream's name {0:?} \"*\" may only stand at the end of a permission, as in \"alerts.*\"")]
    Star(String),
    /// `@` at the beginning.
    #[error("the stream's name {0:?} begins with \"@\", as those of the gateway's own streams do; take another name")]
    Reserved(String),
}

/// Checks the name of a stream: not empty, at most [`MAX_STREAM_BYTES`], no control character and no `*`, and no `@` at
/// the beginning: such streams are the gateway's own.
///
/// # Errors
/// Names what is wrong with it.
pub fn check_stream(name: &str) -> Result<(), StreamError> {
    if name.is_empty() { Err(StreamError::Empty) } else { check_part(name, name) }
}

fn check_part(part: &str, whole: &str) -> Result<(), StreamError> {
    if whole.len() > MAX_STREAM_BYTES {
        return Err(StreamError::TooLong(whole.len()));
    }
    if part.contains('*') {
        return Err(StreamError::Star(whole.to_owned()));
    }
    if part.chars().any(char::is_control) {
        return Err(StreamError::Control(whole.to_owned()));
    }
    if whole.starts_with('@') {
        return Err(StreamError::Reserved(whole.to_owned()));
    }
    Ok(())
}

impl StreamPattern {
    /// Reads a pattern: a name, or a prefix followed by `*`; `*` alone is every stream.
    ///
    /// # Errors
    /// Names what is wrong with it.
    pub fn new(pattern: &str) -> Result<Self, StreamError> {
        match pattern.strip_suffix('*') {
            Some(prefix) => check_part(prefix, pattern)?,
            None => check_stream(pattern)?,
        }
        Ok(Self(pattern.to_owned()))
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this stream is meant.
    pub fn matches(&self, stream: &str) -> bool {
        pattern_matches(&self.0, stream)
    }
}

impl std::fmt::Display for StreamPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_name_or_a_prefix() {
        let matches = |pattern: &str, stream: &str| StreamPattern::new(pattern).unwrap().matches(stream);
        assert!(matches("alerts", "alerts"));
        assert!(!matches("alerts", "alerts2"));
        assert!(matches("alerts.*", "alerts.high"));
        assert!(!matches("alerts.*", "alerts"));
        assert!(matches("*", "x"));
    }

    #[test]
    fn bad_names_are_refused() {
        assert_eq!(check_stream(""), Err(StreamError::Empty));
        assert_eq!(check_stream("a*"), Err(StreamError::Star("a*".into())));
        assert_eq!(check_stream("a\n"), Err(StreamError::Control("a\n".into())));
        assert_eq!(check_stream(&"a".repeat(256)), Err(StreamError::TooLong(256)));
        assert_eq!(StreamPattern::new("a*b*"), Err(StreamError::Star("a*b*".into())));
        for reserved in ["@dead", "@"] {
            assert_eq!(check_stream(reserved), Err(StreamError::Reserved(reserved.into())));
            assert!(StreamPattern::new(&format!("{reserved}*")).is_err());
        }
        assert_eq!(StreamPattern::new(""), Err(StreamError::Empty));
    }
}
