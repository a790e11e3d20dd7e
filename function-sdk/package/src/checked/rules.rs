//! What a value may be.

use std::fmt::Display;
use std::ops::RangeInclusive;

use toml_span::value::ValueInner;

use super::Value;

/// How a value is read, and what is allowed, in words that follow "allowed is".
///
/// The helpers of this module make the usual ones; `read` answers what is wrong, such as "is 7".
pub struct Rule<F> {
    /// What is allowed, for a person.
    pub allowed: String,
    /// Reads the value, or says what is wrong with it.
    pub read: F,
}

/// A whole number in a range.
pub fn integer<N>(range: RangeInclusive<N>) -> Rule<impl Fn(&Value<'_>) -> Result<N, String>>
where
    N: TryFrom<i64> + PartialOrd + Display,
{
    Rule {
        allowed: format!("a whole number from {} to {}", range.start(), range.end()),
        read: move |value: &Value<'_>| {
            let number = value.as_integer().and_then(|number| N::try_from(number).ok());
            number.filter(|number| range.contains(number)).ok_or_else(|| is(value))
        },
    }
}

/// A number in a range, written with a point or without.
pub fn float(range: RangeInclusive<f64>) -> Rule<impl Fn(&Value<'_>) -> Result<f64, String>> {
    Rule {
        allowed: format!("a number from {} to {}", range.start(), range.end()),
        read: move |value: &Value<'_>| {
            // Whole numbers beyond 2^53 are rounded, as a person who writes one for a float expects.
            let number = value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64));
            number.filter(|number| range.contains(number)).ok_or_else(|| is(value))
        },
    }
}

/// True or false.
pub fn boolean() -> Rule<impl Fn(&Value<'_>) -> Result<bool, String>> {
    Rule { allowed: "true or false".to_owned(), read: |value: &Value<'_>| value.as_bool().ok_or_else(|| is(value)) }
}

/// A text of so many bytes.
pub fn text(bytes: RangeInclusive<usize>) -> Rule<impl Fn(&Value<'_>) -> Result<String, String>> {
    Rule {
        allowed: format!("a text of {} to {} bytes", bytes.start(), bytes.end()),
        read: move |value: &Value<'_>| {
            let text = value.as_str().filter(|text| bytes.contains(&text.len()));
            text.map(str::to_owned).ok_or_else(|| is(value))
        },
    }
}

/// One of a few words, each with what it stands for.
pub fn one_of<T: Clone>(words: &[(&'static str, T)]) -> Rule<impl Fn(&Value<'_>) -> Result<T, String>> {
    let words = words.to_vec();
    let names: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
    Rule {
        allowed: names.join(" or "),
        read: move |value: &Value<'_>| {
            let found = words.iter().find(|(word, _)| value.as_str() == Some(*word));
            found.map(|(_, meaning)| meaning.clone()).ok_or_else(|| is(value))
        },
    }
}

/// A text that `parse` understands; its error is shown.
pub fn parsed<T, E: Display>(
    allowed: impl Into<String>,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Rule<impl Fn(&Value<'_>) -> Result<T, String>> {
    Rule {
        allowed: allowed.into(),
        read: move |value: &Value<'_>| {
            let text = value.as_str().ok_or_else(|| is(value))?;
            parse(text).map_err(|error| format!("{}: {error}", is(value)))
        },
    }
}

fn is(value: &Value<'_>) -> String {
    format!("is {}", shown(value))
}

/// A value as a message shows it, cut where it is long.
pub(super) fn shown(value: &Value<'_>) -> String {
    const LONGEST: usize = 40;
    match value.as_ref() {
        ValueInner::String(text) if text.chars().count() > LONGEST => {
            format!("{:?}…, {} bytes long", text.chars().take(LONGEST).collect::<String>(), text.len())
        }
        ValueInner::String(text) => format!("{text:?}"),
        ValueInner::Integer(number) => number.to_string(),
        ValueInner::Float(number) => format!("{number:?}"),
        ValueInner::Boolean(flag) => flag.to_string(),
        ValueInner::Array(_) => "a list".to_owned(),
        ValueInner::Table(_) => "a table".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_to_their_range_and_type() {
        let apply = |text: &str| {
            let root = toml_span::parse(text).unwrap();
            let value = root.pointer("/a").unwrap();
            ((integer(1u8..=9).read)(value).ok(), (float(0.5..=9.0).read)(value).ok())
        };
        assert_eq!(apply("a = 9"), (Some(9), Some(9.0)));
        assert_eq!(apply("a = 0"), (None, None));
        assert_eq!(apply("a = 257"), (None, None));
        assert_eq!(apply("a = 0.5"), (None, Some(0.5)));
        assert_eq!(apply("a = nan"), (None, None));
        assert_eq!(apply("a = '9'"), (None, None));
    }

    #[test]
    fn long_texts_are_cut_in_messages() {
        let root =
            toml_span::parse(&format!("a = '{}'", "ä".repeat(100))).map(|root| shown(root.pointer("/a").unwrap()));
        assert_eq!(root.unwrap(), format!("\"{}\"…, 200 bytes long", "ä".repeat(40)));
    }
}
