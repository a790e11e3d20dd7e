//! How much of each stream is stored.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rusqlite::Connection;

use crate::error::{Cause, Damage};
use crate::rows;

/// Most streams whose records are counted apart. Records of further ones are counted together, under no name.
pub const MAX_STREAMS: usize = 1_000;

/// How much of a stream is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamUsage {
    /// Its name; empty for all streams beyond the first [`MAX_STREAMS`] together.
    pub name: Arc<str>,
    /// How many records, of both classes.
    pub records: u64,
    /// The bytes of these, as they are stored.
    pub bytes: u64,
}

/// The table `streams`, as the writer knows it. A stream's number is its place.
#[derive(Debug)]
pub(crate) struct Streams {
    rows: Vec<StreamUsage>,
    numbers: HashMap<Arc<str>, u32>,
    // What was there before a change that is not committed; `None`: nothing.
    before: BTreeMap<u32, Option<StreamUsage>>,
}

/// The number of what is counted under no name.
pub(crate) const OTHERS: u32 = 0;

impl Streams {
    /// Of a store without records.
    pub(crate) fn new() -> Self {
        let others = StreamUsage { name: "".into(), records: 0, bytes: 0 };
        Self { rows: vec![others], numbers: HashMap::new(), before: BTreeMap::new() }
    }

    /// Fills the table of a store that is made.
    pub(crate) fn create(connection: &Connection) -> Result<(), Cause> {
        put(connection, OTHERS, &Self::new().rows[0])
    }

    /// As it is stored.
    pub(crate) fn open(connection: &Connection) -> Result<Self, Cause> {
        let rows = read(connection)?;
        let numbered = (1..).zip(rows.iter().skip(1));
        let numbers = numbered.map(|(number, stream)| (stream.name.clone(), number)).collect();
        Ok(Self { rows, numbers, before: BTreeMap::new() })
    }

    pub(crate) fn usage(&self) -> &[StreamUsage] {
        &self.rows
    }

    /// The name, if the records of this number have but one.
    pub(crate) fn name(&self, number: u32) -> Option<&Arc<str>> {
        self.rows.get(number as usize).filter(|_| number != OTHERS).map(|stream| &stream.name)
    }

    fn row(&mut self, number: u32) -> Option<&mut StreamUsage> {
        let row = self.rows.get_mut(number as usize)?;
        self.before.entry(number).or_insert_with(|| Some(row.clone()));
        Some(row)
    }

    /// A record of this stream comes; the number to store with it.
    pub(crate) fn add(&mut self, name: &str, bytes: usize) -> u32 {
        let number = match self.numbers.get(name) {
            Some(number) => *number,
            None => self.number(name),
        };
        if let Some(row) = self.row(number) {
            row.records += 1;
            row.bytes += bytes as u64;
        }
        number
    }

    /// A number for a name that has none: a new one, or that of a stream of which nothing is stored any more.
    fn number(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return OTHERS;
        }
        let place = if self.rows.len() <= MAX_STREAMS {
            self.rows.push(StreamUsage { name: name.into(), records: 0, bytes: 0 });
            let number = self.rows.len() - 1;
            self.before.insert(number as u32, None);
            number
        } else {
            match self.rows.iter().skip(1).position(|stream| stream.records == 0) {
                Some(unused) => unused + 1,
                None => return OTHERS,
            }
        };
        let number = place as u32;
        if let Some(row) = self.row(number) {
            let old = std::mem::replace(&mut row.name, name.into());
            let name = row.name.clone();
            self.numbers.remove(&old);
            self.numbers.insert(name, number);
        }
        number
    }

    /// A record of a stream goes. (A number that is not known is damage that a survey names.)
    pub(crate) fn remove(&mut self, number: u32, bytes: u64) {
        if let Some(row) = self.row(number) {
            row.records = row.records.saturating_sub(1);
            row.bytes = row.bytes.saturating_sub(bytes);
        }
    }

    /// Stores what was changed.
    pub(crate) fn store(&self, connection: &Connection) -> Result<(), Cause> {
        for (number, row) in self.before.keys().filter_map(|number| Some((*number, self.rows.get(*number as usize)?))) {
            put(connection, number, row)?;
        }
        Ok(())
    }

    /// What was stored is committed.
    pub(crate) fn committed(&mut self) {
        self.before.clear();
    }

    /// It was not.
    pub(crate) fn roll_back(&mut self) {
        for (number, before) in std::mem::take(&mut self.before).into_iter().rev() {
            match before {
                Some(row) => self.rows[number as usize] = row,
                None => self.rows.truncate(number as usize),
            }
        }
        // Names that were given away are back.
        let numbered = (1..).zip(self.rows.iter().skip(1));
        self.numbers = numbered.map(|(number, stream)| (stream.name.clone(), number)).collect();
    }
}

