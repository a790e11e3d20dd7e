//! TOML files that people write, read as a whole: every mistake is found at once, and each says where it is, what is
//! wrong and what is allowed.
//!
//! ```
//! use function_package::checked::{self, integer, one_of, parsed, text};
//!
//! struct Config { name: String, listen: std::net::SocketAddr, sync: bool, workers: u16 }
//!
//! let read = |file: &str, toml: &str| checked::read(file, toml, |root| {
//!     let name = root.required("name", text(1..=64));
//!     let sync = root.optional("sync", one_of(&[("full", true), ("normal", false)])).unwrap_or(true);
//!     let server = root.table("server", |t| {
//!         let listen = t.required("listen", parsed("an address such as \"127.0.0.1:1883\"", str::parse));
//!         let workers = t.optional("workers", integer(1..=64)).unwrap_or(2);
//!         Some((listen?, workers)) // `?` comes last, so that all keys were read before
//!     });
//!     let (listen, workers) = server?;
//!     Some(Config { name: name?, listen, sync, workers })
//! });
//!
//! let config = read("agent.toml", "name = \"a\"\n[server]\nlisten = \"127.0.0.1:1883\"").unwrap();
//! assert!((config.name.as_str(), config.listen.port(), config.sync, config.workers) == ("a", 1883, true, 2));
//!
//! let mistakes = read("agent.toml", "[server]\nlisten = \"here\"\nworker = 3").err().unwrap();
//! assert_eq!(
//!     mistakes.to_string(),
//!     "agent.toml:1:1: name: is missing; allowed is a text of 1 to 64 bytes\n\
//!      agent.toml:2:11: server.listen: is \"here\": invalid socket address syntax; \
//!      allowed is an address such as \"127.0.0.1:1883\"\n\
//!      agent.toml:3:1: server.worker: is not known here; did you mean \"workers\"? allowed are: listen, workers"
//! );
//! ```
//!
//! The way to read is always the same: ask for every key first (a key that is never asked for counts as unknown), and
//! use `?` on what was required last. A closure that answers `None` after a mistake was noted loses nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

pub use toml_span::Value;

mod rules;

pub use rules::{Rule, boolean, float, integer, one_of, parsed, text};

/// Most mistakes that are kept of one file: more do not help a reader, and a hostile file could hold thousands.
pub const MAX_MISTAKES: usize = 50;

/// One thing that is wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The full key, such as `limits.fuel` or `trigger[2].mqtt`; empty for a mistake in the syntax.
    pub key: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

/// All that is wrong in a file; its display has one line for each mistake, `FILE:LINE:COLUMN: KEY: MESSAGE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes {
    /// The file's name as the reader of the message knows it.
    pub file: String,
    /// In the order of the file, [`MAX_MISTAKES`] at most, never empty.
    pub list: Vec<Mistake>,
    /// How many more there were.
    pub left_out: usize,
}

impl std::error::Error for Mistakes {}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Mistake { line, column, key, message }) in self.list.iter().enumerate() {
            let (newline, colon) = (if index == 0 { "" } else { "\n" }, if key.is_empty() { "" } else { ": " });
            write!(f, "{newline}{}:{line}:{column}: {key}{colon}{message}", self.file)?;
        }
        if self.left_out > 0 {
            write!(f, "\n{}: {} more mistakes are not shown", self.file, self.left_out)?;
        }
        Ok(())
    }
}

/// Reads the TOML `text` of the file called `file`; `body` asks for all its keys.
///
/// # Errors
/// Every mistake in it, or the first one in the syntax.
pub fn read<T>(file: &str, text: &str, body: impl FnOnce(&mut Table<'_, '_>) -> Option<T>) -> Result<T, Mistakes> {
    let mut notes = Notes { text, list: Vec::new() };
    let value = match toml_span::parse(text) {
        Ok(value) => {
            let root = Place { path: "", at: 0 };
            let out = value.as_table().and_then(|keys| run(&mut notes, root, Some(keys), body));
            if out.is_none() && notes.list.is_empty() {
                notes.add(0, String::new(), "cannot be read".to_owned());
            }
            out
        }
        Err(error) => {
            notes.add(error.span.start, String::new(), format!("is not TOML: {error}"));
            None
        }
    };
    let mut list = notes.list;
    match value {
        Some(value) if list.is_empty() => Ok(value),
        _ => {
            list.sort();
            let left_out = list.len().saturating_sub(MAX_MISTAKES);
            list.truncate(MAX_MISTAKES);
            Err(Mistakes { file: file.to_owned(), list, left_out })
        }
    }
}

