//! Series of other kinds than the benchmark file: the detector alarms where it should, and rarely elsewhere.
//!
//! Each kind is made six times with other random numbers; each series has two anomalies in its second half.

use anomaly_detector::{Detector, Settings};

const SETTINGS: Settings = Settings { sensitivity: 1.0, learn: 500, quiet: 200 };
const SERIES: u64 = 6;

/// SplitMix64 (Steele and others, 2014).
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Box and Muller.
    fn gauss(&mut self) -> f64 {
        (-2.0 * (1.0 - self.uniform()).ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.uniform()).ln()
    }

    fn happens(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }
}

/// A reading's place: minutes since a Monday's midnight, and readings since each anomaly began (negative: before).
struct Place {
    minutes: f64,
    since: [i64; 2],
}

impl Place {
    /// The day as a wave from -1 to 1.
    fn day(&self) -> f64 {
        ((self.minutes / 1440.0 - 1.0 / 3.0) * std::f64::consts::TAU).sin()
    }

    fn weekend(&self) -> bool {
        (self.minutes / 1440.0) as u64 % 7 >= 5
    }

    fn in_anomaly(&self, index: usize, readings: i64) -> f64 {
        f64::from(u8::from((0..readings).contains(&self.since[index])))
    }

    fn after(&self, index: usize) -> f64 {
        self.in_anomaly(index, i64::MAX)
    }
}

/// Anomalies found, and false reports in 1,000 readings.
fn judge(readings: i64, minutes: i64, mut value: impl FnMut(&Place, &mut Random, &mut f64) -> f64) -> (usize, f64) {
    let (mut found, mut elsewhere) = (0, 0);
    for series in 0..SERIES {
        let mut random = Random(series + 1);
        let starts = [0.40, 0.70].map(|part| ((part + 0.2 * random.uniform()) * readings as f64) as i64);
        let near = (readings / 50).max(20);
        let (mut detector, mut memory, mut hit) = (Detector::default(), 0.0, [false; 2]);
        for index in 0..readings {
            let place = Place { minutes: (index * minutes) as f64, since: starts.map(|start| index - start) };
            let value = value(&place, &mut random, &mut memory);
            if detector.step(index * minutes * 60, value, &SETTINGS).is_none() {
                continue;
            }
            match place.since.iter().position(|since| (0..near).contains(since)) {
                Some(anomaly) => hit[anomaly] = true,
                None => elsewhere += 1,
            }
        }
        found += hit.iter().filter(|hit| **hit).count();
    }
    (found, elsewhere as f64 * 1000.0 / (SERIES as i64 * readings) as f64)
}

/// The bounds below leave a little room beside what was reached when they were written.
///
/// At least so many of the twelve anomalies, at most so many false reports in 1,000 readings.
#[track_caller]
fn check((found, elsewhere): (usize, f64), at_least: usize, at_most: f64) {
    let message = format!("{found} of 12 found, {elsewhere:.2} in 1,000 elsewhere");
    assert!(found >= at_least && elsewhere <= at_most, "{message}");
}

#[test]
fn a_processor_with_a_daily_season_every_five_minutes() {
    let result = judge(4032, 5, |p, r, _| {
        let burst = if r.happens(0.1) { r.exponential(3.0) } else { 0.0 };
        40.0 + 15.0 * p.day() * if p.weekend() { 0.4 } else { 1.0 }
            + 4.0 * r.gauss()
            + burst
            + 35.0 * p.in_anomaly(0, 30)
            - 25.0 * p.in_anomaly(1, 60)
    });
    check(result, 10, 0.3);
}

#[test]
fn a_constant_with_noise_and_single_spikes() {
    let result = judge(4032, 5, |p, r, _| 50.0 + 2.0 * r.gauss() + 20.0 * (p.in_anomaly(0, 1) - p.in_anomaly(1, 1)));
    check(result, 11, 0.3);
}

#[test]
fn slow_noise_with_a_spike_and_a_new_level() {
    let result = judge(4032, 5, |p, r, slow| {
        *slow = 0.95 * *slow + r.gauss();
        100.0 + 3.0 * *slow + 45.0 * p.in_anomaly(0, 3) + 40.0 * p.after(1)
    });
    check(result, 10, 0.7);
}

#[test]
fn an_hourly_value_whose_level_shifts_twice() {
    let result = judge(4032, 60, |p, r, _| 10.0 + 0.5 * r.gauss() + 4.0 * p.after(0) - 6.0 * p.after(1));
    check(result, 11, 0.4);
}

#[test]
fn bursts_that_are_normal_and_one_that_lasts() {
    let result = judge(4032, 5, |p, r, _| {
        let burst = if r.happens(0.02) { r.exponential(20.0) } else { 0.0 };
        5.0 + r.gauss().abs() + burst + 60.0 * (p.in_anomaly(0, 20) + p.in_anomaly(1, 20))
    });
    check(result, 7, 0.6);
}

#[test]
fn counts_with_a_daily_season_and_small_bursts() {
    let result = judge(15_000, 5, |p, r, _| {
        let mean = 20.0 * (1.3 + p.day());
        let burst = if r.happens(0.003) { 20.0 + 40.0 * r.uniform() } else { 0.0 };
        (mean + (mean.sqrt() + 1.0) * r.gauss() + burst).round().max(0.0)
            + 200.0 * (p.in_anomaly(0, 12) + p.in_anomaly(1, 12))
    });
    check(result, 11, 0.8);
}

#[test]
fn half_hourly_demand_with_a_daily_and_a_weekly_season() {
    let result = judge(8000, 30, |p, r, _| {
        let noon = 2500.0 * (p.minutes / 720.0 * std::f64::consts::TAU).sin();
        15_000.0
            + 9000.0 * p.day() * if p.weekend() { 0.7 } else { 1.0 }
            + if p.weekend() { -1000.0 } else { noon }
            + 700.0 * r.gauss()
            - 8000.0 * p.in_anomaly(0, 24)
            + 7000.0 * p.in_anomaly(1, 24)
    });
    check(result, 11, 0.2);
}

#[test]
fn a_value_that_is_nearly_always_zero() {
    let result = judge(4032, 5, |p, r, _| {
        let trace = if r.happens(0.03) { 0.1 * r.uniform() } else { 0.0 };
        trace + 5.0 * (p.in_anomaly(0, 10) + p.in_anomaly(1, 10))
    });
    check(result, 11, 0.2);
}

#[test]
fn a_machine_that_warms_and_cools_slowly() {
    let result = judge(12_000, 5, |p, r, slow| {
        *slow = 0.999 * *slow + 0.5 * r.gauss();
        90.0 + *slow - 30.0 * p.in_anomaly(0, 80) + 25.0 * p.in_anomaly(1, 80)
    });
    check(result, 11, 0.7);
}

#[test]
fn a_constant_never_alarms_until_it_changes() {
    let mut detector = Detector::default();
    for index in 0..3000 {
        assert_eq!(detector.step(index * 60, 7.0, &SETTINGS), None, "reading {index}");
    }
}

#[test]
fn what_was_learned_has_the_same_size_after_any_number_of_readings() {
    let size = |readings: i64| {
        let (mut detector, mut random) = (Detector::default(), Random(1));
        for index in 0..readings {
            detector.step(1_700_000_000 + index * 60, 1e6 * random.gauss(), &SETTINGS);
        }
        serde_json::to_string(&detector).unwrap().matches([',', ':']).count()
    };
    assert_eq!(size(10), size(20_000));
}
