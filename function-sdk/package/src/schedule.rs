//! Moments of a calendar: cron patterns in a time zone.

use std::fmt;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds};

/// A cron pattern in a time zone. A moment that a change to summer time leaves out is made up for by the next one that
/// there is; one that comes twice counts once.
#[derive(Clone)]
pub struct Schedule {
    cron: Box<Cron>,
    zone: Tz,
    text: String,
}

/// Why there is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// No cron pattern.
    #[error(
        "is {pattern:?}: {cause}; allowed is a cron pattern such as \"*/15 * * * *\" (minute, hour, day of the month, month, day of the week; with seconds in front if there are six)"
    )]
    Pattern {
        /// What was given.
        pattern: String,
        /// What is wrong with it.
        cause: String,
    },
    /// No moment, ever.
    #[error("is {0:?}, which never comes; the 30th of February is such a day")]
    Never(String),
    /// No time zone.
    #[error("is {0:?}; allowed is a time zone of the IANA database such as \"Europe/Vienna\", or \"UTC\"")]
    Zone(String),
}

impl ScheduleError {
    /// The key of the manifest that is to blame.
    pub(crate) fn key(&self) -> &'static str {
        match self {
            Self::Pattern { .. } | Self::Never(_) => "cron",
            Self::Zone(_) => "zone",
        }
    }
}

impl Schedule {
    /// Reads a pattern of five fields, or of six with the seconds in front, and the name of a time zone.
    ///
    /// # Errors
    /// Says which of the two is none.
    pub fn parse(pattern: &str, zone: &str) -> Result<Self, ScheduleError> {
        let zone: Tz = zone.parse().map_err(|_| ScheduleError::Zone(zone.to_owned()))?;
        let parser = CronParser::builder().seconds(Seconds::Optional).build();
        let cron = parser
            .parse(pattern)
            .map_err(|error| ScheduleError::Pattern { pattern: pattern.to_owned(), cause: error.to_string() })?;
        let schedule = Self { cron: Box::new(cron), zone, text: format!("{pattern} {zone}") };
        match schedule.next_after(0) {
            Some(_) => Ok(schedule),
            None => Err(ScheduleError::Never(pattern.to_owned())),
        }
    }

    /// The first moment after this one, both in microseconds since 1970-01-01 UTC; `None`: there is none any more.
    pub fn next_after(&self, time_us: u64) -> Option<u64> {
        let time = DateTime::<Utc>::from_timestamp_micros(i64::try_from(time_us).ok()?)?;
        let next = self.cron.find_next_occurrence(&time.with_timezone(&self.zone), false).ok()?;
        u64::try_from(next.timestamp_micros()).ok().filter(|next| *next > time_us)
    }
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Schedule {}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Schedule").field(&self.text).finish()
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> u64 {
        u64::try_from(text.parse::<DateTime<Utc>>().unwrap().timestamp_micros()).unwrap()
    }

    fn moments(pattern: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::parse(pattern, zone).unwrap();
        let mut time = at(from);
        let mut next = || {
            time = schedule.next_after(time).unwrap();
            DateTime::<Utc>::from_timestamp_micros(time as i64).unwrap().format("%m-%d %H:%M:%S").to_string()
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn seconds_may_stand_in_front() {
        assert_eq!(moments("*/30 * * * *", "UTC", "2026-11-26T10:15:00Z", 2), ["11-26 10:30:00", "11-26 11:00:00"]);
        assert_eq!(moments("*/20 * * * * *", "UTC", "2026-11-26T10:15:00Z", 2), ["11-26 10:15:20", "11-26 10:15:40"]);
    }

    #[test]
    fn a_zone_has_its_own_days() {
        assert_eq!(moments("0 7 * * MON", "Europe/Vienna", "2026-11-26T10:00:00Z", 1), ["11-30 06:00:00"]);
        // Over the end of summer time, 2026-10-25 03:00.
        assert_eq!(
            moments("30 2 * * *", "Europe/Vienna", "2026-10-24T12:00:00Z", 2),
            ["10-25 00:30:00", "10-26 01:30:00"],
            "02:30 comes twice on that day, and counts once"
        );
    }

    #[test]
    fn what_is_no_schedule_is_named() {
        let error = |pattern, zone| Schedule::parse(pattern, zone).unwrap_err();
        assert!(matches!(error("61 * * * *", "UTC"), ScheduleError::Pattern { .. }));
        assert!(matches!(error("* * *", "UTC"), ScheduleError::Pattern { .. }));
        assert!(matches!(error("* * * * *", "Vienna"), ScheduleError::Zone(_)));
        let never = error("0 0 30 2 *", "UTC");
        assert!(matches!(&never, ScheduleError::Never(_) | ScheduleError::Pattern { .. }), "{never}");
    }
}