/// What was found so far.
struct Notes<'t> {
    text: &'t str,
    list: Vec<Mistake>,
}

impl Notes<'_> {
    fn add(&mut self, at: usize, key: String, message: String) {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
        self.list.push(Mistake { line, column, key, message });
    }
}

#[derive(Clone, Copy)]
struct Place<'a> {
    path: &'a str,
    at: usize,
}

/// One table of the file while it is read.
pub struct Table<'a, 't> {
    notes: &'a mut Notes<'t>,
    place: Place<'a>,
    /// `None`: the table is not in the file; it is read as if it were empty.
    keys: Option<&'a toml_span::value::Table<'a>>,
    asked: Vec<&'static str>,
    free: bool,
}

fn run<'a, 't, T>(
    notes: &'a mut Notes<'t>,
    place: Place<'a>,
    keys: Option<&'a toml_span::value::Table<'a>>,
    body: impl FnOnce(&mut Table<'_, 't>) -> Option<T>,
) -> Option<T> {
    let mut table = Table { notes, place, keys, asked: Vec::new(), free: false };
    let out = body(&mut table);
    table.name_unknown_keys();
    out
}

impl<'a, 't> Table<'a, 't> {
    /// The value of a key that must be there; `None` after a mistake was noted.
    pub fn required<T>(
        &mut self,
        key: &'static str,
        rule: Rule<impl Fn(&Value<'_>) -> Result<T, String>>,
    ) -> Option<T> {
        match self.find(key) {
            Some(value) => self.apply(self.path(key), value, &rule),
            None => {
                self.mistake(key, format!("is missing; allowed is {}", rule.allowed));
                None
            }
        }
    }

    /// The value of a key that may be left out; `None` if it is, or after a mistake was noted.
    pub fn optional<T>(
        &mut self,
        key: &'static str,
        rule: Rule<impl Fn(&Value<'_>) -> Result<T, String>>,
    ) -> Option<T> {
        let value = self.find(key)?;
        self.apply(self.path(key), value, &rule)
    }

    /// The values of an array such as `["a", "b"]`, which may be left out if `count` allows 0. A value that breaks the
    /// rule is noted and left out.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        count: RangeInclusive<usize>,
        rule: Rule<impl Fn(&Value<'_>) -> Result<T, String>>,
    ) -> Vec<T> {
        let mut out = Vec::new();
        for (index, value) in self.items(key, count, "a list in [brackets]").iter().enumerate() {
            out.extend(self.apply(format!("{}[{}]", self.path(key), index + 1), value, &rule));
        }
        out
    }

    /// A table of its own, `[key]`. If it is not there, `body` reads an empty one: so defaults have one place, and what
    /// is required in it is named.
    pub fn table<T>(&mut self, key: &'static str, body: impl FnOnce(&mut Table<'_, 't>) -> Option<T>) -> Option<T> {
        match self.find(key) {
            Some(value) => self.nested(&self.path(key), value, body),
            None => run(self.notes, Place { path: &self.path(key), at: self.place.at }, None, body),
        }
    }

    /// A table of its own that may be left out; `None` if it is, or after a mistake was noted.
    pub fn optional_table<T>(
        &mut self,
        key: &'static str,
        body: impl FnOnce(&mut Table<'_, 't>) -> Option<T>,
    ) -> Option<T> {
        let value = self.find(key)?;
        self.nested(&self.path(key), value, body)
    }

    /// Tables that are written `[[key]]`, which may be left out if `count` allows 0. One that holds a mistake is left
    /// out of the answer.
    pub fn tables<T>(
        &mut self,
        key: &'static str,
        count: RangeInclusive<usize>,
        mut body: impl FnMut(&mut Table<'_, 't>) -> Option<T>,
    ) -> Vec<T> {
        let mut out = Vec::new();
        for (index, value) in self.items(key, count, "tables with the head [[double brackets]]").iter().enumerate() {
            out.extend(self.nested(&format!("{}[{}]", self.path(key), index + 1), value, &mut body));
        }
        out
    }

    /// All entries of this table, whose keys are free to choose, at most `most`: in a table like `[config]` or
    /// `[labels]`. `name` says what is wrong with a key, if anything is.
    pub fn entries<T>(
        &mut self,
        most: usize,
        name: impl Fn(&str) -> Result<(), String>,
        rule: Rule<impl Fn(&Value<'_>) -> Result<T, String>>,
    ) -> BTreeMap<String, T> {
        self.free = true;
        let mut out = BTreeMap::new();
        let keys = self.keys.into_iter().flatten();
        for (index, (key, value)) in keys.enumerate() {
            let path = self.path(&key.name);
            if index == most {
                self.notes.add(key.span.start, path, format!("is one entry too many; allowed are {most}"));
                break;
            }
            if let Err(message) = name(&key.name) {
                self.notes.add(key.span.start, path, message);
            } else if let Some(value) = self.apply(path, value, &rule) {
                out.insert(key.name.to_string(), value);
            }
        }
        out
    }

    /// Whether a key is there, right or wrong.
    pub fn has(&self, key: &str) -> bool {
        self.keys.is_some_and(|keys| keys.contains_key(key))
    }

    /// Notes a mistake that no rule can see, such as two keys that contradict each other. It is shown at `key`, or at
    /// the table's head if there is no such key.
    pub fn mistake(&mut self, key: &str, message: impl Into<String>) {
        let at = self.keys.and_then(|keys| keys.get_key_value(key)).map_or(self.place.at, |(key, _)| key.span.start);
        let path = self.path(key);
        self.notes.add(at, path, message.into());
    }

    fn path(&self, key: &str) -> String {
        match (self.place.path, key) {
            ("", key) => key.to_owned(),
            (path, "") => path.to_owned(),
            (path, key) => format!("{path}.{key}"),
        }
    }

    fn find(&mut self, key: &'static str) -> Option<&'a Value<'a>> {
        self.asked.push(key);
        self.keys?.get(key)
    }

    fn apply<T>(
        &mut self,
        path: String,
        value: &Value<'_>,
        rule: &Rule<impl Fn(&Value<'_>) -> Result<T, String>>,
    ) -> Option<T> {
        match (rule.read)(value) {
            Ok(read) => Some(read),
            Err(wrong) => {
                self.notes.add(value.span.start, path, format!("{wrong}; allowed is {}", rule.allowed));
                None
            }
        }
    }

    fn nested<T>(
        &mut self,
        path: &str,
        value: &Value<'_>,
        body: impl FnOnce(&mut Table<'_, 't>) -> Option<T>,
    ) -> Option<T> {
        let place = Place { path, at: value.span.start };
        match value.as_table() {
            Some(keys) => run(self.notes, place, Some(keys), body),
            None => {
                self.notes.add(place.at, path.to_owned(), format!("is {}; allowed is a table", rules::shown(value)));
                None
            }
        }
    }

    fn items(&mut self, key: &'static str, count: RangeInclusive<usize>, what: &str) -> &'a [Value<'a>] {
        let allowed = format!("{what}, {} to {} of them", count.start(), count.end());
        let items = match self.find(key) {
            None => &[][..],
            Some(value) => match value.as_array() {
                Some(items) => items,
                None => {
                    let message = format!("is {}; allowed is {allowed}", rules::shown(value));
                    self.mistake(key, message);
                    return &[];
                }
            },
        };
        if !count.contains(&items.len()) {
            self.mistake(key, format!("there are {} of them; allowed is {allowed}", items.len()));
        }
        &items[..items.len().min(*count.end())]
    }

    fn name_unknown_keys(&mut self) {
        if self.free {
            return;
        }
        self.asked.sort_unstable();
        self.asked.dedup();
        for key in self.keys.into_iter().flat_map(|keys| keys.keys()) {
            if self.asked.contains(&&*key.name) {
                continue;
            }
            let close =
                closest(&key.name, &self.asked).map_or(String::new(), |name| format!("; did you mean {name:?}?"));
            let joint = if close.is_empty() { ";" } else { "" };
            let message = format!("is not known here{close}{joint} allowed are: {}", self.asked.join(", "));
            let path = self.path(&key.name);
            self.notes.add(key.span.start, path, message);
        }
    }
}

/// The name that a person most likely meant: at most a third of its letters differ.
pub(crate) fn closest<'n>(wrong: &str, names: &[&'n str]) -> Option<&'n str> {
    // A key from outside may be long; no name here is.
    let wrong: Vec<char> = wrong.chars().take(64).collect();
    names
        .iter()
        .map(|name| (distance(&wrong, name), *name))
        .filter(|(distance, name)| *distance <= name.len().div_ceil(3))
        .min()
        .map(|(_, name)| name)
}

/// Letters to insert, remove or replace to come from one word to the other (Levenshtein).
fn distance(from: &[char], to: &str) -> usize {
    let mut row: Vec<usize> = (0..=from.len()).collect();
    for (line, letter) in to.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for column in 0..from.len() {
            let replace = diagonal + usize::from(from[column] != letter);
            diagonal = row[column + 1];
            row[column + 1] = replace.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[from.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes<T>(text: &str, body: impl FnOnce(&mut Table<'_, '_>) -> Option<T>) -> String {
        read("f", text, body).err().map_or(String::new(), |mistakes| mistakes.to_string())
    }

    #[test]
    fn all_mistakes_are_found_in_the_order_of_the_file() {
        let text = "b = 300\na = true\n[[c]]\nd = 1\n[[c]]\nd = 'ä'\ne = [1, 'x', 99]\n";
        let found = mistakes(text, |root| {
            let a = root.required("a", text_rule());
            let b: Option<u8> = root.required("b", integer(0..=255));
            let c = root.tables("c", 1..=2, |t| {
                t.list::<i64>("e", 0..=2, integer(0..=10));
                t.required("d", text_rule())
            });
            Some((a?, b?, c))
        });
        assert_eq!(
            found,
            "f:1:5: b: is 300; allowed is a whole number from 0 to 255\n\
             f:2:5: a: is true; allowed is a text of 1 to 3 bytes\n\
             f:4:5: c[1].d: is 1; allowed is a text of 1 to 3 bytes\n\
             f:7:1: c[2].e: there are 3 of them; allowed is a list in [brackets], 0 to 2 of them\n\
             f:7:10: c[2].e[2]: is \"x\"; allowed is a whole number from 0 to 10"
        );
    }

    fn text_rule() -> Rule<impl Fn(&Value<'_>) -> Result<String, String>> {
        text(1..=3)
    }

    #[test]
    fn an_absent_table_is_read_as_an_empty_one() {
        let body = |root: &mut Table<'_, '_>| root.table("t", |t| Some(t.optional("x", boolean()).unwrap_or(true)));
        assert_eq!(read("f", "", body), Ok(true));
        assert_eq!(read("f", "t.x = false", body), Ok(false));
        let required = |root: &mut Table<'_, '_>| root.table("t", |t| t.required("x", boolean()));
        assert_eq!(mistakes("\n", required), "f:1:1: t.x: is missing; allowed is true or false");
        assert_eq!(mistakes("t = 1", required), "f:1:5: t: is 1; allowed is a table");
        assert_eq!(read("f", "", |root| Some(root.optional_table("t", |t| t.required("x", boolean())))), Ok(None));
    }

    #[test]
    fn unknown_keys_are_named_with_what_was_meant() {
        let found = mistakes("lisen = 1\nzzz = 2\n", |root| Some(root.optional::<u8>("listen", integer(0..=9))));
        assert_eq!(
            found,
            "f:1:1: lisen: is not known here; did you mean \"listen\"? allowed are: listen\n\
             f:2:1: zzz: is not known here; allowed are: listen"
        );
    }

    #[test]
    fn syntax_and_columns_count_characters() {
        assert_eq!(
            mistakes("a = \"ää\" x", |_| Some(())),
            "f:1:10: is not TOML: expected newline, found an identifier"
        );
        assert_eq!(closest("partion", &["partition", "name"]), Some("partition"));
        assert_eq!(closest("q", &["name"]), None);
    }

    #[test]
    fn a_flood_of_mistakes_is_bounded() {
        use std::fmt::Write;
        let text = (0..200).fold(String::new(), |mut text, n| {
            writeln!(text, "k{n} = 1").unwrap();
            text
        });
        let found = read("f", &text, |_| Some(())).unwrap_err();
        assert_eq!((found.list.len(), found.left_out), (MAX_MISTAKES, 200 - MAX_MISTAKES));
    }
}
