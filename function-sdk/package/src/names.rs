//! What functions, streams and topic filters may be called.

/// Longest name of a function or stream in bytes: names stand in every record, log line and URL.
const MAX_NAME_BYTES: usize = 64;

/// Longest topic filter in bytes: its length is a u16 on the wire (MQTT 5.0, section 1.5.4).
const MAX_FILTER_BYTES: usize = 65_535;

/// Most levels of a filter, as on the gateway: they bound what matching costs.
const MAX_FILTER_LEVELS: usize = 128;

/// Longest name of a property of a device in bytes: it stands in every report, and is a key in the control plane.
pub const MAX_TWIN_NAME_BYTES: usize = 128;

/// Longest value of a property in bytes. A report is a state that is shown beside others, and no place for files.
pub const MAX_TWIN_VALUE_BYTES: usize = 16 << 10;

/// Why a name is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a function's name.
    #[error("a function's name begins with a letter a-z and has 1 to 64 letters a-z, digits and hyphens")]
    Function,
    /// Not a stream's name.
    #[error("a stream's name has 1 to 64 letters, digits, dots, hyphens and underscores")]
    Stream,
    /// Not a secret's name.
    #[error("a secret's name has 1 to 64 letters, digits, dots, hyphens and underscores")]
    Secret,
    /// Not a property's name.
    #[error("a property's name has 1 to {MAX_TWIN_NAME_BYTES} bytes of UTF-8, no control characters and no \"*\"")]
    Property,
    /// Not a metric's name.
    #[error("a metric's name begins with a letter a-z and has 1 to 64 letters a-z, digits, dots and underscores")]
    Metric,
}

/// Why a topic filter is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Nothing in it.
    #[error("a topic filter has at least one character")]
    Empty,
    /// Longer than MQTT allows.
    #[error("a topic filter has at most {MAX_FILTER_BYTES} bytes")]
    TooLong,
    /// More levels than a gateway takes.
    #[error("a topic filter has at most {MAX_FILTER_LEVELS} levels")]
    TooDeep,
    /// `#` before the last level, or beside other characters.
    #[error("\"#\" must stand alone in the last level, as in \"a/b/#\"")]
    MisplacedHash,
    /// `+` beside other characters.
    #[error("\"+\" must fill a whole level, as in \"a/+/b\"")]
    MisplacedPlus,
    /// U+0000.
    #[error("MQTT forbids the character U+0000")]
    Nul,
}

/// Checks the name of a function: `[a-z][a-z0-9-]{0,63}`.
///
/// # Errors
/// It is none.
pub fn check_function_name(name: &str) -> Result<(), NameError> {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let right = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.len() <= MAX_NAME_BYTES
        && name.bytes().all(good);
    right.then_some(()).ok_or(NameError::Function)
}

/// Checks the name of a cloud stream: `[A-Za-z0-9._-]{1,64}`.
///
/// # Errors
/// It is none.
pub fn check_stream_name(name: &str) -> Result<(), NameError> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let right = (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(good);
    right.then_some(()).ok_or(NameError::Stream)
}

/// Checks the name of a secret: the same characters.
///
/// # Errors
/// It is none.
pub fn check_secret_name(name: &str) -> Result<(), NameError> {
    check_stream_name(name).map_err(|_| NameError::Secret)
}

/// Checks the name of a property of a device: 1 to [`MAX_TWIN_NAME_BYTES`], no control character and no `*`.
///
/// # Errors
/// It is none.
pub fn check_twin_name(name: &str) -> Result<(), NameError> {
    let good = |char: char| !char.is_control() && char != '*';
    let right = (1..=MAX_TWIN_NAME_BYTES).contains(&name.len()) && name.chars().all(good);
    right.then_some(()).ok_or(NameError::Property)
}

/// Whether a name is what is allowed: the name itself, or any that begins as a pattern with `*` at its end.
pub fn pattern_matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

/// Checks the name of a metric: `[a-z][a-z0-9_.]{0,63}`.
///
/// # Errors
/// It is none.
pub fn check_metric_name(name: &str) -> Result<(), NameError> {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._".contains(&byte);
    let right = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.len() <= MAX_NAME_BYTES
        && name.bytes().all(good);
    right.then_some(()).ok_or(NameError::Metric)
}

/// Checks a topic filter as MQTT 5.0, section 4.7 says. Whoever matches topics has a type of his own for it.
///
/// # Errors
/// Says what is wrong.
pub fn check_filter(filter: &str) -> Result<(), FilterError> {
    if filter.is_empty() {
        return Err(FilterError::Empty);
    }
    if filter.len() > MAX_FILTER_BYTES {
        return Err(FilterError::TooLong);
    }
    if filter.contains('\0') {
        return Err(FilterError::Nul);
    }
    let mut levels = filter.split('/').enumerate().peekable();
    while let Some((index, level)) = levels.next() {
        if index == MAX_FILTER_LEVELS {
            return Err(FilterError::TooDeep);
        }
        if level.contains('#') && (level != "#" || levels.peek().is_some()) {
            return Err(FilterError::MisplacedHash);
        }
        if level.contains('+') && level != "+" {
            return Err(FilterError::MisplacedPlus);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_their_alphabet() {
        for good in ["a", "threshold-alert", "a1", &"a".repeat(64)] {
            assert_eq!(check_function_name(good), Ok(()), "{good}");
        }
        for bad in ["", "1a", "-a", "A", "a_b", "ä", "a b", &"a".repeat(65)] {
            assert_eq!(check_function_name(bad), Err(NameError::Function), "{bad}");
        }
        for good in ["a", "orders.rejected_2", &"a".repeat(64)] {
            assert_eq!(check_metric_name(good), Ok(()), "{good}");
        }
        for bad in ["", "1a", ".a", "A", "a-b", "a b", "\u{e4}", &"a".repeat(65)] {
            assert_eq!(check_metric_name(bad), Err(NameError::Metric), "{bad}");
        }
        assert_eq!(check_stream_name("Temp.1_x-y"), Ok(()));
        for bad in ["", "a/b", "a b", "temp*", "@dead", &"a".repeat(65)] {
            assert_eq!(check_stream_name(bad), Err(NameError::Stream), "{bad}");
            assert_eq!(check_secret_name(bad), Err(NameError::Secret), "{bad}");
        }
        assert_eq!((check_twin_name("net.ß 1"), check_twin_name(&"a".repeat(128))), (Ok(()), Ok(())));
        for bad in ["", "a*", "a\n", &"a".repeat(129)] {
            assert_eq!(check_twin_name(bad), Err(NameError::Property), "{bad}");
        }
    }

    #[test]
    fn filters_are_those_of_the_standard() {
        // MQTT 5.0, sections 4.7.1.2 and 4.7.1.3: the standard's own examples.
        for good in ["#", "sport/tennis/#", "+", "+/tennis/#", "sport/+/player1", "/", "/+", "$SYS/#", "a//b"] {
            assert_eq!(check_filter(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("", FilterError::Empty),
            ("sport/tennis#", FilterError::MisplacedHash),
            ("sport/tennis/#/ranking", FilterError::MisplacedHash),
            ("sport+", FilterError::MisplacedPlus),
            ("a\0", FilterError::Nul),
        ] {
            assert_eq!(check_filter(bad), Err(why), "{bad}");
        }
        assert_eq!(check_filter(&"a".repeat(65_536)), Err(FilterError::TooLong));
        assert_eq!(check_filter(&"/".repeat(127)), Ok(()));
        assert_eq!(check_filter(&"/".repeat(128)), Err(FilterError::TooDeep));
    }
}
