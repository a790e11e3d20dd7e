//! What blobs may be called, and patterns for their names.

use std::fmt;
use std::str::FromStr;

/// Longest name of a blob in bytes, its bucket included: it stands in every event, log line and URL.
const MAX_NAME_BYTES: usize = 512;

/// Longest name of a bucket in bytes.
const MAX_BUCKET_BYTES: usize = 63;

/// Why the name of a blob, or a pattern for it, is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// No bucket in front.
    #[error(
        "{0:?} does not begin with a bucket, which has a letter a-z and then letters a-z, digits and hyphens, 63 at \
         most, and a \"/\""
    )]
    Bucket(String),
    /// Nothing behind the bucket, or nothing between two slashes.
    #[error("{0:?} has an empty part; a blob is called as in \"images/2026/gate.jpg\"")]
    Empty(String),
    /// `.` or `..` between two slashes.
    #[error("{0:?} has the part \".\" or \"..\", which leads to another place than it says")]
    Dots(String),
    /// A character that cannot be seen, or `*`.
    #[error("{0:?} holds a control character, or a \"*\" that is not at the end of a pattern")]
    Letter(String),
    /// Longer than a name may be.
    #[error("it has {0} bytes; the name of a blob has at most {MAX_NAME_BYTES}, its bucket included")]
    TooLong(usize),
}

/// Checks the name of a bucket: `[a-z][a-z0-9-]{0,62}`.
///
/// # Errors
/// It is none.
pub fn check_bucket(bucket: &str) -> Result<(), BlobError> {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let right = bucket.starts_with(|first: char| first.is_ascii_lowercase())
        && bucket.len() <= MAX_BUCKET_BYTES
        && bucket.bytes().all(good);
    right.then_some(()).ok_or_else(|| BlobError::Bucket(bucket.to_owned()))
}

/// Checks the name of a blob, `BUCKET/NAME`: a bucket, then parts between slashes of which none is empty, `.` or `..`, without
/// control characters and `*`, 512 bytes in all.
///
/// # Errors
/// Says what is wrong with it.
pub fn check_blob_name(name: &str) -> Result<(), BlobError> {
    let rest = after_bucket(name)?;
    check_parts(name, rest.split('/'))
}

fn after_bucket(name: &str) -> Result<&str, BlobError> {
    if name.len() > MAX_NAME_BYTES {
        return Err(BlobError::TooLong(name.len()));
    }
    let (bucket, rest) = name.split_once('/').ok_or_else(|| BlobError::Bucket(name.to_owned()))?;
    check_bucket(bucket).map_err(|_| BlobError::Bucket(name.to_owned()))?;
    if rest.contains(|letter: char| letter.is_control() || letter == '*') {
        return Err(BlobError::Letter(name.to_owned()));
    }
    Ok(rest)
}

fn check_parts<'a>(name: &str, mut parts: impl Iterator<Item = &'a str>) -> Result<(), BlobError> {
    parts.try_for_each(|part| match part {
        "" => Err(BlobError::Empty(name.to_owned())),
        "." | ".." => Err(BlobError::Dots(name.to_owned())),
        _ => Ok(()),
    })
}

/// The name of a blob, or the beginning of one followed by `*`. The bucket stands there as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BlobPattern(String);

impl FromStr for BlobPattern {
    type Err = BlobError;

    fn from_str(pattern: &str) -> Result<Self, BlobError> {
        match pattern.strip_suffix('*') {
            Some(prefix) => {
                let rest = after_bucket(prefix)?;
                // What the last part goes on with is not known.
                let whole = rest.rsplit_once('/').map(|(whole, _)| whole.split('/'));
                check_parts(pattern, whole.into_iter().flatten())?;
            }
            None => check_blob_name(pattern)?,
        }
        Ok(Self(pattern.to_owned()))
    }
}

impl BlobPattern {
    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the blob of this name is meant.
    pub fn matches(&self, name: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix) && name.len() > prefix.len(),
            None => name == self.0,
        }
    }
}

impl fmt::Display for BlobPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["images/a", "a/b/c.jpg", "a-1/ü ñ/…", "b/.hidden", "b/a..b", "b/..."] {
            assert_eq!(check_blob_name(name), Ok(()), "{name}");
        }
        let bucket = ["", "images", "/etc/passwd", "Images/a", "1a/b", "a_b/c", "../a/b", "./a", "-/a"];
        for name in bucket {
            assert!(matches!(check_blob_name(name), Err(BlobError::Bucket(_))), "{name}");
        }
        assert!(check_blob_name(&format!("{}/b", "a".repeat(64))).is_err());
        for (name, error) in [
            ("a/", BlobError::Empty("a/".into())),
            ("a//etc", BlobError::Empty("a//etc".into())),
            ("a/b/", BlobError::Empty("a/b/".into())),
            ("a/..", BlobError::Dots("a/..".into())),
            ("a/../b", BlobError::Dots("a/../b".into())),
            ("a/b/.", BlobError::Dots("a/b/.".into())),
            ("a/b\n", BlobError::Letter("a/b\n".into())),
            ("a/*", BlobError::Letter("a/*".into())),
        ] {
            assert_eq!(check_blob_name(name), Err(error));
        }
        assert_eq!(check_blob_name(&format!("a/{}", "b".repeat(511))), Err(BlobError::TooLong(513)));
    }

    #[test]
    fn a_pattern_is_a_name_or_the_beginning_of_one() {
        let matches = |pattern: &str, name: &str| pattern.parse::<BlobPattern>().unwrap().matches(name);
        assert!(matches("images/*", "images/a/b") && matches("images/2026-*", "images/2026-1"));
        assert!(matches("images/a", "images/a") && !matches("images/a", "images/ab"));
        assert!(!matches("images/*", "images2/a") && !matches("images/a*", "images/a"));
        for pattern in ["*", "images*", "images/*/a", "images/**", "images/../*", "images//*", "/*", "", "images/"] {
            assert!(pattern.parse::<BlobPattern>().is_err(), "{pattern}");
        }
    }

    proptest! {
        /// A name that is allowed stays below its bucket when it is laid out as a path, and is matched by itself and by
        /// every beginning of it behind the bucket.
        #[test]
        fn allowed_names_lead_nowhere_else(name in "[a-z./*\u{0}-\u{3}ü-]{0,12}|[a-z]{1,3}(/[a-zü.]{0,3}){1,4}") {
            if check_blob_name(&name).is_ok() {
                let path = std::path::Path::new(&name);
                prop_assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))));
                prop_assert_eq!(path.components().count(), name.split('/').count());
                prop_assert!(name.parse::<BlobPattern>().unwrap().matches(&name));
                let bucket = name.find('/').unwrap() + 1;
                for (at, _) in name.char_indices().filter(|(at, _)| *at >= bucket) {
                    let pattern = format!("{}*", &name[..at]).parse::<BlobPattern>();
                    // A part that is not whole may look like "..", and only what is whole is judged.
                    prop_assert!(pattern.unwrap().matches(&name));
                }
            }
        }

        /// Whatever a pattern matches of what is a name lies in the bucket that it names.
        #[test]
        fn a_pattern_stays_in_its_bucket(pattern in "[a-b]{1,2}/[a-b/]{0,3}\\*?", name in "[a-b]{1,2}/[a-b/]{0,5}") {
            if let Ok(parsed) = pattern.parse::<BlobPattern>() && parsed.matches(&name) {
                prop_assert_eq!(pattern.split('/').next(), name.split('/').next());
            }
        }
    }
}
