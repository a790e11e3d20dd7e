//! What it came to.

use std::fmt::{self, Display, Formatter};

use sync_core::api::RecordCounts;
use system_tests::Status;
use system_tests::oracle::Account;
use system_tests::recording::{Detection, Time};

use crate::screen::number;

/// What it came to.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) devices: Vec<DeviceResult>,
    pub(crate) windows: Vec<(Time, Time)>,
    /// Of the gateway, at the end.
    pub(crate) status: Status,
    /// Of the control plane, at the end.
    pub(crate) records: RecordCounts,
    pub(crate) buffered_at_most: u64,
}

/// What it came to for one device.
#[derive(Debug)]
pub(crate) struct DeviceResult {
    pub(crate) account: Account,
    /// Readings that the device sent more than once.
    pub(crate) resent: u64,
    pub(crate) alerts: u64,
    pub(crate) detection: Detection,
}

impl Results {
    /// Events and records that are not where they should be.
    fn missing(&self) -> u64 {
        let events: usize = self.devices.iter().map(|device| device.account.missing.len()).sum();
        let never_arrived = self.status.records.delivered.saturating_sub(self.records.stored);
        events as u64 + never_arrived.max(self.records.missing)
    }

    /// Events and records that are there more often than once.
    fn doubled(&self) -> u64 {
        let events: usize =
            self.devices.iter().map(|device| device.account.doubled.len() + device.account.invented.len()).sum();
        events as u64 + self.records.stored.saturating_sub(self.status.records.delivered)
    }

    pub(crate) fn nothing_lost_or_doubled(&self) -> bool {
        let all_acknowledged = |device: &DeviceResult| device.account.acknowledged == device.account.published;
        self.missing() == 0 && self.doubled() == 0 && self.devices.iter().all(all_acknowledged)
    }

    fn sum(&self, of: impl Fn(&DeviceResult) -> u64) -> u64 {
        self.devices.iter().map(of).sum()
    }
}

impl Display for Results {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { status, records, .. } = self;
        let rows = [
            ("events published", self.sum(|device| device.account.published), "by the devices"),
            ("acknowledged", self.sum(|device| device.account.acknowledged), "each after it was on the gateway's disk"),
            ("handled", status.events.handled, "runs of functions, each committed with all its effects"),
            ("alerts", self.sum(|device| device.alerts), "raised by threshold-alert"),
            ("records buffered at most", self.buffered_at_most, "while the link was cut"),
            ("records delivered", records.stored, "in the control plane"),
            (
                "duplicates refused",
                records.duplicates + status.events.duplicates,
                "sent again since an answer was lost",
            ),
            ("missing", self.missing(), "every event was looked for, one by one"),
            ("doubled", self.doubled(), ""),
        ];
        writeln!(f)?;
        for (name, value, note) in rows {
            writeln!(f, "{}", format!("  {name:<26}{:>8}   {note}", number(value)).trim_end())?;
        }
        writeln!(f)?;
        self.write_devices(f)?;
        self.write_windows(f)
    }
}

impl Results {
    fn write_devices(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  {:<14}{:>10}{:>8}{:>8}{:>9}{:>9}{:>8}{:>9}{:>8}",
            "device", "published", "acked", "resent", "missing", "doubled", "alerts", "windows", "others"
        )?;
        for DeviceResult { account, resent, alerts, detection } in &self.devices {
            let hit = detection.hits.iter().filter(|reports| **reports > 0).count();
            writeln!(
                f,
                "  {:<14}{:>10}{:>8}{:>8}{:>9}{:>9}{:>8}{:>9}{:>8}",
                account.device,
                number(account.published),
                number(account.acknowledged),
                number(*resent),
                account.missing.len(),
                account.doubled.len() + account.invented.len(),
                alerts,
                format!("{hit} of {}", detection.hits.len()),
                detection.outside
            )?;
        }
        writeln!(f)
    }

    fn write_windows(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  anomaly windows that the recording is labelled with, and devices whose detector reported in them:"
        )?;
        for (index, (first, last)) in self.windows.iter().enumerate() {
            let hit = self.sum(|device| u64::from(device.detection.hits[index] > 0));
            writeln!(f, "    {first} to {last}   {hit} of {}", self.devices.len())?;
        }
        let outside = self.sum(|device| device.detection.outside as u64);
        write!(f, "    others, outside of them (false alarms, as labelled): {outside}")
    }
}
