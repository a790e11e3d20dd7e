//! What functions used and measured since the control plane was told last.
//!
//! Each commit that ran anything adds one row, with what its runs come to, whatever their number; reading a row for each function and
//! device to add to it would cost as much again as the effects of a small run. When there are [`MAX_ROWS`] rows, one with their sum takes their
//! place. When the control plane is told, records do.

use rusqlite::Connection;
use sync_protocol::records::Stamp;
use sync_protocol::usage::{Counts, Histogram, MAX_ENTRIES, Part, Usage, VERSION, add_counts};

use crate::error::{Cause, Damage};
use crate::rows;

/// Most devices, counters and distributions, over all functions and hours, that are told apart between two tellings. Runs for
/// further devices are added up under the empty name. Counters and distributions are as many as manifests allow.
pub const MAX_APART: usize = 4_096;

/// Rows at which their sum is written in their place: writing it costs about as much as some tens of rows, and opening reads them all.
const MAX_ROWS: u32 = 256;

/// A record is full when its body has about as many bytes as this; one entry may come on top.
const MAX_BODY_BYTES: usize = 256 << 10;

/// What functions used and measured, by hour and function.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    // No hour and function twice. There are few: a function for each that runs, and mostly one hour.
    parts: Vec<Part>,
}

impl Sums {
    /// By hour and function.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// How many devices, counters and distributions are told apart.
    pub fn entries(&self) -> usize {
        self.parts.iter().map(Part::entries).sum()
    }

    fn part(&mut self, hour: u32, function: &str) -> &mut Part {
        let known = self.parts.iter().position(|part| part.hour == hour && part.function == function);
        let at = known.unwrap_or_else(|| {
            self.parts.push(Part { hour, function: function.to_owned(), ..Part::default() });
            self.parts.len() - 1
        });
        &mut self.parts[at]
    }

    pub(crate) fn ran(&mut self, hour: u32, function: &str, device: &str, counts: &Counts) {
        let devices = &mut self.part(hour, function).devices;
        match devices.get_mut(device) {
            Some(sum) => sum.add(counts),
            None => drop(devices.insert(device.to_owned(), *counts)),
        }
    }

    pub(crate) fn count(&mut self, hour: u32, function: &str, name: &str, value: f64) {
        let counters = &mut self.part(hour, function).counters;
        match counters.get_mut(name) {
            Some(sum) => *sum = add_counts(*sum, value),
            None => drop(counters.insert(name.to_owned(), value)),
        }
    }

    pub(crate) fn observe(&mut self, hour: u32, function: &str, name: &str, values: &Histogram) {
        let histograms = &mut self.part(hour, function).histograms;
        match histograms.get_mut(name) {
            Some(sum) => sum.merge(values),
            None => drop(histograms.insert(name.to_owned(), values.clone())),
        }
    }

    /// Adds another sum. Devices that are one too many (see [`MAX_APART`]) are added up under the empty name.
    pub fn merge(&mut self, other: &Self) {
        let mut entries = self.entries();
        for part in &other.parts {
            let (hour, function) = (part.hour, &part.function);
            for (device, counts) in &part.devices {
                let known = self.part(hour, function).devices.contains_key(device);
                entries += usize::from(!known);
                let device = if known || entries <= MAX_APART { device } else { "" };
                self.ran(hour, function, device, counts);
            }
            self.measured(hour, part);
        }
    }

    /// Adds another sum without telling hours and devices apart.
    pub fn add_up(&mut self, other: &Self) {
        for part in &other.parts {
            for counts in part.devices.values() {
                self.ran(0, &part.function, "", counts);
            }
            self.measured(0, part);
        }
    }

    fn measured(&mut self, hour: u32, part: &Part) {
        for (name, value) in &part.counters {
            self.count(hour, &part.function, name, *value);
        }
        for (name, values) in &part.histograms {
            self.observe(hour, &part.function, name, values);
        }
    }

    /// The bodies of the records that tell it.
    fn bodies(self) -> Vec<Vec<u8>> {
        let mut bodies = Bodies::default();
        for Part { hour, function, devices, counters, histograms } in self.parts {
            for (device, counts) in devices {
                bodies.next(hour, &function, 6 * device.len() + 300).devices.insert(device, counts);
            }
            for (name, value) in counters {
                bodies.next(hour, &function, name.len() + 40).counters.insert(name, value);
            }
            for (name, values) in histograms {
                let bytes = name.len() + 200 + 30 * values.buckets();
                bodies.next(hour, &function, bytes).histograms.insert(name, values);
            }
        }
        bodies.done()
    }
}

/// Records while they are filled.
#[derive(Default)]
struct Bodies {
    done: Vec<Vec<u8>>,
    sums: Sums,
    entries: usize,
    bytes: usize,
}

impl Bodies {
    /// Where an entry of about so many bytes goes.
    fn next(&mut self, hour: u32, function: &str, bytes: usize) -> &mut Part {
        if self.entries == MAX_ENTRIES || self.bytes >= MAX_BODY_BYTES {
            self.end();
        }
        self.entries += 1;
        self.bytes += bytes;
        self.sums.part(hour, function)
    }

    fn end(&mut self) {
        let parts = std::mem::take(&mut self.sums).parts;
        (self.entries, self.bytes) = (0, 0);
        if !parts.is_empty() {
            let body = serde_json::to_vec(&Usage { version: VERSION, parts });
            self.done.push(body.expect("maps with text keys and plain structs become JSON"));
        }
    }

    fn done(mut self) -> Vec<Vec<u8>> {
        self.end();
        self.done
    }
}

