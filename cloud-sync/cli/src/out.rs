//! What a command prints: tables for people, JSON for programs.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::client::Answer;
use crate::failure::Failure;

/// Standard output.
pub(crate) struct Out {
    pub(crate) json: bool,
    colours: bool,
}

/// Colours, by what they say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paint {
    Good,
    Bad,
    Warn,
    Head,
    Dim,
    Plain,
}

impl Out {
    pub(crate) fn new(json: bool) -> Self {
        // Any value but an empty one says no: no-color.org.
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { json, colours: !json && !refused && io::stdout().is_terminal() }
    }

    /// Text in a colour, where there are colours.
    pub(crate) fn paint(&self, paint: Paint, text: impl fmt::Display) -> String {
        let code = match paint {
            Paint::Good => "32",
            Paint::Bad => "31",
            Paint::Warn => "33",
            Paint::Head => "1",
            Paint::Dim => "2",
            Paint::Plain => return text.to_string(),
        };
        if self.colours { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_string() }
    }

    /// A line as it is, on standard output.
    pub(crate) fn line(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(Failure::Output)
    }

    /// What the control plane answered: with `--json` as it is, otherwise what `show` makes of it.
    pub(crate) fn answer<T>(&self, answer: &Answer<T>, show: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        if self.json { self.line(answer.text.trim_end()) } else { self.line(show(&answer.value).trim_end()) }
    }

    /// What was found on this machine.
    pub(crate) fn value(&self, value: &impl Serialize, show: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.json {
            let text = serde_json::to_string(value).expect("plain structs become JSON");
            self.line(&text)
        } else {
            self.line(&show())
        }
    }
}

/// A note on standard error, where it is in nobody's way.
pub(crate) fn note(text: &str) {
    // If standard error is closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "{text}");
}

/// The reason for which the command failed.
pub(crate) fn complain(failure: &Failure) {
    note(&format!("edgectl: {}", plain(&failure.to_string())));
}

/// A table with aligned columns, a line for each row; what is in it is made safe for a terminal.
pub(crate) fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut lines = vec![header.map(str::to_owned)];
    lines.extend(rows.into_iter().map(|row| row.map(|cell| plain(&cell).replace('\n', " "))));
    let mut widths = [0; N];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in &lines {
        let mut row = String::new();
        for (cell, width) in line.iter().zip(widths) {
            row.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

/// Text from outside without control characters, which could make a terminal do things; new lines stay.
pub(crate) fn plain(text: &str) -> String {
    let show = |character: char| {
        let escaped = character.is_control() && character != '\n';
        if escaped { character.escape_unicode().to_string() } else { character.to_string() }
    };
    text.chars().map(show).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals() {
        // A test's output is none, or is caught.
        let out = |colours| Out { json: false, colours };
        assert_eq!(out(false).paint(Paint::Bad, "no"), "no");
        assert_eq!(out(true).paint(Paint::Bad, "no"), "\u{1b}[31mno\u{1b}[0m");
        assert_eq!(out(true).paint(Paint::Plain, 1), "1");
    }

    #[test]
    fn tables_are_aligned_and_harmless() {
        let rows = [["a".to_owned(), "üm\nlaut".to_owned()], ["long one".to_owned(), "\u{1b}[2J".to_owned()]];
        assert_eq!(table(["NAME", "X"], rows), "NAME      X\na         üm laut\nlong one  \\u{1b}[2J\n");
        assert_eq!(plain("a\n\u{9b}"), "a\n\\u{9b}");
    }
}
