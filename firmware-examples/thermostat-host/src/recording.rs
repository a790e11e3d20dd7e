use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use device_sdk::temperature::Temperature;
use thiserror::Error;

/// The largest file that is read into memory: some 1.5 million readings, two centuries of hourly ones.
const MAX_FILE_BYTES: u64 = 48 * 1024 * 1024;

const HEADER: &str = "timestamp,value";

/// One reading of the file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// The file's timestamp as ISO 8601 writes it: `2013-07-04T00:00:00`. The file has no time zone.
    pub(crate) time: String,
    pub(crate) celsius: f64,
}

#[derive(Debug, Error)]
pub(crate) enum RecordingError {
    #[error("the file cannot be read as UTF-8 text")]
    Read(#[from] io::Error),
    #[error("the file has more than {MAX_FILE_BYTES} bytes")]
    TooLong,
    #[error("the first line is {found:?}, expected {HEADER:?}")]
    Header { found: String },
    #[error("there are no readings after the first line")]
    Empty,
    #[error("line {line} is {text:?}: {what}")]
    Line { line: usize, text: String, what: LineError },
}

#[derive(Debug, Clone, Copy, PartialEq, Error)]
pub(crate) enum LineError {
    #[error("expected a timestamp, a comma and a number")]
    Form,
    #[error("expected a timestamp such as 2013-07-04 00:00:00")]
    Timestamp,
    #[error("the sensor can hold {min:.2} to {max:.2} °F", min = Temperature::MIN.fahrenheit(), max = Temperature::MAX.fahrenheit())]
    Range,
}

/// Reads and checks the whole file, so that a mistake in its last line is known before the first event.
pub(crate) fn read(path: &Path) -> Result<Vec<Row>, RecordingError> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(RecordingError::TooLong);
    }
    parse(&text)
}

fn parse(text: &str) -> Result<Vec<Row>, RecordingError> {
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    if header != HEADER {
        return Err(RecordingError::Header { found: excerpt(header) });
    }
    let rows = (2..)
        .zip(lines)
        .map(|(line, text)| parse_row(text).map_err(|what| RecordingError::Line { line, text: excerpt(text), what }))
        .collect::<Result<Vec<Row>, _>>()?;
    if rows.is_empty() { Err(RecordingError::Empty) } else { Ok(rows) }
}

fn parse_row(text: &str) -> Result<Row, LineError> {
    let (timestamp, value) = text.split_once(',').ok_or(LineError::Form)?;
    if !is_timestamp(timestamp) {
        return Err(LineError::Timestamp);
    }
    let fahrenheit: f64 = value.trim().parse().map_err(|_| LineError::Form)?;
    let range = f64::from(Temperature::MIN.fahrenheit())..=f64::from(Temperature::MAX.fahrenheit());
    if !range.contains(&fahrenheit) {
        return Err(LineError::Range);
    }
    Ok(Row { time: timestamp.replace(' ', "T"), celsius: (fahrenheit - 32.0) * 5.0 / 9.0 })
}

/// `YYYY-MM-DD hh:mm:ss`. It goes into JSON as it is, so nothing else may pass.
fn is_timestamp(text: &str) -> bool {
    let form = b"0000-00-00 00:00:00";
    let formed = text.len() == form.len()
        && text.bytes().zip(form).all(|(byte, form)| if *form == b'0' { byte.is_ascii_digit() } else { byte == *form });
    let within = |from: usize, range: std::ops::RangeInclusive<u8>| {
        text[from..from + 2].parse().is_ok_and(|number| range.contains(&number))
    };
    formed && within(5, 1..=12) && within(8, 1..=31) && within(11, 0..=23) && within(14, 0..=59) && within(17, 0..=59)
}

/// The start of a line for an error message, however long the line is.
fn excerpt(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_celsius_with_iso_times() {
        let rows = parse("timestamp,value\n2013-07-04 00:00:00,212\r\n2013-07-04 01:00:00,-40.0\n").unwrap();
        let row = |time: &str, celsius| Row { time: time.to_owned(), celsius };
        assert_eq!(rows, [row("2013-07-04T00:00:00", 100.0), row("2013-07-04T01:00:00", -40.0)]);
    }

    #[test]
    fn a_line_that_is_wrong_is_named() {
        for (bad, expected) in [
            ("", LineError::Form),
            ("2013-07-04 00:00:00", LineError::Form),
            ("2013-07-04 00:00:00,warm", LineError::Form),
            ("2013-07-04 00:00:00,1,2", LineError::Form),
            ("2013-07-04,70", LineError::Timestamp),
            ("2013-13-04 00:00:00,70", LineError::Timestamp),
            ("2013-07-04 24:00:00,70", LineError::Timestamp),
            ("2013-07-04 00:00:0é,70", LineError::Timestamp),
            ("\"013-07-04 00:00:00,70", LineError::Timestamp),
            ("2013-07-04 00:00:00,NaN", LineError::Range),
            ("2013-07-04 00:00:00,inf", LineError::Range),
            ("2013-07-04 00:00:00,39197", LineError::Range),
        ] {
            let error = parse(&format!("timestamp,value\n2013-07-04 00:00:00,70\n{bad}\n")).unwrap_err();
            assert!(matches!(error, RecordingError::Line { line: 3, what, .. } if what == expected), "{bad}: {error}");
        }
    }

    #[test]
    fn a_file_that_is_something_else_is_refused() {
        assert!(matches!(parse(""), Err(RecordingError::Header { .. })));
        assert!(matches!(parse("time,value\n"), Err(RecordingError::Header { .. })));
        assert!(matches!(parse("timestamp,value\n"), Err(RecordingError::Empty)));
    }
}