/// What the control plane is told.
pub(crate) struct Told {
    /// When.
    pub(crate) stamp: Stamp,
    /// The bodies of the records.
    pub(crate) bodies: Vec<Vec<u8>>,
}

/// The table `usage`, as the writer knows it.
#[derive(Debug, Default)]
pub(crate) struct Metering {
    // What the rows come to.
    sums: Sums,
    rows: u32,
    /// What the group that is being written adds; afterwards, what it added.
    pub(crate) group: Sums,
    /// The control plane is to be told with this group.
    pub(crate) tell: Option<Stamp>,
    /// When a run of this group ended.
    pub(crate) ran: Option<Stamp>,
    // What the rows come to and how many there are when the group is committed, if it does not just add one.
    after: Option<(Sums, u32)>,
}

impl Metering {
    /// As it is stored.
    pub(crate) fn open(connection: &Connection) -> Result<Self, Cause> {
        let mut statement = connection.prepare_cached("SELECT id, checksum, body FROM usage ORDER BY id")?;
        let mut found = statement.query([])?;
        let mut metering = Self::default();
        while let Some(row) = found.next()? {
            let read = rows::checked(row, 1, 2).and_then(read);
            let sums = read.map_err(|what| {
                let id: i64 = row.get(0).unwrap_or_default();
                Cause::from(Damage::Database(format!("row {id} of the table usage: {what}")))
            })?;
            metering.sums.merge(&sums);
            metering.rows += 1;
        }
        Ok(metering)
    }

    /// A group begins.
    pub(crate) fn begin(&mut self) {
        self.group = Sums::default();
        (self.tell, self.ran, self.after) = (None, None, None);
    }

    /// Stores what the group adds; when it is time to tell the control plane, the bodies of the records instead.
    pub(crate) fn store(&mut self, connection: &Connection, scratch: &mut Vec<u8>) -> Result<Option<Told>, Cause> {
        // Only a clock that is set again and again leads to so many hours.
        let full = self.sums.entries() >= 2 * MAX_APART;
        let tell = self.tell.or(self.ran.filter(|_| full));
        if tell.is_none() && (self.group.is_empty() || self.rows + 1 < MAX_ROWS) {
            if !self.group.is_empty() {
                put(connection, scratch, &self.group)?;
            }
            return Ok(None);
        }
        let mut all = self.sums.clone();
        all.merge(&self.group);
        connection.prepare_cached("DELETE FROM usage")?.execute([])?;
        if let Some(stamp) = tell {
            self.after = Some((Sums::default(), 0));
            return Ok(Some(Told { stamp, bodies: all.bodies() }));
        }
        put(connection, scratch, &all)?;
        self.after = Some((all, 1));
        Ok(None)
    }

    /// The group is committed.
    pub(crate) fn committed(&mut self) {
        match self.after.take() {
            Some((sums, rows)) => (self.sums, self.rows) = (sums, rows),
            None if self.group.is_empty() => {}
            None => {
                self.sums.merge(&self.group);
                self.rows += 1;
            }
        }
    }
}

fn put(connection: &Connection, scratch: &mut Vec<u8>, sums: &Sums) -> Result<(), Cause> {
    rows::write_usage(scratch, &sums.parts);
    insert(connection, scratch)
}

/// Adds a row.
pub(crate) fn insert(connection: &Connection, body: &[u8]) -> Result<(), Cause> {
    connection
        .prepare_cached("INSERT INTO usage (checksum, body) VALUES (?1, ?2)")?
        .execute((rows::checksum(body), body))?;
    Ok(())
}

/// What a row holds.
pub(crate) fn read(body: &[u8]) -> Result<Sums, String> {
    Ok(Sums { parts: rows::read_usage(body)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write::MAX_RECORD_BYTES;

    fn counts(invocations: u64) -> Counts {
        Counts { invocations, ..Counts::default() }
    }

    #[test]
    fn devices_beyond_the_bound_are_added_up_under_no_name() {
        let (mut sums, mut more) = (Sums::default(), Sums::default());
        for device in 0..MAX_APART + 10 {
            more.ran(7, "f", &device.to_string(), &counts(1));
        }
        more.count(7, "f", "n", 1.0);
        sums.merge(&more);
        sums.merge(&more);
        let [part] = sums.parts() else { panic!("one part") };
        assert_eq!((part.devices.len(), part.counters["n"]), (MAX_APART + 1, 2.0));
        assert_eq!(part.devices[""], counts(20));
        assert!(part.devices.iter().all(|(device, sum)| device.is_empty() || *sum == counts(2)));
    }

    /// Or the commit would fail for ever, and with it all that wait for it.
    #[test]
    fn records_are_never_too_large_and_hold_everything() {
        let mut sums = Sums::default();
        for device in 0..100 {
            sums.ran(1, "f", &format!("{}{device}", "\u{1}".repeat(60_000)), &counts(u64::MAX));
        }
        for device in 0..3_000 {
            sums.ran(2, "g", &device.to_string(), &counts(device));
        }
        for name in 0..32 {
            for power in -31..64 {
                for step in 0..16 {
                    let value = (f64::from(power) + f64::from(step) / 16.0).exp2();
                    sums.observe(2, "g", &name.to_string(), &Histogram::of(value).unwrap());
                    sums.observe(2, "g", &name.to_string(), &Histogram::of(-value).unwrap());
                }
            }
        }
        let mut told = Sums::default();
        for body in sums.clone().bodies() {
            assert!(body.len() + 1_024 <= MAX_RECORD_BYTES, "{} bytes", body.len());
            let usage: Usage = serde_json::from_slice(&body).unwrap();
            assert!(usage.is_sound());
            told.merge(&Sums { parts: usage.parts });
        }
        assert!(told == sums);
    }
}
