//! MQTT topic names and topic filters (MQTT 5.0, section 4.7; the same rules hold in MQTT 3.1.1, section 4.7).

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;

/// Longest topic name or filter in bytes: its length is a u16 on the wire.
pub const MAX_TOPIC_BYTES: usize = 65_535;

/// Most levels of a topic or filter. Matching walks level by level, so this bounds its cost; real trees have under 20.
pub const MAX_LEVELS: usize = 128;

/// A checked topic name: not empty, no wildcards, no NUL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Topic(String);

/// A checked topic filter: wildcards only where the standard allows them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Filter(String);

/// Why a topic name is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Nothing in it.
    #[error("the topic is empty; a topic has at least one character")]
    Empty,
    /// Longer than [`MAX_TOPIC_BYTES`].
    #[error("the topic is {0} bytes long; MQTT allows {MAX_TOPIC_BYTES}")]
    TooLong(usize),
    /// More levels than [`MAX_LEVELS`].
    #[error("the topic has {0} levels; at most {MAX_LEVELS} are allowed")]
    TooDeep(usize),
    /// `+` or `#`.
    #[error("the topic {0:?} holds the wildcard {1:?}; messages are published to one topic, without wildcards")]
    Wildcard(String, char),
    /// U+0000.
    #[error("the topic {0:?} holds the character U+0000, which MQTT forbids")]
    Nul(String),
}

/// Why a topic filter is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Nothing in it.
    #[error("the topic filter is empty; use \"#\" for every topic")]
    Empty,
    /// Longer than [`MAX_TOPIC_BYTES`].
    #[error("the topic filter is {0} bytes long; MQTT allows {MAX_TOPIC_BYTES}")]
    TooLong(usize),
    /// More levels than [`MAX_LEVELS`].
    #[error("the topic filter has {0} levels; at most {MAX_LEVELS} are allowed")]
    TooDeep(usize),
    /// `#` before the last level, or beside other characters.
    #[error("in the topic filter {0:?} \"#\" must stand alone in the last level, as in \"a/b/#\"")]
    MisplacedHash(String),
    /// `+` beside other characters.
    #[error("in the topic filter {0:?} \"+\" must fill a whole level, as in \"a/+/b\"")]
    MisplacedPlus(String),
    /// U+0000.
    #[error("the topic filter {0:?} holds the character U+0000, which MQTT forbids")]
    Nul(String),
}

impl Topic {
    /// Checks a topic name.
    ///
    /// # Errors
    /// Names what is wrong with it.
    pub fn new(name: &str) -> Result<Self, TopicError> {
        check_topic(name)?;
        Ok(Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Checks a topic name without keeping it.
///
/// # Errors
/// Names what is wrong with it.
pub fn check_topic(name: &str) -> Result<(), TopicError> {
    if name.is_empty() {
        return Err(TopicError::Empty);
    }
    if name.len() > MAX_TOPIC_BYTES {
        return Err(TopicError::TooLong(name.len()));
    }
    let mut levels = 1;
    for byte in name.bytes() {
        match byte {
            b'+' | b'#' => return Err(TopicError::Wildcard(name.to_owned(), char::from(byte))),
            0 => return Err(TopicError::Nul(name.to_owned())),
            b'/' => levels += 1,
            _ => {}
        }
    }
    if levels > MAX_LEVELS { Err(TopicError::TooDeep(levels)) } else { Ok(()) }
}

impl Filter {
    /// Checks a topic filter.
    ///
    /// # Errors
    /// Names what is wrong with it.
    pub fn new(filter: &str) -> Result<Self, FilterError> {
        if filter.is_empty() {
            return Err(FilterError::Empty);
        }
        if filter.len() > MAX_TOPIC_BYTES {
            return Err(FilterError::TooLong(filter.len()));
        }
        if filter.contains('\0') {
            return Err(FilterError::Nul(filter.to_owned()));
        }
        let mut levels = filter.split('/').peekable();
        let mut count = 0;
        while let Some(level) = levels.next() {
            count += 1;
            if level.contains('#') && (level != "#" || levels.peek().is_some()) {
                return Err(FilterError::MisplacedHash(filter.to_owned()));
            }
            if level.contains('+') && level != "+" {
                return Err(FilterError::MisplacedPlus(filter.to_owned()));
            }
        }
        if count > MAX_LEVELS { Err(FilterError::TooDeep(count)) } else { Ok(Self(filter.to_owned())) }
    }

    /// The filter.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a topic name matches. A leading wildcard does not match a topic that begins with `$`
    /// (MQTT 5.0, section 4.7.2).
    pub fn matches(&self, topic: &str) -> bool {
        if topic.starts_with('$') && self.0.starts_with(['+', '#']) {
            return false;
        }
        let mut names = topic.split('/');
        for level in self.0.split('/') {
            match (level, names.next()) {
                ("#", _) => return true,
                ("+", Some(_)) => {}
                (wanted, Some(name)) if wanted == name => {}
                _ => return false,
            }
        }
        names.next().is_none()
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_as_the_standard_says() {
        let matches = |filter: &str, topic: &str| Filter::new(filter).unwrap().matches(topic);
        // MQTT 5.0, section 4.7.1.2 and 4.7.1.3: the standard's own examples.
        assert!(matches("sport/tennis/player1/#", "sport/tennis/player1"));
        assert!(matches("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon"));
        assert!(matches("sport/#", "sport"));
        assert!(matches("#", "a/b"));
        assert!(matches("sport/tennis/+", "sport/tennis/player1"));
        assert!(!matches("sport/tennis/+", "sport/tennis/player1/ranking"));
        assert!(!matches("sport/+", "sport"));
        assert!(matches("sport/+", "sport/"));
        assert!(matches("+/+", "/finance"));
        assert!(matches("/+", "/finance"));
        assert!(!matches("+", "/finance"));
        assert!(!matches("#", "$SYS/x"));
        assert!(!matches("+/x", "$SYS/x"));
        assert!(matches("$SYS/#", "$SYS/x"));
    }

    #[test]
    fn bad_topics_and_filters_are_named() {
        assert_eq!(Topic::new(""), Err(TopicError::Empty));
        assert_eq!(Topic::new("a/+"), Err(TopicError::Wildcard("a/+".into(), '+')));
        assert_eq!(Topic::new("a\0"), Err(TopicError::Nul("a\0".into())));
        assert_eq!(Filter::new("a/#/b"), Err(FilterError::MisplacedHash("a/#/b".into())));
        assert_eq!(Filter::new("a#"), Err(FilterError::MisplacedHash("a#".into())));
        assert_eq!(Filter::new("a/b+"), Err(FilterError::MisplacedPlus("a/b+".into())));
        assert!(matches!(Topic::new(&"/".repeat(MAX_LEVELS)), Err(TopicError::TooDeep(_))));
        assert!(matches!(Filter::new(&"a".repeat(70_000)), Err(FilterError::TooLong(70_000))));
    }
}
