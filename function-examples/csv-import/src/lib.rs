#![doc = include_str!("../README.md")]

use function_sdk::{Context, Error, Event, Json, Result, function};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// Bytes that are read at once.
const PIECE: usize = 4 << 10;

/// Longest row in bytes, its separators included.
const MAX_ROW_BYTES: usize = 64 << 10;

/// What Windows programs write in front of UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

#[function]
fn on_file(event: Event<'_>, cx: &mut Context) -> Result {
    let content = event.blob().ok_or_else(|| Error::new("the event is about no file; its trigger must be a blob"))?;
    let file = event.attribute("name").unwrap_or(event.topic);
    let separator: String = cx.config("separator")?;
    let [separator] = separator.as_bytes() else {
        return Err(Error::new(format_args!("the separator is {separator:?}; it has one byte, such as \";\"")));
    };
    let numbers: bool = cx.config("numbers")?;
    let (mut rows, mut header) = (Rows::new(*separator), Vec::new());
    let (mut piece, mut at) = ([0; PIECE], 0);
    loop {
        let read = cx.blob_read(&content, at, &mut piece).ok_or_else(|| Error::new("the file is gone"))?;
        let bytes = if at == 0 { piece[..read].strip_prefix(MARK).unwrap_or(&piece[..read]) } else { &piece[..read] };
        at += read as u32;
        // An end of a line that may be missing at the end of the file.
        let (bytes, last) = if read == 0 { (&b"\n"[..], true) } else { (bytes, false) };
        for byte in bytes {
            let Some((line, fields)) = rows.add(*byte)? else { continue };
            if header.is_empty() {
                header = fields;
                continue;
            }
            if fields.len() != header.len() {
                let (found, wanted) = (fields.len(), header.len());
                return Err(Error::new(format_args!("line {line} has {found} fields, and the header {wanted}")));
            }
            cx.emit("rows", &Json(Row { file, line, header: &header, fields: &fields, numbers }))?;
        }
        if last {
            return rows.check_end();
        }
    }
}

/// One row as a record.
struct Row<'a> {
    file: &'a str,
    line: u32,
    header: &'a [String],
    fields: &'a [String],
    numbers: bool,
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.header.len() + 2))?;
        map.serialize_entry("file", self.file)?;
        map.serialize_entry("line", &self.line)?;
        for (name, value) in self.header.iter().zip(self.fields) {
            match (value.parse::<i64>(), value.parse::<f64>()) {
                (Ok(whole), _) if self.numbers && is_number(value) => map.serialize_entry(name, &whole)?,
                (_, Ok(number)) if self.numbers && is_number(value) => map.serialize_entry(name, &number)?,
                _ => map.serialize_entry(name, value)?,
            }
        }
        map.end()
    }
}

/// Whether it is written as a number in JSON (RFC 8259, section 6), without an exponent: 007 is none.
fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) =
        text.strip_prefix('-').unwrap_or(text).split_once('.').unwrap_or((text.trim_start_matches('-'), "0"));
    digits(whole) && digits(fraction) && (whole == "0" || !whole.starts_with('0'))
}

/// Takes a file byte by byte, and gives its rows.
struct Rows {
    separator: u8,
    fields: Vec<String>,
    field: Vec<u8>,
    bytes: usize,
    quotes: Quotes,
    /// The line that is being read, and that on which the row began.
    line: u32,
    began: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    /// The field has none, so far.
    None,
    /// Between them.
    Open,
    /// Behind one that ends the field, or stands for one of two.
    Closed,
}

impl Rows {
    fn new(separator: u8) -> Self {
        Self { separator, fields: Vec::new(), field: Vec::new(), bytes: 0, quotes: Quotes::None, line: 1, began: 1 }
    }