fn checksum(number: u32, stream: &StreamUsage) -> u32 {
    let numbers = [u64::from(number), stream.records, stream.bytes].map(u64::to_le_bytes);
    rows::named_checksum(&stream.name, numbers.as_flattened())
}

fn put(connection: &Connection, number: u32, stream: &StreamUsage) -> Result<(), Cause> {
    connection
        .prepare_cached("REPLACE INTO streams (id, name, checksum, records, bytes) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute((
            number,
            &*stream.name,
            checksum(number, stream),
            rows::integer(stream.records),
            rows::integer(stream.bytes),
        ))?;
    Ok(())
}

/// Every row of the table, checked, in the order of their numbers.
pub(crate) fn read(connection: &Connection) -> Result<Vec<StreamUsage>, Cause> {
    let mut statement =
        connection.prepare_cached("SELECT id, name, checksum, records, bytes FROM streams ORDER BY id")?;
    let mut found = statement.query([])?;
    let mut streams = Vec::new();
    while let Some(row) = found.next()? {
        let number: u32 = row.get(0)?;
        let stream =
            StreamUsage { name: row.get(1)?, records: rows::number(row.get(3)?), bytes: rows::number(row.get(4)?) };
        if number as usize != streams.len() || row.get::<_, u32>(2)? != checksum(number, &stream) {
            return Err(Damage::Database(format!("the table streams: row {number} is not what was stored")).into());
        }
        streams.push(stream);
    }
    if streams.is_empty() {
        return Err(Damage::Database("the table streams is empty".into()).into());
    }
    Ok(streams)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(streams: &Streams, name: &str) -> Option<(u64, u64)> {
        streams.usage().iter().find(|stream| &*stream.name == name).map(|stream| (stream.records, stream.bytes))
    }

    fn bytes(streams: &Streams) -> u64 {
        streams.usage().iter().map(|stream| stream.bytes).sum()
    }

    #[test]
    fn what_was_not_committed_never_was() {
        let mut streams = Streams::new();
        streams.add("a", 10);
        streams.committed();
        assert_eq!((streams.add("a", 5), streams.add("b", 7)), (1, 2));
        streams.remove(1, 10);
        streams.roll_back();
        assert_eq!((usage(&streams, "a"), usage(&streams, "b"), bytes(&streams)), (Some((1, 10)), None, 10));
        assert_eq!((streams.add("c", 1), streams.add("a", 1)), (2, 1));
    }

    #[test]
    fn streams_beyond_the_bound_are_counted_together_until_a_number_is_free() {
        let mut streams = Streams::new();
        for number in 0..MAX_STREAMS {
            streams.add(&number.to_string(), 1);
        }
        assert_eq!((streams.add("one too many", 9), streams.add("and another", 9)), (OTHERS, OTHERS));
        assert_eq!(usage(&streams, ""), Some((2, 18)));
        streams.committed();
        streams.remove(7, 1);
        assert_eq!((streams.add("in its place", 3), streams.name(7).map(|name| &**name)), (7, Some("in its place")));
        assert_eq!(streams.add("6", 1), OTHERS, "whose number was given away");
        streams.roll_back();
        assert_eq!((streams.add("6", 1), usage(&streams, ""), streams.usage().len()), (7, Some((2, 18)), 1_001));
    }
}
