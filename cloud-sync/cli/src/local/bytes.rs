//! Bytes as people and programs read them.

use std::fmt::Write as _;

use function_package::Digest;
use serde::Serialize;
use serde_json::value::RawValue;

/// Longest text that is shown as a whole, in bytes: a screen or two.
const MAX_TEXT_BYTES: usize = 4_096;

/// Most binary bytes that are shown one by one.
const MAX_BINARY_BYTES: usize = 48;

/// Text as it is, if it is one line; with line ends and the like quoted; what is no text in hexadecimal digits. What is long is cut, with a
/// digest, so that other bytes are always another text.
pub(crate) fn text(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "(empty)".to_owned();
    }
    let is_text = |text: &&str| !text.chars().any(|character| character.is_control() && !"\n\r\t".contains(character));
    let Some(text) = str::from_utf8(bytes).ok().filter(is_text) else { return binary(bytes) };
    let shown = if text.chars().any(unprintable) { format!("{text:?}") } else { text.to_owned() };
    if text.len() <= MAX_TEXT_BYTES {
        return shown;
    }
    format!("{}… {}", &shown[..shown.floor_char_boundary(200)], cut(bytes))
}

/// What does not stay in its place on a line: control characters, line ends, and marks that turn the direction of text.
fn unprintable(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn binary(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(MAX_BINARY_BYTES)];
    let hex = shown.iter().fold("0x".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    if shown.len() == bytes.len() { hex } else { format!("{hex}… {}", cut(bytes)) }
}

/// A digest's first digits tell changes apart; nobody forges a snapshot of his own.
fn cut(bytes: &[u8]) -> String {
    format!("({} bytes, {})", bytes.len(), &Digest::of(bytes).to_string()[..23])
}

/// The keys under which a fixture has a payload, too.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Readable<'a> {
    Json(&'a RawValue),
    Text(&'a str),
    Hex(String),
}

/// For programs: JSON as it is where it stays on one line, other text, or hexadecimal digits.
pub(crate) fn json(bytes: &[u8]) -> Readable<'_> {
    let Ok(text) = str::from_utf8(bytes) else { return Readable::Hex(hex::encode(bytes)) };
    match serde_json::from_str::<&RawValue>(text) {
        // Space around it would be lost.
        Ok(value) if value.get().len() == text.len() && !text.contains(['\n', '\r']) => Readable::Json(value),
        _ => Readable::Text(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_whatever_the_bytes() {
        assert_eq!(text(b""), "(empty)");
        assert_eq!(text("{\"a\":\"°\"}".as_bytes()), "{\"a\":\"°\"}");
        assert_eq!(text(b"a\nb"), "\"a\\nb\"");
        assert_eq!(text("\u{202e}x".as_bytes()), "\"\\u{202e}x\"");
        assert_eq!((text(b"\xff\x01"), text(b"\x01")), ("0xff01".to_owned(), "0x01".to_owned()));
        let long = |last: u8| text(&[&[b'x'; 5_000][..], &[last]].concat());
        assert!(long(b'y').starts_with("xxx") && long(b'y').len() < 300 && long(b'y') != long(b'z'));
        let long = |last: u8| text(&[&[0xff; 100][..], &[last]].concat());
        assert!(long(1).contains("(101 bytes, sha256:") && long(1) != long(2));
    }

    #[test]
    fn programs_get_the_same_bytes_back() {
        let of = |bytes: &[u8]| serde_json::to_string(&json(bytes)).unwrap();
        assert_eq!(of(b"{\"a\": 1.0}"), "{\"json\":{\"a\": 1.0}}");
        assert_eq!(of(b" 1"), "{\"text\":\" 1\"}");
        assert_eq!(of(b"{\n}"), "{\"text\":\"{\\n}\"}");
        assert_eq!(of(b"\xff"), "{\"hex\":\"ff\"}");
    }
}
