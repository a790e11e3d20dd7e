//! What became of every event: the judge of every test of the whole system.
//!
//! Each function that emits one record for each event makes a stream that accounts for every event by its identity
//! (device, boot, sequence). What a device was told is acknowledged must be there, once.

use std::collections::BTreeMap;

use crate::{Record, Summary};

/// What became of the events of one device and boot, in one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The device.
    pub device: String,
    /// Its boot epoch.
    pub boot: u32,
    /// Events that it published.
    pub published: u64,
    /// Of these, the gateway acknowledged.
    pub acknowledged: u64,
    /// Events with exactly one record.
    pub once: u64,
    /// Sequences of events without one.
    pub missing: Vec<u64>,
    /// Sequences of events with several.
    pub doubled: Vec<u64>,
    /// Sequences of records that no event of this device can have.
    pub invented: Vec<u64>,
}

impl Account {
    /// Whether nothing is missing, doubled or invented.
    pub fn is_exact(&self) -> bool {
        self.missing.is_empty() && self.doubled.is_empty() && self.invented.is_empty()
    }
}

/// Judges the records of one stream, which should have one for each event that these devices published.
pub fn judge(devices: &[Summary], records: &[Record]) -> Vec<Account> {
    let mut found: BTreeMap<(&str, u32), BTreeMap<u64, u64>> = BTreeMap::new();
    for Record { device, event, .. } in records {
        if let Some((boot, sequence)) = event {
            *found.entry((device, *boot)).or_default().entry(*sequence).or_default() += 1;
        }
    }
    let judge_one = |summary: &Summary| {
        let Summary { device, boot, published, acknowledged, .. } = summary;
        let nothing = BTreeMap::new();
        let records = found.get(&(device.as_str(), *boot)).unwrap_or(&nothing);
        let times = |sequence: &u64| records.get(sequence).copied().unwrap_or(0);
        let all = 1..=*published;
        Account {
            device: device.clone(),
            boot: *boot,
            published: *published,
            acknowledged: *acknowledged,
            once: all.clone().filter(|sequence| times(sequence) == 1).count() as u64,
            missing: all.clone().filter(|sequence| times(sequence) == 0).collect(),
            doubled: all.clone().filter(|sequence| times(sequence) > 1).collect(),
            invented: records.keys().copied().filter(|sequence| !all.contains(sequence)).collect(),
        }
    };
    devices.iter().map(judge_one).collect()
}

/// Panics unless every event of these devices has exactly one record.
///
/// # Panics
/// Names the devices and the sequences.
pub fn assert_exact(devices: &[Summary], records: &[Record]) {
    let wrong: Vec<Account> = judge(devices, records).into_iter().filter(|account| !account.is_exact()).collect();
    assert!(wrong.is_empty(), "not every event took effect once: {wrong:#?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(device: &str, event: Option<(u32, u64)>) -> Record {
        Record { device: device.into(), event, body: serde_json::Value::Null }
    }

    fn summary(device: &str, boot: u32, published: u64) -> Summary {
        Summary { device: device.into(), boot, published, acknowledged: published, resent: 0, reconnects: 0 }
    }

    #[test]
    fn each_kind_of_fault_is_seen() {
        let records = [
            record("a", Some((1, 1))),
            record("a", Some((1, 3))),
            record("a", Some((1, 3))),
            record("a", Some((1, 5))),
            record("a", Some((2, 2))),
            record("b", Some((1, 2))),
            record("a", None),
        ];
        let accounts = judge(&[summary("a", 1, 4)], &records);
        let [account] = accounts.as_slice() else { panic!("one device") };
        assert_eq!(account.once, 1);
        assert_eq!(
            (&account.missing[..], &account.doubled[..], &account.invented[..]),
            (&[2, 4][..], &[3][..], &[5][..])
        );
        assert!(!account.is_exact());
    }

    #[test]
    fn a_boot_is_a_count_of_its_own() {
        let records = [record("a", Some((1, 1))), record("a", Some((2, 1)))];
        assert_exact(&[summary("a", 1, 1), summary("a", 2, 1)], &records);
    }
}