    /// The line on which a row began and its fields, if the byte ends one. Empty lines are none.
    fn add(&mut self, byte: u8) -> Result<Option<(u32, Vec<String>)>> {
        self.bytes += 1;
        if self.bytes > MAX_ROW_BYTES {
            let began = self.began;
            return Err(Error::new(format_args!(
                "the row from line {began} on is longer than {MAX_ROW_BYTES} bytes; is a quote not closed?"
            )));
        }
        match (self.quotes, byte) {
            (Quotes::Open, b'"') => self.quotes = Quotes::Closed,
            (Quotes::Open, _) => self.field.push(byte),
            (Quotes::Closed, b'"') => {
                self.field.push(byte);
                self.quotes = Quotes::Open;
            }
            (Quotes::None, b'"') if self.field.is_empty() => self.quotes = Quotes::Open,
            (_, b'\n') => {
                if self.field.last() == Some(&b'\r') {
                    self.field.pop();
                }
                let is_empty = self.fields.is_empty() && self.field.is_empty() && self.quotes == Quotes::None;
                self.end_field()?;
                let (row, began) = (std::mem::take(&mut self.fields), self.began);
                (self.bytes, self.line) = (0, self.line + 1);
                self.began = self.line;
                return Ok(if is_empty { None } else { Some((began, row)) });
            }
            (_, byte) if byte == self.separator => self.end_field()?,
            (Quotes::Closed, b'\r') | (Quotes::None, _) => self.field.push(byte),
            (Quotes::Closed, _) => {
                let line = self.line;
                return Err(Error::new(format_args!("line {line} has something behind a quote that ends a field")));
            }
        }
        if byte == b'\n' {
            self.line += 1;
        }
        Ok(None)
    }

    fn end_field(&mut self) -> Result {
        self.quotes = Quotes::None;
        let line = self.line;
        let field = String::from_utf8(std::mem::take(&mut self.field))
            .map_err(|_| Error::new(format_args!("line {line} is not UTF-8; save the file as that")))?;
        self.fields.push(field);
        Ok(())
    }

    fn check_end(&self) -> Result {
        if self.quotes == Quotes::Open {
            return Err(Error::new(format_args!("the quote on line {} is not closed", self.began)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use function_sdk::testing::{Gateway, Run};

    use super::*;

    fn import(content: &[u8]) -> Run {
        let mut gateway = Gateway::new(on_file_handler).manifest(include_str!("../function.toml"));
        gateway.blob("imports/a.csv", "text/csv", content)
    }

    fn rows(content: impl AsRef<[u8]>) -> Vec<String> {
        import(content.as_ref()).expect_ok().emitted.iter().map(|row| row.text().to_owned()).collect()
    }

    fn failed(content: &[u8]) -> String {
        let run = import(content);
        assert!(run.emitted.is_empty());
        run.result.unwrap_err()
    }

    #[test]
    fn each_row_is_a_record() {
        assert_eq!(
            rows("\u{feff}m;n;t\r\np;12;\"a; \"\"b\"\"\nc\"\r\n\r\nq;-0.5;\n\"\";007;ü"),
            [
                r#"{"file":"a.csv","line":2,"m":"p","n":12,"t":"a; \"b\"\nc"}"#,
                r#"{"file":"a.csv","line":5,"m":"q","n":-0.5,"t":""}"#,
                r#"{"file":"a.csv","line":6,"m":"","n":"007","t":"ü"}"#,
            ]
        );
        assert!(rows("").is_empty() && rows("m;n\n").is_empty());
    }

    #[test]
    fn rows_may_lie_across_the_pieces_in_which_they_are_read() {
        for before in PIECE - 20..PIECE + 4 {
            let content = format!("m;n\n{};1\n\"ü;\";2\n", "x".repeat(before));
            assert_eq!(rows(content)[1], r#"{"file":"a.csv","line":3,"m":"ü;","n":2}"#, "{before}");
        }
        let many: String = std::iter::once("n\n".to_owned()).chain((0..4_000).map(|n| format!("{n}\n"))).collect();
        assert_eq!(rows(many).last().unwrap(), r#"{"file":"a.csv","line":4001,"n":3999}"#);
    }

    #[test]
    fn a_file_with_a_wrong_row_leaves_nothing() {
        for (content, why) in [
            (&b"m;n\n1;2\n3\n"[..], "line 3 has 1 fields, and the header 2"),
            (b"m;n\n1;\"2\n", "the quote on line 2 is not closed"),
            (b"m;n\n1;\"2\"3\n", "line 2 has something behind a quote"),
            (b"m\n\xff\n", "line 2 is not UTF-8"),
        ] {
            let error = failed(content);
            assert!(error.contains(why), "{error}");
        }
        assert!(failed(&[b"m\n", &[b'x'; MAX_ROW_BYTES + 1][..]].concat()).contains("longer than 65536 bytes"));
        assert!(failed("n\n".repeat(4_100).as_bytes()).contains("more than 4096 effects"));
    }
}
