use std::f64::consts::TAU;
use std::time::{SystemTime, UNIX_EPOCH};

/// A room whose temperature swings slowly, with a little noise: 18 to 24 °C once in 600 readings.
#[derive(Debug)]
pub(crate) struct Room {
    random: u64,
    step: u32,
}

impl Room {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: seed, step: 0 }
    }
}

impl Iterator for Room {
    type Item = f64;

    /// The next temperature in degrees Celsius.
    fn next(&mut self) -> Option<f64> {
        const PERIOD: u32 = 600;
        let angle = TAU * f64::from(self.step) / f64::from(PERIOD);
        self.step = (self.step + 1) % PERIOD;
        // Knuth's MMIX generator; its upper bits are good enough for noise.
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let noise = (self.random >> 32) as f64 / f64::from(u32::MAX) - 0.5;
        Some(21.0 + 3.0 * angle.sin() + 0.4 * noise)
    }
}

/// The machine's time in UTC as ISO 8601 writes it: `2026-11-24T03:08:00Z`.
pub(crate) fn utc_now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    iso_8601(seconds)
}

fn iso_8601(seconds_since_1970: u64) -> String {
    let (days, second) = (seconds_since_1970 / 86_400, seconds_since_1970 % 86_400);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    // Years are counted from March, so that the leap day comes last, and eras of 400 years from 0000-03-01.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_room() {
        let readings = |seed| Room::new(seed).take(1_200).collect::<Vec<_>>();
        assert_eq!(readings(1), readings(1));
        assert_ne!(readings(1), readings(2));
        assert!(readings(3).iter().all(|celsius| (17.8..=24.2).contains(celsius)));
        assert!(readings(3).iter().any(|celsius| *celsius > 23.5));
    }

    #[test]
    fn times() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_735_689_600, "2025-01-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(iso_8601(seconds), expected);
        }
    }
}
