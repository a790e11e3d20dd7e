//! Labels: what an operator says about a gateway, to deploy by.

use std::collections::BTreeMap;

/// Most labels of one gateway: enough to sort a fleet by, few enough to be matched and shown whole.
pub const MAX_LABELS: usize = 32;

/// Longest key or value, in bytes.
pub const MAX_LENGTH: usize = 63;

/// Labels by key.
pub type Labels = BTreeMap<String, String>;

/// Why labels are not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// A key or a value has another form.
    #[error(
        "the label {what} {text:?} is not taken: allowed are 1 to {MAX_LENGTH} letters, digits and any of \"-_./\" (ASCII)"
    )]
    Text {
        /// `key` or `value`.
        what: &'static str,
        /// As it was given, cut where it was too long to be repeated.
        text: String,
    },
    /// More than [`MAX_LABELS`].
    #[error("{0} labels are too many for one gateway; at most {MAX_LABELS} are taken")]
    TooMany(usize),
}

/// Checks one key and value.
///
/// # Errors
/// See [`LabelError::Text`].
pub fn check(key: &str, value: &str) -> Result<(), LabelError> {
    for (what, text) in [("key", key), ("value", value)] {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
        if text.is_empty() || text.len() > MAX_LENGTH || !text.bytes().all(allowed) {
            return Err(LabelError::Text { what, text: text.chars().take(MAX_LENGTH).collect() });
        }
    }
    Ok(())
}

/// Checks all labels of a gateway.
///
/// # Errors
/// See [`LabelError`].
pub fn check_all(labels: &Labels) -> Result<(), LabelError> {
    if labels.len() > MAX_LABELS {
        return Err(LabelError::TooMany(labels.len()));
    }
    labels.iter().try_for_each(|(key, value)| check(key, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_short_and_plain() {
        assert_eq!(check("site", "plant-1/hall.2"), Ok(()));
        for (key, value) in [("", "a"), ("a", ""), ("a b", "c"), ("a", "b=c"), ("ü", "a")] {
            assert!(check(key, value).is_err(), "{key}={value}");
        }
        assert!(check("a", &"x".repeat(MAX_LENGTH)).is_ok());
        assert!(check("a", &"x".repeat(MAX_LENGTH + 1)).is_err());
        let many = (0..=MAX_LABELS).map(|n| (format!("k{n}"), "v".to_owned())).collect();
        assert_eq!(check_all(&many), Err(LabelError::TooMany(MAX_LABELS + 1)));
    }
}
