//! What is known of a recording: when its sensor was in fact anomalous.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

/// Time as recordings write it, `2013-12-15 07:00:00`: it sorts as text.
pub type Time = String;

/// A recording of a sensor.
#[derive(Clone, Debug)]
pub struct Recording {
    /// Its file.
    pub file: PathBuf,
    /// How many readings are in it.
    pub readings: usize,
    /// When the sensor was in fact anomalous: first and last time.
    pub windows: Vec<(Time, Time)>,
}

/// What a detector made of a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detection {
    /// For each window, the reports in it.
    pub hits: Vec<usize>,
    /// Reports outside of all windows.
    pub outside: usize,
}

impl Recording {
    /// The one that the project carries.
    ///
    /// # Errors
    /// It is not there.
    pub fn of_the_project() -> Result<Self> {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
        let name = "ambient_temperature_system_failure";
        Self::open(&data.join(format!("{name}.csv")), &data.join(format!("{name}.windows.json")))
    }

    /// A recording (CSV, first line `timestamp,value`) with its windows (JSON, a list of `[first, last]`).
    ///
    /// # Errors
    /// Names the file, and what is wrong with it.
    pub fn open(file: &Path, windows: &Path) -> Result<Self> {
        let text = read(file)?;
        ensure!(text.starts_with("timestamp,value\n"), "the first line of {} is not timestamp,value", file.display());
        let readings = text.lines().count() - 1;
        ensure!(readings > 0, "{} has no readings", file.display());
        let pairs: Vec<(String, String)> = serde_json::from_str(&read(windows)?)
            .with_context(|| format!("{} is no list of pairs of times", windows.display()))?;
        let windows = pairs.iter().map(|(first, last)| (time(first), time(last))).collect();
        let file = file.canonicalize().with_context(|| format!("cannot find {}", file.display()))?;
        Ok(Self { file, readings, windows })
    }

    /// Judges the times of a detector's reports.
    pub fn judge<'a>(&self, reports: impl IntoIterator<Item = &'a str>) -> Detection {
        let mut detection = Detection { hits: vec![0; self.windows.len()], outside: 0 };
        for report in reports {
            let report = time(report);
            match self.windows.iter().position(|(first, last)| (first..=last).contains(&&report)) {
                Some(window) => detection.hits[window] += 1,
                None => detection.outside += 1,
            }
        }
        detection
    }
}

fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

// Devices write a T between date and time, the benchmark may write fractions of a second; neither is of weight here.
fn time(text: &str) -> Time {
    text.replace('T', " ").chars().take("2013-12-15 07:00:00".len()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_hits_or_outside() {
        let recording = Recording::of_the_project().unwrap();
        assert_eq!(recording.readings, 7267);
        assert_eq!(recording.windows.len(), 2);
        let reports = ["2013-12-15T07:00:00", "2013-12-15T06:59:59", "2013-12-30 09:00:00.000", "2014-05-01T00:00:00Z"];
        assert_eq!(recording.judge(reports), Detection { hits: vec![2, 0], outside: 2 });
    }

    #[test]
    fn what_is_no_recording_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (data, windows) = (folder.path().join("data.csv"), folder.path().join("windows.json"));
        let refused = |text: &str, json: &str| {
            std::fs::write(&data, text).unwrap();
            std::fs::write(&windows, json).unwrap();
            Recording::open(&data, &windows).unwrap_err().to_string()
        };
        assert!(refused("time,value\n1,2\n", "[]").contains("timestamp,value"));
        assert!(refused("timestamp,value\n", "[]").contains("no readings"));
        assert!(refused("timestamp,value\n1,2\n", "{}").contains("no list of pairs"));
    }
}
