//! How much may go over a metered link.

use core::time::Duration;

/// A limit in bytes per second.
///
/// What was sent is counted afterwards, when its size is known: then nothing is sent until as much time has passed as the
/// rate gives it. So over any time the rate is kept, but for one request; and time in which nothing was sent is not saved up.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    bytes_per_second: u64,
    // On a clock that never goes back.
    free_at_us: u64,
}

impl Rate {
    /// A limit; 0 counts as 1.
    pub const fn new(bytes_per_second: u64) -> Self {
        let bytes_per_second = if bytes_per_second == 0 { 1 } else { bytes_per_second };
        Self { bytes_per_second, free_at_us: 0 }
    }

    /// How long to wait before anything is sent.
    pub fn wait(&self, now_us: u64) -> Duration {
        Duration::from_micros(self.free_at_us.saturating_sub(now_us))
    }

    /// So many bytes were sent, or received.
    pub fn spent(&mut self, now_us: u64, bytes: u64) {
        let takes = u128::from(bytes) * 1_000_000 / u128::from(self.bytes_per_second);
        let takes = u64::try_from(takes).unwrap_or(u64::MAX);
        self.free_at_us = self.free_at_us.max(now_us).saturating_add(takes);
    }

    /// How large a request may be so that it holds up others for no more than a second.
    pub const fn request_bytes(&self) -> u64 {
        self.bytes_per_second
    }
}

/// How large the next request may be, so that it takes [`TARGET`](Self::TARGET) at most: on a slow link a large one would
/// hold up what is more urgent, and in the end never arrive before its time is over.
#[derive(Clone, Copy, Debug)]
pub struct RequestSize {
    bytes: u64,
    most: u64,
}

impl RequestSize {
    /// What is tried on the slowest link.
    pub const LEAST: u64 = 4 << 10;
    /// Well above the round trip of a satellite, and well below the time for which anybody waits for an answer.
    pub const TARGET: Duration = Duration::from_secs(4);

    /// At first as large as may be.
    pub const fn new(most: u64) -> Self {
        Self { bytes: most, most }
    }

    /// How many bytes of records to send, before they are compressed.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// So many bytes of records, before they were compressed, took so long to be answered.
    pub fn answered(&mut self, bytes: u64, took: Duration) {
        let took_us = took.as_micros().max(1);
        let in_target = u64::try_from(u128::from(bytes) * Self::TARGET.as_micros() / took_us).unwrap_or(u64::MAX);
        if took > Self::TARGET {
            self.bytes = self.bytes.min(in_target).max(Self::LEAST);
        } else if bytes >= self.bytes / 2 {
            // A small request says little about a large one.
            let next = in_target.min(self.bytes.saturating_mul(2));
            self.bytes = next.clamp(self.bytes, self.most);
        }
    }

    /// No answer came.
    pub fn failed(&mut self) {
        self.bytes = (self.bytes / 4).max(Self::LEAST);
    }
}

/// What went over the link in a calendar month, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metered {
    /// Years times twelve plus months (January is 0), of the calendar of 1970-01-01; see [`month`].
    pub month: u32,
    /// The bytes.
    pub bytes: u64,
}

impl Metered {
    /// So many more bytes, in this month. A month that lies before the one that is counted (the clock was set back) counts
    /// to that one, so that setting a clock back and forth gives nobody a second budget.
    pub fn add(&mut self, month: u32, bytes: u64) {
        if month > self.month {
            *self = Self { month, bytes: 0 };
        }
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Whether another request may go, within so many bytes a month. The last tenth is for records of high priority.
    pub fn allows(&self, month: u32, bytes_per_month: u64, high: bool) -> bool {
        let limit = if high { bytes_per_month } else { bytes_per_month - bytes_per_month / 10 };
        month > self.month || self.bytes < limit
    }
}

/// The calendar month of a moment in microseconds since 1970-01-01 UTC: years times twelve plus months. By the algorithm
/// that Howard Hinnant published as `civil_from_days` ("chrono-Compatible Low-Level Date Algorithms").
pub fn month(wall_us: u64) -> u32 {
    let days = wall_us / 86_400_000_000 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // From March, so that a leap day is the last of its year.
    let from_march = (5 * day_of_year + 2) / 153;
    let (year, month) = if from_march < 10 { (0, from_march + 2) } else { (1, from_march - 10) };
    u32::try_from((era * 400 + year_of_era + year) * 12 + month).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_over_any_time_but_for_one_request() {
        let (mut rate, mut now, mut sent) = (Rate::new(1_000), 0u64, 0u64);
        for size in [10, 5_000, 1, 700, 3_000, 250].into_iter().cycle().take(600) {
            now += u64::try_from(rate.wait(now).as_micros()).unwrap();
            sent += size;
            rate.spent(now, size);
            assert!(sent <= now / 1_000 + 5_000, "{sent} bytes in {now} µs");
        }
        assert!(now > 800_000_000);
        // An idle hour is not saved up.
        now += 3_600_000_000;
        rate.spent(now, 2_000);
        assert_eq!(rate.wait(now), Duration::from_secs(2));
        rate.spent(now, u64::MAX);
        assert!(rate.wait(now) > Duration::from_secs(1 << 30));
    }

    #[test]
    fn requests_fit_any_link() {
        for bytes_per_second in [2_000u64, 20_000, 100_000, 50_000_000] {
            let mut size = RequestSize::new(1 << 20);
            for _ in 0..40 {
                let took = 50_000 + size.bytes() * 1_000_000 / bytes_per_second;
                // Nobody waits longer than this for an answer.
                if took > 30_000_000 {
                    size.failed();
                } else {
                    size.answered(size.bytes(), Duration::from_micros(took));
                }
                // Live records in between, on which nothing can be seen.
                size.answered(100, Duration::from_millis(52));
            }
            let expected = (bytes_per_second * 4).clamp(RequestSize::LEAST, 1 << 20);
            assert!(size.bytes().abs_diff(expected) <= expected / 10, "{} at {bytes_per_second}", size.bytes());
        }
    }

    #[test]
    fn months_are_those_of_the_calendar() {
        let day = 86_400_000_000;
        for (days, expected) in [
            (0, 1970 * 12),
            (30, 1970 * 12),
            (31, 1970 * 12 + 1),
            (364, 1970 * 12 + 11),
            (365, 1971 * 12),
            // 2024-02-29, 2024-03-01, 2100-02-28, 2100-03-01.
            (19_782, 2024 * 12 + 1),
            (19_783, 2024 * 12 + 2),
            (47_540, 2100 * 12 + 1),
            (47_541, 2100 * 12 + 2),
        ] {
            assert_eq!(month(days * day), expected, "day {days}");
            assert_eq!(month(days * day + day - 1), expected, "end of day {days}");
        }
    }

    #[test]
    fn a_budget_is_for_a_month_and_its_last_tenth_for_what_is_urgent() {
        let mut metered = Metered::default();
        assert!(metered.allows(5, 1_000, false));
        metered.add(5, 899);
        assert!(metered.allows(5, 1_000, false));
        metered.add(5, 1);
        assert!(!metered.allows(5, 1_000, false) && metered.allows(5, 1_000, true));
        metered.add(5, 100);
        assert!(!metered.allows(5, 1_000, true));
        // A clock that is set back gives nothing; a new month does.
        assert!(!metered.allows(4, 1_000, true));
        metered.add(4, 1);
        assert_eq!(metered, Metered { month: 5, bytes: 1_001 });
        assert!(metered.allows(6, 1_000, false));
        metered.add(6, 2);
        assert_eq!(metered, Metered { month: 6, bytes: 2 });
    }
}
